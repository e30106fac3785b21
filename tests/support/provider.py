"""A provider over a real store, with clocks that a test moves."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
from support.settings import SIGNING, policy

from gateway.app.document_client import DocumentClient
from gateway.app.json_client import JsonClient
from gateway.metrics import Metrics
from gateway.oauth.authentication.presented import ClientCredentials
from gateway.oauth.binding.dpop import DpopProofs
from gateway.oauth.client_documents import ClientDocuments
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.endpoints import EndpointRequest, EndpointResponse, ProviderEndpoints
from gateway.oauth.endpoints.authorize import authorization_endpoints
from gateway.oauth.external_issuers import ExternalTokens
from gateway.oauth.external_issuers.introspection import IntrospectionServer, IntrospectionServers
from gateway.oauth.external_issuers.jwt import JwtIssuer, JwtIssuers
from gateway.oauth.grants import GrantRequest
from gateway.oauth.issuing import IssuedToken
from gateway.oauth.keys.remote import RemoteKeys
from gateway.oauth.keys.sealing import Seal
from gateway.oauth.keys.signing import SigningKeys
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import Change, Store
from gateway.oauth.server import AuthorizationServer, ProviderPolicy
from gateway.oauth.token_cache import TokenCache
from gateway.oauth.users.consents import Consents
from gateway.oauth.users.upstream import UpstreamProvider
from gateway.store.sqlite.file import SqliteFile
from gateway.store.sqlite.store import SqliteStore

POLICY = policy(
    issuer="http://gateway.test",
    client_ttl_s=30 * 86400.0,
    scopes=("orders:read", "orders:write"),
    default_scopes=("orders:read",),
    registration_token="registration-token",
)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
REGISTER = {"Authorization": "Bearer registration-token"}


def basic(client_id: str, client_secret: str) -> dict[str, str]:
    """The header of HTTP Basic credentials, as they are."""
    pair = f"{client_id}:{client_secret}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


SEAL = Seal(lambda: b"a secret that seals keys in tests")


@dataclass
class Clock:
    """A clock that a test moves."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class CountingHasher(SecretHasher):
    """Counts the hashes it computes; cheap ones, since their strength is not tested here."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(memory_kib=8, iterations=1, clock=clock)
        self.count = 0

    def _verify(self, secret: str, secret_hash: str) -> bool:
        self.count += 1
        assert secret_hash.startswith("$argon2id$"), "less work than a hash takes"
        return super()._verify(secret, secret_hash)


@dataclass
class Provider:
    """The parts of a provider, joined as the app joins them."""

    store: Store
    policy: ProviderPolicy
    clock: Clock = field(default_factory=Clock)
    metrics: Metrics = field(default_factory=Metrics)
    nonces: bool = False
    upstream: UpstreamProvider | None = None

    def __post_init__(self) -> None:
        self.hasher = CountingHasher(self.clock)
        self.limiter = FailedClientLimiter(clock=self.clock)
        self.fetcher = JsonClient()
        self.documents_client = DocumentClient()
        self.remote_keys = RemoteKeys(self.fetcher.get, clock=self.clock)
        self.trust()

    def use(self, policy: ProviderPolicy) -> None:
        """Go on with other rules."""
        self.policy = policy
        self.signing_keys = SigningKeys(self.store.records, SEAL, SIGNING, wall_clock=self.clock)
        self.server = AuthorizationServer(
            self.store, policy, self.hasher, self.limiter, self.metrics,
            signer=self.signing_keys,
            key_source=self.remote_keys,
            tokens=self.validator,
            documents=ClientDocuments(
                self.store, policy, self.documents_client.fetch,
                clock=self.clock, wall_clock=self.clock,
            ),
            wall_clock=self.clock,
        )  # fmt: skip
        self.proofs = DpopProofs(SEAL, requires_nonce=self.nonces, wall_clock=self.clock)
        self.endpoints = ProviderEndpoints(
            self.server, self.validator, policy, self.limiter, self.metrics,
            records=self.store.records, proofs=self.proofs, signing_keys=self.signing_keys,
            authorization=self._authorization(),
            wall_clock=self.clock,
        )  # fmt: skip

    async def issue_token(
        self, client_id: str, client_secret: str, scope: str | None, source: str
    ) -> IssuedToken:
        """A token by the client credentials grant, for a client at the address `source`."""
        credentials = ClientCredentials(client_id, client_secret, "basic")
        client = await self.server.authenticate(credentials, source=source)
        parameters = {} if scope is None else {"scope": scope}
        request = GrantRequest(client, parameters)
        return await self.server.issue(self.server.grant("client_credentials"), request)

    def _authorization(self) -> dict[str, Any]:
        if "authorization_code" not in self.policy.grant_types:
            return {}
        users, clock = self.server.users, self.clock
        self.sessions = users.sessions(ttl_s=8 * 3600.0, wall_clock=clock)
        return {
            **authorization_endpoints(
                self.server, self.policy, seal=SEAL, sessions=self.sessions,
                consents=Consents(self.store.records, ttl_s=None, wall_clock=clock),
                limiter=self.limiter, metrics=self.metrics, upstream=self.upstream,
                wall_clock=clock,
            )
        }  # fmt: skip

    def trust(self, *issuers: JwtIssuer, servers: Sequence[IntrospectionServer] = ()) -> None:
        """Go on with other issuers beside this one."""
        self.validator = TokenCache(
            self.store.tokens, self.metrics, audience=(self.policy.issuer,),
            external=ExternalTokens(
                JwtIssuers(issuers, self.remote_keys, wall_clock=self.clock),
                IntrospectionServers(servers, self.fetcher.post_form, wall_clock=self.clock),
            ),
            clock=self.clock, wall_clock=self.clock,
        )  # fmt: skip
        self.use(self.policy)

    def change(self, **rules: Any) -> None:
        """Go on with some rules changed."""
        self.use(replace(self.policy, **rules))

    async def fetch(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        body: str | bytes = b"",
        *,
        query: str = "",
        source: str = "192.0.2.1",
        **more: Any,
    ) -> Reply:
        """Send a request to the endpoints."""
        pairs = list(headers.items()) if isinstance(headers, dict) else headers or []
        response = await self.endpoints.respond(
            EndpointRequest(
                method=method,
                path=path,
                query=query,
                headers=[(name.encode(), value.encode()) for name, value in pairs],
                body=body.encode() if isinstance(body, str) else body,
                source=source,
                **more,
            )
        )
        return Reply(response)


class Reply:
    """A response, its body decoded."""

    def __init__(self, response: EndpointResponse) -> None:
        self.status = response.status
        self.headers = dict(response.headers)
        self.reason = response.reason
        self.fields = response.headers
        self.body = response.body
        is_json = self.headers.get("Content-Type") == "application/json"
        self.json: dict[str, Any] = msgspec.json.decode(response.body) if is_json else {}

    @property
    def error(self) -> tuple[int, str | None]:
        """Status and error code."""
        return self.status, self.json.get("error")


@asynccontextmanager
async def open_provider(
    directory: Path, policy: ProviderPolicy = POLICY
) -> AsyncIterator[Provider]:
    """A provider over a store in `directory`."""
    clock = Clock()

    def forget(change: Change) -> None:
        provider.validator.forget(change)

    store = SqliteStore(SqliteFile(directory / "gateway.db", on_change=forget, wall_clock=clock))
    provider = Provider(store, policy, clock)
    yield provider
    await provider.hasher.close()
    await provider.fetcher.close()
    await provider.documents_client.close()
    await store.close()
