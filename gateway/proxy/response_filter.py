"""Changes the responses to a route's requests, those of upstreams and of the gateway."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.http.content_coding import Compression, Encoder
from gateway.http.errors import Headers
from gateway.http.fields import Trailers, without_fields
from gateway.http.response_head import ResponseHead, render_fields
from gateway.proxy.cors import FIELDS as CORS_FIELDS
from gateway.proxy.cors import Cors
from gateway.proxy.header_rules import HeaderModifier, LocationRewrite
from gateway.proxy.variables import Values

# A response of ours to a preflight brings these along; what an upstream says of them is dropped.
_PREFLIGHT = frozenset(
    {
        b"access-control-allow-methods", b"access-control-allow-headers",
        b"access-control-max-age",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ResponseRules:
    """Rules for the responses of a route, compiled."""

    changes: HeaderModifier
    cors: Cors | None = None
    compression: Compression | None = None
    passes_host_fields: bool = False
    """Whether fields of the upstream pass that act on the whole host (Clear-Site-Data)."""
    location: LocationRewrite | None = None
    """How what the upstream leads to becomes what the client can request."""


class ResponseFilter:
    """The rules, for one request."""

    def __init__(self, rules: ResponseRules, values: Callable[[], Values]) -> None:
        """`values` gives what variables stand for when the response is there."""
        self._rules = rules
        self._values = values
        self.encoder: Encoder | None = None
        """What the body goes through that follows the last head."""

    def fields(self, fields: Headers) -> Headers:
        """The fields of a response that the gateway makes."""
        dropped = self._dropped() - _PREFLIGHT
        kept = [one for one in fields if one[0].lower().encode() not in dropped]
        return (*kept, *self._added(self._values()))

    def head(self, head: ResponseHead) -> ResponseHead:
        """The head of an upstream's response, whose body is to go through `encoder`, if
        there is one. It is not changed itself: the same bytes are known by the same head."""
        values = self._values()
        given = head.lines + head.withheld if self._rules.passes_host_fields else head.lines
        lines = without_fields(given.splitlines(keepends=True), self._dropped())
        if (location := self._rules.location) is not None:
            lines = [location.line(line, values.request) for line in lines]
        changed = head.with_lines(b"".join((*lines, render_fields(self._added(values)))))
        if self._rules.compression is None:
            return changed
        request = values.request
        changed, self.encoder = self._rules.compression.begin(
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

    def trailers(self, trailers: Trailers) -> Trailers:
        """The trailers of an upstream's response."""
        dropped = self._dropped()
        return tuple(field for field in trailers if field[0] not in dropped)

    def _dropped(self) -> frozenset[bytes]:
        removed = self._rules.changes.removed
        return removed if self._rules.cors is None else removed | CORS_FIELDS

    def _added(self, values: Values) -> Headers:
        added = tuple(self._rules.changes.filled(values))
        if self._rules.cors is not None:
            added += self._rules.cors.fields(values.request)
        return added
