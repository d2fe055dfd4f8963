"""One process at a time in a folder."""

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path


class Lock:
    """Holds a folder until it is closed. The system lets go of it when the process ends, however it ends.

    Args:
        folder: gets a file `.lock`, which stays.
        what: is done there, for the message, such as `"train"`.

    Raises:
        ValueError: if another process holds it, or `.lock` is something else than a file.
        OSError: if nothing can be written there.
    """

    def __init__(self, folder: Path, what: str) -> None:
        path = folder / ".lock"
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            raise ValueError(f"{path} is something else than a file, and a file is needed there to {what}; move it")
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            # by lockf, which the processes that read images do not inherit: they may outlive a killed run by seconds
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self.descriptor, 200).decode(errors="replace").strip()
            os.close(self.descriptor)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise ValueError(
                f"{folder}: another process ({holder or 'just started'}) is at work there; wait for it, or stop it, to {what}"
            ) from error
        os.truncate(self.descriptor, 0)
        os.write(self.descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())

    def close(self) -> None:
        os.close(self.descriptor)
