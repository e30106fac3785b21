"""A response whose body comes in pieces: framed for the client, and sent as it comes.

What arrived together leaves in one write, the first of it with the head. RFC 9112 section 7.1
(chunks).
"""

from __future__ import annotations

from gateway.http.content_coding import Encoder
from gateway.http.h1_body import LAST_CHUNK, render_chunk
from gateway.proxy.tunnel import TunnelClient


class StreamedResponse:
    """The response of one try, from its head on."""

    __slots__ = (
        "_client", "_encoder", "_is_chunked", "_out", "_piece", "bytes_sent", "has_begun",
    )  # fmt: skip

    def __init__(
        self, client: TunnelClient, head: bytes, *, is_chunked: bool, encoder: Encoder | None
    ) -> None:
        """`head` as the client gets it; `encoder` is what the body goes through."""
        self._client = client
        self._out = head
        self._piece = b""
        self._is_chunked = is_chunked
        self._encoder = encoder
        self.has_begun = False
        """Whether some of it was sent."""
        self.bytes_sent = 0
        """Body bytes given to the client."""

    def body(self, piece: bytes) -> None:
        """Keep a piece until `flush`."""
        if self._encoder is not None:
            piece = self._encoder.feed(piece)
        self._piece += piece
        self.bytes_sent += len(piece)

    def flush(self) -> None:
        """Send what came with one read, in one write."""
        out, piece = self._out, self._piece
        if piece:
            self._piece = b""
            out += render_chunk(piece) if self._is_chunked else piece
        if out:
            self._out = b""
            self.has_begun = True
            self._client.write(out)

    def end(self) -> None:
        """Send the rest."""
        if self._encoder is not None:
            rest = self._encoder.finish()
            self._piece += rest
            self.bytes_sent += len(rest)
        if self._is_chunked:
            if self._piece:
                self._out += render_chunk(self._piece)
                self._piece = b""
            self._out += LAST_CHUNK
        self.flush()
