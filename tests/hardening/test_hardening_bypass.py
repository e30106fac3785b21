"""No way round the bearer check: what reaches an upstream without a token was open to all.

The upstream's bytes are judged by readings of our own: whatever a lax server might make of a
forwarded target - decoded again, dots resolved, parameters cut off, backslashes turned,
case folded - none of it is the protected path.
"""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Iterator
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.protocols import each_protocol, only_http1, only_http1_upstream
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream
from support.servers.recording_upstream import RecordingUpstream

from gateway.http.errors import ProblemError
from gateway.http.request_head import read_request_line
from gateway.metrics import Metrics
from gateway.proxy.router import Auth, Route, Router
from gateway.upstream.upstream import Upstream

pytestmark = each_protocol

ROUTES = [
    {"name": "root", "match": {"path": "/"}, "upstream": "main", "auth": "none"},
    {"name": "public", "match": {"path": "/public"}, "upstream": "main", "auth": "none"},
    {"name": "api", "match": {"path": "/public/api"}, "upstream": "main"},
    {"name": "admin", "match": {"path": "/admin"}, "upstream": "main"},
    {
        "name": "host", "match": {"path": "/", "hosts": ["secret.test"]}, "upstream": "main",
    },
    {
        "name": "open-get", "match": {"path": "/mixed", "methods": ["GET"]}, "upstream": "main",
        "auth": "none",
    },
    {"name": "mixed", "match": {"path": "/mixed", "methods": ["POST"]}, "upstream": "main"},
]  # fmt: skip
PROTECTED = ("/admin", "/public/api")


def readings(target: str) -> Iterator[str]:
    """The paths that servers of all kinds might take a target for."""
    path = target.partition("?")[0]
    for _ in range(3):
        for variant in (path, path.replace("\\", "/"), path.partition("\0")[0]):
            without_parameters = "/".join(part.partition(";")[0] for part in variant.split("/"))
            for candidate in (variant, without_parameters):
                yield posixpath.normpath("/" + candidate.lstrip("/"))
        path = unquote(path)


def is_protected(path: str) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in PROTECTED)


@pytest.fixture
async def recorder() -> AsyncIterator[RecordingUpstream]:
    """The upstream of each test."""
    async with RecordingUpstream() as running:
        yield running


@pytest.fixture
async def guarded(start: StartGateway, recorder: RecordingUpstream) -> RunningGateway:
    """A gateway with open routes above and beside protected ones."""
    return await start(recorder.url, routes=ROUTES)


def get(target: str, *lines: bytes, method: bytes = b"GET", host: bytes = b"h") -> bytes:
    head = [b"%b %b HTTP/1.1" % (method, target.encode("latin-1")), b"Host: %b" % host, *lines]
    return b"\r\n".join([*head, b"Connection: close\r\n\r\n"])


TARGETS = [
    "/admin", "/admin/", "/admin?x", "//admin", "///admin//x", "/./admin", "/././admin/x",
    "/public/../admin", "/public/x/../../admin", "/public/./../admin", "/public/..//admin",
    "/public/%2e%2e/admin", "/public/%2E%2E/admin", "/public/.%2e/admin", "/public/%2e./admin",
    "/public/%252e%252e/admin", "/public/..%2fadmin", "/public/..%2Fadmin", "/public/..%5cadmin",
    "/public/..\\admin", "/public\\..\\admin", "/public/%5c..%5c/admin", "/public/..;/admin",
    "/public/..;x=y/admin", "/public/.;/../admin", "/public/;/../admin", "/;/admin", "/admin;x",
    "/admin;/x", "/;x/admin", "/admin%3bx", "/public;x/api", "/public/api;x", "/public/api%3bx",
    "/admin%00", "/public%00/../admin", "/admin%0a", "/admin%0d%0a", "/%61dmin", "/%61%64min",
    "/adm%69n/x", "/public/%61pi", "/public/ap%69", "/public%2fapi", "/public%2Fapi", "/public/api",
    "/public//api", "/public/./api", "/public/x/../api", "/public/api/..", "/public/api/../api",
    "/admin/..%2fadmin", "/admin/.", "/admin/./", "/admin/%2e", "/..%2fadmin", "/../admin",
    "/../../admin", "/.../admin", "/public/..../admin", "/public/..%00/admin", "/admin#x",
    "/public#/../admin", "/public?/../admin", "/public/?/../../admin", "/admin%", "/admin%2",
    "/admin%zz", "/%u0061dmin", "/admin%c0%af", "/%c0%ae%c0%ae/admin", "/public/%c0%ae./admin",
    "http://h/admin", "http://h//admin", "http://h/public/../admin", "HTTP://h/admin",
    "http://h/public/%2e%2e/admin", "http://h?/admin", "http://h", "https://h/admin",
    "http://h:80/admin", "http://evil@h/admin", "http://h/admin#", "/admin\t", "/admin\x0b",
    "/admin\xa0", "/admin\xff", "admin", "*", "h/admin", "?/admin", ";/admin", "/?x=/admin",
]  # fmt: skip


