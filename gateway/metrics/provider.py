"""Metrics of the OAuth provider."""

from __future__ import annotations

from gateway.metrics.registry import Registry


class ProviderMetrics:
    """Clients, what they are given and refused, and users who sign in."""

    def __init__(self, registry: Registry) -> None:
        self.tokens_issued = registry.counter("tokens_issued", "Access tokens issued.", ["grant"])
        self.token_errors = registry.counter(
            "token_errors", "Refused token requests, by RFC 6749 error code.", ["error"]
        )
        self.authorization_codes = registry.counter(
            "authorization_codes",
            "Authorization codes: issued, redeemed, and replayed ones.",
            ["result"],
        )
        self.sign_ins = registry.counter("sign_ins", "Attempts of users to sign in.", ["result"])
        self.refresh_token_reuse = registry.counter(
            "refresh_token_reuse",
            "Refresh tokens that were used after they had been replaced; each ended its family.",
        )
        self.failed_client_limited = registry.counter(
            "failed_client_limited",
            "Requests refused because a client failed to authenticate too often.",
        )
        self.clients = registry.gauge("clients", "Registered clients, expired ones included.")
        self.clients_declared = registry.gauge(
            "clients_declared", "Clients that the configuration declares."
        )
        self.clients_in_sync = registry.gauge(
            "clients_in_sync",
            "Whether the store holds the clients that the configuration declares, not those that "
            "another gateway declared since.",
        )
        self.clients_in_sync.set(1)
        self.clients_expired = registry.gauge(
            "clients_expired", "Clients whose registration has ended."
        )
        self.clients_expiring = registry.gauge(
            "clients_expiring",
            "Clients whose registration ends within provider.client_expiry_warning.",
        )
