"""An authorization request: parsed strictly, and again at each step, so nothing of it is kept.

RFC 6749 section 4.1.1, RFC 7636 section 4.3 (S256, always), RFC 8707 section 2 (resource),
RFC 9449 section 10 (`dpop_jkt`), RFC 9700 sections 2.1 and 4.

Whom a request comes from is only known once its client and redirect URI are right. Until
then nothing may be sent anywhere (RFC 6749 section 4.1.2.1, RFC 9700 section 4.11.2).
"""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

from gateway.oauth.authentication import AuthenticatedClient
from gateway.oauth.authorization.redirects import choose_redirect, is_claimed_by_a_site
from gateway.oauth.client_documents import ClientDocumentError, ClientDocuments
from gateway.oauth.client_metadata import metadata_of
from gateway.oauth.errors import InvalidRequestError, OAuthError
from gateway.oauth.issuing import TokenIssuer
from gateway.oauth.models import Client, ClientStore, Clock
from gateway.oauth.parameters import MAX_PARAMETERS
from gateway.oauth.policy import AUTHORIZATION_CODE

# base64url of a SHA-256 digest, without padding.
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
PARAMETERS = {
    "response_type": True, "client_id": True, "code_challenge": True,
    "code_challenge_method": True, "redirect_uri": False, "scope": False, "state": False,
    "response_mode": False, "resource": False, "prompt": False, "login_hint": False,
    "dpop_jkt": False,
}  # fmt: skip
"""The parameters that are read, and whether they must be there."""
UNSUPPORTED = frozenset({"request", "request_uri"})
"""OpenID Connect Core section 6, RFC 9101: rejected, rather than ignored."""
PROMPTS = frozenset({"none", "login", "consent", "select_account"})


class UntrustedRequestError(InvalidRequestError):
    """The client or its redirect URI is wrong: the user sees a page and is not redirected."""


