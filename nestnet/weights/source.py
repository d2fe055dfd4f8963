"""Trained weights as a user names them: by a path, by timm's name, or by that of a repository of the Hugging Face Hub."""

import os
from dataclasses import dataclass
from pathlib import Path

import timm

TIMM = "timm"
"""Name, in place of a file, of the weights that timm downloads for an architecture."""

LOCAL_PREFIX = "local-dir:"
"""timm's prefix of the path of a folder, which may be left out here."""

HUB_PREFIXES = ("hf-hub:", "hf_hub:")
"""timm's prefixes of repositories of the Hugging Face Hub."""

FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
"""Suffixes of files of weights, which are no names of timm's weights."""


@dataclass(frozen=True)
class TimmName:
    """Weights that timm downloads.

    Attributes:
        architecture: timm's name of the network; empty for that of the network which is started.
        tag: timm's name of the weights among those of the network; empty for its usual ones.
    """

    architecture: str = ""
    tag: str = ""

    def __str__(self) -> str:
        return ".".join(filter(None, (self.architecture, self.tag))) or TIMM


@dataclass(frozen=True)
class HubName:
    """Repository of the Hugging Face Hub with a folder of timm's format.

    Attributes:
        repository: name, such as `timm/resnet18.a1_in1k`.
        revision: branch, tag or commit; `None` for the newest one.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{HUB_PREFIXES[0]}{self.repository}{revision}"


def parse_source(source: str | os.PathLike[str]) -> TimmName | HubName | Path:
    """Return what a name of trained weights stands for.

    Args:
        source: path of a file or folder, also after `local-dir:`; `timm`; timm's name of a network and its weights, such
            as `resnet18.a1_in1k`; or the name of a repository after `hf-hub:`, with a revision after `@` if need be.

    Returns:
        The name of weights that are downloaded, or a path, which need not exist.

    Example:
        >>> parse_source("resnet18.a1_in1k"), parse_source("hf-hub:timm/resnet18.a1_in1k@main").revision
        (TimmName(architecture='resnet18', tag='a1_in1k'), 'main')
        >>> parse_source("local-dir:small").name
        'small'
    """
    # A path object is never a name.
    if not isinstance(source, str):
        return Path(source)
    if source == TIMM:
        return TimmName()
    if source.startswith(LOCAL_PREFIX):
        return Path(source.removeprefix(LOCAL_PREFIX)).expanduser()
    for prefix in HUB_PREFIXES:
        if source.startswith(prefix):
            repository, _, revision = source.removeprefix(prefix).partition("@")
            return HubName(repository, revision or None)
    # A file that exists takes precedence over a name.
    path = Path(source)
    architecture, _, tag = source.partition(".")
    if path.suffix in FILE_SUFFIXES or os.path.lexists(path) or not timm.is_model(architecture):
        return path
    return TimmName(architecture, tag)
