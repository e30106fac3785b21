"""Records of heads that the codec read, as the readers of heads take them."""

from __future__ import annotations

from typing import TypeAlias

LineRecord: TypeAlias = tuple[str, str, str, bool, bytes]
"""Of a request line: method, path, query with its question mark, whether it is HTTP/1.0, and the
line for the upstream."""
HeadRecord: TypeAlias = tuple[
    bytes, dict[bytes, list[bytes]], bytes, int, int, tuple[bytes, str] | None
]
"""Of the fields of a request, whatever protocol brought them: the lines as they came, the values of
those that the gateway reads by name, the lines that pass, flags, Content-Length (0 without one),
and Host as it came and as routes name it."""
ResponseRecord: TypeAlias = tuple[int, bytes, int, int, list[bytes] | None]
"""Of a response: status, the lines that pass, Content-Length (-1 without one), flags, and the
values of Keep-Alive."""
