"""The identifier under which a tracker knows a run, so that a resumed run continues there."""

import secrets
from pathlib import Path

from nestnet.storage.atomic import write_atomically
from nestnet.storage.folders import make_folder
from nestnet.storage.opening import open_regular

LONGEST = 500
"""Most bytes of a file with an identifier that are read."""


def read_run_id(folder: Path) -> str | None:
    """Return the identifier that an earlier part of the run has stored.

    Args:
        folder: folder of the tracker in the run directory.

    Returns:
        The identifier; `None` if there is none.

    Raises:
        OSError: If the file cannot be read.
    """
    path = folder / "run_id"
    if not path.exists():
        return None
    with open_regular(path) as file:
        return file.read(LONGEST).decode("utf-8", "replace").strip() or None


def write_run_id(folder: Path, run_id: str) -> None:
    """Store the identifier of a run.

    Args:
        folder: folder of the tracker in the run directory, which is made if it is absent.
        run_id: identifier.

    Raises:
        OSError: If it cannot be written.
    """
    make_folder(folder)
    write_atomically(folder / "run_id", f"{run_id}\n")


def find_run_id(folder: Path, prefix: str = "") -> str:
    """Return the stored identifier of a run, or store a new one.

    Args:
        folder: folder of the tracker in the run directory.
        prefix: beginning of a new identifier, before eight random digits.

    Returns:
        The identifier.

    Raises:
        OSError: If it cannot be read or written.
    """
    run_id = read_run_id(folder)
    if run_id is None:
        run_id = prefix + secrets.token_hex(4)
        write_run_id(folder, run_id)
    return run_id