async def test_path_confusion_opens_no_protected_path(
    guarded: RunningGateway, recorder: RecordingUpstream
) -> None:
    for target in TARGETS:
        recorder.forget()
        status = int((await guarded.send(get(target)))[9:12])
        if status != 200:
            assert status in {400, 401}, target
            assert [recorder.heads, recorder.rejected] == [[], []], target
            continue
        (reading,) = recorder.parsed
        paths = readings(reading.target.decode("ascii"))
        assert not any(is_protected(path) for path in paths), target


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/ADMIN", 200), ("/Admin/x", 200), ("/administrator", 200), ("/publicity", 200),
        ("/public/apis", 200), ("/public/api.json", 200), ("/admin", 401), ("/admin/x", 401),
    ],
)  # fmt: skip
async def test_paths_are_compared_by_case_and_by_whole_segments(
    guarded: RunningGateway, recorder: RecordingUpstream, target: str, status: int
) -> None:
    response = await guarded.send(get(target))
    assert response.startswith(b"HTTP/1.1 %d " % status)
    assert [reading.target for reading in recorder.parsed] == [target.encode()] * (status == 200)


@pytest.mark.parametrize(
    "host",
    [b"secret.test", b"SECRET.test", b"secret.test.", b"secret.test:80", b"secret.test.:443",
     b"secret.test:"],
)  # fmt: skip
async def test_protected_host_is_known_in_every_spelling(
    guarded: RunningGateway, recorder: RecordingUpstream, host: bytes
) -> None:
    assert (await guarded.send(get("/x", host=host))).startswith(b"HTTP/1.1 401 ")
    absolute = get(f"http://{host.decode()}/x", host=b"open.test")
    assert (await guarded.send(absolute)).startswith(b"HTTP/1.1 401 ")
    assert recorder.raw == []


STAND_INS = [
    b"X-HTTP-Method-Override: GET", b"X-HTTP-Method: GET", b"X-Method-Override: GET",
    b"X-Original-URL: /public", b"X-Rewrite-URL: /public", b"X-Forwarded-Uri: /public",
    b"X-Forwarded-Path: /public", b"X-Forwarded-Prefix: /public", b"X-Forwarded-Host: h2",
    b"X-Original-Method: GET", b"X-Forwarded-Method: GET", b"X-Forwarded-For: 127.0.0.1",
    b"Forwarded: for=127.0.0.1;host=open.test", b"X-Client-Id: root", b"X-Real-IP: 127.0.0.1",
    b"User-Agent: kube-probe/1.29", b"User-Agent: GoogleHC/1.0", b"Upgrade: h2c",
    b"Proxy-Authorization: Bearer x", b"Cookie: access_token=x", b"X-Authorization: Bearer x",
    b"Authorization_: Bearer x", b"Authorization: Basic cm9vdDpyb290", b"X-Access-Token: x",
]  # fmt: skip


async def test_no_header_stands_in_for_a_token(
    guarded: RunningGateway, recorder: RecordingUpstream
) -> None:
    for line in STAND_INS:
        for request in (get("/admin", line), get("/mixed", line, method=b"POST")):
            assert (await guarded.send(request)).startswith(b"HTTP/1.1 401 "), line
    assert recorder.raw == []


