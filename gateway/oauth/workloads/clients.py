"""From a workload to the client that it is.

The rule alone is enough: a client that is not registered is added to the store with its first
token, so that its tokens are listed, limited and revoked like those of others. One that is
registered stays as it is; a workload gets what both the rule and the registration allow.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.oauth.authenticated import AuthenticatedClient
from gateway.oauth.client_metadata import ClientMetadata, metadata_of
from gateway.oauth.models import Client, ClientExistsError, Clock, Store
from gateway.oauth.policy import CLIENT_CREDENTIALS, JWT_BEARER, TOKEN_EXCHANGE, ProviderPolicy
from gateway.oauth.workloads.certificates import find_by_certificate
from gateway.oauth.workloads.rules import Workload, WorkloadRule, WorkloadRules
from gateway.oauth.workloads.tokens import WorkloadError, WorkloadTokens

UPDATE_ATTEMPTS = 5
RENEW_BELOW = 0.9
"""The share of a registration's lifetime below which use extends it."""
_GRANTS = (CLIENT_CREDENTIALS, JWT_BEARER, TOKEN_EXCHANGE)
"""What a rule allows to a client that is not registered, as far as the provider gives it."""


class WorkloadClients:
    """Authenticates workloads."""

    def __init__(
        self,
        store: Store,
        policy: ProviderPolicy,
        rules: WorkloadRules,
        tokens: WorkloadTokens,
        *,
        wall_clock: Clock,
    ) -> None:
        self._store = store
        self._policy = policy
        self._rules = rules
        self._tokens = tokens
        self._wall_clock = wall_clock

    def is_known(self, token: str) -> bool:
        """Whether a token says that it is of an issuer whose workloads have rules."""
        return self._tokens.is_known(token)

    @property
    def takes_certificates(self) -> bool:
        """Whether there is a rule for certificates."""
        return self._rules.has_certificates

    async def authenticate(self, token: str, client_id: str = "") -> AuthenticatedClient:
        """The client that a workload is, by its token; `client_id` is what the request names.

        Raises `WorkloadError` and `StoreUnavailableError`.
        """
        return await self._find_client(*await self._tokens.verify(token, client_id))

    async def find_by_certificate(
        self, der: bytes, client_id: str = ""
    ) -> AuthenticatedClient | None:
        """The client that a workload is, by its certificate; None where there is no rule for it.

        Raises `WorkloadError` and `StoreUnavailableError`.
        """
        if not self.takes_certificates:
            return None
        found = find_by_certificate(self._rules, der, self._wall_clock(), client_id)
        return None if found is None else await self._find_client(*found)

    async def _find_client(self, workload: Workload, rule: WorkloadRule) -> AuthenticatedClient:
        client = await self._store.clients.get_client(rule.client_id)
        grants: tuple[str, ...] = (JWT_BEARER,)
        if client is None or _is_of_rules(client):
            client = await self._keep(client, rule)
            scopes, grants = rule.scopes or (), _GRANTS
        else:
            if client.is_expired(self._wall_clock()):
                raise WorkloadError(
                    f"The registration of the client {rule.client_id!r} has expired.",
                    reason="client_expired",
                )
            wanted = client.scopes if rule.scopes is None else rule.scopes
            scopes = tuple(name for name in wanted if name in client.scopes)
        metadata = metadata_of(client)
        offered = (grant for grant in grants if grant in self._policy.grant_types)
        return AuthenticatedClient(
            replace(client, scopes=scopes),
            replace(
                metadata,
                grant_types=tuple(dict.fromkeys((*metadata.grant_types, *offered))),
                audiences=_narrow(rule, metadata.audiences),
            ),
            workload,
            rule.token_ttl_s,
        )

    async def _keep(self, stored: Client | None, rule: WorkloadRule) -> Client:
        """Store the client of a rule, or extend it. Raises `StoreUnavailableError`."""
        now, ttl_s = self._wall_clock(), self._policy.client_ttl_s
        end = None if ttl_s is None else now + ttl_s
        scopes = self._rules.scopes_of(rule.client_id)
        for _ in range(UPDATE_ATTEMPTS):
            if stored is None:
                client = Client(
                    client_id=rule.client_id,
                    client_name=rule.client_id,
                    secret_hash="",
                    scopes=scopes,
                    created_at=now,
                    expires_at=end,
                    generation=int(now * 1_000_000),
                    metadata=_METADATA.stored(),
                )
                try:
                    await self._store.clients.add_client(client)
                    return client
                except ClientExistsError:
                    stored = await self._store.clients.get_client(rule.client_id)
                    continue
            if stored.scopes == scopes and _is_fresh(stored, now, ttl_s):
                return stored
            changed = replace(stored, scopes=scopes, expires_at=end)
            generation = stored.generation
            updated = await self._store.clients.update_client(changed, generation=generation)
            if updated is not None:
                return updated
            stored = await self._store.clients.get_client(rule.client_id)
        raise WorkloadError("The client is being changed.", reason="client_expired")


_METADATA = ClientMetadata(token_endpoint_auth_method="workload", registered_by="workload")


def _is_of_rules(client: Client) -> bool:
    """Whether rules alone added a client, and no configuration has declared it since."""
    metadata = metadata_of(client)
    return metadata.registered_by == "workload" and metadata.managed_by is None


def _is_fresh(client: Client, now: float, ttl_s: float | None) -> bool:
    """Whether the end of a registration is as far away as it should be."""
    if client.expires_at is None or ttl_s is None:
        return client.expires_at is None and ttl_s is None
    return client.expires_at - now > ttl_s * RENEW_BELOW


def _narrow(rule: WorkloadRule, registered: tuple[str, ...]) -> tuple[str, ...]:
    """The audiences of a rule that the client is registered for; empty is any, in both. Raises
    `WorkloadError` where there are none."""
    if not rule.audiences or not registered:
        return rule.audiences or registered
    both = tuple(name for name in rule.audiences if name in registered)
    if not both:
        raise WorkloadError(
            f"The client {rule.client_id!r} is registered for none of the audiences of its "
            "workload.",
            reason="workload_unknown",
        )
    return both
