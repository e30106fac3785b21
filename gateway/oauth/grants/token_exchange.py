"""Token exchange: a service swaps the token it got for one to call the next (RFC 8693).

The new token belongs to the service, speaks for whom the old one spoke for (`sub`), and
says through whose hands it went (`act`). It never lives longer or reaches further than
the old one, nor further than the service itself may reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.oauth.authenticated import AuthenticatedClient
from gateway.oauth.authentication.presented import ClientCredentials
from gateway.oauth.errors import (
    InvalidRequestError,
    InvalidScopeError,
    InvalidTargetError,
    InvalidTokenError,
)
from gateway.oauth.grants import GrantRequest
from gateway.oauth.issuing import WORKLOAD_CLAIM, IssuedToken, TokenIssuer
from gateway.oauth.models import AccessToken, TokenFormat, digest_token
from gateway.oauth.parameters import Parameters, split_scope
from gateway.oauth.policy import TOKEN_EXCHANGE
from gateway.oauth.token_cache import TokenCache
from gateway.oauth.workloads.clients import WorkloadClients
from gateway.oauth.workloads.tokens import WorkloadError

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
"""As platforms call the tokens that they give to workloads."""
MAX_ACTORS = 10
"""How many services a chain may have."""


class TokenExchangeGrant:
    """See `Grant`."""

    grant_type = TOKEN_EXCHANGE

    def __init__(self, issuer: TokenIssuer, tokens: TokenCache, workloads: WorkloadClients) -> None:
        self._issuer = issuer
        self._tokens = tokens
        self._workloads = workloads

    async def identify(
        self, credentials: ClientCredentials, parameters: Parameters
    ) -> AuthenticatedClient | None:
        """A workload that exchanges the token of its platform needs no other authentication."""
        subject_token = parameters.get("subject_token")
        is_workloads = subject_token is not None and self._is_of_workload(
            subject_token, parameters.get("subject_token_type")
        )
        if not is_workloads or subject_token is None or not credentials.is_id_alone:
            return None
        if "actor_token" in parameters:
            raise InvalidRequestError("actor_token needs client authentication.")
        return await self._read_workload(subject_token, credentials.client_id)

    async def issue(self, request: GrantRequest) -> IssuedToken:
        client, parameters = request.client, request.parameters
        client.require_proof()
        requested = parameters.get("requested_token_type", ACCESS_TOKEN)
        if requested not in {ACCESS_TOKEN, JWT}:
            raise InvalidRequestError("requested_token_type is not one that is issued here.")
        token_format: TokenFormat | None = "jwt" if requested == JWT else None
        if request.is_identified and client.workload is not None:
            return await self._issuer.issue(
                client,
                grant_type=self.grant_type,
                scopes=self._issuer.choose_scopes(client, parameters.get("scope")),
                audience=self._issuer.choose_audience(
                    client, (*request.resources, *request.audiences)
                ),
                confirmation=request.confirmation,
                not_after=client.workload.expires_at,
                token_format=token_format,
                members={"issued_token_type": requested},
            )
        subject = await self._read(parameters, "subject_token")
        if subject is None:
            raise InvalidRequestError("subject_token is missing.")
        actor = await self._read(parameters, "actor_token")
        client_id = client.client.client_id
        if actor is not None and actor.client_id != client_id:
            raise InvalidRequestError("actor_token must belong to the client that asks.")
        _check_may_act(subject, client_id)
        if subject.claims.get("cnf") and not request.confirmation:
            # Else the bound token could be swapped for one that works for any holder.
            raise InvalidRequestError(
                "subject_token is bound to a key or certificate; ask with a DPoP proof or a "
                "certificate of your own, to which the new token is bound."
            )
        return await self._issuer.issue(
            client,
            grant_type=self.grant_type,
            scopes=self._choose_scopes(client, subject, parameters.get("scope")),
            audience=self._choose_audience(
                client, subject, (*request.resources, *request.audiences)
            ),
            confirmation=request.confirmation,
            claims={**_speaks_for(subject), "act": _extend_actors(subject, client_id)},
            not_after=subject.expires_at,
            token_format=token_format,
            members={"issued_token_type": requested},
        )

    async def _read(self, parameters: Mapping[str, str], name: str) -> AccessToken | None:
        """RFC 8693 section 2.1: a token and its type, both or none."""
        value, kind = parameters.get(name), parameters.get(f"{name}_type")
        if value is None and kind is None:
            return None
        if value is not None and self._is_of_workload(value, kind):
            return _token_of(await self._read_workload(value), value)
        if value is None or kind not in {ACCESS_TOKEN, JWT}:
            raise InvalidRequestError(
                f"{name} and {name}_type must be given together; the type must be "
                f"{ACCESS_TOKEN} or {JWT}."
            )
        try:
            return (await self._tokens.lookup_token(value)).token
        except InvalidTokenError:
            # RFC 8693 section 2.2.2 wants this code, whatever is wrong with the token.
            raise InvalidRequestError(f"{name} is not valid.") from None

    def _is_of_workload(self, value: str, kind: str | None) -> bool:
        return kind in {JWT, ID_TOKEN} and self._workloads.is_known(value)

    async def _read_workload(self, value: str, client_id: str = "") -> AuthenticatedClient:
        try:
            return await self._workloads.authenticate(value, client_id)
        except WorkloadError as error:
            raise InvalidRequestError(error.description, reason=error.reason) from None

    def _choose_audience(
        self, client: AuthenticatedClient, subject: AccessToken, requested: Sequence[str]
    ) -> Sequence[str]:
        """Choose among what the old token is for, unless an operator has registered what the
        service gets tokens for. Raises `InvalidTargetError`."""
        chosen = self._issuer.choose_audience(client, requested)
        old = self._tokens.audience_of(subject)
        is_of_operator = client.metadata.registered_by in {None, "workload"}
        if not old or (is_of_operator and client.metadata.audiences):
            return chosen
        within = tuple(name for name in chosen if name in old) if chosen else tuple(sorted(old))
        if not within or not set(requested) <= old:
            raise InvalidTargetError(
                "The subject token is for other resources, and no operator has registered audiences"
                " of this client."
            )
        return within

    def _choose_scopes(
        self, client: AuthenticatedClient, subject: AccessToken, scope: str | None
    ) -> Sequence[str]:
        reachable = [name for name in client.client.scopes if name in subject.scopes]
        if scope is None:
            if client.client.scopes and not reachable:
                raise InvalidScopeError("The subject token has no scope that this client may use.")
            return reachable
        requested = split_scope(scope)
        if not set(requested) <= set(reachable):
            raise InvalidScopeError("The scope exceeds that of the subject token.")
        return requested


def _token_of(client: AuthenticatedClient, value: str) -> AccessToken:
    """The token of a platform as the one that the workload would get for it."""
    workload, audiences = client.workload, client.metadata.audiences
    assert workload is not None
    return AccessToken(
        digest=digest_token(value),
        client_id=client.client.client_id,
        client_name=client.client.client_name,
        scopes=client.client.scopes,
        issued_at=0.0,
        expires_at=workload.expires_at,
        claims={WORKLOAD_CLAIM: workload.claim, **({"aud": list(audiences)} if audiences else {})},
    )


def _speaks_for(subject: AccessToken) -> dict[str, Any]:
    claims = {"sub": subject.claims.get("sub", subject.client_id)}
    # Clients of other issuers have a colon in their id. A user of ours is known by the name: the
    # new token ends with the user, like the old one.
    if ":" not in subject.client_id and "username" in subject.claims:
        claims["username"] = subject.claims["username"]
    return claims


def _check_may_act(subject: AccessToken, client_id: str) -> None:
    """RFC 8693 section 4.4: a token may say who alone can act for its subject."""
    may_act = subject.claims.get("may_act")
    if isinstance(may_act, Mapping) and client_id not in [
        may_act.get("sub"),
        may_act.get("client_id"),
    ]:
        raise InvalidRequestError("subject_token does not let this client act.")


def _extend_actors(subject: AccessToken, client_id: str) -> dict[str, Any]:
    """RFC 8693 section 4.1: the newest actor outside, those before it within."""
    earlier = subject.claims.get("act")
    depth, inner = 1, earlier
    while isinstance(inner, Mapping):
        depth, inner = depth + 1, inner.get("act")
    if depth > MAX_ACTORS:
        raise InvalidRequestError("The chain of actors is too long.")
    actor: dict[str, Any] = {"sub": client_id}
    if isinstance(earlier, Mapping):
        actor["act"] = dict(earlier)
    return actor
