"""Sections of a route's request filters: limits, addresses, maintenance, CORS, compression."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.config.scalars import (
    Bool,
    HeaderName,
    MediaType,
    Method,
    Name,
    Network,
    Origin,
    Regex,
    Section,
)
from gateway.units import Duration, Int, Size


class Limits(Section):
    """How large requests may be."""

    body: Size | None = Field(None, description="Limit on the bytes of a request body; else 413.")


class Addresses(Section):
    """IP allow and deny lists, by the client address as far as it can be trusted."""

    allow: list[Network] = Field(
        [], description="Networks of the clients that are allowed; if given, others get 403."
    )
    deny: list[Network] = Field(
        [], description="Networks of clients that are denied (403), also within `allow`."
    )


class Maintenance(Section):
    """Closed for now."""

    enabled: Bool = Field(
        True, description="Whether maintenance is on; `false` is as if the section were not there."
    )
    retry_after: Duration = Field(300.0, description="Value of `Retry-After`; 0 for none.")
    allow: list[Network] = Field(
        [], description="Networks of the clients that are served during maintenance."
    )


class CorsConfig(Section):
    """Which pages of other origins may call, and how (Fetch standard)."""

    origins: list[Origin] = Field(
        [],
        description="Allowed origins, `https://*.example.com` for all below one, or `*` for all.",
    )
    origin_regexes: list[Regex] = Field([], description="Patterns (RE2) of allowed origins.")
    methods: list[Method] = Field(
        [], description="Allowed methods; empty for those of the route, or all common ones."
    )
    headers: list[HeaderName] = Field(
        ["Authorization", "Content-Type"], description="Request header fields that scripts may set."
    )
    expose_headers: list[HeaderName] = Field(
        [], description="Response header fields that scripts may read."
    )
    credentials: Bool = Field(False, description="Whether browsers may send cookies.")
    max_age: Duration = Field(
        600.0, description="How long browsers may cache the result of a preflight."
    )


class Compress(Section):
    """Compression of responses."""

    types: list[MediaType] = Field(
        [
            "application/javascript", "application/json", "application/problem+json",
            "application/xml", "image/svg+xml", "text/css", "text/csv", "text/html",
            "text/javascript", "text/plain", "text/xml",
        ],
        description="Media types to compress.",
    )  # fmt: skip
    min_size: Size = Field(
        1024, description="Smallest response to compress, where its length is known."
    )
    encodings: list[Literal["gzip", "br"]] = Field(
        ["gzip"],
        min_length=1,
        description="Content codings in order of preference; `br` needs the package `brotli`.",
    )


class SplitShare(Section):
    """An upstream's share of the requests."""

    upstream: Name = Field(description="Name of the upstream.")
    weight: Int = Field(ge=0, description="Share of the requests, in proportion to the others.")


class MirrorConfig(Section):
    """A copy of requests for another upstream, whose responses are dropped."""

    upstream: Name = Field(description="Name of the upstream.")
    percent: float = Field(
        100.0, ge=0, le=100, strict=False, description="Percentage of the requests that are copied."
    )
    max_in_flight: Int = Field(
        100, ge=1, description="Limit on copies in flight; further ones are dropped."
    )
