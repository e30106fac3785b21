"""Registration over HTTP: `/register` (RFC 7591) and `/createClient`, its Mule-shaped face."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, NotRequired, TypedDict
from urllib.parse import quote

from gateway.addresses import source_of
from gateway.http.fields import header_values
from gateway.metrics import Metrics
from gateway.oauth.bearer import read_bearer
from gateway.oauth.client_metadata import ClientMetadata, keep_internal, metadata_of
from gateway.oauth.clients import ClientRegistry, RegisteredClient
from gateway.oauth.credentials import random_text
from gateway.oauth.endpoints.http import (
    CREDENTIALS,
    NO_STORE,
    EndpointRequest,
    EndpointResponse,
    Operations,
    ProviderOperation,
    is_type,
    json_response,
    methods_of,
    read_anywhere,
)
from gateway.oauth.errors import (
    InvalidClientMetadataError,
    InvalidRequestError,
    InvalidTokenError,
    RegistrationDeniedError,
    TooManyFailuresError,
    TooManyRegistrationsError,
)
from gateway.oauth.limiter import FailedClientLimiter
from gateway.oauth.models import Client
from gateway.oauth.parameters import JSON, Parameters, read_form, read_json_object
from gateway.oauth.policy import ProviderPolicy
from gateway.oauth.self_registration import RequestedRegistration, read_registration
from gateway.rate_limit import Demand, RateLimits

_MULE_PARAMETERS = (
    *CREDENTIALS, "client_name", "scope", "description", "grant_types", "redirect_uris",
)  # fmt: skip

_CLIENT_ID = {"client_id": False}

# Not a possible client id, since ids hold no space.
_REGISTRATION = "registration token"


class RegistrationGate:
    """Checks whether a caller may register clients."""

    def __init__(
        self,
        policy: ProviderPolicy,
        limiter: FailedClientLimiter,
        metrics: Metrics,
        rates: RateLimits,
    ) -> None:
        self._policy = policy
        self._limiter = limiter
        self._metrics = metrics
        self._rates = rates

    async def check(self, request: EndpointRequest) -> None:
        """Raises `RegistrationDeniedError`, `BearerError`, `TooManyFailuresError` and
        `TooManyRegistrationsError`."""
        mode = self._policy.registration_mode
        if mode == "off":
            raise RegistrationDeniedError
        if self._policy.is_registration_open:
            await self._count(request)
            return
        # Guessing the registration token is limited like guessing a secret.
        retry_after_s = self._limiter.retry_after_s(_REGISTRATION, source_of(request.source))
        if retry_after_s is not None:
            self._metrics.provider.failed_client_limited.inc()
            raise TooManyFailuresError(retry_after_s)
        given = read_bearer(header_values(request.headers, b"authorization"))
        expected = self._policy.registration_token
        if expected is None or not hmac.compare_digest(given.encode(), expected.encode()):
            self._fail(given, source_of(request.source))
            raise InvalidTokenError(reason="registration_token")

    def _fail(self, given: str, source: str) -> None:
        """Count a wrong token, once however often it comes: a service that still sends the token
        of before guesses nothing, and must not lock the others behind its address out."""
        guess = hashlib.sha256(given.encode()).hexdigest()[:16]
        if self._limiter.last_state(_REGISTRATION, source) != guess:
            self._limiter.fail(_REGISTRATION, source, state=guess)

    async def _count(self, request: EndpointRequest) -> None:
        """Count a registration against the limit of its network, and that of all."""
        policy = self._policy
        subject = f"registration:{source_of(request.source)}"
        demands = (
            Demand(subject, "", policy.registration_rate_limit),
            Demand("registration", "", policy.total_registration_rate_limit),
        )
        quota = await self._rates.acquire(demands)
        if not quota.is_allowed:
            raise TooManyRegistrationsError(quota.retry_after_s)


class CreatedClient(TypedDict):
    """A client that was registered at `/createClient`."""

    message: str
    client_id: str
    client_secret: str
    client_name: str
    client_id_issued_at: int
    client_secret_expires_at: int
    grant_types: list[str]
    scope: NotRequired[str]
    replaced: NotRequired[bool]


class CreateClientEndpoint:
    """`/createClient`: parameters as headers, form or JSON, and a response as Mule flows make
    it."""

    operations: ClassVar[Operations] = {
        "POST": ProviderOperation(
            "Register a client, the Mule way",
            CreatedClient,
            status=201,
            security="registrationToken",
            form=_MULE_PARAMETERS,
            fails=(403, 409, 429),
        )
    }
    methods = methods_of(operations)

    def __init__(
        self, registry: ClientRegistry, policy: ProviderPolicy, gate: RegistrationGate
    ) -> None:
        self._registry = registry
        self._policy = policy
        self._gate = gate

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """Raises `OAuthError` and `StoreUnavailableError`."""
        policy = self._policy
        await self._gate.check(request)
        parameters = read_anywhere(request, policy, _MULE_PARAMETERS)
        requested = _mule_registration(parameters, policy)
        registered = await self._registry.register_client(
            client_id=parameters.get("client_id"),
            client_secret=parameters.get("client_secret"),
            client_name=parameters.get("client_name"),
            scopes=requested.scopes,
            metadata=requested.metadata,
            replace_existing=not policy.fail_if_present,
            is_trusted=False,
        )
        client = registered.client
        members: CreatedClient = {
            "message": _message(registered, parameters),
            "client_id": client.client_id,
            "client_secret": registered.client_secret,
            "client_name": client.client_name,
            "client_id_issued_at": int(client.created_at),
            "client_secret_expires_at": int(client.expires_at or 0),
            "grant_types": list(metadata_of(client).grant_types),
        }
        if policy.scopes:
            members["scope"] = " ".join(client.scopes)
        if registered.is_replacement:
            members["replaced"] = True
        return json_response(201, members, client_id=client.client_id)


class ClientInformation(TypedDict):
    """A registration, beside the metadata that the client has (RFC 7591 section 3.2.1)."""

    client_id: str
    client_name: str
    client_id_issued_at: int
    client_secret_expires_at: int
    registration_client_uri: str
    scope: NotRequired[str]
    client_secret: NotRequired[str]
    registration_access_token: NotRequired[str]


class RegistrationEndpoint:
    """`/register`: POST registers a client (RFC 7591); GET, PUT and DELETE manage the one whose
    registration access token they carry (RFC 7592).

    The client to manage is named in the query, which RFC 7592 section 1.2 leaves to us, so
    that one exact path serves all of them.
    """

    operations: ClassVar[Operations] = {
        "POST": ProviderOperation(
            "Register a client (RFC 7591)",
            ClientInformation,
            status=201,
            security="registrationToken",
            json=ClientMetadata,
            fails=(403, 429),
        ),
        "GET": ProviderOperation(
            "Read a registration (RFC 7592)",
            ClientInformation,
            security="registrationToken",
            query=_CLIENT_ID,
        ),
        "PUT": ProviderOperation(
            "Replace a registration (RFC 7592)",
            ClientInformation,
            security="registrationToken",
            json=ClientMetadata,
            query=_CLIENT_ID,
        ),
        "DELETE": ProviderOperation(
            "Delete a client (RFC 7592)",
            status=204,
            security="registrationToken",
            query=_CLIENT_ID,
        ),
    }
    methods = methods_of(operations)

    def __init__(
        self, registry: ClientRegistry, policy: ProviderPolicy, gate: RegistrationGate
    ) -> None:
        self._registry = registry
        self._policy = policy
        self._gate = gate

    async def respond(self, request: EndpointRequest) -> EndpointResponse:
        """Raises `OAuthError` and `StoreUnavailableError`."""
        if request.method == "POST":
            return await self._register(request)
        client = await self._authorised(request)
        if request.method == "GET":
            return self._respond(client, request)
        if request.method == "PUT":
            return await self._update(client, request)
        await self._registry.delete_client(client.client_id)
        return EndpointResponse(204, NO_STORE, b"", client_id=client.client_id)

    async def _register(self, request: EndpointRequest) -> EndpointResponse:
        await self._gate.check(request)
        members = _read_members(request)
        requested = read_registration(_with_method(members), _text(members, "scope"), self._policy)
        metadata = requested.metadata
        token = random_text(32)
        registered = await self._registry.register_client(
            # Ids and secrets are made here: a client that chose its own could pass for another
            # (RFC 9700 section 4.15).
            client_name=_text(members, "client_name"),
            scopes=requested.scopes,
            metadata=replace(metadata, registration_token_digest=_digest(token)),
            is_trusted=False,
        )
        described = self._describe(registered.client)
        if registered.client_secret:
            described["client_secret"] = registered.client_secret
        described["registration_access_token"] = token
        return json_response(201, described, client_id=registered.client.client_id)

    async def _authorised(self, request: EndpointRequest) -> Client:
        """The client that the registration access token belongs to (RFC 7592 section 2)."""
        given = read_bearer(header_values(request.headers, b"authorization"))
        client_id = read_form(request.query).get("client_id", "")
        client = await self._registry.store.clients.get_client(client_id) if client_id else None
        expected = metadata_of(client).registration_token_digest if client else None
        is_right = hmac.compare_digest(_digest(given), expected or "")
        if client is None or not is_right or client.is_expired(self._registry.now()):
            raise InvalidTokenError(reason="registration_access_token")
        return client

    async def _update(self, client: Client, request: EndpointRequest) -> EndpointResponse:
        """RFC 7592 section 2.2: what is left out is deleted, or has its default again."""
        members = _read_members(request)
        if _text(members, "client_id") != client.client_id:
            raise InvalidRequestError("client_id must be that of the client.")
        await self._check_secret(client, _text(members, "client_secret"))
        requested = read_registration(_with_method(members), _text(members, "scope"), self._policy)
        wanted = requested.metadata
        scopes = requested.scopes

        def change(old: ClientMetadata) -> ClientMetadata:
            # An operator may have narrowed what a client can do; it can't widen that by itself.
            grant_types = wanted.grant_types
            if not requested.names_grant_types and not set(grant_types) <= set(old.grant_types):
                grant_types = old.grant_types
            if not set(grant_types) <= set(old.grant_types):
                raise InvalidClientMetadataError("grant_types can't be widened by the client.")
            if old.audiences and not set(wanted.audiences or old.audiences) <= set(old.audiences):
                raise InvalidClientMetadataError("audiences can't be widened by the client.")
            if wanted.skip_consent and not old.skip_consent:
                raise InvalidClientMetadataError("skip_consent is for an operator to give.")
            return replace(
                keep_internal(wanted, old),
                grant_types=grant_types,
                # It was given for the addresses that the operator saw.
                skip_consent=wanted.skip_consent and wanted.redirect_uris == old.redirect_uris,
                audiences=wanted.audiences or old.audiences,
            )

        if scopes is not None and not set(scopes) <= set(client.scopes):
            raise InvalidClientMetadataError("scope can't be widened by the client.")
        updated = await self._registry.update_client(
            client.client_id,
            client_name=_text(members, "client_name") or client.client_id,
            scopes=scopes,
            metadata=change,
            is_trusted=False,
            renews=True,
        )
        if updated is None:
            raise InvalidTokenError(reason="registration_access_token")
        return self._respond(updated, request)

    def _respond(self, client: Client, request: EndpointRequest) -> EndpointResponse:
        """RFC 7592 section 3: with the token that manages the registration, which only the caller
        knows."""
        described = self._describe(client)
        given = read_bearer(header_values(request.headers, b"authorization"))
        described["registration_access_token"] = given
        return json_response(200, described, client_id=client.client_id)

    async def _check_secret(self, client: Client, client_secret: str | None) -> None:
        if client_secret is not None and not await self._registry.is_secret(client, client_secret):
            raise InvalidRequestError("client_secret must be that of the client, or left out.")

    def _describe(self, client: Client) -> ClientInformation:
        """RFC 7591 section 3.2.1. The secret cannot be shown again."""
        policy = self._policy
        members: ClientInformation = {
            "client_id": client.client_id,
            "client_name": client.client_name,
            "client_id_issued_at": int(client.created_at),
            "client_secret_expires_at": int(client.expires_at or 0) if client.secret_hash else 0,
            "registration_client_uri": policy.url(policy.register_path)
            + f"?client_id={quote(client.client_id, safe='')}",
            **metadata_of(client).described(),  # type: ignore[typeddict-item]
        }
        members.pop("registered_by", None)  # type: ignore[typeddict-item]
        if policy.scopes:
            members["scope"] = " ".join(client.scopes)
        return members


def _message(registered: RegisteredClient, parameters: Parameters) -> str:
    if registered.is_renewal:
        return "The client was registered already with this secret; its registration is renewed."
    if "client_id" not in parameters:
        # Perhaps a proxy dropped the field: nginx does, for the underscore.
        return "Client created successfully. The request named no client_id; it was generated."
    return "Client created successfully."


def _mule_registration(parameters: Parameters, policy: ProviderPolicy) -> RequestedRegistration:
    members: dict[str, Any] = {
        name: parameters[name].split() for name in ("grant_types", "redirect_uris")
        if name in parameters
    }  # fmt: skip
    if "grant_types" in members:  # Mule writes CLIENT_CREDENTIALS
        members["grant_types"] = [grant.lower() for grant in members["grant_types"]]
    if "description" in parameters:
        members["description"] = parameters["description"]
    return read_registration(members, parameters.get("scope"), policy)


def _read_members(request: EndpointRequest) -> Mapping[str, object]:
    if not is_type(JSON, request):
        raise InvalidClientMetadataError("The body must be a JSON object.")
    return read_json_object(request.body)


def _with_method(members: Mapping[str, object]) -> Mapping[str, object]:
    # RFC 7591 section 2: this one has a default, and by it a client is held to one way.
    if members.get("token_endpoint_auth_method") is None:
        return {**members, "token_endpoint_auth_method": "client_secret_basic"}
    return members


def _text(members: Mapping[str, object], name: str) -> str | None:
    value = members.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidClientMetadataError(f"{name} must be text.")
    return value or None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
