"""The first certificate, by Pebble."""

from __future__ import annotations

import ssl

import pytest
from support.acme_gateways import NAME, StartWithAcme, served_certificate
from support.deadlines import until
from support.processes.pebble import Pebble


@pytest.mark.parametrize("challenge", ["tls-alpn-01", "http-01"])
async def test_certificate_is_issued_and_served_without_a_restart(
    start_with_acme: StartWithAcme, pebble: Pebble, challenge: str
) -> None:
    pebble.start()
    gateway = await start_with_acme(challenge=challenge)
    await until(lambda: gateway.metric("gateway_acme_certificates_issued_total"))

    async def is_served() -> bool:
        try:
            found = await served_certificate(pebble, NAME)
        except (ssl.SSLError, ConnectionError):
            return False
        return ("DNS", NAME) in found["subjectAltName"]

    await until(is_served)
