"""A listening Unix socket in the file system: made, found abandoned, and removed again."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat


class UnixSocket:
    """A socket bound to a path. It does not listen yet."""

    def __init__(self, path: str, mode: int) -> None:
        """Bind it; what an earlier process left at `path` is removed.

        Raises `OSError` where something else is there, a process listens, or the directory
        can't be written to.
        """
        self.path = path
        self._is_withdrawn = False
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.setblocking(False)
            _remove_abandoned(path)
            # Until the mode is set only we may connect.
            before = os.umask(0o177)
            try:
                self.socket.bind(path)
            finally:
                os.umask(before)
            self._identity = _identify(path)
            os.chmod(path, mode)
        except OSError as error:
            self.socket.close()
            why = (error.strerror or str(error)).lower()
            raise OSError(error.errno, f"{path}: {why}") from None

    def withdraw(self) -> None:
        """Remove the path, so that no client finds the socket any more. What is there may be that
        of another process by now, and is left alone then."""
        if self._is_withdrawn:
            return  # while the socket is open its inode is no other's, and later it may be
        self._is_withdrawn = True
        with contextlib.suppress(OSError):
            if _identify(self.path) == self._identity:
                os.unlink(self.path)


def _identify(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _remove_abandoned(path: str) -> None:
    """Remove a socket that no process listens on. Raises `OSError` for everything else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "there is something that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # its queue is full
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
