"""Files of the Hugging Face Hub, which keeps what it has downloaded in a folder of this machine, its cache."""

from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from nestnet.text.messages import first_line
from nestnet.weights.source import HubName
from nestnet.weights.timm_folder import CONFIG_NAME, WEIGHTS_NAMES


def fetch_config(name: HubName) -> Path:
    """Return the `config.json` of a repository, which is downloaded unless it is in the cache.

    Args:
        name: repository.

    Returns:
        Its path in the cache.

    Raises:
        ValueError: If it cannot be had.
    """
    return _fetch(name, (CONFIG_NAME,))


def fetch_weights(name: HubName) -> Path:
    """Return the file of the weights of a repository, which is downloaded unless it is in the cache.

    Args:
        name: repository.

    Returns:
        Its path in the cache.

    Raises:
        ValueError: If it cannot be had.
    """
    return _fetch(name, WEIGHTS_NAMES)


def _fetch(name: HubName, files: tuple[str, ...]) -> Path:
    """Return the first of some files that a repository has."""
    missing: Exception | None = None
    for file in files:
        try:
            return Path(hf_hub_download(name.repository, file, revision=name.revision))
        except EntryNotFoundError as error:  # also if the hub cannot be reached and the file is not in the cache
            missing = missing or error
        except (OSError, HFValidationError) as error:
            raise ValueError(f"{name}: {explain_hub_error(error, name.repository)}") from error
    assert missing is not None
    reason = f"it has no {' or '.join(files)}, and is no model of timm's"
    if isinstance(missing, LocalEntryNotFoundError):
        reason = explain_hub_error(missing, name.repository)
    raise ValueError(f"{name}: {reason}") from missing


def explain_hub_error(error: Exception, repository: str) -> str:
    """Return in one line why files of the hub cannot be had.

    Args:
        error: error of the hub's client.
        repository: repository on the hub.

    Returns:
        The reason, with a remedy if there is one.
    """
    if isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled)):
        return (
            "the Hugging Face Hub cannot be reached, and its cache on this machine does not have it; download it where "
            f"there is a connection, by `hf download {repository}`, or name a file or folder"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            "the Hugging Face Hub has no such repository, or it is private or gated; check the name, or log in by "
            "`hf auth login`"
        )
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such revision; leave it out for the newest one"
    return first_line(error)
