"""The outcome of client authentication."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.oauth.client_metadata import ClientMetadata
from gateway.oauth.errors import UnauthorizedClientError
from gateway.oauth.models import Client
from gateway.oauth.workloads.rules import Workload


@dataclass(frozen=True, slots=True)
class AuthenticatedClient:
    """A client that proved who it is, or that is public and can't."""

    client: Client
    metadata: ClientMetadata = field(repr=False)
    workload: Workload | None = None
    """Who the platform says that it is, where that is its proof."""
    token_ttl_s: float | None = None
    """How long its tokens live, where a rule says so."""

    @property
    def is_public(self) -> bool:
        """Whether it can't prove who it is (RFC 6749 section 2.1)."""
        return self.workload is None and self.metadata.token_endpoint_auth_method == "none"

    def require_proof(self) -> None:
        """Raises `UnauthorizedClientError` for a public client."""
        if self.is_public:
            raise UnauthorizedClientError("A public client may not do this.")
