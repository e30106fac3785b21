"""Tokens that platforms give to workloads: service account tokens, JWT-SVIDs, tokens of CI jobs.

One is accepted as a client assertion and as a grant (RFC 7523 sections 2.2 and 2.1), and as the
subject of a token exchange (RFC 8693). What is checked is the same: signature and times, an
audience that is this provider, a rule for its subject, and, where it has a `jti`, that it is used
once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from gateway.clock import CLOCK_SKEW_S, has_come, is_over
from gateway.oauth.external_issuers.jwt import JwtIssuer, JwtIssuers
from gateway.oauth.jose import Jwt, JwtError, looks_like_jwt, read_jwt
from gateway.oauth.models import Clock, RecordStore
from gateway.oauth.single_use import use_once
from gateway.oauth.workloads.platforms import describe_workload, is_service_account
from gateway.oauth.workloads.rules import Workload, WorkloadRule, WorkloadRules
from gateway.oauth.workloads.subjects import trust_domain_of

MAX_LIFETIME_S = 86400.0
"""A token that is good for longer is rejected: it outlives what it was made for."""
MAX_ID_CHARS = 512
USED_TOKEN = "used-workload-token"
TYPES = frozenset({"jwt", "jose", "client-authentication+jwt"})
"""What a token may call itself, or nothing. An access token or an ID token of the issuer is for
something else (RFC 8725 section 3.11)."""


class WorkloadError(Exception):
    """A workload does not prove who it is; the text says why, for the one who sent it."""

    def __init__(self, description: str = "The token is not valid.", *, reason: str) -> None:
        super().__init__(description)
        self.description = description
        self.reason = reason


class WorkloadTokens:
    """Verifies tokens of workloads."""

    def __init__(
        self,
        rules: WorkloadRules,
        issuers: Callable[[], JwtIssuers | None],
        records: RecordStore,
        *,
        audiences: Collection[str],
        resources: Collection[str],
        wall_clock: Clock,
    ) -> None:
        """A token must be for one of `audiences`, which name this provider, or of those that its
        issuer's entry names, but for `resources`: a service that gets a token for itself must not
        use it here."""
        self._rules = rules
        self._issuers = issuers
        self._records = records
        self._audiences = frozenset(audiences)
        self._resources = frozenset(resources)
        self._wall_clock = wall_clock

    def is_known(self, token: str) -> bool:
        """Whether a token says that it is of an issuer whose workloads have rules."""
        return bool(self._rules.issuers) and self._find_issuer(token) is not None

    async def verify(self, token: str, client_id: str = "") -> tuple[Workload, WorkloadRule]:
        """The workload that a token is of, and the rule for it; for `client_id` if one is given.

        Raises `WorkloadError` and `StoreUnavailableError`; an issuer that does not respond is such
        a store.
        """
        issuers, issuer = self._issuers(), self._find_issuer(token)
        if issuers is None or issuer is None:
            raise WorkloadError(reason="workload_unknown")
        try:
            proven = await issuers.prove(issuer, token)
            workload = self._accept(issuer, proven)
        except JwtError:
            raise WorkloadError(reason="workload_unknown") from None
        rule = self._rules.find(issuer.name, workload.subject, client_id, proven.claims)
        if rule is None:
            raise self._without_rule(issuer.name, workload.subject, client_id, proven)
        await self._use(proven, issuer, rule, workload.expires_at)
        return workload, rule

    def _without_rule(
        self, issuer: str, subject: str, client_id: str, proven: Jwt
    ) -> WorkloadError:
        rule = self._rules.find(issuer, subject, client_id)
        failed = (one for one in rule.claims if not one.holds(proven.claims)) if rule else ()
        for one in failed:
            return WorkloadError(
                f"The claim {str(one.path)!r} of the token is not as its workload needs it.",
                reason="workload_unknown",
            )
        wanted = f" and the client {client_id!r}" if client_id else ""
        return WorkloadError(
            f"No workload is configured for the subject {subject[:200]!r}{wanted}.",
            reason="workload_unknown",
        )

    def _find_issuer(self, token: str) -> JwtIssuer | None:
        issuers = self._issuers()
        if issuers is None or not looks_like_jwt(token):
            return None
        try:
            unproven = read_jwt(token)
        except JwtError:
            return None
        found = issuers.issuers_of(unproven)
        if not found and "iss" not in unproven.claims:
            # The trust domain is the issuer of a JWT-SVID (JWT-SVID section 3).
            domain = trust_domain_of(unproven.text("sub") or "")
            name = self._rules.issuer_of_domain(domain) if domain else None
            named = issuers.named(name) if name else None
            found = [named] if named is not None else []
        ruled = [one for one in found if one.name in self._rules.issuers]
        fitting = [one for one in ruled if one.audience.intersection(unproven.audience)]
        return next(iter(fitting or ruled), None)

    def _accept(self, issuer: JwtIssuer, proven: Jwt) -> Workload:
        """Raises `JwtError` and `WorkloadError`."""
        now, skew_s = self._wall_clock(), issuer.clock_skew_s
        expires_at, subject = proven.time("exp"), proven.text("sub")
        not_before, issued_at = proven.time("nbf"), proven.time("iat")
        kind = str(proven.header.get("typ", "jwt")).lower().removeprefix("application/")
        if expires_at is None or subject is None or kind not in TYPES:
            raise WorkloadError(
                "The token needs exp and sub, and must not be of a type for another use.",
                reason="workload_unknown",
            )
        audiences = self._audiences | (issuer.audience - self._resources)
        if not audiences.intersection(proven.audience):
            expected = ", ".join(sorted(audiences))
            raise WorkloadError(
                f"The audience of the token is not this provider (expected one of: {expected}).",
                reason="audience",
            )
        if is_over(expires_at, now, skew_s):
            raise WorkloadError("The token has expired.", reason="expired")
        if not has_come(not_before, now, skew_s) or not has_come(issued_at, now, skew_s):
            raise WorkloadError("The token is not valid yet.", reason="not_yet_valid")
        if not has_come(expires_at - MAX_LIFETIME_S, now, skew_s):
            raise WorkloadError(
                f"The token is valid for more than {MAX_LIFETIME_S / 3600:g} hours.",
                reason="workload_unknown",
            )
        return Workload(
            issuer.name, subject, issuer.issuer, expires_at, describe_workload(proven.claims)
        )

    async def _use(
        self, proven: Jwt, issuer: JwtIssuer, rule: WorkloadRule, expires_at: float
    ) -> None:
        """Raises `WorkloadError` for a token that was used before, and `StoreUnavailableError`."""
        if "jti" not in proven.claims:
            return
        is_once = rule.single_use
        if is_once is None:
            is_once = not is_service_account(proven.claims)
        if not is_once:
            return
        token_id = proven.text("jti")
        if token_id is None or len(token_id) > MAX_ID_CHARS:
            raise WorkloadError("The jti of the token can't be used.", reason="workload_unknown")
        # By the issuer's clock and ours, whichever is behind.
        kept_until = expires_at + max(issuer.clock_skew_s, CLOCK_SKEW_S)
        if not await use_once(self._records, USED_TOKEN, issuer.name, token_id, until=kept_until):
            raise WorkloadError("The token was used before.", reason="workload_replayed")
