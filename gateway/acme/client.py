"""One CA, by certbot's library `acme`. Every method blocks: for a thread, never for an event loop.

Errors of the libraries are raised as `AcmeError`.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import requests
from acme import challenges, client, messages
from acme import errors as acme_errors
from josepy.json_util import field
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC

from gateway import __version__
from gateway.acme.errors import AcmeError, library_errors, translate
from gateway.acme.settings import AcmeSettings
from gateway.acme.state import Account, Challenge

TIMEOUT_S = 30
ORDER_TIMEOUT_S = 90.0
NOT_OF_THE_ORDER = frozenset({"accountDoesNotExist", "badNonce", "rateLimited", "serverInternal"})
"""Errors that another order would meet with, too."""
MAX_BAD_NONCES = 8
"""How often a request is sent again with another nonce: a CA behind a load balancer, or one that
was restarted, may know none of those that it gave (RFC 8555 section 6.5)."""


class TlsAlpnResponse(challenges.KeyAuthorizationChallengeResponse):
    """Reports that a tls-alpn-01 challenge can be validated."""

    typ = "tls-alpn-01"


@challenges.Challenge.register  # the library has it no more
class TlsAlpn(challenges.KeyAuthorizationChallenge):
    """A tls-alpn-01 challenge (RFC 8737)."""

    response_cls = TlsAlpnResponse
    typ = response_cls.typ

    def validation(self, account_key: JWK, **kwargs: Any) -> str:
        return self.key_authorization(account_key)


TYPES = {"http-01": challenges.HTTP01, "tls-alpn-01": TlsAlpn}


class ReplacingOrder(messages.NewOrder):
    """A new order that names the certificate that it replaces (RFC 9773 section 5)."""

    replaces: str | None = field("replaces", omitempty=True)


class Network(client.ClientNetwork):
    """HTTP to a CA, which keeps what it says about trying again."""

    retry_after_s = 0.0

    def _send_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        response = super()._send_request(method, url, *args, **kwargs)
        self.retry_after_s = 0.0
        if not response.ok and "Retry-After" in response.headers:
            when = client.ClientV2.retry_after(response, 0)
            self.retry_after_s = max(0.0, (when - datetime.datetime.now()).total_seconds())
        return response

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a signed request, again with another nonce where the CA refuses the one used."""
        for attempt in range(MAX_BAD_NONCES):
            try:
                return self._post_once(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce" or attempt == MAX_BAD_NONCES - 1:
                    raise
        raise AssertionError


@dataclass(slots=True)
class Order:
    """An order at the CA, and its challenge, unless the CA asks for none."""

    resource: messages.OrderResource
    challenge: Challenge | None
    body: messages.ChallengeBody | None


class AcmeClient:
    """A client of one CA. Use from one thread at a time; `close` it."""

    def __init__(self, settings: AcmeSettings, account: Account | None = None) -> None:
        """Make the client of an account, or of one that `open` registers. Raises `AcmeError`."""
        self._settings = settings
        self._network: Network | None = None
        with self._translated():
            self._key = _load_account_key(account)
            resource = None
            if account is not None:
                resource = messages.RegistrationResource(
                    uri=account.url, body=messages.Registration()
                )
            self._network = Network(
                self._key,
                resource,
                alg=ES256,
                # requests takes the name of a file, too.
                verify_ssl=cast("bool", settings.directory_ca or True),
                user_agent=f"bearer-gateway/{__version__}",
                timeout=TIMEOUT_S,
            )
        self._account = account

    def close(self) -> None:
        """Close the connections to the CA."""
        if self._network is not None:
            self._network.session.close()

    def open(self) -> Account:
        """Read the directory, and register an account where there is none, or change its
        address. Returns the account as it is to be kept."""
        with self._translated():
            network = self._use()
            directory = client.ClientV2.get_directory(self._settings.directory, network)
            self._client = client.ClientV2(directory, network)
            if self._account is None:
                self._account = self._register()
            elif self._account.email != self._settings.email:
                self._account = self._change_email(self._account)
            return self._account

    def _register(self) -> Account:
        settings, external = self._settings, self._settings.external_account
        binding = None
        if external is not None:
            binding = messages.ExternalAccountBinding.from_data(
                account_public_key=self._key.public_key(),
                kid=external.key_id,
                hmac_key=external.mac_key,
                directory=self._client.directory,
            )
        registered = self._client.new_account(
            messages.NewRegistration.from_data(
                email=settings.email,
                terms_of_service_agreed=True,
                external_account_binding=binding,
            )
        )
        return Account(self._key.json_dumps(), str(registered.uri), settings.email)

    def _change_email(self, account: Account) -> Account:
        contact = () if self._settings.email is None else (f"mailto:{self._settings.email}",)
        self._post(account.url, messages.UpdateRegistration(contact=contact))
        return Account(account.key, account.url, self._settings.email)

    def order(self, domain: str, request: bytes, *, replaces: str | None = None) -> Order:
        """Order a certificate for a domain by a certificate signing request (PEM)."""
        with self._translated():
            try:
                response = self._send_order(domain, replaces)
            except (messages.Error, acme_errors.ConflictError) as error:
                if replaces is None or getattr(error, "code", None) in NOT_OF_THE_ORDER:
                    raise
                # The certificate before is unknown there, or replaced already (409).
                response = self._send_order(domain, None)
            body = messages.Order.from_json(response.json())
            found = [
                messages.AuthorizationResource(
                    body=messages.Authorization.from_json(self._post(url).json()), uri=url
                )
                for url in body.authorizations or ()
            ]
            resource = messages.OrderResource(
                body=body,
                uri=response.headers.get("Location"),
                authorizations=found,
                csr_pem=request,
            )
            pending = [one for one in found if one.body.status == messages.STATUS_PENDING]
            if not pending:
                return Order(resource, None, None)
            return self._choose(domain, resource, pending[0])

    def _send_order(self, domain: str, replaces: str | None) -> requests.Response:
        if replaces is not None and not self._has_renewal_information:
            replaces = None
        identifier = messages.Identifier(typ=messages.IDENTIFIER_FQDN, value=domain)
        order = ReplacingOrder(
            identifiers=[identifier], profile=self._settings.profile, replaces=replaces
        )
        return self._post(self._client.directory["newOrder"], order)

    @property
    def _has_renewal_information(self) -> bool:
        return "renewalInfo" in self._client.directory.to_partial_json()

    def _choose(
        self,
        domain: str,
        resource: messages.OrderResource,
        authorization: messages.AuthorizationResource,
    ) -> Order:
        kind = self._settings.challenge
        for body in authorization.body.challenges:
            if isinstance(body.chall, TYPES[kind]):
                text = body.chall.key_authorization(self._key)
                token = body.chall.encode("token")
                return Order(resource, Challenge(kind, domain, token, text), body)
        raise AcmeError("rejected", f"the CA offers no challenge of type {kind} for {domain}")

    def finish(self, order: Order) -> str:
        """Have the CA validate the challenge, which must be served by now, and issue. Returns the
        chain, PEM."""
        with self._translated():
            deadline = datetime.datetime.now() + datetime.timedelta(seconds=ORDER_TIMEOUT_S)
            resource = order.resource
            if order.body is not None:
                self._client.answer_challenge(order.body, order.body.chall.response(self._key))
                resource = self._client.poll_authorizations(resource, deadline)
                for one in resource.authorizations:
                    if one.body.status != messages.STATUS_VALID:
                        raise AcmeError("challenge", f"the authorization is {one.body.status.name}")
            chain = self._client.finalize_order(resource, deadline).fullchain_pem
            if not isinstance(chain, str):
                raise AcmeError("protocol", "the CA sent no certificate")
            return chain

    def renewal_time(self, chain: str) -> tuple[float | None, float]:
        """Ask when to renew a certificate (RFC 9773). Returns Unix seconds, None where the CA does
        not say, and in how many seconds to ask again."""
        with self._translated():
            renew_at, ask_at = self._client.renewal_time(chain.encode("ascii"))
            pause_s = (ask_at - datetime.datetime.now()).total_seconds()
            return None if renew_at is None else renew_at.timestamp(), pause_s

    def _post(self, url: str, body: Any = None) -> requests.Response:
        return self._use().post(url, body, new_nonce_url=self._client.directory["newNonce"])

    def _use(self) -> Network:
        assert self._network is not None
        return self._network

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except library_errors() as error:
            network = self._network
            raise translate(
                error, retry_after_s=0.0 if network is None else network.retry_after_s
            ) from None


MakeClient = Callable[[AcmeSettings, Account | None], AcmeClient]


def fetch_directory(settings: AcmeSettings) -> None:
    """Read the directory of the CA. Raises `AcmeError`."""
    network = Network(verify_ssl=cast("bool", settings.directory_ca or True), timeout=TIMEOUT_S)
    try:
        found = client.ClientV2.get_directory(settings.directory, network).to_partial_json()
    except library_errors() as error:
        raise translate(error) from None
    finally:
        network.session.close()
    for name in ("newNonce", "newAccount", "newOrder"):
        if name not in found:
            raise AcmeError("protocol", f"is no ACME directory: it lacks {name}")


def _load_account_key(account: Account | None) -> JWKEC:
    if account is not None:
        key = JWK.json_loads(account.key)
        if isinstance(key, JWKEC):
            return key
        raise AcmeError("protocol", "the account's key in the store is of another type")
    from cryptography.hazmat.primitives.asymmetric import ec

    return JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
