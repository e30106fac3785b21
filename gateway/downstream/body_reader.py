"""Requests that have to wait, each in a task that ends with the client's connection, and bodies
that are read whole."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from gateway.downstream.stream import ClientStream
from gateway.http.errors import ContentTooLargeError, ProblemError, RequestTimeoutError
from gateway.http.fields import Trailers

MAX_BODY_BYTES = 64 * 1024


class RequestTask:
    """A task that makes a response (`StreamOwner`)."""

    __slots__ = ("task",)

    def __init__(self, work: Coroutine[None, None, None]) -> None:
        self.task = asyncio.get_running_loop().create_task(work)

    def pause(self) -> None:
        """Nothing: such a response is written in one piece, and small."""

    def resume(self) -> None:
        """Nothing."""

    def client_gone(self) -> None:
        """Cancel the task."""
        self.task.cancel()


class WholeBody:
    """Reads a body whole, up to a limit."""

    def __init__(self, stream: ClientStream, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._max_bytes = max_bytes
        self._stream = stream
        self._pieces: list[bytes] = []
        self._size = 0
        self._done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def read(self, *, timeout_s: float) -> bytes:
        """The body. Raises `ContentTooLargeError`, `RequestTimeoutError` where all of it
        takes longer than `timeout_s`, and `ProblemError` where it breaks off."""
        self._stream.read_body(self)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._done
        except TimeoutError:
            raise RequestTimeoutError("client_body_timeout", "The body takes too long.") from None

    def take(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= self._max_bytes:
            self._pieces.append(piece)
        else:
            self.body_failed(
                ContentTooLargeError("body_too_large", "The request body is too large.")
            )

    def end_of_body(self, trailers: Trailers = ()) -> None:
        if not self._done.done():
            self._done.set_result(b"".join(self._pieces))

    def body_failed(self, error: ProblemError) -> None:
        if not self._done.done():
            self._done.set_exception(error)
