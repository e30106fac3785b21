"""Closing a listening socket without losing the connections in its queue.

The kernel completes handshakes by itself, and closing a listening socket resets every
connection that it holds ready but that we have not accepted. So the socket is first
made deaf: its queue can then be emptied, and nothing is in it when it is closed.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys

SO_ATTACH_FILTER = 26  # linux/socket.h; the socket module has no name for it


def make_deaf(listening: socket.socket) -> None:
    """Let the kernel complete no more handshakes on a listening socket.

    On Linux, by a packet filter that drops everything: clients try again, and are refused
    once the socket is closed. Elsewhere, by the shortest queue there is.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            # struct sock_filter: one instruction, "return 0 bytes of the packet".
            drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
            # struct sock_fprog: how many instructions, and where.
            program = struct.pack("HL", 1, ctypes.addressof(drop_all))
            listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
            return
    listening.listen(0)
