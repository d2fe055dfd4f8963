"""A lock that lets one process at a time work in a folder."""

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path


class Lock:
    """A lock on a folder, held until it is closed. The system releases it when the process ends, in any way.

    Args:
        folder: folder to lock. A file `.lock` in it names the process, and stays there afterwards.
        purpose: verb for the purpose of the lock, such as `"train"`, for the message.

    Attributes:
        descriptor: descriptor of the open file `.lock`.

    Raises:
        ValueError: If another process holds the folder, or `.lock` is something other than a file.
        OSError: If the folder cannot be written to.
    """

    def __init__(self, folder: Path, purpose: str) -> None:
        path = folder / ".lock"
        # Opening a FIFO would wait, and through a link another file would be overwritten.
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            raise ValueError(f"{path} is something other than a file, and a file is needed there to {purpose}; move it")
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            # lockf instead of flock: worker processes that read images do not inherit its locks, and they may
            # outlive a killed run by seconds.
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self.descriptor, 200).decode(errors="replace").strip()
            os.close(self.descriptor)
            # POSIX allows both of these for a lock that another process holds.
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise ValueError(
                f"{folder}: another process ({holder or 'just started'}) is at work there; wait for it, or stop it, to "
                f"{purpose}"
            ) from error
        # The file names its holder for the message of other processes. Only the lock itself counts.
        os.truncate(self.descriptor, 0)
        os.write(self.descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    def close(self) -> None:
        """Release the folder."""
        os.close(self.descriptor)