@pytest.mark.parametrize(
    "line",
    [
        b"X-HTTP-Method-Override: POST", b"X-HTTP-Method: POST", b"X-Method-Override: POST",
        b"x_http_method_override: POST", b"X.HTTP.Method.Override: POST",
    ],
)  # fmt: skip
async def test_upstream_sees_no_other_method_than_the_one_that_was_authorized(
    guarded: RunningGateway, recorder: RecordingUpstream, line: bytes
) -> None:
    assert (await guarded.send(get("/mixed", line))).startswith(b"HTTP/1.1 200 ")
    (head,) = recorder.heads
    assert b"POST" not in {value for _, value in head}


@pytest.mark.parametrize(
    "line", [b"Proxy: http://evil.test", b"PROXY: http://evil.test", b"proxy:http://evil.test"]
)
async def test_no_field_becomes_the_proxy_of_a_cgi_program(
    guarded: RunningGateway, recorder: RecordingUpstream, line: bytes
) -> None:
    assert (await guarded.send(get("/public", line))).startswith(b"HTTP/1.1 200 ")
    (head,) = recorder.heads
    assert b"http://evil.test" not in {value for _, value in head}


async def test_method_in_another_case_is_no_way_past_the_route_of_it(
    start: StartGateway, recorder: RecordingUpstream
) -> None:
    routes = [
        {"name": "rest", "match": {"path": "/"}, "upstream": "main", "auth": "none"},
        {"name": "post", "match": {"path": "/", "methods": ["POST"]}, "upstream": "main"},
    ]
    gateway = await start(recorder.url, routes=routes)
    for method, status in ((b"POST", 401), (b"post", 400), (b"Post", 400), (b"DELETE", 200)):
        response = await gateway.send(get("/", method=method))
        assert response.startswith(b"HTTP/1.1 %d " % status)
    assert [reading.method for reading in recorder.parsed] == [b"DELETE"]


async def test_token_in_query_or_body_is_none(
    guarded: RunningGateway, recorder: RecordingUpstream
) -> None:
    token = await guarded.token()
    form = b"access_token=%b" % token.encode()
    body = get(
        "/admin", b"Content-Type: application/x-www-form-urlencoded",
        b"Content-Length: %d" % len(form), method=b"POST",
    )  # fmt: skip
    for request in (get(f"/admin?access_token={token}"), body + form):
        assert (await guarded.send(request)).startswith(b"HTTP/1.1 401 ")
    assert recorder.raw == []


@pytest.mark.parametrize(
    "lines",
    [
        (b"Authorization: Bearer %b", b"Authorization: Bearer %b"),
        (b"Authorization: Bearer %b", b"authorization: Bearer bad"),
        (b"AUTHORIZATION: Bearer bad", b"Authorization: Bearer %b"),
        (b"Authorization: Bearer %b", b"Authorization: Basic eDp5"),
        (b"Authorization: Bearer %b, Bearer bad",),
        (b"Authorization: Bearer %b bad",),
        (b"Authorization: Bearer",),
        (b"Authorization: Bearer =",),
    ],
)
async def test_doubled_or_malformed_authorization_is_400_even_with_a_good_token_in_it(
    guarded: RunningGateway, recorder: RecordingUpstream, lines: tuple[bytes, ...]
) -> None:
    token = (await guarded.token()).encode()
    filled = [line.replace(b"%b", token) for line in lines]
    assert (await guarded.send(get("/admin", *filled))).startswith(b"HTTP/1.1 400 ")
    assert recorder.raw == []


IDENTITY = (b"x-client-id", b"x-client-name", b"x-token-scopes", b"x-token-subject")


