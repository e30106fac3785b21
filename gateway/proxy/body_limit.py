"""A body whose length nobody told, and which may be too large."""

from __future__ import annotations

from gateway.downstream.request import BodySink
from gateway.http.errors import ContentTooLargeError, ProblemError


class LimitedBody:
    """Passes a body on until it is larger than it may be: then it fails, and no more of it
    gets through."""

    def __init__(self, sink: BodySink, limit_bytes: int) -> None:
        self._sink = sink
        self._left = limit_bytes

    def take(self, piece: bytes) -> None:
        """See `BodySink`."""
        if self._left < 0:
            return
        self._left -= len(piece)
        if self._left < 0:
            self._sink.body_failed(
                ContentTooLargeError("body_too_large", "The request body is too large.")
            )
        else:
            self._sink.take(piece)

    def end_of_body(self) -> None:
        """See `BodySink`."""
        if self._left >= 0:
            self._sink.end_of_body()

    def body_failed(self, error: ProblemError) -> None:
        """See `BodySink`."""
        if self._left >= 0:
            self._sink.body_failed(error)