class AuthorizationRefusedError(Exception):
    """The response to the client is an error."""

    def __init__(self, error: str, description: str, *, is_users: bool = False) -> None:
        super().__init__(description)
        self.is_users = is_users
        """Whether the user decided so, on a page that named the destination."""
        self.error = error
        """A code of RFC 6749 section 4.1.2.1, RFC 8707 section 2, or OpenID Connect Core section
        3.1.2.6."""
        self.description = description


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A request whose client and redirect URI are right, and all else, too."""

    client: AuthenticatedClient
    redirect_uri: str
    """Where the response goes."""
    given_redirect_uri: str | None
    """As the request has it; then the token request must have it, too."""
    state: str | None = field(repr=False)
    scopes: tuple[str, ...]
    audience: tuple[str, ...]
    code_challenge: str = field(repr=False)
    dpop_jkt: str | None
    prompt: frozenset[str]
    login_hint: str
    query: str = field(repr=False)
    """The whole request once more, for the next step."""

    @property
    def query_after_sign_in(self) -> str:
        """Return the request for use after sign-in, without the prompts that asked for it."""
        pairs = [pair for pair in parse_qsl(self.query) if pair[0] != "prompt"]
        left = sorted(self.prompt - {"login", "select_account"})
        return urlencode(pairs + ([("prompt", " ".join(left))] if left else []))

    @property
    def may_go_unseen(self) -> bool:
        """Whether a consent that is remembered is enough. Not for a public client whose redirect
        URI others on the device could take (RFC 6749 section 10.2, RFC 8252 section 8.6)."""
        return not self.client.is_public or is_claimed_by_a_site(self.redirect_uri)


@dataclass(frozen=True, slots=True)
class RequestingClient:
    """The client that receives the response: known as soon as client and redirect URI are valid."""

    client: AuthenticatedClient
    redirect_uri: str
    state: str | None = field(repr=False)


class AuthorizationRequests:
    """Reads authorization requests."""

    def __init__(
        self,
        clients: ClientStore,
        issuer: TokenIssuer,
        documents: ClientDocuments | None = None,
        *,
        wall_clock: Clock = time.time,
    ) -> None:
        """`documents` reads those of clients whose id is a URL."""
        self._documents = documents
        self._clients = clients
        self._issuer = issuer
        self._wall_clock = wall_clock

    async def identify_client(self, encoded: str, *, source: str) -> RequestingClient:
        """Identify the client, and the redirect URI of the response. `source` is the address of
        the browser.

        Raises `UntrustedRequestError` and `StoreUnavailableError`.
        """
        given = _read(encoded)
        client_id = given.once("client_id")
        client = await self._find_client(client_id, source) if client_id else None
        if client is None or client.is_expired(self._wall_clock()):
            raise UntrustedRequestError(
                "The application that sent you here is not registered, or no longer."
            )
        metadata = metadata_of(client)
        if given.counts["redirect_uri"] > 1:
            raise UntrustedRequestError("The request names two redirect URIs.")
        redirect_uri = choose_redirect(metadata.redirect_uris, given.once("redirect_uri"))
        if redirect_uri is None:
            raise UntrustedRequestError(
                "The address to return to is not one that the application registered."
            )
        # A state that is there twice is ambiguous; the error is sent without one.
        state = given.once("state") if given.counts["state"] <= 1 else None
        return RequestingClient(AuthenticatedClient(client, metadata), redirect_uri, state)

    async def _find_client(self, client_id: str, source: str) -> Client | None:
        if self._documents is None or not self._documents.knows(client_id):
            return await self._clients.get_client(client_id)
        try:
            return await self._documents.find(client_id, source=source)
        except ClientDocumentError as error:
            raise UntrustedRequestError(
                f"The metadata document of the application can't be used: {error}"
            ) from None

    def read(self, encoded: str, requester: RequestingClient) -> AuthorizationRequest:
        """The request. Raises `AuthorizationRefusedError`."""
        given = _read(encoded)
        _check_form(given)
        client = requester.client
        if AUTHORIZATION_CODE not in client.metadata.grant_types:
            raise AuthorizationRefusedError(
                "unauthorized_client", "This client is not registered for this grant."
            )
        challenge = _read_challenge(given)
        try:
            scopes = self._issuer.choose_scopes(client, given.once("scope"), narrows=True)
            audience = self._issuer.choose_audience(
                client, self._issuer.policy.name_resources(given.all("resource"))
            )
        except OAuthError as error:
            raise AuthorizationRefusedError(error.error, error.description) from None
        jkt = given.once("dpop_jkt")
        if jkt is not None and not _CHALLENGE.fullmatch(jkt):
            raise AuthorizationRefusedError("invalid_request", "dpop_jkt is malformed.")
        return AuthorizationRequest(
            client=client,
            redirect_uri=requester.redirect_uri,
            given_redirect_uri=given.once("redirect_uri"),
            state=requester.state,
            scopes=scopes,
            audience=audience,
            code_challenge=challenge,
            dpop_jkt=jkt,
            prompt=_read_prompt(given),
            login_hint=given.once("login_hint") or "",
            query=urlencode(given.pairs),
        )


@dataclass(frozen=True, slots=True)
class _Given:
    pairs: list[tuple[str, str]]
    """What is known and not empty (RFC 6749 section 3.1)."""
    counts: Counter[str]
    """How often each is there, empty or not."""
    unsupported: frozenset[str]
    """Those of `UNSUPPORTED` that have a value."""

    def once(self, name: str) -> str | None:
        return next((value for key, value in self.pairs if key == name), None)

    def all(self, name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value for key, value in self.pairs if key == name))


def _read(encoded: str) -> _Given:
    try:
        pairs = parse_qsl(
            encoded, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError:
        raise UntrustedRequestError("The request is not form-encoded UTF-8.") from None
    counts = Counter(name for name, _ in pairs)
    if counts["client_id"] > 1:
        raise UntrustedRequestError("The request names two applications.")
    return _Given(
        [(key, value) for key, value in pairs if key in PARAMETERS and value],
        counts,
        frozenset(key for key, value in pairs if key in UNSUPPORTED and value),
    )


def _check_form(given: _Given) -> None:
    repeated = [name for name, count in given.counts.items() if count > 1 and name != "resource"]
    if any(name in PARAMETERS for name in repeated):
        raise AuthorizationRefusedError("invalid_request", "A parameter is repeated.")
    # Ignored, what the client signed there would not hold.
    if "request" in given.unsupported:
        raise AuthorizationRefusedError("request_not_supported", "request is not supported here.")
    if "request_uri" in given.unsupported:
        raise AuthorizationRefusedError(
            "request_uri_not_supported", "request_uri is not supported here."
        )
    response_type = given.once("response_type")
    if response_type is None:
        raise AuthorizationRefusedError("invalid_request", "response_type is missing.")
    if response_type != "code":
        # No tokens in the address of a page: RFC 9700 section 2.1.2.
        raise AuthorizationRefusedError(
            "unsupported_response_type", "Only the response type code is given here."
        )
    if given.once("response_mode") not in {None, "query"}:
        raise AuthorizationRefusedError(
            "invalid_request", "Only the response mode query is given here."
        )


def _read_challenge(given: _Given) -> str:
    """RFC 7636 section 4.4.1; for all clients (RFC 9700 section 2.1.1)."""
    challenge = given.once("code_challenge")
    if challenge is None:
        raise AuthorizationRefusedError("invalid_request", "code_challenge is missing (PKCE).")
    if given.once("code_challenge_method") != "S256":
        raise AuthorizationRefusedError("invalid_request", "code_challenge_method must be S256.")
    if not _CHALLENGE.fullmatch(challenge):
        raise AuthorizationRefusedError("invalid_request", "code_challenge is malformed.")
    return challenge


def _read_prompt(given: _Given) -> frozenset[str]:
    prompt = frozenset((given.once("prompt") or "").split())
    if not prompt <= PROMPTS or ("none" in prompt and len(prompt) > 1):
        raise AuthorizationRefusedError(
            "invalid_request",
            f"Invalid prompt; it must be none, or any of: {', '.join(sorted(PROMPTS - {'none'}))}.",
        )
    return prompt