@pytest.mark.parametrize("spelling", ["{}", "{}".upper(), "_", "-_", ".", "~", "title"])
@pytest.mark.parametrize("path", ["/public", "/admin"])
async def test_identity_is_set_by_the_gateway_in_every_spelling(
    guarded: RunningGateway, recorder: RecordingUpstream, spelling: str, path: str
) -> None:
    token = (await guarded.token()).encode()
    spelled = {
        "_": [name.replace(b"-", b"_") for name in IDENTITY],
        "-_": [name.replace(b"-", b"_", 1) for name in IDENTITY],
        ".": [name.replace(b"-", b".") for name in IDENTITY],
        "~": [name.replace(b"-", b"~", 1) for name in IDENTITY],
        "title": [name.title() for name in IDENTITY],
    }.get(spelling, [name.upper() for name in IDENTITY])
    lines = [b"%b: evil" % name for name in spelled]
    nominated = b"Connection: %b" % b", ".join([*spelled, b"x-request-id", b"via"])
    for extra in ((), (nominated,)):
        recorder.forget()
        request = get(path, b"Authorization: Bearer %b" % token, *lines, *extra)
        assert (await guarded.send(request)).startswith(b"HTTP/1.1 200 ")
        (head,) = recorder.heads
        reported = [(name, value) for name, value in head if name.replace(b"_", b"-") in IDENTITY]
        assert b"evil" not in {value for _, value in head}
        expected = [b"x-client-id", b"x-client-name", b"x-token-scopes"] * (path == "/admin")
        assert sorted(name for name, _ in reported) == expected
        assert {b"x-request-id", b"via"} <= {name for name, _ in head}


@only_http1
async def test_upgrade_on_a_refused_route_is_refused_and_what_follows_is_no_tunnel(
    guarded: RunningGateway, recorder: RecordingUpstream
) -> None:
    upgrade = (
        b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )  # fmt: skip
    head = get("/admin/socket", *upgrade).replace(b"Connection: close", b"Connection: Upgrade")
    response = await guarded.send(head + b"\x81\x85\x00\x00\x00\x00hello")
    assert response.startswith(b"HTTP/1.1 401 ")
    assert recorder.raw == []
    follow = head + get("/admin")
    responses = await guarded.send(follow)
    assert responses.count(b"HTTP/1.1 401 ") == 2
    assert recorder.raw == []


@only_http1_upstream
async def test_refused_upgrade_of_the_upstream_leaves_no_tunnel_behind(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, routes=ROUTES)
    client = await gateway.connect()
    await client.send(
        b"GET /public/socket HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
        b"GET /admin HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    assert (await client.read_response()).status == 200
    assert (await client.read_response()).status == 401
    assert [received.request_line for received in upstream.requests] == [
        b"GET /public/socket HTTP/1.1"
    ]


def make_router() -> Router:
    """The routes above that any host and method has, without a gateway around them."""
    counts = Metrics().data_plane
    upstream = Upstream("main", [], durations=counts.upstream("main"))
    auths: dict[str, Auth] = {
        "/": "none", "/public": "none", "/public/api": "required", "/admin": "required",
    }  # fmt: skip
    return Router(
        Route(name=path, path=path, upstream=upstream, metrics=counts.route(path), auth=auth)
        for path, auth in auths.items()
    )


def strict_route(target: str) -> str:
    """The route of a target by a plain reading of RFC 3986: decode, resolve, longest prefix."""
    path = posixpath.normpath("/" + unquote(target.partition("?")[0]).lstrip("/"))
    prefixes = ["/public/api", "/public", "/admin", "/"]
    return next(p for p in prefixes if p == "/" or path == p or path.startswith(f"{p}/"))


pieces = st.sampled_from(
    ["/", "//", ".", "..", "/../", "/./", "%2e", "%2E", "%2f", "%5c", "\\", ";", "..;", "public",
     "api", "admin", "%61dmin", "Admin", "?", "#", "%", "%00", "%25", "x", ":", "@", "*", "~", "+"]
)  # fmt: skip
ROUTER = make_router()


@given(st.lists(pieces, max_size=12).map("".join), st.sampled_from(["/", "", "http://h/"]))
def test_route_that_authorised_is_the_route_of_the_forwarded_bytes(tail: str, lead: str) -> None:
    try:
        line = read_request_line(f"GET {lead}{tail} HTTP/1.1".encode())
        route = ROUTER.match("h", line.target, "GET")
    except ProblemError:
        return
    method, forwarded, version = line.onward.decode("ascii").split(" ")
    assert (method, version) == ("GET", "HTTP/1.1\r\n")
    assert strict_route(forwarded) == route.name
    if route.auth == "none":
        assert not any(is_protected(path) for path in readings(forwarded)), forwarded
