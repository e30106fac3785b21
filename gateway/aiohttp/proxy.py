"""A reverse proxy by aiohttp's client, with the header hygiene of the gateway.

The head for the upstream is that of the data plane: one canonical path, no hop-by-hop fields, no
field that the gateway sets itself, then its own forwarding and identity fields. Bodies stream in
both directions, and a slow receiver slows its sender. What the data plane has beyond that (several
targets, health checks, retries, WebSockets, HTTP/2) is not here: see `docs/aiohttp.md`.
"""

from __future__ import annotations

import aiohttp
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from multidict import CIMultiDict
from yarl import URL

from gateway.aiohttp.messages import CONTEXT, make_response, read_request, read_target
from gateway.app.embedded import EmbeddedGateway, rejected
from gateway.app.forwarding import ForwardedHeads
from gateway.http import errors
from gateway.http.response_head import read_response_head

SMALL_BYTES = 64 * 1024
"""Responses up to this size are read whole, and sent in one write."""
CONNECT_TIMEOUT_S = 5.0
_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""Fields that aiohttp's client adds where a request has none."""
_FAILURES = (
    (aiohttp.ConnectionTimeoutError, errors.ConnectTimeoutError, "upstream_connect_timeout",
     "Connecting to the upstream took too long."),
    (aiohttp.ServerTimeoutError, errors.ResponseHeadTimeoutError, "upstream_response_timeout",
     "The upstream did not respond in time."),
    (aiohttp.ClientConnectorError, errors.ConnectError, "upstream_connect_failed",
     "The upstream can't be reached."),
    (aiohttp.ClientConnectionError, errors.UpstreamSilentError, "upstream_silent",
     "The upstream closed without a response."),
)  # fmt: skip


def proxy_handler(
    upstream: str,
    gateway: EmbeddedGateway,
    *,
    strip_prefix: str = "",
    forward_token: bool = False,
    timeout_s: float = 60.0,
) -> Handler:
    """Return a handler that forwards requests to `upstream`, `http://HOST:PORT` or `https://...`.

    `strip_prefix` is left out of paths; `forward_token` sends `Authorization`, too; `timeout_s`
    limits each wait for the upstream (504). Raises `ValueError` for another kind of URL.
    """
    base = URL(upstream)
    is_origin = base.host and base.raw_path_qs == "/" and base.raw_user is None
    if base.scheme not in {"http", "https"} or not is_origin:
        raise ValueError(f"upstream is {upstream!r}; expected http://HOST:PORT, without a path")
    heads = ForwardedHeads(base.authority, strip_prefix=strip_prefix, forward_token=forward_token)
    session: aiohttp.ClientSession | None = None

    def client() -> aiohttp.ClientSession:
        nonlocal session
        if session is None or session.closed:
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=_ADDED,
                timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=timeout_s),
            )
            gateway.on_stop(session.close)
        return session

    async def forward(request: web.Request) -> web.StreamResponse:
        verified = request.get(CONTEXT)
        made = verified.request if verified else read_request(request, gateway)
        context = heads.begin(made, read_target(request), verified)
        try:
            head = heads.make(context, request.path)
            fields = _decode(head.lines)
            fields[hdrs.HOST] = head.authority.decode("ascii")
            if head.length >= 0:
                fields[hdrs.CONTENT_LENGTH] = str(head.length)
            async with client().request(
                head.method,
                URL(f"{base.origin()}{head.target.decode('ascii')}", encoded=True),
                headers=fields,
                data=request.content if head.has_body else None,
                allow_redirects=False,
            ) as received:
                request_id = context.request.request_id.decode("ascii")
                return await _pass_on(request, received, request_id)
        except (aiohttp.ClientError, errors.ProblemError) as error:
            found = error if isinstance(error, errors.ProblemError) else _explain(error)
            return make_response(rejected(found, context).response)

    return forward


async def _pass_on(
    request: web.Request, received: aiohttp.ClientResponse, request_id: str
) -> web.StreamResponse:
    """Send the upstream's response. Raises `ProblemError` and `ClientError` before its head is
    sent; afterwards, what breaks off is cut off for the client, too."""
    lines = [b"%b: %b" % field for field in received.raw_headers]
    head = read_response_head(b"\r\n".join((b"HTTP/1.1 %d" % received.status, *lines)))
    fields = _decode(head.lines)
    fields["X-Request-Id"] = request_id
    if head.length is not None and head.length <= SMALL_BYTES and request.method != hdrs.METH_HEAD:
        fields.pop(hdrs.CONTENT_LENGTH, None)
        body = await received.read()
        return web.Response(
            status=head.status, reason=received.reason, headers=fields, body=body or None
        )
    response = web.StreamResponse(status=head.status, reason=received.reason, headers=fields)
    await response.prepare(request)
    try:
        async for piece in received.content.iter_any():
            await response.write(piece)
        await response.write_eof()
    except (aiohttp.ClientError, OSError):
        if request.transport is not None:
            request.transport.abort()
    return response


def _decode(lines: bytes) -> CIMultiDict[str]:
    """Decode field lines as aiohttp encodes them: of what is not UTF-8, it leaves bytes out."""
    fields = [
        line.partition(": ") for line in lines.decode("utf-8", "surrogateescape").split("\r\n")
    ]
    return CIMultiDict((name, value) for name, _, value in fields[:-1])


def _explain(error: aiohttp.ClientError) -> errors.UpstreamError:
    for kind, problem, reason, detail in _FAILURES:
        if isinstance(error, kind):
            return problem(reason, detail)
    return errors.UpstreamProtocolError(
        "upstream_protocol", "The upstream's response is not valid HTTP."
    )
