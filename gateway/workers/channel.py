"""The way between the supervisor and one worker: frames over a pair of sockets.

A frame is its length (4 bytes, big-endian) and a message in MessagePack. A process that holds
the other end sees the end of the stream when a process ends, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket

import msgspec

from gateway.background import RetryPauses
from gateway.workers.messages import Message

LENGTH_BYTES = 4
MAX_PENDING_BYTES = 8 * 1024 * 1024
"""What may wait for a process that does not read. One so far behind is about to be replaced."""
CLOSE_S = 1.0

_log = logging.getLogger(__name__)


class Channel:
    """One end of the way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._unsent = RetryPauses("messages between processes")
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Message).decode

    @classmethod
    async def open(cls, end: socket.socket) -> Channel:
        """The channel over one of a pair of connected sockets, which belongs to it then."""
        end.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=end)
        return cls(reader, writer)

    def send(self, message: Message) -> None:
        """Send a message. Never waits and never fails: to a process that is gone or stuck it is
        lost, and so is one that can't be written as a frame."""
        transport = self._writer.transport
        if transport.is_closing() or transport.get_write_buffer_size() > MAX_PENDING_BYTES:
            return
        try:
            frame = self._encode(message)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
            self._unsent.fail(error)
            return
        self._writer.write(len(frame).to_bytes(LENGTH_BYTES, "big") + frame)

    async def receive(self) -> Message | None:
        """The next message; None when the other process has ended, or speaks nonsense."""
        try:
            header = await self._reader.readexactly(LENGTH_BYTES)
            frame = await self._reader.readexactly(int.from_bytes(header, "big"))
        except (asyncio.IncompleteReadError, OSError):
            return None
        try:
            message: Message = self._decode(frame)
        except msgspec.DecodeError as error:
            _log.error("a message between processes can't be read: %s", error)
            return None
        return message

    async def close(self) -> None:
        """Send what still waits, if the other process takes it, then close."""
        if self._writer.is_closing():
            return
        self._writer.close()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._writer.wait_closed()
        self._writer.transport.abort()
