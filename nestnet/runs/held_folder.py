"""An open folder, by which a run notices that its folder was moved or removed."""

import os
from pathlib import Path

from nestnet.runs.run_stopped import RunStopped
from nestnet.text.escape import for_shell


class HeldFolder:
    """An open folder, which the system identifies by its descriptor wherever it is moved to.

    Args:
        path: path of the folder.

    Attributes:
        path: path by which the run writes to it.
        descriptor: descriptor of the open folder.

    Raises:
        OSError: If the folder cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY)

    def check_in_place(self) -> None:
        """Check that the folder still has the path by which the run writes to it.

        Raises:
            RunStopped: If the folder was moved or removed.
        """
        if self._is_at(self.path):
            return
        new_path = self._find_new_path()
        if new_path is None:
            raise RunStopped(
                f"{self.path} was moved or removed while the run trained, and the run cannot write any more"
            )
        raise RunStopped(
            f"{self.path} was moved to {new_path} while the run trained; `nestnet resume {for_shell(new_path)}` continues from "
            "the last checkpoint"
        )

    def close(self) -> None:
        """Close the folder."""
        os.close(self.descriptor)

    def _is_at(self, path: str | Path) -> bool:
        # Another folder under the same path is not the same folder.
        try:
            return os.path.samestat(os.fstat(self.descriptor), os.stat(path))
        except OSError:
            return False

    def _find_new_path(self) -> str | None:
        """Return the present path of the folder; `None` if it was removed, or the system does not know the path."""
        # Linux keeps the present path of an open folder here; that of a removed one ends in " (deleted)".
        try:
            path = os.readlink(f"/proc/self/fd/{self.descriptor}")
        except OSError:
            return None
        # Another folder may have this path by now.
        if not self._is_at(path):
            return None
        return path
