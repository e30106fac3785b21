"""Metrics, health and readiness: open to every client of the admin listener."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Collection
from typing import Any, Literal, Protocol, TypedDict

from aiohttp import web

from gateway.admin.operations import Call, operation
from gateway.admin.status import GatewayStatus
from gateway.http.accept import quality
from gateway.http.content_coding import choose_coding

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
GZIP_LEVEL = 5
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class RenderMetrics(Protocol):
    """Makes the page of metrics."""

    async def __call__(self, *, openmetrics: bool = False, names: Collection[str] = ()) -> bytes:
        """In Prometheus' text format, or in OpenMetrics', which has exemplars; where there are
        `names`, only those metrics."""


class Health(TypedDict):
    """The process lives."""

    status: Literal["ok"]


class ReadinessChecks(TypedDict):
    """Whether requests can be served, and why not."""

    status: Literal["ready", "not ready"]
    checks: dict[str, str]


class ProbesApi:
    """The operations that need no token."""

    def __init__(
        self,
        gateway_status: GatewayStatus,
        render_metrics: RenderMetrics,
        document: Callable[[], dict[str, Any]],
    ) -> None:
        """`document` makes the OpenAPI document."""
        self._gateway_status = gateway_status
        self._render_metrics = render_metrics
        self._document = document

    @operation("GET", "/healthz")
    async def check_health(self, call: Call) -> Health:
        """Check that the process lives."""
        return {"status": "ok"}

    @operation("GET", "/readyz", fails=(503,))
    async def check_readiness(self, call: Call) -> ReadinessChecks:
        """Check that the gateway can serve."""
        checks = await self._gateway_status.readiness()
        is_ready = all(state == "ok" for state in checks.values())
        if not is_ready:
            call.status = 503
        return {"status": "ready" if is_ready else "not ready", "checks": dict(checks)}

    @operation("GET", "/metrics", media_type="text/plain")
    async def show_metrics(self, call: Call) -> web.Response:
        """Show Prometheus metrics."""
        given = call.request.headers
        accept = ",".join(given.getall("Accept", ()))
        wanted = quality(accept, "application/openmetrics-text", named=True)
        openmetrics = wanted > 0 and wanted >= quality(accept, "text/plain")
        page = await self._render_metrics(
            openmetrics=openmetrics, names=frozenset(call.request.query.getall("name[]", ()))
        )
        headers = {
            "Content-Type": OPENMETRICS if openmetrics else PROMETHEUS,
            "Vary": "Accept, Accept-Encoding",
        }
        encodings = [
            value.encode("latin-1", "replace") for value in given.getall("Accept-Encoding", ())
        ]
        if choose_coding(encodings, ("gzip",)):
            headers["Content-Encoding"] = "gzip"
            page = await asyncio.to_thread(gzip.compress, page, GZIP_LEVEL)
        return web.Response(body=page, headers=headers)

    @operation("GET", "/openapi.json")
    async def show_openapi(self, call: Call) -> dict[str, Any]:
        """Show this document."""
        return self._document()
