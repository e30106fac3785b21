"""Answers that the gateway makes itself, rendered."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache

from gateway.downstream.request import ClientRequest
from gateway.http.errors import REASON_PHRASES, Headers, ProblemError, render_problem
from gateway.oauth.errors import OAuthError

NO_CONTENT = 204


def render_response(
    request: ClientRequest, status: int, headers: Headers, body: bytes, request_id: bytes
) -> bytes:
    """A whole response. What the client still sends of its request is not waited for."""
    fields = (*headers, *request.extra_fields)
    if request.response_filter is not None:
        fields = request.response_filter.fields(fields)
    lines = [
        f"HTTP/1.1 {status} {REASON_PHRASES.get(status, '')}",
        f"Date: {http_date(int(time.time()))}",
        *(f"{name}: {value}" for name, value in fields),
    ]
    if status != NO_CONTENT:  # RFC 9110 section 8.6
        lines.append(f"Content-Length: {len(body)}")
    if request_id:
        lines.append(f"X-Request-Id: {request_id.decode('ascii')}")
    if not request.settle_keep_alive():
        lines.append("Connection: close")
    elif request.is_http_10:
        lines.append("Connection: keep-alive")
    head = "\r\n".join((*lines, "\r\n")).encode("latin-1")
    return head if request.line.method == "HEAD" else head + body


def render_refusal(request: ClientRequest, error: ProblemError | OAuthError) -> bytes:
    """A refusal on a proxied route: problem details (RFC 9457)."""
    if isinstance(error, ProblemError):
        detail = error.detail
        if error.closes:
            request.keep_alive = False
    else:
        detail = error.description
    request_id = request.request_id
    body = render_problem(error.status, error.reason, detail, request_id.decode("ascii"))
    headers = (("Content-Type", "application/problem+json"), *error.headers)
    return render_response(request, error.status, headers, body, request_id)


@lru_cache(maxsize=1)
def http_date(second: int) -> str:
    """A time as Date tells it, UTC."""
    return formatdate(second, usegmt=True)
