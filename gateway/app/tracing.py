"""OpenTelemetry: a span for each request and for its way to the upstream, sent by OTLP.

Needs the packages of the extra `otel`, imported only where `tracing` is configured.
Spans end in a bounded queue, from which a thread takes them: a collector that is slow or
away costs spans, never a request. Names are those of OpenTelemetry's semantic conventions
for HTTP; neither query strings nor credentials are in any attribute.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from random import getrandbits
from typing import TYPE_CHECKING, Any

from gateway import __version__
from gateway.config.tracing import TracingConfig
from gateway.downstream.request import Request
from gateway.proxy.tracing import read_trace

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

HOW_TO_INSTALL = "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
TRACES_PATH = "/v1/traces"
QUEUE_SPANS = 4096
BATCH_SPANS = 512
DELAY_MS = 1000
EXPORT_S = 5.0
FLUSH_S = 3.0
"""How long the last spans may take when the gateway stops."""
KNOWN_FLAGS = 0x03
"""Sampled and random (W3C Trace Context level 2); the others must be zero."""
METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
)
_SERVER_FAILURES = frozenset({2, 4, 12, 13, 14, 15})
"""Statuses of gRPC that are errors of a server's span (OpenTelemetry's conventions for gRPC)."""


class MissingExtraError(OSError):
    """`tracing` is configured, but its packages are not installed."""


class OtlpTracing:
    """Makes the spans of requests, and has them sent."""

    def __init__(self, config: TracingConfig, *, scheme: str) -> None:
        """Raises `MissingExtraError`."""
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.id_generator import IdGenerator
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        except ImportError:
            raise MissingExtraError(
                f"tracing needs packages that are not installed: {HOW_TO_INSTALL}"
            ) from None

        class Ids(IdGenerator):
            """A trace that begins here has the id that the request has."""

            next_trace_id = 0

            def generate_trace_id(self) -> int:
                return self.next_trace_id

            def generate_span_id(self) -> int:
                return getrandbits(64) or 1

        endpoint = config.otlp_endpoint.rstrip("/")
        if not endpoint.endswith(TRACES_PATH):
            endpoint += TRACES_PATH
        headers = {name: value.get_secret_value() for name, value in config.headers.items()}
        self._ids = Ids()
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(config.sample_ratio)),
            resource=Resource.create(
                {"service.name": config.service_name, "service.version": __version__}
            ),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                OTLPSpanExporter(endpoint=endpoint, headers=headers, timeout=EXPORT_S),
                max_queue_size=QUEUE_SPANS,
                schedule_delay_millis=DELAY_MS,
                max_export_batch_size=BATCH_SPANS,
            )
        )
        self._tracer = self._provider.get_tracer("gateway", __version__)
        self._trace = trace
        self._scheme = scheme

    def begin(self, request: Request) -> OtlpSpan:
        """The server span of a request."""
        trace = self._trace
        given = read_trace(request.head)
        context = None
        if given is None:
            self._ids.next_trace_id = int(request.trace_id, 16)
        else:
            parent = trace.SpanContext(
                given.trace_id, given.span_id, True,
                trace.TraceFlags(given.flags & KNOWN_FLAGS), trace.TraceState(given.state),
            )  # fmt: skip
            context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
        span = self._tracer.start_span(_method(request), context, trace.SpanKind.SERVER)
        return OtlpSpan(trace, self._tracer, span, request, self._scheme)

    async def close(self) -> None:
        """Send what is there, within `FLUSH_S` seconds."""
        loop, is_sent = asyncio.get_running_loop(), asyncio.Event()

        def flush() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # too late, the loop is closed
                loop.call_soon_threadsafe(is_sent.set)

        # A daemon: a collector that takes its time must not keep the process.
        threading.Thread(target=flush, name="otlp", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(is_sent.wait(), FLUSH_S)


class OtlpSpan:
    """The spans of one request."""

    def __init__(
        self, trace: Any, tracer: Tracer, span: Span, request: Request, scheme: str
    ) -> None:
        self._trace = trace
        self._tracer = tracer
        self._span = span
        self._request = request
        self._scheme = scheme
        self._onward: Span | None = None
        context = span.get_span_context()
        self.sampled_trace_id = f"{context.trace_id:032x}" if context.trace_flags.sampled else ""

    def onward(self, target: bytes) -> bytes:
        """Begin the client span; gives the trace context that names it."""
        trace, request = self._trace, self._request
        host, _, port = target.decode("latin-1").rpartition(":")
        if not port.isdigit():
            host, port = target.decode("latin-1"), ""
        attributes: dict[str, Any] = {
            "http.request.method": _method(request),
            "server.address": host,
            "url.path": request.target.path,
        }
        if port:
            attributes["server.port"] = int(port)
        self._onward = self._tracer.start_span(
            _method(request),
            trace.set_span_in_context(self._span),
            trace.SpanKind.CLIENT,
            attributes,
        )
        context = self._onward.get_span_context()
        lines = (
            f"traceparent: 00-{context.trace_id:032x}-{context.span_id:016x}"
            f"-{context.trace_flags & KNOWN_FLAGS:02x}\r\n"
        )
        if context.trace_state:
            lines += f"tracestate: {context.trace_state.to_header()}\r\n"
        return lines.encode("ascii")

    def forwarded(self, upstream: str, status: int, grpc_status: int) -> None:
        """End the client span."""
        span = self._onward
        if span is None:
            return
        if status:
            span.set_attribute("http.response.status_code", status)
        if not status or status >= 400:
            self._fail(span, str(status or "upstream_failed"))
        if grpc_status >= 0:
            _describe_grpc(span, grpc_status)
            if grpc_status:
                self._fail(span, str(grpc_status))
        span.set_attribute("gateway.upstream", upstream)
        span.end()

    def finish(
        self, request: Request, *, route: str, path: str, status: int, source: str,
        client_id: str, reason: str, grpc_status: int,
    ) -> None:  # fmt: skip
        """End the server span."""
        span = self._span
        if span.is_recording():
            method = _method(request)
            span.update_name(f"{method} {path or route}")
            span.set_attributes(
                {
                    "http.request.method": method,
                    "url.path": request.target.path,
                    "url.scheme": self._scheme,
                    "server.address": request.routing_host,
                    "client.address": request.client,
                    "network.protocol.version": request.protocol.removeprefix("HTTP/"),
                    "http.response.status_code": status,
                    "gateway.route": route,
                    "gateway.source": source,
                    "gateway.request_id": request.request_id.decode("ascii"),
                }
            )
            if path:
                span.set_attribute("http.route", path)
            if method == "_OTHER":
                span.set_attribute("http.request.method_original", request.method)
            if client_id:
                span.set_attribute("gateway.client_id", client_id)
            if reason:
                span.set_attribute("error.type", reason)
            if status >= 500:
                self._fail(span, reason or str(status))
            if grpc_status >= 0:
                _describe_grpc(span, grpc_status)
                if grpc_status in _SERVER_FAILURES:
                    self._fail(span, reason or str(grpc_status))
        span.end()

    def _fail(self, span: Span, kind: str) -> None:
        span.set_attribute("error.type", kind)
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR))


def _describe_grpc(span: Span, status: int) -> None:
    span.set_attributes({"rpc.system": "grpc", "rpc.grpc.status_code": status})


def _method(request: Request) -> str:
    return request.method if request.method in METHODS else "_OTHER"
