"""What a route makes of the responses to its requests, whoever made them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.http.content_coding import Compression, Encoder
from gateway.http.errors import Headers
from gateway.http.fields import without_fields
from gateway.http.response_head import ResponseHead
from gateway.proxy.cors import FIELDS as CORS_FIELDS
from gateway.proxy.cors import Cors

if TYPE_CHECKING:
    from gateway.downstream.request import ClientRequest
    from gateway.proxy.header_rules import HeaderModifier

# A response to a preflight brings these along; what an upstream says of them is dropped.
_PREFLIGHT = frozenset(
    {
        b"access-control-allow-methods", b"access-control-allow-headers",
        b"access-control-max-age",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ResponseRules:
    """What is to be done to the responses of a route, compiled."""

    changes: HeaderModifier
    cors: Cors | None = None
    compression: Compression | None = None


class ResponseFilter:
    """The plan, for one request."""

    def __init__(self, request: ClientRequest, plan: ResponseRules) -> None:
        self._request = request
        self._plan = plan
        self.encoder: Encoder | None = None
        """What the body goes through that follows the last head."""

    def fields(self, fields: Headers) -> Headers:
        """The fields of a response of the gateway's own."""
        dropped = self._dropped() - _PREFLIGHT
        kept = [one for one in fields if one[0].lower().encode() not in dropped]
        return (*kept, *self._added())

    def head(self, head: ResponseHead) -> ResponseHead:
        """The head of a response of the upstream's, whose body is to go through `encoder`, if
        there is one. It is not changed itself: the same bytes are known by the same head."""
        status_line, *lines = head.lines.splitlines(keepends=True)
        lines = without_fields(lines, self._dropped())
        lines += (f"{name}: {value}\r\n".encode("latin-1") for name, value in self._added())
        changed = head.with_lines(b"".join((status_line, *lines)))
        if self._plan.compression is None:
            return changed
        request = self._request
        changed, self.encoder = self._plan.compression.begin(
            changed, request.raw_headers, method=request.method, is_http_10=request.is_http_10
        )
        return changed

    def whole(self, head: ResponseHead, body: bytes) -> tuple[ResponseHead, bytes]:
        """A whole response of the upstream's."""
        head = self.head(head)
        if self.encoder is None:
            return head, body
        body = self.encoder.feed(body) + self.encoder.finish()
        head = head.with_lines(b"%bContent-Length: %d\r\n" % (head.lines, len(body)))
        head.length = len(body)
        return head, body

    def _dropped(self) -> frozenset[bytes]:
        removed = self._plan.changes.removed
        return removed if self._plan.cors is None else removed | CORS_FIELDS

    def _added(self) -> Headers:
        added = tuple(self._plan.changes.values(self._request))
        if self._plan.cors is not None:
            added += self._plan.cors.fields(self._request.raw_headers)
        return added
