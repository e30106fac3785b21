"""Export of spans (OpenTelemetry)."""

from __future__ import annotations

from pydantic import Field

from gateway.config.scalars import Name, Secret, Section, Text, WebUrl


class TracingConfig(Section):
    """OpenTelemetry spans; needs the packages of the extra `otel`."""

    otlp_endpoint: WebUrl = Field(
        description="URL of a collector for OTLP over HTTP, such as `http://localhost:4318`."
    )
    sample_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        strict=False,
        description="Share of the traces that start here to record; callers decide for others.",
    )
    service_name: Text = Field("bearer-gateway", description="`service.name` of the spans.")
    headers: dict[Name, Secret] = Field(
        {}, description="Header fields to send to the collector, such as an API key."
    )
