"""The provider and upstreams on one host: what is the provider's stays there."""

from __future__ import annotations

import pytest
from support.protocols import both_protocols
from support.running_gateway import StartGateway
from support.servers.raw_upstream import RawUpstream

from gateway.http.response_head import read_response_fields
from gateway.oauth.endpoints.paths import ProviderPaths

pytestmark = both_protocols

OPEN = [{"name": "all", "match": {"path": "/"}, "auth": "none", "upstream": "main"}]
PEOPLE = {"grant_types": ["client_credentials", "authorization_code"]}


@pytest.mark.parametrize(
    "path",
    [
        "/token/", "/Token", "/TOKEN", "/token;x", "/token;x/", "/createclient", "/Revoke/",
        "/authorize/", "/authorize/x", "/authorize/consent/", "/AUTHORIZE/Consent", "/authorize;a",
        "/authorize;a/x", "/Jwks.json", "/.well-known/oauth-authorization-server/",
        "/%74oken/",
    ],
)  # fmt: skip
async def test_other_spelling_of_a_provider_path_reaches_no_upstream(
    start: StartGateway, upstream: RawUpstream, path: str
) -> None:
    gateway = await start(upstream.url, provider=PEOPLE, routes=OPEN)
    body = b"client_id=shop&client_secret=secret"
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {len(body)}"
    response = await gateway.send(head.encode() + b"\r\n\r\n" + body)
    assert response.split(b" ")[1] in {b"404", b"400"}, response
    assert not upstream.requests


@pytest.mark.parametrize(
    "path", ["/tokens", "/token/refresh", "/to", "/", "/Tokenize", "/authorized", "/register/me"]
)
async def test_path_of_an_application_is_none_of_the_providers(
    start: StartGateway, upstream: RawUpstream, path: str
) -> None:
    gateway = await start(upstream.url, provider=PEOPLE, routes=OPEN)
    async with gateway.session.get(gateway.url(path)) as response:
        assert response.status == 200
    assert len(upstream.requests) == 1


def test_paths_of_pages_are_the_providers_only_where_there_are_pages() -> None:
    paths = ProviderPaths(["/token", "/t"])
    assert not paths.is_misspelled("/authorize/x")
    assert paths.is_misspelled("/T")
    assert paths.is_misspelled("/token/")
    paths = ProviderPaths(["/token", "/authorize"], authorize_path="/authorize")
    assert paths.is_misspelled("/authorize/x")


@pytest.mark.parametrize("passes", [False, True])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_upstream_has_no_say_over_the_whole_host_unless_its_route_lets_it(
    start: StartGateway, upstream: RawUpstream, passes: bool, is_chunked: bool
) -> None:
    framing = b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    head = b'HTTP/1.1 200 OK\r\nService-Worker-Allowed: /\r\nclear-site-data: "cookies"\r\n'
    raw = head + b"X-Own: 1\r\n" + (framing if is_chunked else b"Content-Length: 0\r\n\r\n")
    upstream.respond = lambda received: raw
    gateway = await start(upstream.url, routes=[OPEN[0] | {"pass_host_headers": passes}])
    for _ in range(2):  # also from the memory of heads
        async with gateway.session.get(gateway.url("/app")) as response:
            assert response.headers["X-Own"] == "1"
            expected = ['"cookies"'] if passes else []
            assert response.headers.getall("Clear-Site-Data", []) == expected
            assert ("Service-Worker-Allowed" in response.headers) is passes


def test_upstream_of_http2_has_no_say_either() -> None:
    fields = [(b":status", b"200"), (b"clear-site-data", b'"*"'), (b"x-own", b"1")]
    head = read_response_fields(fields)
    assert b"lear-" not in head.lines
    assert head.withheld == b'Clear-Site-Data: "*"\r\n'


async def test_page_of_a_registered_client_redeems_its_code_from_another_origin(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, provider=PEOPLE, routes=OPEN)
    await gateway.create_client(
        "app", grant_types="authorization_code", redirect_uris="https://app.example/cb"
    )
    for origin, status, allowed in (
        ("https://app.example", 204, "https://app.example"), ("https://evil.example", 403, None),
    ):  # fmt: skip
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        async with gateway.session.options(gateway.url("/token"), headers=headers) as response:
            assert response.status == status
            assert response.headers.get("Access-Control-Allow-Origin") == allowed
        async with gateway.session.post(
            gateway.url("/token"), data={"grant_type": "x"}, headers=headers
        ) as response:
            assert response.headers.get("Access-Control-Allow-Origin") == allowed
    assert not upstream.requests
