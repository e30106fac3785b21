"""Errors of the data plane, as problem details (RFC 9457).

Every refusal is a class that carries its status and a machine-readable reason; nothing
downstream looks at texts. Upstream failures are named by the phase that failed and map
to a status here, once: 502 for an upstream that cannot be reached or talks nonsense,
503 for one that has nowhere to send to, 504 for one that does not respond in time.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import ClassVar

import msgspec

Headers = tuple[tuple[str, str], ...]

PROBLEM_TYPES = "https://bearer-gateway.github.io/bearer-gateway/reference/reasons/#"
"""With a reason behind it, the URI of a problem (RFC 9457 section 3.1.1): its row in the docs."""

REASON_PHRASES: dict[int, str] = {status.value: status.phrase for status in HTTPStatus}


class ProblemError(Exception):
    """A request ends with an error response of the gateway."""

    status: ClassVar[int] = 500
    closes: ClassVar[bool] = False
    """Whether the client connection can't be trusted, or used, afterwards."""

    def __init__(self, reason: str, detail: str, headers: Headers = ()) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.headers = headers


class BadRequestError(ProblemError):
    """The request is malformed or ambiguous (RFC 9110 section 15.5.1)."""

    status = 400
    closes = True


class NoRouteError(ProblemError):
    """No route matches."""

    status = 404


class MethodNotAllowedError(ProblemError):
    """A route matches but for its methods (RFC 9110 section 15.5.6)."""

    status = 405


class RequestTimeoutError(ProblemError):
    """The client stopped sending (RFC 9110 section 15.5.9)."""

    status = 408
    closes = True


class ContentTooLargeError(ProblemError):
    """The body is larger than the endpoint takes (RFC 9110 section 15.5.14)."""

    status = 413
    closes = True


class ExpectationFailedError(ProblemError):
    """An expectation other than 100-continue (RFC 9110 section 15.5.18)."""

    status = 417
    closes = True


class RateLimitedError(ProblemError):
    """More requests than a rate limit allows (RFC 6585 section 4)."""

    status = 429


class HeadTooLargeError(ProblemError):
    """The head is larger than `listen.limits` (RFC 6585 section 5)."""

    status = 431
    closes = True


class NotImplementedMethodError(ProblemError):
    """CONNECT, or a transfer coding other than chunked (RFC 9110 section 15.6.2)."""

    status = 501
    closes = True


class ClientClosedError(ProblemError):
    """The client went away before its response was complete. nginx's code; it is never sent."""

    status = 499


class TooManyStreamsError(ProblemError):
    """More requests at once than `listen.http2.max_concurrent_streams`. HTTP/2 has no response for
    that: the stream is refused, and nothing of it was processed."""

    status = 503


class StoreDownError(ProblemError):
    """The token may be valid, but cannot be verified now. Never 401, never a pass."""

    status = 503


class UpstreamError(ProblemError):
    """The upstream did not give a response that could be passed on."""

    status = 502


class ConnectError(UpstreamError):
    """Connecting failed: refused, unreachable, name unknown, TLS refused."""


class ConnectTimeoutError(UpstreamError):
    """Connecting took longer than `timeouts.connect`."""

    status = 504


class ResponseHeadTimeoutError(UpstreamError):
    """No response head within `timeouts.response_head`."""

    status = 504


class PerTryTimeoutError(UpstreamError):
    """No response head within `timeouts.per_try`."""

    status = 504


class TotalTimeoutError(UpstreamError):
    """The response was not complete within `timeouts.total`."""

    status = 504


class StreamIdleTimeoutError(UpstreamError):
    """Neither side moved a byte of a body for `timeouts.idle`."""

    status = 504


class UpstreamClosedError(UpstreamError):
    """The upstream closed the connection before its response was complete."""


class UpstreamSilentError(UpstreamClosedError):
    """The upstream closed the connection before the first byte of a response."""


class UpstreamProtocolError(UpstreamError):
    """The upstream sent something that is not HTTP."""


class UpgradeUnsupportedError(UpstreamError):
    """The upstream is spoken to by HTTP/2, which has no WebSockets here."""

    status = 501


class NoTargetError(UpstreamError):
    """The upstream has nowhere to send the request to."""

    status = 503


class OverloadError(UpstreamError):
    """A circuit breaker of the upstream is open."""

    status = 503


def render_problem(status: int, reason: str, detail: str, request_id: str) -> bytes:
    """Render the body of a problem response, `application/problem+json`."""
    return msgspec.json.encode(
        {
            "type": f"{PROBLEM_TYPES}{reason}",
            "title": REASON_PHRASES.get(status, "Error"),
            "status": status,
            "detail": detail,
            "reason": reason,
            "request_id": request_id,
        }
    )
