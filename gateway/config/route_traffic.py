"""What a route does about who calls, from where, and how much: the sections of its gates."""

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

    body: Size | None = Field(None, description="Bytes of a request body, else 413.")


class Addresses(Section):
    """Where clients may call from, by their address as far as it can be trusted."""

    allow: list[Network] = Field([], description="If given, only clients in one of these pass.")
    deny: list[Network] = Field([], description="Clients in one of these don't, in any case.")


class Maintenance(Section):
    """Closed for now."""

    enabled: Bool = Field(True, description="`false`: as if the section were not there.")
    retry_after: Duration = Field(300.0, description="What `Retry-After` tells; 0 leaves it out.")
    allow: list[Network] = Field([], description="Clients that pass all the same.")


class Cors(Section):
    """Which pages of other origins may call, and how (Fetch standard)."""

    origins: list[Origin] = Field(
        [], description="Origins, `https://*.example.com` for all below one, or `*` for all."
    )
    origin_regexes: list[Regex] = Field(
        [], description="Patterns (RE2) that a whole origin may be like."
    )
    methods: list[Method] = Field(
        [], description="Methods; those of the route, or all common ones, if empty."
    )
    headers: list[HeaderName] = Field(
        ["Authorization", "Content-Type"], description="Request fields that pages may set."
    )
    expose_headers: list[HeaderName] = Field([], description="Fields that pages may read.")
    credentials: Bool = Field(False, description="Whether browsers send cookies along.")
    max_age: Duration = Field(600.0, description="How long browsers remember the permission.")


class Compress(Section):
    """Which answers are compressed."""

    types: list[MediaType] = Field(
        [
            "application/javascript", "application/json", "application/problem+json",
            "application/xml", "image/svg+xml", "text/css", "text/csv", "text/html",
            "text/javascript", "text/plain", "text/xml",
        ],
        description="Media types that are.",
    )  # fmt: skip
    min_size: Size = Field(1024, description="Answers that are known to be smaller are not.")
    encodings: list[Literal["gzip", "br"]] = Field(
        ["gzip"],
        min_length=1,
        description="Codings, the best first; `br` needs the package `brotli`.",
    )


class SplitShare(Section):
    """An upstream's share of the requests."""

    upstream: Name = Field(description="Name of the upstream.")
    weight: Int = Field(ge=0, description="Its share, in proportion to the others.")


class Mirror(Section):
    """A copy of requests for another upstream, whose responses nobody gets."""

    upstream: Name = Field(description="Name of the upstream.")
    percent: float = Field(
        100.0, ge=0, le=100, strict=False, description="How many of the requests are copied."
    )
    max_in_flight: Int = Field(100, ge=1, description="Copies under way at once; more are dropped.")
