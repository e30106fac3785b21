"""What the client makes of a CA's responses that Pebble does not give."""

from __future__ import annotations

import asyncio
import datetime
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.b64 import b64decode
from josepy.jwk import JWKEC
from support.acme_issuing import issue

from gateway.acme.certificates import make_key, make_request
from gateway.acme.client import AcmeClient, fetch_directory
from gateway.acme.errors import AcmeError
from gateway.acme.settings import AcmeSettings
from gateway.acme.state import Account

NAME = "api.gateway.test"
ERROR = "urn:ietf:params:acme:error:"


class Ca:
    """A server of ACME, of which a test makes the responses."""

    def __init__(self) -> None:
        self.orders: list[dict[str, Any]] = []
        self.renewal: web.Response | None = None
        self.refusals: list[tuple[int, str]] = []
        self.headers: dict[str, str] = {}
        self.nonces = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/dir", self.directory)
        app.router.add_route("*", "/nonce", self.nonce)
        app.router.add_post("/order", self.order)
        app.router.add_post("/authz", self.authorization)
        app.router.add_get("/renewal/{id}", self.renewal_info)
        self.server = TestServer(app)
        await self.server.start_server()
        self.url = f"http://127.0.0.1:{self.server.port}"

    def replay(self) -> dict[str, str]:
        self.nonces += 1
        return {"Replay-Nonce": f"bm9uY2{self.nonces:02}"}

    async def directory(self, request: web.Request) -> web.Response:
        names = {"newNonce": "nonce", "newAccount": "account", "newOrder": "order"}
        if self.renewal is not None:
            names["renewalInfo"] = "renewal"
        return web.json_response({key: f"{self.url}/{name}" for key, name in names.items()})

    async def nonce(self, request: web.Request) -> web.Response:
        return web.Response(headers=self.replay())

    async def order(self, request: web.Request) -> web.Response:
        body = json.loads(await request.text())
        self.orders.append(json.loads(b64decode(body["payload"])))
        if self.refusals:
            status, code = self.refusals.pop(0)
            return web.json_response(
                {"type": f"{ERROR}{code}", "detail": "no"},
                status=status,
                headers=self.replay() | self.headers,
                content_type="application/problem+json",
            )
        identifiers = self.orders[-1]["identifiers"]
        order = {"status": "pending", "identifiers": identifiers,
                 "authorizations": [f"{self.url}/authz"], "finalize": f"{self.url}/x"}  # fmt: skip
        return web.json_response(order, status=201, headers=self.replay())

    async def authorization(self, request: web.Request) -> web.Response:
        challenge = {"type": "dns-01", "url": f"{self.url}/chall", "token": "x" * 43}
        body = {"status": "pending", "identifier": {"type": "dns", "value": NAME},
                "challenges": [challenge]}  # fmt: skip
        return web.json_response(body, headers=self.replay())

    async def renewal_info(self, request: web.Request) -> web.Response:
        assert self.renewal is not None
        assert request.match_info["id"] == "aYhbaw.AIdlQyE"
        return self.renewal


@pytest.fixture
async def ca() -> AsyncIterator[Ca]:
    ca = Ca()
    await ca.start()
    yield ca
    await ca.server.close()


async def open_client(ca: Ca) -> AcmeClient:
    key = JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
    account = Account(key.json_dumps(), f"{ca.url}/account/1")
    client = AcmeClient(AcmeSettings((NAME,), f"{ca.url}/dir", "http-01"), account)
    await asyncio.to_thread(client.open)
    return client


async def order(client: AcmeClient, replaces: str | None = None) -> AcmeError:
    request = make_request(NAME, make_key())
    try:
        with pytest.raises(AcmeError) as caught:
            await asyncio.to_thread(client.order, NAME, request, replaces=replaces)
    finally:
        client.close()
    return caught.value


def window(start_s: float, end_s: float) -> web.Response:
    now = datetime.datetime.now(datetime.UTC)
    texts = [
        (now + datetime.timedelta(seconds=at)).strftime("%Y-%m-%dT%H:%M:%SZ")
        for at in (start_s, end_s)
    ]
    body = {"suggestedWindow": {"start": texts[0], "end": texts[1]}}
    return web.json_response(body, headers={"Retry-After": "4321"})


async def test_renewal_is_at_random_within_the_window_that_the_ca_suggests(ca: Ca) -> None:
    ca.renewal = window(1000, 2000)
    client = await open_client(ca)
    chain = issue(make_key())
    renew_at, ask_in_s = await asyncio.to_thread(client.renewal_time, chain)
    client.close()
    assert renew_at is not None
    assert time.time() + 900 < renew_at < time.time() + 2001
    assert 4000 < ask_in_s <= 4321


async def test_ca_without_renewal_information_gives_no_time(ca: Ca) -> None:
    client = await open_client(ca)
    renew_at, ask_in_s = await asyncio.to_thread(client.renewal_time, issue(make_key()))
    client.close()
    assert renew_at is None
    assert ask_in_s > 3600


@pytest.mark.parametrize("body", ["{}", "nothing", '{"suggestedWindow": {"start": "x"}}'])
async def test_renewal_information_that_can_not_be_read_is_an_error(ca: Ca, body: str) -> None:
    ca.renewal = web.Response(text=body, content_type="application/json")
    client = await open_client(ca)
    with pytest.raises(AcmeError):
        await asyncio.to_thread(client.renewal_time, issue(make_key()))
    client.close()


async def test_time_that_a_limit_asks_for_is_kept(ca: Ca) -> None:
    ca.refusals, ca.headers = [(429, "rateLimited")], {"Retry-After": "120"}
    error = await order(await open_client(ca), replaces="a.b")
    assert error.reason == "rate_limited"
    assert 100 < error.retry_after_s <= 120
    assert len(ca.orders) == 1


@pytest.mark.parametrize("refusal", [(409, "alreadyReplaced"), (400, "malformed")])
async def test_order_that_may_not_replace_is_sent_without(ca: Ca, refusal: tuple[int, str]) -> None:
    ca.renewal = window(0, 1)
    ca.refusals = [refusal]
    await order(await open_client(ca), replaces="a.b")
    assert [one.get("replaces") for one in ca.orders] == ["a.b", None]


async def test_order_replaces_nothing_where_the_ca_has_no_renewal_information(ca: Ca) -> None:
    await order(await open_client(ca), replaces="a.b")
    assert ca.orders == [{"identifiers": [{"type": "dns", "value": NAME}]}]


async def test_challenge_that_the_ca_does_not_offer_is_named(ca: Ca) -> None:
    error = await order(await open_client(ca))
    assert error.reason == "rejected"
    assert str(error) == f"the CA offers no challenge of type http-01 for {NAME}"


async def test_nonces_that_are_never_good_end_the_attempt(ca: Ca) -> None:
    ca.refusals = [(400, "badNonce")] * 100
    error = await order(await open_client(ca))
    assert error.reason == "protocol"
    assert len(ca.orders) < 20


async def test_what_is_no_directory_is_reported(ca: Ca) -> None:
    settings = AcmeSettings((NAME,), f"{ca.url}/renewal/aYhbaw.AIdlQyE", "http-01")
    ca.renewal = web.json_response({"no": "directory"})
    with pytest.raises(AcmeError, match="is no ACME directory: it lacks newNonce"):
        await asyncio.to_thread(fetch_directory, settings)
