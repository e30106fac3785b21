"""A request of a run, as it is written in HTTP/1.1 and in HTTP/2."""

from __future__ import annotations

from dataclasses import dataclass

RESPONSE_S = 20.0
CLEAN = frozenset({429, 502, 503, 504})
"""What a gateway says for an upstream or a store that is away."""


class LostError(Exception):
    """A connection that was accepted ended without the whole response."""


@dataclass(frozen=True)
class Request:
    """What a caller asks for."""

    method: str
    path: str
    authorization: str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    is_chunked: bool = False
    """Without Content-Length, the body in two pieces."""

    @property
    def pieces(self) -> list[bytes]:
        """The body, as it is sent."""
        half = len(self.body) // 2 or 1 if self.is_chunked else len(self.body)
        return [piece for piece in (self.body[:half], self.body[half:]) if piece]

    @property
    def all_fields(self) -> list[tuple[str, str]]:
        """Its fields, but for those that frame it in HTTP/1.1 only."""
        fields = list(self.fields)
        if self.authorization is not None:
            fields.append(("authorization", self.authorization))
        if self.method == "POST" and not self.is_chunked:
            fields.append(("content-length", str(len(self.body))))
        return fields

    def as_h1(self) -> bytes:
        """Head and body."""
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: soak"]
        lines += [f"{name}: {value}" for name, value in self.all_fields]
        if not self.is_chunked:
            return ("\r\n".join(lines) + "\r\n\r\n").encode() + self.body
        lines.append("Transfer-Encoding: chunked")
        chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in self.pieces]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + b"".join(chunks) + b"0\r\n\r\n"

    def as_h2(self) -> tuple[tuple[bytes, bytes], ...]:
        """The fields of its head."""
        pseudo = [(":method", self.method), (":scheme", "http"), (":authority", "soak"),
                  (":path", self.path)]  # fmt: skip
        return tuple((name.encode(), value.encode()) for name, value in (*pseudo, *self.all_fields))
