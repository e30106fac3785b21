"""Spans: told to a real collector, never at the cost of a request."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from support.clients.h2_client import H2Client
from support.deadlines import until, within
from support.running_gateway import RunningGateway, StartGateway
from support.servers.h2_upstream import H2Request, H2Upstream
from support.servers.otlp_receiver import OtlpReceiver, Received
from support.servers.raw_upstream import RawUpstream

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture
async def collector() -> AsyncIterator[OtlpReceiver]:
    async with OtlpReceiver() as running:
        yield running


@pytest.fixture
def start(collector: OtlpReceiver, start: StartGateway) -> StartGateway:
    """Gateways that end before their collector: each sends what it still has."""
    return start


async def get(gateway: RunningGateway, path: str, *lines: str) -> int:
    text = "\r\n".join((f"GET {path} HTTP/1.1", "Host: api.example:8443", *lines))
    response = await gateway.send(f"{text}\r\nConnection: close\r\n\r\n".encode())
    return int(response.split()[1])


def named(collector: OtlpReceiver, kind: str) -> list[Received]:
    number = {"server": 2, "client": 3}[kind]
    return [each for each in collector.spans if each.span.kind == number]


async def test_request_is_a_server_span_and_its_way_to_the_upstream_a_client_span(
    start: StartGateway, upstream: RawUpstream, collector: OtlpReceiver
) -> None:
    tracing = {
        "otlp_endpoint": collector.url, "service_name": "edge", "headers": {"x-api-key": "geheim"},
    }  # fmt: skip
    gateway = await start(upstream.url, tracing=tracing)
    token = await gateway.token("shop")
    await until(lambda: len(named(collector, "server")) == 2)
    collector.spans.clear()
    status = await get(
        gateway, "/api/x?secret=1", f"Authorization: Bearer {token}",
        f"traceparent: 00-{TRACE}-{PARENT}-01", "tracestate: a=1,b=2",
    )  # fmt: skip
    assert status == 200
    await until(lambda: len(collector.spans) == 2)
    (server,), (client,) = named(collector, "server"), named(collector, "client")
    assert server.span.trace_id.hex() == client.span.trace_id.hex() == TRACE
    assert server.span.parent_span_id.hex() == PARENT
    assert client.span.parent_span_id == server.span.span_id
    (received,) = upstream.requests
    onward = f"00-{TRACE}-{client.span.span_id.hex()}-01".encode()
    assert received.all(b"traceparent") == [onward], "the next hop is a child of the client span"
    assert received.all(b"tracestate") == [b"a=1,b=2"]
    assert server.span.name == "GET /api"
    assert server.resource["service.name"] == "edge"
    expected = {
        "http.request.method": "GET", "url.path": "/api/x", "url.scheme": "http",
        "http.route": "/api", "server.address": "api.example", "client.address": "127.0.0.1",
        "http.response.status_code": 200, "gateway.route": "api", "gateway.client_id": "shop",
        "gateway.source": "upstream", "network.protocol.version": "1.1",
    }  # fmt: skip
    assert expected.items() <= server.attributes.items()
    expected = {
        "http.request.method": "GET", "server.address": "127.0.0.1",
        "server.port": upstream.port, "http.response.status_code": 200, "gateway.upstream": "main",
    }  # fmt: skip
    assert expected.items() <= client.attributes.items()
    assert server.span.start_time_unix_nano <= client.span.start_time_unix_nano
    assert client.span.end_time_unix_nano <= server.span.end_time_unix_nano
    assert collector.headers[-1]["x-api-key"] == "geheim"
    assert "secret" not in str(collector.spans)
    assert token not in str(collector.spans)


async def test_trace_that_begins_here_has_the_id_of_the_request(
    start: StartGateway, upstream: RawUpstream, collector: OtlpReceiver
) -> None:
    gateway = await start(upstream.url, tracing={"otlp_endpoint": collector.url})
    assert await get(gateway, "/public/x") == 200
    await until(lambda: len(collector.spans) == 2)
    (received,) = upstream.requests
    (request_id,) = received.all(b"x-request-id")
    assert {each.span.trace_id.hex().encode() for each in collector.spans} == {request_id}
    (traceparent,) = received.all(b"traceparent")
    assert traceparent.startswith(b"00-%b-" % request_id)
    (server,) = named(collector, "server")
    assert server.span.parent_span_id == b""


async def test_refusals_and_failures_are_spans_too(
    start: StartGateway, collector: OtlpReceiver
) -> None:
    gateway = await start("http://127.0.0.1:9", tracing={"otlp_endpoint": collector.url})
    assert await get(gateway, "/api/x") == 401
    assert await get(gateway, "/public/x") == 502
    await until(lambda: len(collector.spans) == 3)
    refused, failed = named(collector, "server")
    assert refused.attributes["error.type"] == "missing"
    assert refused.span.status.code == 0, "the caller's fault is no error of the server"
    assert failed.span.status.code == 2
    assert failed.attributes["error.type"] == "upstream_connect_failed"
    (client,) = named(collector, "client")
    assert client.span.status.code == 2


async def test_who_began_the_trace_has_decided_on_it(
    start: StartGateway, upstream: RawUpstream, collector: OtlpReceiver
) -> None:
    tracing = {"otlp_endpoint": collector.url, "sample_ratio": 0}
    gateway = await start(upstream.url, tracing=tracing)
    assert await get(gateway, "/public/new") == 200
    assert await get(gateway, "/public/not", f"traceparent: 00-{TRACE}-{PARENT}-00") == 200
    assert await get(gateway, "/public/yes", f"traceparent: 00-{TRACE}-{PARENT}-01") == 200
    await until(lambda: len(collector.spans) == 2)
    assert {each.attributes["url.path"] for each in collector.spans} == {"/public/yes"}
    flags = [received.all(b"traceparent")[0][-2:] for received in upstream.requests]
    assert flags == [b"00", b"00", b"01"]
    parents = [received.all(b"traceparent")[0][36:52].decode() for received in upstream.requests]
    assert PARENT not in parents, "each hop has an id of its own"
    assert upstream.requests[1].all(b"traceparent")[0][3:35].decode() == TRACE


@pytest.mark.parametrize(
    ("lines", "goes_on", "state"),
    [
        ([f"traceparent: 00-{TRACE}-{PARENT}-01", "tracestate: a=1", "tracestate: b=2"],
         True, b"a=1,b=2"),
        ([f"traceparent: cc-{TRACE}-{PARENT}-01-later", "tracestate: a=1"], True, b"a=1"),
        ([f"traceparent: 00-{TRACE}-{PARENT}-ff"], True, None),
        ([f"traceparent: 00-{TRACE}-{PARENT}-01", "tracestate: a=1,A=2"], True, None),
        ([f"traceparent: 00-{TRACE}-{PARENT}-01", "tracestate: a=1,a=2"], True, None),
        ([f"traceparent: 00-{TRACE}-{PARENT}-01",
          "tracestate: " + ",".join(f"k{n}=1" for n in range(33))], True, None),
        ([f"traceparent: 00-{'0' * 32}-{PARENT}-01", "tracestate: a=1"], False, None),
        ([f"traceparent: 00-{TRACE}-{'0' * 16}-01"], False, None),
        ([f"traceparent: ff-{TRACE}-{PARENT}-01"], False, None),
        ([f"traceparent: 00-{TRACE}-{PARENT}-01-more"], False, None),
        ([f"traceparent: 00-{TRACE.upper()}-{PARENT}-01"], False, None),
        ([f"traceparent: 00-{TRACE}-{PARENT}-01"] * 2, False, None),
        (["tracestate: a=1"], False, None),
    ],
)  # fmt: skip
async def test_trace_context_is_read_as_the_specification_says(
    start: StartGateway, upstream: RawUpstream, collector: OtlpReceiver,
    lines: list[str], goes_on: bool, state: bytes | None,
) -> None:  # fmt: skip
    gateway = await start(upstream.url, tracing={"otlp_endpoint": collector.url})
    assert await get(gateway, "/public/x", *lines) == 200
    (received,) = upstream.requests
    (traceparent,) = received.all(b"traceparent")
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]", traceparent)
    assert (traceparent[3:35].decode() == TRACE) == goes_on
    assert received.all(b"tracestate") == ([] if state is None else [state])


async def test_collector_that_is_unavailable_costs_no_request(
    start: StartGateway, upstream: RawUpstream
) -> None:
    gateway = await start(upstream.url, tracing={"otlp_endpoint": "http://127.0.0.1:9"})
    async with within():
        for _ in range(300):
            assert await get(gateway, "/public/x") == 200
    async with within():
        await gateway.gateway.stop()


async def test_collector_that_never_responds_keeps_a_bounded_number_of_spans(
    start: StartGateway, upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.app.tracing.FLUSH_S", 0.1)
    monkeypatch.setattr("gateway.app.tracing.EXPORT_S", 0.5)
    monkeypatch.setattr("gateway.app.tracing.QUEUE_SPANS", 64)
    monkeypatch.setattr("gateway.app.tracing.BATCH_SPANS", 64)
    stuck = socket.create_server(("127.0.0.1", 0))  # the kernel connects, nobody reads
    port = stuck.getsockname()[1]
    gateway = await start(upstream.url, tracing={"otlp_endpoint": f"http://127.0.0.1:{port}"})
    async with within():
        for _ in range(200):
            assert await get(gateway, "/public/x") == 200
    await gateway.gateway.stop()
    stuck.close()


async def test_metrics_name_traces_as_exemplars_to_who_asks_for_openmetrics(
    start: StartGateway, upstream: RawUpstream, collector: OtlpReceiver
) -> None:
    gateway = await start(upstream.url, tracing={"otlp_endpoint": collector.url})
    assert await get(gateway, "/public/x", f"traceparent: 00-{TRACE}-{PARENT}-01") == 200
    assert "trace_id" not in await gateway.metrics()
    accept = {
        "Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
        "Accept-Encoding": "identity",
    }
    async with gateway.session.get(gateway.admin_url("/metrics"), headers=accept) as response:
        assert response.content_type == "application/openmetrics-text"
        page = await response.text()
    (exemplar,) = [
        sample.exemplar
        for family in text_string_to_metric_families(page)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar and sample.labels.get("route") == "public"
    ]
    assert exemplar.labels == {"trace_id": TRACE}
    assert 0 < exemplar.value < 5


async def test_tracing_covers_decisions_for_other_proxies(
    start: StartGateway, upstream: RawUpstream, collector: OtlpReceiver
) -> None:
    authz = {"port": 0, "dialect": "nginx", "trusted_proxies": ["127.0.0.1/32"]}
    gateway = await start(upstream.url, authz=authz, tracing={"otlp_endpoint": collector.url})
    client = await gateway.connect_to(gateway.gateway.authz_address)
    await client.send(
        b"GET /authz HTTP/1.1\r\nHost: h\r\nX-Original-Method: PUT\r\n"
        b"X-Original-URI: /public/x\r\n\r\n"
    )
    assert (await client.read_response()).status == 200
    await until(lambda: len(collector.spans) == 1)
    assert collector.spans[0].span.name == "PUT /public"
    assert collector.spans[0].attributes["gateway.source"] == "authz"


@pytest.mark.parametrize(("status", "is_failure"), [(0, False), (5, False), (14, True)])
async def test_status_of_grpc_is_on_both_spans(
    start: StartGateway, collector: OtlpReceiver, status: int, *, is_failure: bool
) -> None:
    def respond(request: H2Request) -> None:
        request.respond(b"", trailers=[(b"grpc-status", b"%d" % status)])

    async with H2Upstream(on_end=respond) as upstream:
        gateway = await start(
            upstream.url,
            upstreams={"main": {"targets": [upstream.url], "protocol": "http2"}},
            tracing={"otlp_endpoint": collector.url},
        )
        async with await H2Client.connect(gateway.port) as client:
            response = await client.request(
                body=b"x", method="POST", fields=[("content-type", "application/grpc")]
            )
            assert response.trailers == [("grpc-status", str(status))]
        await until(lambda: len(collector.spans) == 2)
        (server,), (client_span,) = named(collector, "server"), named(collector, "client")
        for one in (server, client_span):
            assert one.attributes["rpc.system"] == "grpc"
            assert one.attributes["rpc.grpc.status_code"] == status
        assert (server.span.status.code == 2) == is_failure
        assert (client_span.span.status.code == 2) == (status != 0)
