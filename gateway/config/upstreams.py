"""Upstreams in the configuration: targets, balancing, and what is done about failing ones.

Names and defaults are Envoy's, but where `docs/reference/upstreams.md` says otherwise.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag
from pydantic.json_schema import WithJsonSchema

from gateway.config.scalars import Bool, File, HostName, Section, TargetUrl, read_into
from gateway.units import Int, PositiveDuration
from gateway.upstream.settings import (
    Backoff,
    CircuitBreaker,
    OutlierDetection,
    Retries,
    RetryBudget,
    SlowStart,
    UpstreamTimeouts,
)

read_into(
    UpstreamTimeouts, SlowStart, OutlierDetection, CircuitBreaker, Backoff, RetryBudget, Retries
)

_HASH_ON = r"client_id|source|header:[A-Za-z][A-Za-z0-9-]*"
_SERVER = re.compile(r"(\[[0-9a-fA-F:]+\]|[0-9.]+|[0-9a-fA-F:]+)(:[0-9]{1,5})?")


def _check_hash_on(value: str) -> str:
    if not re.fullmatch(_HASH_ON, value):
        raise ValueError("expected client_id, source or header:NAME")
    return value


def _check_server(value: str) -> str:
    if not _SERVER.fullmatch(value):
        raise ValueError("expected an address such as 10.0.0.2 or 10.0.0.2:5353")
    return value


def _check_request_path(value: str) -> str:
    if not re.fullmatch("/[!-~]*", value):
        raise ValueError("expected a path that starts with /, without spaces")
    return value


def _check_host_field(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:\[\]-]+", value):
        raise ValueError("expected a host name, with a port if need be")
    return value


def _check_service(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{0,120}", value):
        raise ValueError("expected the name of a service, such as shop.v1.Orders")
    return value


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_statuses(value: str) -> str:
    first, _, last = value.partition("-")
    if not re.fullmatch("[1-5][0-9]{2}(-[1-5][0-9]{2})?", value) or (last and last < first):
        raise ValueError("expected statuses such as 200 or 200-299")
    return value


class WeightedTarget(Section):
    """A target with what is particular to it."""

    url: TargetUrl = Field(
        description="URL of the target: `http://host:port`, `https://host:port`, `unix:///path`."
    )
    weight: Int = Field(
        1, ge=1, le=1000, description="Share of requests in proportion to the other targets."
    )


def _kind_of_target(value: object) -> str:
    return "[mapping]" if isinstance(value, dict | WeightedTarget) else "[text]"


Target = Annotated[
    Annotated[TargetUrl, Tag("[text]")] | Annotated[WeightedTarget, Tag("[mapping]")],
    Discriminator(_kind_of_target),
]


class UpstreamTls(Section):
    """TLS towards `https://` targets."""

    ca: File | None = Field(
        None, description="PEM file with the CAs to trust; default: the system's."
    )
    verify: Bool = Field(True, description="Whether to verify the target's certificate and name.")
    server_name: HostName | None = Field(
        None, description="Name for SNI and for the verification; default: the target's host."
    )
    cert: File | None = Field(
        None,
        description=(
            "PEM file with the gateway's client certificate chain, for targets that require one."
        ),
    )
    key: File | None = Field(
        None, description="PEM file with the private key of `cert`; default: in the same file."
    )


class Dns(Section):
    """How names of targets become addresses."""

    discover: Bool = Field(
        True,
        description=(
            "`true`: each address of a name is an endpoint, and DNS changes are followed. "
            "`false`: a name is one endpoint, resolved for each connection."
        ),
    )
    family: Literal["auto", "ipv4", "ipv6", "all"] = Field(
        "auto", description="Address family to use; `auto`: the one that has a route, IPv6 first."
    )
    servers: list[Annotated[str, AfterValidator(_check_server)]] = Field(
        [], description="DNS servers, `ADDRESS` or `ADDRESS:PORT`; empty for the system's."
    )
    refresh: PositiveDuration = Field(
        5.0, description="When a name is resolved again if the response had no TTL, or failed."
    )
    max_ttl: PositiveDuration = Field(
        60.0, description="When a name is resolved again at the latest, whatever its TTL."
    )


class GrpcHealthCheck(Section):
    """The standard health check of gRPC."""

    service: Annotated[str, AfterValidator(_check_service)] = Field(
        "", description="Service whose health is asked for; empty for that of the server."
    )


class HealthCheck(Section):
    """Active health checks of endpoints."""

    path: Annotated[str, AfterValidator(_check_request_path)] | None = Field(
        None, description="Path of the health check (GET); this, or `grpc`."
    )
    grpc: GrpcHealthCheck | None = Field(
        None, description="Ask the service `grpc.health.v1.Health`, by HTTP/2; this, or `path`."
    )
    host: Annotated[str, AfterValidator(_check_host_field)] | None = Field(
        None, description="`Host` of the health check; default: the target's."
    )
    interval: PositiveDuration = Field(10.0, description="Time between health checks.")
    timeout: PositiveDuration = Field(
        2.0, description="Limit on a health check, connecting included."
    )
    unhealthy_threshold: Int = Field(
        3, ge=1, description="Consecutive failures that make an endpoint unhealthy."
    )
    healthy_threshold: Int = Field(
        2, ge=1, description="Consecutive successes that make it healthy again."
    )
    expected_statuses: list[
        Annotated[
            str,
            BeforeValidator(_as_text),
            AfterValidator(_check_statuses),
            WithJsonSchema({"type": ["integer", "string"]}),
        ]
    ] = Field(
        ["200"], min_length=1, description="Statuses that count as a success: `200`, `200-299`."
    )


class Hedging(Section):
    """A second request beside one that takes its time; the first good response wins."""

    after: PositiveDuration = Field(
        description=(
            "How long to wait for a response before a second request is sent to another endpoint."
        )
    )


class UpstreamConfig(Section):
    """A group of targets that serve the same thing."""

    targets: list[Target] = Field(
        min_length=1,
        description="URLs: http://host:port, https://host:port, unix:///path; or mappings of `url` "
        "and `weight`.",
    )
    protocol: Literal["auto", "http1", "http2"] = Field(
        "auto",
        description=(
            "`auto`: what `https://` targets choose (ALPN), HTTP/1.1 for the others; `http2`: "
            "HTTP/2 only, also without TLS, as gRPC servers speak it; `http1`: HTTP/1.1 only."
        ),
    )
    balance: Literal["round_robin", "least_requests", "random_two", "consistent_hash"] = Field(
        "round_robin", description="Load-balancing policy."
    )
    hash_on: Annotated[str, AfterValidator(_check_hash_on)] = Field(
        "client_id",
        description=(
            "Key of `consistent_hash`: `client_id`, `source` (the client's address), or "
            "`header:NAME`."
        ),
    )
    timeouts: UpstreamTimeouts = Field(
        default_factory=UpstreamTimeouts, description="Deadlines towards the targets."
    )
    tls: UpstreamTls | None = Field(None, description="How `https://` targets are checked.")
    dns: Dns = Field(default_factory=Dns, description="How names become addresses.")
    slow_start: SlowStart = Field(
        default_factory=SlowStart, description="How new endpoints come to their share."
    )
    health_check: HealthCheck | None = Field(
        None, description="Ask endpoints regularly; without it, they are not."
    )
    outlier_detection: OutlierDetection | None = Field(
        None, description="Eject endpoints that fail; without it, they are not."
    )
    circuit_breaker: CircuitBreaker = Field(
        default_factory=CircuitBreaker, description="How much may be used at once."
    )
    retries: Retries = Field(default_factory=Retries, description="What is tried again.")
    hedging: Hedging | None = Field(
        None, description="Send slow requests twice; without it, they are not."
    )
