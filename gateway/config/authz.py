"""Decision mode: what other proxies may ask, and how they say it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.config.scalars import Network, Path, Port, Section


class Authz(Section):
    """The listener of decision mode."""

    host: str = Field("127.0.0.1", description="Address to listen on; not for the public.")
    port: Port = Field(9091, description="Port to listen on; 0 takes any free one.")
    path: Path = Field(
        "/authz", description="Path that is asked; with dialect `envoy`, the `path_prefix`."
    )
    dialect: Literal["nginx", "ingress_nginx", "forward_auth", "envoy"] = Field(
        description="Which fields tell the request asked about."
    )
    trusted_proxies: list[Network] = Field(
        min_length=1, description="Networks of the proxies that may ask; others get 403."
    )
