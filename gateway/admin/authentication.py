"""Authentication of requests to the admin listener: source address and bearer token."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from cachetools import TTLCache

from gateway.addresses import Networks, find_client, plain_address, source_of
from gateway.admin.accounts import Actor
from gateway.admin.accounts.tokens import ApiTokens
from gateway.admin.operations import ACTOR, PREFIX
from gateway.admin.problems import ApiError
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import Clock, digest_token

MAX_GUESSES = 10
"""Wrong tokens of one network, after which it is rejected for a while."""
WINDOW_S = 600.0
MAX_RIGHT = 1000
_GUESSED = "admin token"

_log = logging.getLogger(__name__)

Source = Callable[[web.Request], str]


def source_behind(trusted_proxies: Networks) -> Source:
    """Returns the address of the client, as far as it can be trusted: that of the peer or, where
    the peer is a trusted proxy, what it says."""

    def source(request: web.Request) -> str:
        def values(name: str) -> list[bytes]:
            given = request.headers.getall(name, [])
            return [value.encode("utf-8", "surrogateescape") for value in given]

        peer = plain_address(request.remote or "")
        return find_client(
            peer,
            trusted_proxies,
            forwarded_for=values("X-Forwarded-For"),
            forwarded_proto=values("X-Forwarded-Proto"),
            forwarded=values("Forwarded"),
        ).address

    return source


@dataclass(frozen=True, slots=True)
class Guess:
    """A bearer token that a network showed."""

    network: str
    digest: bytes = field(repr=False)


class TokenGuesses:
    """Stops guessing of admin tokens, for each network. A wrong token counts once however often it
    comes, as that of a job whose token was revoked; one that was right lately is accepted from
    there meanwhile."""

    def __init__(self, clock: Clock) -> None:
        self._limiter = FailedClientLimiter(failures=MAX_GUESSES, window_s=WINDOW_S, clock=clock)
        self._right: TTLCache[Guess, bool] = TTLCache(MAX_RIGHT, WINDOW_S, timer=clock)

    def check(self, guess: Guess) -> None:
        """Raises `ApiError` where the network has guessed too often."""
        wait_s = self._limiter.retry_after_s(_GUESSED, guess.network)
        if wait_s is not None and guess not in self._right:
            raise ApiError(
                429,
                "too_many_attempts",
                "Too many wrong admin tokens came from this address; try again later.",
                {"Retry-After": str(wait_s)},
            )

    def was_right(self, guess: Guess) -> None:
        """Accept it from now on."""
        self._right[guess] = True

    def was_wrong(self, guess: Guess) -> None:
        """Count it."""
        state = guess.digest.hex()[:16]
        self._right.pop(guess, None)
        if self._limiter.last_state(_GUESSED, guess.network) == state:
            return
        self._limiter.fail(_GUESSED, guess.network, state=state)
        if self._limiter.retry_after_s(_GUESSED, guess.network) is not None:
            _log.warning("too many wrong admin tokens came from %s", guess.network)


def require_token(
    tokens: ApiTokens,
    *,
    admin_token: Callable[[], str | None],
    source: Source,
    clock: Clock = time.monotonic,
) -> Middleware:
    """Middleware that rejects requests to the API without a valid token.

    `admin_token` is asked with each request for one that is taken beside those of `tokens`.
    """

    guesses = TokenGuesses(clock)

    async def authenticate(request: web.Request) -> Actor:
        fields = request.headers.getall("Authorization", [])
        scheme, _, given = (fields[0] if len(fields) == 1 else "").partition(" ")
        address, own = source(request), admin_token()
        # Header bytes that are not UTF-8 arrive as surrogate escapes.
        given_bytes = given.encode("utf-8", "surrogateescape")
        if scheme.lower() == "bearer" and given:
            guess = Guess(source_of(address), digest_token(given))
            guesses.check(guess)
            if own is not None and hmac.compare_digest(given_bytes, own.encode()):
                guesses.was_right(guess)
                return Actor("admin.token", "operator", address)
            if token := await tokens.find(given):
                guesses.was_right(guess)
                return Actor(f"token {token.name}", token.role, address)
            guesses.was_wrong(guess)
        if own is None and not await tokens.exist():
            raise ApiError(
                403,
                "admin_api_off",
                "The admin API is off: set admin.token, or run `gateway admin token create`.",
            )
        raise ApiError(
            401,
            "admin_token",
            "The admin token is missing or wrong.",
            {"WWW-Authenticate": 'Bearer realm="gateway admin"'},
        )

    @web.middleware
    async def require(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(PREFIX):
            request[ACTOR] = await authenticate(request)
        return await handler(request)

    return require
