"""External authorization: the listener for checks by other proxies."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.config.scalars import ListenHost, Network, Path, Port, Section


class Authz(Section):
    """The listener for external authorization (auth_request, ForwardAuth, ext_authz)."""

    host: ListenHost = Field(
        "127.0.0.1", description="IP address to listen on; must not be reachable by the public."
    )
    port: Port = Field(9091, description="Port to listen on; 0 for any free port.")
    path: Path = Field(
        "/authz",
        description="Path of authorization checks; with dialect `envoy`, the `path_prefix`.",
    )
    dialect: Literal["nginx", "ingress_nginx", "forward_auth", "envoy"] = Field(
        description="Which header fields describe the request to authorize."
    )
    trusted_proxies: list[Network] = Field(
        min_length=1,
        description="Networks of the proxies that may send authorization checks; others get 403.",
    )
