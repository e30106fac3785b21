"""Routes to MCP servers: what is called is read from the body, and header fields must agree."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from support.clients.h2_client import H2Client
from support.clients.mcp_calls import (
    NEW,
    OLD,
    RESOURCE,
    call,
    fields_of,
    mcp_sections,
    send,
    token_for,
)
from support.deadlines import until
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import Conversation, RawUpstream

from gateway.proxy.mcp import ToolRules


@pytest.fixture
async def gateway(start: StartGateway, upstream: RawUpstream) -> RunningGateway:
    """A gateway in front of an MCP server."""
    return await start(upstream.url, **mcp_sections())


# Which tools a token may call.


async def test_tool_needs_its_scopes_whatever_the_revision(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    token = await token_for(gateway, "mcp weather")
    for headers in ({}, {"MCP-Protocol-Version": OLD}, fields_of()):
        message = call(arguments={"city": "Bern"})
        assert (await send(gateway, token, message, headers)).status == 200
        assert json.loads(upstream.requests[-1].body) == message, "as it came"
        denied = await send(gateway, token, call("admin_drop"), headers and fields_of(
            "admin_drop", headers["MCP-Protocol-Version"]
        ))  # fmt: skip
        assert denied.outcome == (403, "scope")
        assert denied.challenge["error"] == "insufficient_scope"
        assert denied.challenge["scope"] == "admin mcp", "all that is needed, in one step"
        assert denied.challenge["resource_metadata"].endswith("/oauth-protected-resource/mcp")
        assert (await send(gateway, token, call("ping"))).status == 200, "no scope of its own"
    assert (
        await send(gateway, await token_for(gateway, "mcp admin"), call("admin_x"))
    ).status == 200


async def test_unknown_tool_is_denied_without_a_hint_at_scopes(gateway: RunningGateway) -> None:
    token = await token_for(gateway, "mcp weather admin")
    for name in ("drop_db", "get_weather2", "Get_weather", "", "xadmin_y"):
        denied = await send(gateway, token, call(name))
        assert (denied.outcome, denied.challenge) == ((403, "mcp_tool"), {}), name


@pytest.mark.parametrize("method", ["initialize", "tools/list", "notifications/initialized"])
async def test_other_methods_need_the_scopes_of_the_route(
    gateway: RunningGateway, method: str
) -> None:
    token = await token_for(gateway, "mcp")
    assert (await send(gateway, token, {"jsonrpc": "2.0", "id": 1, "method": method})).status == 200
    reply = {"jsonrpc": "2.0", "id": 1, "result": {}}
    assert (await send(gateway, token, reply)).status == 200, "to a request of the server"
    assert (await send(gateway, "unknown", reply)).status == 401


@pytest.mark.parametrize(
    ("tools", "name", "scopes"),
    [
        ({"*": ["a"], "get_*": ["b"], "get_weather": ["c"]}, "get_weather", {"c"}),
        ({"get_weather": ["c"], "get_*": ["b"], "*": ["a"]}, "get_news", {"b"}),
        ({"get_*": ["b"], "*": ["a"]}, "put", {"a"}),
        ({"*_admin": ["x"], "a_*": ["y"], "a_very_*": ["z"]}, "a_very_admin", {"z"}),
        ({"a[bc]?": ["x"]}, "ab1", None),
        ({"a.*": ["x"]}, "abc", None),
        ({"a*c": ["x"]}, "a\nc", {"x"}),
    ],
)
def test_nearest_name_counts_whatever_the_order(
    tools: dict[str, list[str]], name: str, scopes: set[str] | None
) -> None:
    for given in (tools, dict(reversed(tools.items()))):
        rule = ToolRules(given).find(name)
        assert (None if rule is None else set(rule.scopes)) == scopes


async def test_each_message_of_a_batch_is_checked(gateway: RunningGateway) -> None:
    token = await token_for(gateway, "mcp weather")
    assert (await send(gateway, token, [call(), call("ping")])).status == 200
    denied = await send(gateway, token, [call(), call("admin_x"), call("say:hi")])
    assert (denied.status, denied.challenge["scope"]) == (403, "admin mcp say weather")
    for batch in ([], [call()] * 101, [[call()]], [1]):
        assert (await send(gateway, token, batch)).outcome == (400, "mcp_body")
    assert (await send(gateway, token, [call(), call()], fields_of())).outcome == (
        400, "mcp_mismatch",
    )  # fmt: skip


# Header fields.


async def test_header_that_lies_is_rejected(gateway: RunningGateway, upstream: RawUpstream) -> None:
    token = await token_for(gateway, "mcp weather admin")
    for version in (NEW, OLD):
        for headers in (
            fields_of("get_weather", version),
            {"Mcp-Name": "get_weather"},
            {"Mcp-Method": "tools/list"},
            {"Mcp-Method": "tools/call", "Mcp-Name": ""},
        ):
            sent = await send(gateway, token, call("admin_drop"), headers)
            assert sent.outcome == (400, "mcp_mismatch"), headers
    meta: dict[str, Any] = {"_meta": {"io.modelcontextprotocol/protocolVersion": OLD}}
    assert (await send(gateway, token, call(**meta), fields_of())).outcome == (400, "mcp_mismatch")
    assert not upstream.requests


async def test_newest_revision_must_repeat_method_and_name(gateway: RunningGateway) -> None:
    token = await token_for(gateway, "mcp weather")
    for left_out in ("Mcp-Method", "Mcp-Name"):
        headers = fields_of()
        del headers[left_out]
        assert (await send(gateway, token, call(), headers)).outcome == (400, "mcp_header")
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    headers = {"MCP-Protocol-Version": NEW, "Mcp-Method": "tools/list"}
    assert (await send(gateway, token, listing, headers)).status == 200


async def test_encoded_name_is_decoded(start: StartGateway, upstream: RawUpstream) -> None:
    gateway = await start(upstream.url, **mcp_sections(tools={"*": ["weather"]}))
    token = await token_for(gateway, "mcp weather")
    encoded = base64.b64encode("wetter_für_später".encode()).decode()
    headers = fields_of(f"=?base64?{encoded}?=")
    assert (await send(gateway, token, call("wetter_für_später"), headers)).status == 200
    assert (await send(gateway, token, call("get_weather"), headers)).outcome == (
        400, "mcp_mismatch",
    )  # fmt: skip
    for bad in ("=?base64?!!?=", "=?base64?/w==?=", "=?base64?eA==", "w\u00e4"):
        sent = await send(gateway, token, call(), fields_of(bad))
        assert sent.outcome == (400, "mcp_header"), bad


@pytest.mark.parametrize("version", ["2026-7-28", "latest", "2026-07-28 "[:9], "x" * 500])
async def test_version_that_is_none_is_rejected(gateway: RunningGateway, version: str) -> None:
    token = await token_for(gateway, "mcp weather")
    sent = await send(gateway, token, call(), {"MCP-Protocol-Version": version})
    assert sent.outcome == (400, "mcp_version")


async def test_operator_lists_revisions(start: StartGateway, upstream: RawUpstream) -> None:
    gateway = await start(upstream.url, **mcp_sections(versions=[NEW]))
    token = await token_for(gateway, "mcp weather")
    assert (await send(gateway, token, call(), fields_of())).status == 200
    sent = await send(gateway, token, call(), {"MCP-Protocol-Version": OLD})
    assert sent.outcome == (400, "mcp_version")


# Bodies that another reader might take another way.


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"7", b"\xef\xbb\xbf{}", b'{"method": 1}', b'{"method": "tools/call"}',
        b'{"method": "tools/call", "params": ["get_weather"]}',
        b'{"method": "tools/call", "params": {"name": null}}',
        b'{"method": "ping", "method": "tools/call", "params": {"name": "admin_x"}}',
        b'{"method": "tools/call", "params": {"name": "ping", "name": "admin_x"}}',
        b'{"method": "ping", "Method": "tools/call", "params": {"name": "admin_x"}}',
        b'{"method": "tools/call", "params": {"name": "ping"}, "PARAMS": {"name": "admin_x"}}',
        b'{"method": "tools/call", "params": {"name": "ping", "Name": "admin_x"}}',
        '{"method": "ping", "param\u017f": {}}'.encode(),
        b'{"method": "ping", "params": {"x": NaN}}', b'{"method": "ping"} {}', b"[" * 100_000,
        '{"method": "ping"}'.encode("utf-16"), b'{"method": "\xff"}',
    ],
)  # fmt: skip
async def test_body_that_is_ambiguous_is_rejected(
    gateway: RunningGateway, upstream: RawUpstream, body: bytes
) -> None:
    token = await token_for(gateway, "mcp weather")
    assert (await send(gateway, token, body)).outcome == (400, "mcp_body")
    assert not upstream.requests


async def test_message_that_is_too_large_to_be_checked_does_not_pass(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, **mcp_sections(max_body="2KiB"))
    token = await token_for(gateway, "mcp weather")
    large = call(arguments={"x": "y" * 3000})
    assert (await send(gateway, token, large)).outcome == (413, "body_too_large")
    assert (await send(gateway, token, large, fields_of())).outcome == (413, "body_too_large")
    client = await gateway.connect()
    body = json.dumps(large).encode()
    await client.send(
        b"POST /mcp HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %b\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
        % (token.encode(), len(body), body)
    )
    assert b" 413 " in await client.read_to_end()
    assert not upstream.requests


async def test_other_ways_in_are_closed(gateway: RunningGateway, upstream: RawUpstream) -> None:
    token = await token_for(gateway, "mcp weather admin")
    for method, outcome in (
        ("PUT", (405, "method_not_allowed")), ("PATCH", (405, "method_not_allowed")),
        ("GET", (400, "mcp_body")), ("DELETE", (400, "mcp_body")),
    ):  # fmt: skip
        assert (await send(gateway, token, call("admin_x"), method=method)).outcome == outcome
    headers = {
        "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "x" * 22 + "==",
    }  # fmt: skip
    async with gateway.session.get(
        gateway.url("/mcp"), headers=headers | {"Authorization": f"Bearer {token}"}
    ) as response:
        assert (response.status, (await response.json(content_type=None))["reason"]) == (
            400, "mcp_upgrade",
        )  # fmt: skip
    assert not upstream.requests


async def test_without_tools_bodies_pass_and_fields_must_still_agree(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, **mcp_sections(tools=None, max_body="64KiB"))
    token = await token_for(gateway, "mcp")
    assert (await send(gateway, token, call("anything"))).status == 200
    assert (await send(gateway, token, b"x" * 1_000_000)).status == 200, "not read"
    assert (await send(gateway, token, call("other"), fields_of())).outcome == (
        400, "mcp_mismatch",
    )  # fmt: skip


# Tokens and pages.


async def test_token_must_be_for_this_server(gateway: RunningGateway) -> None:
    for resource in ("", "http://gateway.test/api", "http://gateway.test"):
        sent = await send(gateway, await token_for(gateway, "mcp weather", resource), call())
        assert sent.outcome == (401, "audience"), resource
        assert sent.challenge["scope"] == "mcp"
    for resource in (f"{RESOURCE}/", f"{RESOURCE}/session/1"):
        assert (
            await send(gateway, await token_for(gateway, "mcp weather", resource), call())
        ).status == 200


async def test_page_of_another_origin_is_rejected_before_its_token(
    start: StartGateway, upstream: RawUpstream
) -> None:
    app = "https://app.example"
    gateway = await start(upstream.url, **mcp_sections(origins=[app, "https://*.in.example"]))
    token = await token_for(gateway, "mcp weather")
    for origin, status in (
        (app, 200), ("https://a.in.example", 200), ("http://app.example", 403), ("null", 403),
        ("http://rebound.example:8080", 403), ("http://gateway.test", 403),
    ):  # fmt: skip
        sent = await send(gateway, token, call(), {"Origin": origin})
        assert sent.outcome == (status, "" if status == 200 else "mcp_origin")
        assert (await send(gateway, "x", call(), {"Origin": origin})).status == (
            401 if status == 200 else 403
        )
    assert (await send(gateway, token, call())).status == 200, "no browser"


async def test_page_that_is_listed_may_read_what_it_needs(
    start: StartGateway, upstream: RawUpstream
) -> None:
    app = "https://app.example"
    gateway = await start(upstream.url, **mcp_sections(origins=[app]))
    asks = {"Origin": app, "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, mcp-param-region"}  # fmt: skip
    async with gateway.session.options(gateway.url("/mcp"), headers=asks) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Headers"] == "*, Authorization"
        assert response.headers["Access-Control-Allow-Methods"] == "DELETE, GET, POST"
    async with gateway.session.post(gateway.url("/mcp"), headers={"Origin": app}) as response:
        assert response.status == 401
        assert response.headers["Access-Control-Allow-Origin"] == app
        assert "WWW-Authenticate" in response.headers["Access-Control-Expose-Headers"]
    async with gateway.session.options(
        gateway.url("/mcp"), headers=asks | {"Origin": "https://evil.example"}
    ) as response:
        assert response.status == 403


async def test_token_of_the_client_stays_here(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    token = await token_for(gateway, "mcp weather")
    assert (await send(gateway, token, call())).status == 200
    assert b"authorization" not in upstream.requests[-1].names()


# Streams and counts.


async def test_stream_of_events_may_pause_for_longer_than_the_idle_timeout(
    start: StartGateway, upstream: RawUpstream
) -> None:
    sections = mcp_sections()
    sections["upstreams"] = {"main": {"targets": [upstream.url], "timeouts": {"idle": "100ms"}}}
    gateway = await start(upstream.url, **sections)
    token = await token_for(gateway, "mcp weather")
    seen = bytearray()
    paused = asyncio.Event()

    async def send_events(conversation: Conversation, upstream: RawUpstream) -> None:
        received = await conversation.read_head()
        assert received is not None
        kind = b"text/event-stream" if b"/mcp" in received.request_line else b"text/plain"
        await conversation.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: %b; charset=utf-8\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n2\r\n: \r\n" % kind
        )
        await paused.wait()
        await conversation.send(b"6\r\ndata:x\r\n0\r\n\r\n")

    upstream.script = send_events
    async with gateway.session.get(
        gateway.url("/mcp"), headers={"Authorization": f"Bearer {token}"}
    ) as stream:
        seen += await stream.content.readany()
        # One that may not pause is cut meanwhile.
        other = await token_for(gateway, "mcp", "")
        async with gateway.session.get(
            gateway.url("/api"), headers={"Authorization": f"Bearer {other}"}
        ) as plain:
            with pytest.raises(Exception, match=r"payload|Connection|closed"):
                await plain.content.read()
        paused.set()
        seen += await stream.content.read()
    assert seen == b": data:x"


async def test_calls_are_counted_by_the_name_in_the_configuration(
    gateway: RunningGateway,
) -> None:
    token = await token_for(gateway, "mcp weather")
    for name in ("get_weather", "get_weather", "admin_a", "admin_b", "x", "y"):
        await send(gateway, token, call(name))

    async def count(tool: str, result: str) -> float:
        return await gateway.metric(
            "gateway_mcp_tool_calls_total", route="mcp", tool=tool, result=result
        )

    assert await count("get_weather", "allowed") == 2
    assert await count("admin_*", "scope") == 2
    assert await count("_unknown", "denied") == 2
    assert "admin_a" not in await gateway.metrics()


async def test_large_message_is_sent_on_whole_also_in_chunks(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    token = await token_for(gateway, "mcp weather")
    message = call(arguments={"x": "y" * 500_000})
    assert (await send(gateway, token, message)).status == 200
    assert json.loads(upstream.requests[-1].body) == message
    client = await gateway.connect()
    body = json.dumps(message).encode()
    await client.send(
        b"POST /mcp HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %b\r\nExpect: 100-continue\r\n"
        b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" % token.encode()
    )
    await client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    assert b" 200 OK" in await client.read_to_end()
    await until(lambda: len(upstream.requests) == 2)
    assert json.loads(upstream.requests[-1].body) == message


async def test_without_a_token_the_challenge_names_what_the_tool_needs(
    start: StartGateway, upstream: RawUpstream
) -> None:
    sections = mcp_sections()
    sections["routes"][0]["auth"] = "optional"
    gateway = await start(upstream.url, **sections)
    async with gateway.session.post(gateway.url("/mcp"), json=call("ping")) as response:
        assert response.status == 200
    async with gateway.session.post(gateway.url("/mcp"), json=call("admin_x")) as response:
        assert response.status == 401
        assert 'scope="admin mcp"' in response.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        (fields_of(), 200), (fields_of("admin_x"), 403), (fields_of("other"), 403), ({}, 403),
        (fields_of(version=OLD), 403), ({"MCP-Protocol-Version": NEW}, 403),
        ({"MCP-Protocol-Version": NEW, "Mcp-Method": "tools/list"}, 200),
        ({"MCP-Protocol-Version": NEW, "Mcp-Method": "tools/call"}, 400),
    ],
)  # fmt: skip
async def test_authorization_check_goes_by_the_fields_of_the_newest_revision_alone(
    start: StartGateway, upstream: RawUpstream, fields: dict[str, str], outcome: int
) -> None:
    sections = mcp_sections() | {
        "authz": {
            "host": "127.0.0.1",
            "port": 0,
            "path": "/check",
            "dialect": "nginx",
            "trusted_proxies": ["127.0.0.0/8"],
        },
    }
    gateway = await start(upstream.url, **sections)
    token = await token_for(gateway, "mcp weather")
    address = gateway.gateway.authz_address
    assert address is not None
    async with gateway.session.get(
        f"http://{address[0]}:{address[1]}/check",
        headers=fields
        | {
            "X-Original-Method": "POST",
            "X-Original-URI": "/mcp",
            "Authorization": f"Bearer {token}",
        },
    ) as response:
        assert response.status == outcome


async def test_tools_are_checked_on_streams_of_http_2_too(
    gateway: RunningGateway, upstream: RawUpstream
) -> None:
    token = await token_for(gateway, "mcp weather")
    client = await H2Client.connect(gateway.port)
    fields = [("authorization", f"Bearer {token}"), ("content-type", "application/json")]
    try:
        for name, status in (("get_weather", 200), ("admin_x", 403), ("other", 403)):
            message = call(name, arguments={"x": "y" * 100_000})
            response = await client.request(
                "/mcp", method="POST", fields=fields, body=json.dumps(message).encode()
            )
            assert response.status == status, response.body
        assert json.loads(upstream.requests[-1].body)["params"]["name"] == "get_weather"
    finally:
        await client.close()
