"""Where spans are sent."""

from __future__ import annotations

from pydantic import Field

from gateway.config.scalars import Name, Secret, Section, WebUrl


class Tracing(Section):
    """OpenTelemetry spans; needs the packages of the extra `otel`."""

    otlp_endpoint: WebUrl = Field(
        description="Collector that takes OTLP over HTTP, such as http://localhost:4318."
    )
    sample_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        strict=False,
        description="Share of the traces that begin here; for others, the caller has decided.",
    )
    service_name: str = Field(
        "bearer-gateway", min_length=1, description="`service.name` of the spans."
    )
    headers: dict[Name, Secret] = Field(
        {}, description="Header fields for the collector, such as an API key."
    )
