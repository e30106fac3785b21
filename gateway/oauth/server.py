"""The authorization server: what happens to clients and tokens, without HTTP.

Every way in, be it an endpoint, the admin API or the command line, ends here, so the
rules hold on all of them.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from gateway.metrics import Metrics
from gateway.oauth.api_keys import ApiKeys
from gateway.oauth.authentication import AuthenticatedClient, ClientAuthenticator
from gateway.oauth.authentication.assertion import AssertionVerifier
from gateway.oauth.authentication.presented import ClientCredentials
from gateway.oauth.authorization.codes import AuthorizationCodes
from gateway.oauth.authorization.request import AuthorizationRequests
from gateway.oauth.client_documents import ClientDocuments
from gateway.oauth.client_metadata import metadata_of
from gateway.oauth.clients import ClientRegistry, RegisteredClient
from gateway.oauth.credentials import SecretHasher, random_text
from gateway.oauth.errors import (
    InvalidClientError,
    UnauthorizedClientError,
    UnsupportedGrantTypeError,
    UnsupportedTokenTypeError,
)
from gateway.oauth.grants import Grant, GrantRequest, IdentifyingGrant
from gateway.oauth.grants.authorization_code import AuthorizationCodeGrant
from gateway.oauth.grants.client_credentials import ClientCredentialsGrant
from gateway.oauth.grants.jwt_bearer import JwtBearerGrant
from gateway.oauth.grants.refresh_token import RefreshTokenGrant
from gateway.oauth.grants.token_exchange import TokenExchangeGrant
from gateway.oauth.identity_assertions import IdentityAssertions
from gateway.oauth.issuing import IssuedToken, TokenIssuer
from gateway.oauth.jose import JwtError, read_jwt
from gateway.oauth.keys.remote import RemoteKeys
from gateway.oauth.keys.signing import SigningKeys
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import AccessToken, Clock, Store, digest_token
from gateway.oauth.parameters import Parameters
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.refresh import RefreshTokens
from gateway.oauth.token_cache import TokenCache
from gateway.oauth.users import UserDirectory
from gateway.oauth.users.tokens import UserTokens
from gateway.oauth.workloads.clients import WorkloadClients
from gateway.oauth.workloads.rules import Workload, WorkloadRules
from gateway.oauth.workloads.tokens import WorkloadTokens

OnWorkload = Callable[[Workload, str, str], Awaitable[None]]
"""Is called with each workload that got a token, the client that it is, and its address."""

__all__ = ["AuthorizationServer", "IssuedToken", "ProviderPolicy", "RegisteredClient"]


class AuthorizationServer(ClientRegistry):
    """The registry of clients, and tokens for them: issued, inspected and revoked."""

    def __init__(
        self,
        store: Store,
        policy: ProviderPolicy,
        hasher: SecretHasher,
        limiter: FailedClientLimiter,
        metrics: Metrics,
        *,
        signer: SigningKeys,
        key_source: RemoteKeys,
        tokens: TokenCache,
        documents: ClientDocuments | None = None,
        api_keys: ApiKeys | None = None,
        on_issued: Callable[[str], None] = lambda client_id: None,
        on_workload: OnWorkload | None = None,
        wall_clock: Clock = time.time,
        random_text: Callable[[int], str] = random_text,
    ) -> None:
        super().__init__(store, policy, hasher, wall_clock=wall_clock, random_text=random_text)
        self._limiter = limiter
        self._metrics = metrics
        self._signer = signer
        self._key_source = key_source
        self._tokens = tokens
        self.documents = documents
        """Reads the documents of clients whose id is a URL."""
        self.api_keys = api_keys or ApiKeys(store, wall_clock=wall_clock)
        self._on_issued = on_issued
        self._on_workload = on_workload
        self.reconfigure(policy)

    def reconfigure(self, policy: ProviderPolicy) -> None:
        """Go by other rules from now on."""
        self._policy = policy
        if self.documents is not None:
            self.documents.reconfigure(policy)
        store, wall_clock = self.store, self._wall_clock
        workloads = self._build_workloads(policy)
        assertions = AssertionVerifier(
            store.records, policy, self._key_source, wall_clock=wall_clock
        )
        self._authenticator = ClientAuthenticator(
            store.clients,
            self._hasher,
            assertions,
            self._limiter,
            self._metrics,
            policy=policy,
            workloads=workloads,
            wall_clock=wall_clock,
        )
        user_tokens = UserTokens(store)
        self._issuer = issuer = TokenIssuer(
            store.tokens,
            policy,
            self._signer,
            self._metrics,
            on_issued=self._on_issued,
            user_tokens=user_tokens,
            wall_clock=wall_clock,
            random_text=self._random_text,
        )
        self.refresh_tokens = refresh_tokens = RefreshTokens(
            store,
            issuer,
            policy,
            self._metrics,
            wall_clock=wall_clock,
            random_text=self._random_text,
        )
        self.users = UserDirectory(
            store, self._hasher, user_tokens, refresh_tokens.end_user, wall_clock=wall_clock
        )
        self.authorization_requests = AuthorizationRequests(
            store.clients, issuer, self.documents, wall_clock=wall_clock
        )
        self.codes = AuthorizationCodes(
            store,
            self._metrics,
            ttl_s=policy.code_ttl_s,
            families=refresh_tokens,
            wall_clock=wall_clock,
            random_text=self._random_text,
        )
        grants: tuple[Grant, ...] = (
            ClientCredentialsGrant(issuer),
            AuthorizationCodeGrant(issuer, refresh_tokens, self.codes, self.users),
            RefreshTokenGrant(issuer, self.refresh_tokens),
            TokenExchangeGrant(issuer, self._tokens, workloads),
            JwtBearerGrant(issuer, workloads, self._build_identity_assertions(policy)),
        )
        self._grants = {
            grant.grant_type: grant for grant in grants if grant.grant_type in policy.grant_types
        }

    def _build_workloads(self, policy: ProviderPolicy) -> WorkloadClients:
        rules, wall_clock = WorkloadRules(policy.workloads), self._wall_clock
        tokens = WorkloadTokens(
            rules,
            lambda: self._tokens.jwt_issuers,
            self.store.records,
            audiences={policy.issuer, policy.url(policy.token_path)},
            resources=policy.resource_names,
            wall_clock=wall_clock,
        )
        return WorkloadClients(self.store, policy, rules, tokens, wall_clock=wall_clock)

    def _build_identity_assertions(self, policy: ProviderPolicy) -> IdentityAssertions:
        return IdentityAssertions(
            policy.identity_assertions,
            lambda: self._tokens.jwt_issuers,
            self.store.records,
            audience=policy.issuer,
            wall_clock=self._wall_clock,
        )

    @property
    def policy(self) -> ProviderPolicy:
        """The rules of this provider."""
        return self._policy

    async def authenticate(
        self, credentials: ClientCredentials, *, certificate: bytes | None = None, source: str
    ) -> AuthenticatedClient:
        """The client at address `source`; see `ClientAuthenticator`."""
        return await self._authenticator.authenticate(
            credentials, certificate=certificate, source=source
        )

    async def identify(
        self,
        grant: Grant,
        credentials: ClientCredentials,
        parameters: Parameters,
        *,
        certificate: bytes | None = None,
        source: str,
    ) -> tuple[AuthenticatedClient, bool]:
        """The client of a token request, and whether it was the grant that identified it.

        Raises `OAuthError` and `StoreUnavailableError`.
        """
        if isinstance(grant, IdentifyingGrant):
            client = await grant.identify(credentials, parameters)
            if client is not None:
                return client, True
        client = await self.authenticate(credentials, certificate=certificate, source=source)
        return client, False

    def grant(self, grant_type: str) -> Grant:
        """The grant of this name. Raises `UnsupportedGrantTypeError`."""
        grant = self._grants.get(grant_type)
        if grant is None:
            raise UnsupportedGrantTypeError(
                f"Unknown grant type {grant_type[:100]!r} (known: {', '.join(self._grants)})."
            )
        return grant

    async def issue(self, grant: Grant, request: GrantRequest) -> IssuedToken:
        """A token by a grant, if the client may use it.

        Raises `OAuthError` and `StoreUnavailableError`.
        """
        if grant.grant_type not in request.client.metadata.grant_types:
            raise UnauthorizedClientError("This client is not registered for this grant.")
        issued = await grant.issue(request)
        if issued.workload is not None and self._on_workload is not None:
            await self._on_workload(issued.workload, issued.token.client_id, request.source)
        return issued

    async def issue_token_to(
        self, client_id: str, *, scope: str | None = None, ttl_s: float | None = None
    ) -> IssuedToken:
        """A token for a client on an operator's word, without its secret.

        Raises `InvalidClientError` for a client that does not exist or has ended,
        `InvalidScopeError` and `StoreUnavailableError`.
        """
        registered = await self.store.clients.get_client(client_id)
        if registered is None or registered.is_expired(self._wall_clock()):
            raise InvalidClientError("There is no such client, or its registration has ended.")
        client = AuthenticatedClient(registered, metadata_of(registered))
        return await self._issuer.issue(
            client,
            grant_type="client_credentials",
            scopes=self._issuer.choose_scopes(client, scope),
            audience=self._issuer.choose_audience(client, ()),
            ttl_s=ttl_s,
        )

    async def inspect_token(self, access_token: str) -> AccessToken | None:
        """The token, or None where it is unknown or has expired.

        Raises `StoreUnavailableError`.
        """
        token = await self.store.tokens.get_token(digest_token(access_token))
        if token is None or token.expires_at <= self._wall_clock():
            return None
        return token

    async def revoke_own_token(self, client: AuthenticatedClient, token: str) -> None:
        """Revoke a token of this client, access or refresh; one that is unknown is as good as
        revoked (RFC 7009 section 2.2).

        Raises `UnauthorizedClientError` for a token of another client,
        `UnsupportedTokenTypeError` for one of another issuer, and `StoreUnavailableError`.
        """
        client_id = client.client.client_id
        if await self.revoke_token(token, of_client=client_id) is None and self._is_external(token):
            raise UnsupportedTokenTypeError

    def _is_external(self, token: str) -> bool:
        try:
            return read_jwt(token).text("iss") != self._policy.issuer
        except JwtError:
            return False

    async def revoke_token(self, token: str, *, of_client: str | None = None) -> str | None:
        """Revoke a token, access or refresh, and with it the family it belongs to: all that were
        issued by the same grant (RFC 7009 section 2.1). Returns the id of its client, None where
        there was no such token.

        Raises `UnauthorizedClientError` where it is not `of_client`, if given, and
        `StoreUnavailableError`.
        """
        digest = digest_token(token)
        access = await self.store.tokens.get_token(digest)
        if access is not None:
            client_id, family = access.client_id, access.family
        elif state := await self.refresh_tokens.find_family(token):
            client_id, family = state.family.client_id, state.key
        else:
            return None
        if of_client not in {None, client_id}:
            raise UnauthorizedClientError("The token was issued to another client.")
        if family is not None:
            await self.refresh_tokens.end(family)
        await self.store.tokens.revoke_token(digest)
        return client_id

    async def revoke_kept(self, *, digest: bytes | None = None, family: str = "") -> str | None:
        """The same for who has no token at hand, but its digest or the key of its family."""
        access = await self.store.tokens.get_token(digest) if digest is not None else None
        client_id = None if access is None else access.client_id
        if key := family or (access.family if access else None):
            ended = await self.refresh_tokens.end(key)
            client_id = client_id or (ended.client_id if ended else None)
        if digest is not None:
            await self.store.tokens.revoke_token(digest)
        return client_id
