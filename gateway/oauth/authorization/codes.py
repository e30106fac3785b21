"""Authorization codes: good once, for a minute, for one client, and only with the verifier.

RFC 6749 section 4.1.2 (a code that is used twice takes back what it gave), RFC 7636
section 4.6 (the verifier), RFC 8707 section 2.2, RFC 9449 section 10.

Of many that show a code at the same time, a swap lets exactly one through. Who comes
later leaves a mark or finds what was given; so, whatever the order, what the first one
got is revoked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from gateway.metrics import Metrics
from gateway.oauth.authorization.request import AuthorizationRequest
from gateway.oauth.credentials import random_text
from gateway.oauth.errors import InvalidGrantError
from gateway.oauth.models import AccessToken, Clock, Record, Store, client_owner, digest_token
from gateway.oauth.refresh import RefreshTokens
from gateway.oauth.users.directory import User

CODE = "authorization-code"
CODE_BYTES = 32
ATTEMPTS = 20
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 section 4.1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Code:
    """The stored state of a code."""

    client_id: str
    client_created_at: float
    username: str
    user_generation: int
    redirect_uri: str | None
    """As the authorization request had it, None where it had none."""
    scopes: tuple[str, ...]
    audience: tuple[str, ...]
    code_challenge: str = field(repr=False)
    dpop_jkt: str | None = None
    is_used: bool = False
    is_replayed: bool = False
    given: str = ""
    """Digest of the access token that it gave, in hexadecimal digits."""
    family: str = ""
    """Key of the family of refresh tokens that it gave."""


@dataclass(frozen=True, slots=True)
class Redemption:
    """A code in the hands of the one request that may use it."""

    code: Code
    record: Record


class AuthorizationCodes:
    """Gives codes, and takes them for what they stand for."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        *,
        ttl_s: float,
        families: RefreshTokens,
        wall_clock: Clock = time.time,
        random_text: Callable[[int], str] = random_text,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._ttl_s = ttl_s
        self._families = families
        self._wall_clock = wall_clock
        self._random_text = random_text

    async def give(self, request: AuthorizationRequest, user: User) -> str:
        """A code for what the user allowed. Raises `StoreUnavailableError`."""
        client = request.client.client
        code = Code(
            client_id=client.client_id,
            client_created_at=client.created_at,
            username=user.username,
            user_generation=user.generation,
            redirect_uri=request.given_redirect_uri,
            scopes=request.scopes,
            audience=request.audience,
            code_challenge=request.code_challenge,
            dpop_jkt=request.dpop_jkt,
        )
        value = self._random_text(CODE_BYTES)
        await self._store.records.add_record(
            Record(
                kind=CODE,
                key=digest_token(value).hex(),
                owner=client_owner(client.client_id),
                value=msgspec.json.encode(code),
                expires_at=self._wall_clock() + self._ttl_s,
            )
        )
        self._metrics.provider.authorization_codes.labels("issued").inc()
        return value

    async def redeem(
        self,
        value: str,
        client_id: str,
        parameters: Mapping[str, str],
        confirmation: Mapping[str, Any],
    ) -> Redemption:
        """Use a code up. A client that it was not given to can't.

        Raises `InvalidGrantError` and `StoreUnavailableError`.
        """
        key = digest_token(value).hex()
        for _ in range(ATTEMPTS):
            record = await self._store.records.get_record(CODE, key)
            if record is None:
                raise InvalidGrantError("The code is unknown, or has expired.")
            code = _read(record)
            if code.client_id != client_id:
                raise InvalidGrantError("The code was given to another client.")
            if code.is_used:
                if not await self._take_back(record, code):
                    continue
                raise InvalidGrantError("The code was used before.", reason="code_reused")
            used = _replace(record, replace(code, is_used=True))
            if await self._store.records.swap_record(record, used):
                _check(code, parameters, confirmation)
                return Redemption(
                    replace(code, is_used=True), replace(used, version=record.version + 1)
                )
        raise InvalidGrantError("The code is being redeemed concurrently.")

    async def gave(self, redemption: Redemption, token: AccessToken, family: str | None) -> None:
        """Keep what a code gave, for as long as that lives, in case the code is shown again.

        Raises `InvalidGrantError` where that has happened, and then what it gave is gone;
        and `StoreUnavailableError`.
        """
        code = replace(redemption.code, given=token.digest.hex(), family=family or "")
        kept = replace(
            _replace(redemption.record, code),
            expires_at=max(token.expires_at, self._wall_clock() + self._ttl_s),
        )
        if await self._store.records.swap_record(redemption.record, kept):
            self._metrics.provider.authorization_codes.labels("redeemed").inc()
            return
        # It was shown a second time while the first was being served, or its client is gone.
        await self._revoke(code)
        raise InvalidGrantError("The code was used twice.", reason="code_reused")

    async def _take_back(self, record: Record, code: Code) -> bool:
        """RFC 6749 section 4.1.2. Whether it was done; else the record must be read again."""
        marked = _replace(record, replace(code, is_replayed=True))
        if not code.is_replayed:
            if not await self._store.records.swap_record(record, marked):
                return False
            self._metrics.provider.authorization_codes.labels("replayed").inc()
            _log.warning(
                "authorization code of client %r replayed; its tokens are revoked", code.client_id
            )
        await self._revoke(code)
        return True

    async def _revoke(self, code: Code) -> None:
        if code.family:
            await self._families.end(code.family)
        if code.given:
            await self._store.tokens.revoke_token(bytes.fromhex(code.given))


def _check(code: Code, parameters: Mapping[str, str], confirmation: Mapping[str, Any]) -> None:
    verifier = parameters.get("code_verifier", "")
    digest = hashlib.sha256(verifier.encode("utf-8", "surrogatepass")).digest()
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    if not _VERIFIER.fullmatch(verifier) or not hmac.compare_digest(challenge, code.code_challenge):
        raise InvalidGrantError("The code_verifier does not belong to the code.")
    if parameters.get("redirect_uri") != code.redirect_uri:
        raise InvalidGrantError("redirect_uri must be that of the authorization request.")
    if code.dpop_jkt is not None and confirmation.get("jkt") != code.dpop_jkt:
        raise InvalidGrantError("The code is bound to another key.")


def _replace(record: Record, code: Code) -> Record:
    return replace(record, value=msgspec.json.encode(code))


def _read(record: Record) -> Code:
    return msgspec.json.decode(record.value, type=Code)
