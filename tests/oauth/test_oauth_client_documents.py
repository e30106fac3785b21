"""Clients whose id is the URL of their metadata, fetched from a real server by https."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.clients.browser import Browser, open_door, redeem, reported
from support.provider import Provider, Reply
from support.servers.document_server import DocumentServer, document_server

from gateway.app.document_client import DocumentClient
from gateway.oauth.issuer_metadata import FetchError
from gateway.rate_limit import RateLimit

NATIVE = "http://127.0.0.1:4711/callback"
PATH = "/agent/client.json"


@pytest.fixture
async def site(
    provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DocumentServer]:
    """The server with the documents, on an address that is allowed."""
    async with document_server(tmp_path) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.ca))
        provider.documents_client.reconfigure(["127.0.0.0/8", "::1/128"])
        await open_door(provider, client_document_hosts=(), registration_mode="off")
        yield server


async def ask(provider: Provider, client_id: str, **changes: Any) -> Reply:
    browser = Browser(provider)
    return await browser.authorize(client_id=client_id, redirect_uri=NATIVE, **changes)


async def problem(provider: Provider, client_id: str) -> str:
    """What the page says of a client that is not taken."""
    reply = await ask(provider, client_id)
    assert reply.status == 400, reply.body
    return reply.body.decode()


async def token_of(provider: Provider, client_id: str, code: str) -> Reply:
    return await redeem(provider, code, who={}, client_id=client_id, redirect_uri=NATIVE)


async def test_client_is_known_by_its_document_and_stored_when_a_user_comes(
    provider: Provider, site: DocumentServer
) -> None:
    client_id = site.publish(PATH, scope="orders:read", grant_types=["authorization_code"])
    browser = Browser(provider)
    asked = await browser.authorize(client_id=client_id, redirect_uri=NATIVE)
    assert b"Desktop Agent" in asked.body
    clients = provider.store.clients
    assert await clients.get_client(client_id) is None, "any peer can have a document fetched"
    consent = await browser.sign_in(asked)
    page = " ".join(consent.body.decode().split())
    assert f"application is that of <strong>localhost:{site.port}</strong>" in page
    code = reported(await browser.send(consent))["code"]
    reply = await token_of(provider, client_id, code)
    assert (reply.status, reply.json["scope"]) == (200, "orders:read")
    token = await provider.server.inspect_token(reply.json["access_token"])
    assert token is not None
    assert token.client_id == client_id
    assert "authorization_code" in (await _stored(provider, client_id)).metadata["grant_types"]
    assert site.requests == [PATH], "fetched once for all steps"


async def _stored(provider: Provider, client_id: str) -> Any:
    client = await provider.store.clients.get_client(client_id)
    assert client is not None
    return client


async def test_consent_holds_until_the_document_says_something_else(
    provider: Provider, site: DocumentServer
) -> None:
    redirect = "https://agent.example/cb"
    client_id = site.publish(PATH, redirect_uris=[redirect])
    browser = Browser(provider)
    wanted = {"client_id": client_id, "redirect_uri": redirect}
    assert "code" in reported(await browser.allow(**wanted))
    assert "code" in reported(await browser.authorize(**wanted)), "agreed before"
    site.publish(PATH, redirect_uris=[redirect], client_name="Another Agent")
    provider.clock.now += 400
    again = await browser.authorize(**wanted)
    assert b"Another Agent" in again.body
    site.publish(PATH, redirect_uris=["https://elsewhere.example/cb"])
    provider.clock.now += 400
    assert (await browser.authorize(**wanted)).status == 400, "the address is no longer its own"


async def test_metadata_says_that_documents_are_taken(provider: Provider) -> None:
    path, member = (
        "/.well-known/oauth-authorization-server",
        "client_id_metadata_document_supported",
    )
    await open_door(provider)
    assert member not in (await provider.fetch("GET", path)).json
    provider.change(client_document_hosts=())
    assert (await provider.fetch("GET", path)).json[member] is True


async def test_document_is_kept_as_long_as_it_says(
    provider: Provider, site: DocumentServer
) -> None:
    client_id = site.publish(PATH)
    for cache, lives_s in (("max-age=1000", 1000), ("no-store", 60), ("max-age=9999999", 86400),
                           ("", 300)):  # fmt: skip
        site.headers, site.requests[:] = {"Cache-Control": cache}, []
        provider.clock.now += 90_000
        for wait_s, count in ((0, 1), (lives_s - 1, 1), (2, 2)):
            provider.clock.now += wait_s
            assert (await ask(provider, client_id)).status == 200
            assert len(site.requests) == count, (cache, wait_s)


async def test_what_failed_is_not_fetched_again_for_a_minute(
    provider: Provider, site: DocumentServer
) -> None:
    client_id = site.url(PATH)
    for _ in range(3):
        assert "status 404" in await problem(provider, client_id)
    assert len(site.requests) == 1
    site.publish(PATH)
    provider.clock.now += 61
    assert (await ask(provider, client_id)).status == 200


async def test_many_that_ask_at_once_fetch_it_once(
    provider: Provider, site: DocumentServer
) -> None:
    client_id = site.publish(PATH)
    replies = await asyncio.gather(*(ask(provider, client_id) for _ in range(5)))
    assert {reply.status for reply in replies} == {200}
    assert site.requests == [PATH]


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"client_id": "https://other.example/c"}, "another one"),
        ({"client_id": None}, "another one"),
        ({"redirect_uris": None}, "needs redirect_uris"),
        ({"redirect_uris": ["javascript:alert(1)"]}, "must be https"),
        ({"token_endpoint_auth_method": "client_secret_basic"}, "holds no secret"),
        ({"client_secret": "x"}, "holds no secret"),
        ({"token_endpoint_auth_method": ["none"]}, "must be none or private_key_jwt"),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "needs jwks"),
        ({"grant_types": ["client_credentials"]}, "grant type"),
        ({"padding": "x" * 6000}, "larger than 5 KiB"),
    ],
)
async def test_document_that_can_be_no_clients_is_rejected(
    provider: Provider, site: DocumentServer, members: dict[str, Any], says: str
) -> None:
    assert says in await problem(provider, site.publish(PATH, **members))


async def test_document_gives_no_rights_beyond_those_of_who_registers(
    provider: Provider, site: DocumentServer
) -> None:
    client_id = site.publish(
        PATH, skip_consent=True, audiences=["http://gateway.test"], access_token_format="jwt",
        scope="orders:write", registered_by="operator",
        grant_types=["authorization_code", "refresh_token", "client_credentials"],
    )  # fmt: skip
    browser = Browser(provider)
    page = await browser.sign_in(
        await browser.authorize(
            client_id=client_id, redirect_uri=NATIVE, scope="orders:read orders:write"
        )
    )
    assert b"Requested permissions" in page.body, "asked, whatever it says"
    assert b"orders:write" not in page.body, "the default scopes, as for all that register"
    stored = await _stored(provider, client_id)
    assert set(stored.metadata) == {
        "grant_types", "redirect_uris", "token_endpoint_auth_method", "registered_by",
    }  # fmt: skip
    assert stored.metadata["grant_types"] == ["authorization_code", "refresh_token"]


@pytest.mark.parametrize(
    "client_id",
    ["https://localhost", "https://localhost/#x", "https://u:p@localhost/c", "https://localhost/../c",
     "https://LOCALHOST/c", "https://localhost/a/./c", "https://localhost/" + "x" * 300,
     "https://localhost/a b", "https://[::1]/c"],
)  # fmt: skip
async def test_url_in_another_form_is_not_fetched(
    provider: Provider, site: DocumentServer, client_id: str
) -> None:
    assert "canonical form" in await problem(provider, client_id)


async def test_only_hosts_that_the_operator_allows_are_called(
    provider: Provider, site: DocumentServer
) -> None:
    client_id = site.publish(PATH)
    provider.change(client_document_hosts=("*.agents.example", "agent.example"))
    assert "not one that the operator allows" in await problem(provider, client_id)
    assert not site.requests
    provider.change(client_document_hosts=("localhost",))
    assert (await ask(provider, client_id)).status == 200
    provider.change(client_document_hosts=None)
    assert "is not registered" in await problem(provider, client_id)


async def test_private_addresses_are_not_called_whatever_their_names(
    provider: Provider, site: DocumentServer
) -> None:
    provider.documents_client.reconfigure([])
    assert "an address that is not public" in await problem(provider, site.publish(PATH))
    for host in ("127.0.0.1", "127.1", "2130706433", "0177.0.0.1", "127.0.0.1."):
        problem_of_host = await problem(provider, f"https://{host}:{site.port}{PATH}")
        assert "an address in place of a name" in problem_of_host, host
    assert not site.requests


async def test_redirects_are_not_followed(provider: Provider, site: DocumentServer) -> None:
    client_id = site.publish(PATH)
    site.status, site.headers = 302, {"Location": site.url("/elsewhere")}
    assert "status 302" in await problem(provider, client_id)
    assert site.requests == [PATH]


async def test_fetches_are_bounded_for_each_source(
    provider: Provider, site: DocumentServer
) -> None:
    provider.change(registration_rate_limit=RateLimit(2, 3600.0, 2))
    said = [await problem(provider, site.url(f"/{n}")) for n in range(3)]
    assert ["too many" in one for one in said] == [False, False, True]
    assert len(site.requests) == 2


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [("93.184.215.14", True), ("2606:2800:21f::1", True), ("10.1.2.3", False), ("127.0.0.1", False),
     ("169.254.169.254", False), ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False),
     ("::1", False), ("fe80::1%eth0", False), ("fd00::1", False), ("::ffff:10.0.0.1", False),
     ("64:ff9b::a00:1", False), ("2002:a00:1::", False), ("ff0e::1", False), ("::", False),
     ("192.0.2.1", False), ("2001:0:a00:1::", False), ("10.9.0.1", True), ("fec0::1", False),
     ("64:ff9b:1::a00:1", False), ("::7f00:1", False), ("::ffff:0:a00:1", False)],
)  # fmt: skip
def test_address_counts_as_what_it_leads_to(address: str, is_allowed: bool) -> None:
    assert DocumentClient(["10.9.0.0/16"]).is_allowed(address) is is_allowed


async def test_what_is_not_json_is_rejected(provider: Provider, site: DocumentServer) -> None:
    client = provider.documents_client
    for text in ("[]", "{", "null", '"x"', ""):
        site.documents[PATH] = text
        with pytest.raises(FetchError, match="not a JSON object"):
            await client.fetch(site.url(PATH))
    with pytest.raises(FetchError):
        await client.fetch("https://localhost:1/")
    with pytest.raises(FetchError):
        await client.fetch("https://no-such-host.invalid/")
