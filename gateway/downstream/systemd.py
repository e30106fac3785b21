"""Sockets that systemd opened for us (sd_listen_fds(3)).

The descriptors begin at 3, `LISTEN_FDS` counts them, `LISTEN_PID` says whose they are, and
`LISTEN_FDNAMES` names them: `FileDescriptorName=` of the unit, or that of the unit itself.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass, field

FIRST_DESCRIPTOR = 3
_FAMILIES = {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}
_UNNAMED = {"", "unknown"}


@dataclass(frozen=True, slots=True)
class Activated:
    """The sockets by what they are for. They stay open in systemd when we close them."""

    data: list[socket.socket] = field(default_factory=list)
    admin: list[socket.socket] = field(default_factory=list)

    def close(self) -> None:
        """Let go of them."""
        for opened in (*self.data, *self.admin):
            opened.close()


def take_activated(environ: MutableMapping[str, str]) -> Activated:
    """The sockets that were passed to this process; none where it was started otherwise.

    The variables are removed: they are not for processes that we start. Raises `OSError` for
    what is no listening stream socket, and for names that say nothing.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    given = environ.pop("LISTEN_FDNAMES", "")
    if pid != str(os.getpid()) or not count.isdecimal():
        return Activated()
    names = given.split(":") if given else []
    activated = Activated()
    for at in range(int(count)):
        name = names[at] if at < len(names) else ""
        opened = _take(FIRST_DESCRIPTOR + at, name)
        if name == "admin" and opened.family == socket.AF_UNIX:
            opened.close()
            activated.close()
            raise OSError("systemd passed a Unix socket named 'admin': the admin listener is TCP")
        if name == "admin":
            activated.admin.append(opened)
        elif name == "data" or name in _UNNAMED or name.endswith(".socket"):
            activated.data.append(opened)
        else:
            opened.close()
            activated.close()
            raise OSError(
                f"systemd passed a socket named {name!r}: FileDescriptorName= must be `data` or "
                "`admin`"
            )
    return activated


def _take(descriptor: int, name: str) -> socket.socket:
    problem = OSError(
        f"systemd passed descriptor {descriptor} ({name or 'unnamed'}), which is no listening "
        "stream socket: use ListenStream= and Accept=no"
    )
    try:
        os.set_inheritable(descriptor, False)
        opened = socket.socket(fileno=descriptor)
    except OSError:
        raise problem from None
    if (
        opened.family not in _FAMILIES
        or opened.type != socket.SOCK_STREAM
        or not opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        opened.close()
        raise problem
    opened.setblocking(False)
    return opened
