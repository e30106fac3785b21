"""Identity assertions (ID-JAG): an identity provider's word that a client may act for a user here.

The identity provider, at which the user is signed in, makes the assertion for one client and for
this provider; the client shows it by the JWT bearer grant, and the user is not asked again.

draft-ietf-oauth-identity-assertion-authz-grant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.clock import CLOCK_SKEW_S, has_come
from gateway.oauth.errors import InvalidGrantError, InvalidTokenError
from gateway.oauth.external_issuers.claims import qualify
from gateway.oauth.external_issuers.jwt import JwtIssuers, VerifiedJwt
from gateway.oauth.jose import Jwt, JwtError, looks_like_jwt, read_jwt
from gateway.oauth.models import Clock, RecordStore, client_owner
from gateway.oauth.policy import IdentityAssertionRule
from gateway.oauth.single_use import use_once

ID_JAG = "oauth-id-jag+jwt"
"""The `typ` of an identity assertion."""
GRANT_PROFILE = "urn:ietf:params:oauth:grant-profile:id-jag"
MAX_LIFETIME_S = 3600.0
MAX_ID_CHARS = 512
MAX_SUBJECT_CHARS = 255
USED_ASSERTION = "used-identity-assertion"


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """The user that a client may act for, and how far."""

    subject: str
    """With the name of the issuer."""
    scopes: tuple[str, ...] | None
    """Those that the assertion and the rule allow; None for any."""
    resources: tuple[str, ...]
    key: str | None
    """Thumbprint of the key that the token must be bound to."""
    token_ttl_s: float | None


class IdentityAssertions:
    """Verifies identity assertions."""

    def __init__(
        self,
        rules: Sequence[IdentityAssertionRule],
        issuers: Callable[[], JwtIssuers | None],
        records: RecordStore,
        *,
        audience: str,
        wall_clock: Clock,
    ) -> None:
        """`audience` is this provider's issuer."""
        self._rules = tuple(rules)
        self._issuers = issuers
        self._records = records
        self._audience = audience
        self._wall_clock = wall_clock

    def is_one(self, assertion: str) -> bool:
        """Whether an assertion says that it is one of a user's identity."""
        if not looks_like_jwt(assertion):
            return False
        try:
            return _type_of(read_jwt(assertion)) == ID_JAG
        except JwtError:
            return False

    async def verify(self, assertion: str, client_id: str) -> UserIdentity:
        """The user that a client may act for.

        Raises `InvalidGrantError` and `StoreUnavailableError`; an issuer that does not respond is
        such a store.
        """
        issuers = self._issuers()
        if issuers is None:
            raise _invalid()
        try:
            verified = await issuers.verify(assertion, audience=[self._audience], types=[ID_JAG])
        except (JwtError, InvalidTokenError):
            raise _invalid() from None
        rule = self._find_rule(issuers, verified, client_id)
        claims = verified.jwt
        if claims.text("client_id") != client_id:
            raise _invalid("The assertion is for another client.")
        subject, assertion_id = claims.text("sub"), claims.text("jti")
        is_complete = (
            subject is not None
            and len(subject) <= MAX_SUBJECT_CHARS
            and assertion_id is not None
            and len(assertion_id) <= MAX_ID_CHARS
            and verified.issued_at is not None
            and has_come(verified.expires_at - MAX_LIFETIME_S, self._wall_clock())
        )
        if not is_complete or subject is None:
            raise _invalid("The assertion needs sub, jti, iat, and exp within an hour.")
        identity = UserIdentity(
            subject=qualify(rule.issuer, subject),
            scopes=_read_scopes(claims, rule),
            resources=_read_texts(claims, "resource"),
            key=_read_key(claims),
            token_ttl_s=rule.token_ttl_s,
        )
        await self._use(verified, rule, client_id, str(assertion_id))
        return identity

    def _find_rule(
        self, issuers: JwtIssuers, verified: VerifiedJwt, client_id: str
    ) -> IdentityAssertionRule:
        for rule in self._rules:
            issuer = issuers.named(rule.issuer)
            is_its = issuer is not None and issuer.issuer == verified.issuer.issuer
            if is_its and (not rule.clients or client_id in rule.clients):
                return rule
        raise _invalid("This client may not use assertions of this issuer.")

    async def _use(
        self, verified: VerifiedJwt, rule: IdentityAssertionRule, client_id: str, assertion_id: str
    ) -> None:
        kept_until = verified.expires_at + max(verified.issuer.clock_skew_s, CLOCK_SKEW_S)
        if not await use_once(
            self._records,
            USED_ASSERTION,
            rule.issuer,
            assertion_id,
            until=kept_until,
            owner=client_owner(client_id),
        ):
            raise _invalid("The assertion was used before.", reason="workload_replayed")


def _type_of(jwt: Jwt) -> str:
    return str(jwt.header.get("typ", "")).lower().removeprefix("application/")


def _read_scopes(claims: Jwt, rule: IdentityAssertionRule) -> tuple[str, ...] | None:
    if "scope" not in claims.claims:
        return rule.scopes
    named = tuple((claims.text("scope") or "").split())
    return named if rule.scopes is None else tuple(one for one in named if one in rule.scopes)


def _read_texts(claims: Jwt, name: str) -> tuple[str, ...]:
    value = claims.claims.get(name, [])
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) for one in values):
        raise _invalid(f"{name} of the assertion can't be used.")
    return tuple(values)


def _read_key(claims: Jwt) -> str | None:
    confirmation = claims.claims.get("cnf")
    if confirmation is None:
        return None
    key = confirmation.get("jkt") if isinstance(confirmation, dict) else None
    if not isinstance(key, str):
        raise _invalid("cnf of the assertion can't be used.")
    return key


def _invalid(description: str = "", *, reason: str = "") -> InvalidGrantError:
    return InvalidGrantError(description or "The assertion is not valid.", reason=reason)
