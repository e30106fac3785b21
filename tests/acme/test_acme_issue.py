"""Certificates by Pebble, Let's Encrypt's CA for tests: the first ones, renewals, failures."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

import httpx
import pytest
from support.acme_gateways import NAME, OTHER_NAME, StartWithAcme, served_certificate
from support.deadlines import until
from support.processes.gateway import GatewayProcess
from support.processes.pebble import Pebble
from support.processes.redis import RedisServer
from support.running_gateway import ADMIN_TOKEN, RunningGateway
from support.servers.dns_server import DnsServer
from support.tiers import slow

from gateway.acme.client import AcmeClient, fetch_directory
from gateway.acme.errors import AcmeError
from gateway.acme.settings import AcmeSettings, ExternalAccountKey
from gateway.acme.state import AcmeState
from gateway.app.build.acme import acme_settings
from gateway.oauth.keys.sealing import Seal
from gateway.store import open_store

pytestmark = slow("ACME")
ISSUED = "gateway_acme_certificates_issued_total"
FAILURES = "gateway_acme_failures_total"


async def is_served(pebble: Pebble, name: str = NAME, host: str = "127.0.0.1") -> bool:
    try:
        found = await served_certificate(pebble, name, host)
    except (ssl.SSLError, OSError):
        return False
    return ("DNS", name) in found["subjectAltName"]


@pytest.mark.parametrize("challenge", ["tls-alpn-01", "http-01"])
async def test_certificate_is_issued_and_served_without_a_restart(
    start_with_acme: StartWithAcme, pebble: Pebble, challenge: str
) -> None:
    pebble.start()
    gateway = await start_with_acme(challenge=challenge)
    await until(lambda: is_served(pebble))
    assert await gateway.metric(ISSUED) == 1
    await until(lambda: missing_of(gateway, 0))


async def missing_of(gateway: RunningGateway, count: int) -> bool:
    return await gateway.metric("gateway_acme_certificates_missing") == count


async def test_ca_that_is_down_is_tried_again(
    start_with_acme: StartWithAcme, pebble: Pebble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.acme.schedule.FIRST_RETRY_S", {"unreachable": 0.2})
    gateway = await start_with_acme()
    await until(lambda: gateway.metric(FAILURES, reason="unreachable"))
    assert await gateway.metric("gateway_acme_certificates_missing") == 1
    assert await gateway.metric("gateway_acme_certificates_overdue") == 1
    pebble.start()
    await until(lambda: is_served(pebble))
    await until(lambda: missing_of(gateway, 0))
    assert await gateway.metric("gateway_acme_certificates_overdue") == 0


async def test_bad_nonces_are_no_failure(start_with_acme: StartWithAcme, pebble: Pebble) -> None:
    pebble.start(PEBBLE_WFE_NONCEREJECT="40")
    gateway = await start_with_acme()
    await until(lambda: is_served(pebble))
    assert "badNonce" in pebble.log() or "nonce" in pebble.log()
    assert await gateway.metric(FAILURES, reason="protocol") == 0


async def test_challenge_that_the_ca_rejects_is_reported(
    start_with_acme: StartWithAcme,
    pebble: Pebble,
    dns: DnsServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    dns.names[NAME] = ["127.0.0.9"]  # where nothing listens
    pebble.start()
    gateway = await start_with_acme()
    await until(lambda: gateway.metric(FAILURES, reason="challenge"))
    await until(lambda: "next attempt in" in caplog.text)
    assert f"no certificate for {NAME} (attempt 1): the CA could not validate" in caplog.text
    assert await gateway.metric(ISSUED) == 0


async def test_certificate_is_renewed_and_the_old_one_served_meanwhile(
    start_with_acme: StartWithAcme, pebble: Pebble, monkeypatch: pytest.MonkeyPatch
) -> None:
    pebble.start()
    # The renewal is due at once, but for the part of a lifetime for which none is replaced.
    monkeypatch.setattr("gateway.acme.schedule.RENEW_AT", 0.0)
    monkeypatch.setattr("gateway.acme.issuer.SHORTEST_LIFE", 0.5 / 86400)
    gateway = await start_with_acme()
    await until(lambda: is_served(pebble))
    serials = {(await served_certificate(pebble, NAME))["serialNumber"]}

    async def is_renewed() -> bool:
        serials.add((await served_certificate(pebble, NAME))["serialNumber"])
        return len(serials) > 1

    await until(is_renewed)
    assert await gateway.metric(ISSUED) >= 2


async def test_account_that_the_ca_forgot_is_registered_again(
    start_with_acme: StartWithAcme, pebble: Pebble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.acme.schedule.OTHER_RETRY_S", 0.2)
    pebble.start()
    gateway = await start_with_acme()
    await until(lambda: is_served(pebble))
    pebble.stop()
    pebble.start()  # with another root, and no account
    settings = acme_settings(gateway.gateway.config)
    assert settings is not None
    store = await open_store(gateway.gateway.config.store)
    state = AcmeState(store.records, Seal(lambda: b"s" * 40))
    await state.delete_certificate(settings.directory_id, NAME)
    await store.close()
    await until(lambda: is_served(pebble))
    assert await gateway.metric(FAILURES, reason="rejected") == 1


async def test_of_two_replicas_one_issues_and_both_serve(
    start_with_acme: StartWithAcme, pebble: Pebble, dns: DnsServer, redis_server: RedisServer
) -> None:
    pebble.start()
    dns.names[NAME] = ["127.0.0.2"]  # the CA sees only this one, whichever asks
    one, other = await asyncio.gather(
        *(start_with_acme(host, {"store": redis_server.url}) for host in ("127.0.0.1", "127.0.0.2"))
    )
    for host in ("127.0.0.1", "127.0.0.2"):
        await until(lambda host=host: is_served(pebble, NAME, host))  # type: ignore[misc]
    assert await one.metric(ISSUED) + await other.metric(ISSUED) == 1


async def test_external_account_is_bound(tmp_path: Path, pebble: Pebble) -> None:
    key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
    pebble.settings |= {
        "externalAccountBindingRequired": True,
        "externalAccountMACKeys": {"kid-1": key},
    }
    pebble.start()

    def open_with(external: ExternalAccountKey | None) -> None:
        settings = AcmeSettings(
            (NAME,), pebble.url, "http-01", "a@b.test", str(pebble.ca), external
        )
        client = AcmeClient(settings)
        try:
            client.open()
        finally:
            client.close()

    await asyncio.to_thread(open_with, ExternalAccountKey("kid-1", key))
    for wrong in (None, ExternalAccountKey("kid-2", key), ExternalAccountKey("kid-1", "!")):
        with pytest.raises(AcmeError) as caught:
            await asyncio.to_thread(open_with, wrong)
        assert caught.value.reason in {"rejected", "protocol"}
        assert key not in str(caught.value)


async def test_directory_of_an_unknown_ca_is_not_trusted(pebble: Pebble) -> None:
    pebble.start()
    settings = AcmeSettings((NAME,), pebble.url, "http-01")
    with pytest.raises(AcmeError, match="certificate verify failed"):
        await asyncio.to_thread(fetch_directory, settings)


async def test_workers_share_what_one_of_their_supervisor_gets(
    tmp_path: Path, pebble: Pebble
) -> None:
    pebble.start()
    acme = {"domains": [NAME], "directory": pebble.url, "directory_ca": str(pebble.ca)}
    listen = {
        "host": "127.0.0.1",
        "port": pebble.https_port,
        "tls": {"acme": acme},
        "http_redirect": {"host": "127.0.0.1", "port": pebble.http_port},
    }
    process = GatewayProcess(
        tmp_path,
        "http://127.0.0.1:9",
        listen=listen,
        workers=2,
        provider={"seal_key": "s" * 40},
    )
    await asyncio.to_thread(process.start)
    try:
        for _ in range(8):  # either worker
            await until(lambda: is_served(pebble), within_s=60)
        async with httpx.AsyncClient() as client:
            found = await client.get(
                f"http://127.0.0.1:{pebble.http_port}/x", headers={"Host": NAME}
            )
            assert (found.status_code, found.headers["Location"]) == (308, f"https://{NAME}/x")
        # A reload adds a name, by http-01.
        text = process.config.read_text().replace(f"- {NAME}", f"- {NAME}\n      - {OTHER_NAME}")
        text = text.replace("directory_ca:", "challenge: http-01\n      directory_ca:")
        await asyncio.to_thread(process.config.write_text, text)
        await until(lambda: is_served(pebble, OTHER_NAME), within_s=60)
        assert await is_served(pebble, NAME)
    finally:
        assert await asyncio.to_thread(process.stop) == 0
    errors = process.errors()
    assert "Traceback" not in errors, errors
    assert ADMIN_TOKEN not in errors
    assert errors.count("certificate of ") == 2
