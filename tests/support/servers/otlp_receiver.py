"""A collector: takes OTLP over HTTP on a real socket, and keeps the spans."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from types import TracebackType

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Received:
    """A span as it came over the wire."""

    span: Span
    resource: dict[str, str]

    @property
    def attributes(self) -> dict[str, object]:
        """By name."""
        return {
            each.key: each.value.int_value
            if each.value.HasField("int_value")
            else each.value.string_value
            for each in self.span.attributes
        }


@dataclass
class OtlpReceiver:
    """Keeps what it is sent."""

    spans: list[Received] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    port: int = 0

    async def __aenter__(self) -> OtlpReceiver:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """What a configuration calls it."""
        return f"http://127.0.0.1:{self.port}"

    async def _take(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        message = ExportTraceServiceRequest.FromString(body)
        for group in message.resource_spans:
            resource = {each.key: each.value.string_value for each in group.resource.attributes}
            for scope in group.scope_spans:
                self.spans += [Received(span, resource) for span in scope.spans]
        self.headers.append(dict(request.headers))
        return web.Response(content_type="application/x-protobuf")
