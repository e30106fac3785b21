"""Back-pressure of a TLS connection: what is not wanted yet stays in the socket."""

from __future__ import annotations

import asyncio
from typing import Any, cast


def hold_in_socket(transport: asyncio.Transport) -> None:
    """Have `pause_reading` of a TLS transport stop the socket, too.

    By default, the transport goes on to read, 256 KiB ahead. uvloop drops what it holds so when it
    sees the end of the connection, which would cut off a response whose client is slow.
    """
    cast(Any, transport).set_read_buffer_limits(high=1, low=0)
