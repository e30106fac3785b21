"""Workloads that prove who they are by an X.509-SVID."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from support import settings
from support.platforms import SVID, Authority, authority
from support.provider import FORM, Provider, Reply

from gateway.app.workload_audit import WorkloadAudit
from gateway.oauth.library_errors import certificate_errors
from gateway.oauth.workloads import certificates
from gateway.oauth.workloads.rules import Workload

NOW = 1_000_000.0
OTHER = "spiffe://other.example/ns/shop/sa/orders"


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    made = authority("shop.example", NOW)
    (tmp_path / "shop.pem").write_bytes(made.pem)
    return made


@pytest.fixture
def rules(provider: Provider, ours: Authority, tmp_path: Path) -> None:
    provider.change(
        workloads=(
            settings.workload(trust_domain="shop.example", ca=str(tmp_path / "shop.pem"),
                              subject="spiffe://shop.example/ns/shop/sa/*", client_id="orders",
                              scopes=["orders:read"], token_ttl="5m"),
        ),
        takes_certificates=True,
    )  # fmt: skip


async def request_token(provider: Provider, certificate: bytes | None, **form: str) -> Reply:
    body = urlencode({"grant_type": "client_credentials"} | form)
    return await provider.fetch("POST", "/token", FORM, body, certificate=certificate)


@pytest.mark.parametrize("form", [{}, {"client_id": "orders"}])
async def test_svid_stands_for_a_client(
    provider: Provider, rules: None, ours: Authority, form: dict[str, str]
) -> None:
    reply = await request_token(provider, ours.issue(SVID, now=NOW), **form)
    assert reply.status == 200, reply.json
    assert (reply.json["scope"], reply.json["expires_in"]) == ("orders:read", 300)
    token = await provider.server.inspect_token(reply.json["access_token"])
    assert token is not None
    assert token.claims["workload"] == {"iss": "spiffe://shop.example", "sub": SVID}


@pytest.mark.parametrize(
    "uris",
    [
        ("spiffe://shop.example/ns/shop/sa/a/b",),
        ("spiffe://SHOP.example/ns/shop/sa/orders",),
        ("spiffe://shop.example/ns/shop/sa/..",),
        (OTHER,),
        (SVID, OTHER),
        (OTHER, SVID),
        (SVID, "https://shop.example"),
        ("spiffe://shop.example",),
    ],
)
async def test_certificate_with_another_name_or_several_is_no_workload(
    provider: Provider, rules: None, ours: Authority, uris: tuple[str, ...]
) -> None:
    reply = await request_token(provider, ours.issue(*uris, now=NOW))
    assert reply.error == (401, "invalid_client")


async def test_certificate_that_does_not_hold_is_no_workload(
    provider: Provider, rules: None, ours: Authority
) -> None:
    # That of another trust domain, which the listener trusts as well.
    foreign = authority("other.example", NOW)
    certificates: list[Any] = [
        foreign.issue(SVID, now=NOW),
        ours.issue(SVID, now=NOW, is_ca=True),
        ours.issue(SVID, now=NOW, signs=True),
        ours.issue(SVID, now=NOW - 7200),
        ours.issue(SVID, now=NOW + 7200),
        b"\x30\x00",
        None,
    ]
    for certificate in certificates:
        for form in ({}, {"client_id": "orders"}):
            provider.limiter.succeed("orders", "192.0.2.1")
            reply = await request_token(provider, certificate, **form)
            assert reply.error == (401, "invalid_client")


async def test_svid_is_no_other_client(provider: Provider, rules: None, ours: Authority) -> None:
    await provider.server.register_client(client_id="admin", client_secret="secret")
    reply = await request_token(provider, ours.issue(SVID, now=NOW), client_id="admin")
    assert reply.error == (401, "invalid_client")


async def test_metadata_lists_certificates_of_spiffe(provider: Provider, rules: None) -> None:
    path = "/.well-known/oauth-authorization-server"
    said = (await provider.fetch("GET", path)).json
    assert "spiffe_x509" in said["token_endpoint_auth_methods_supported"]
    assert "spiffe_jwt" not in said["token_endpoint_auth_methods_supported"]


async def test_audit_log_has_one_entry_a_day_for_each_pod() -> None:
    entries: list[tuple[str, ...]] = []

    async def note(*entry: str) -> None:
        entries.append(entry)

    now = [0.0]
    audit = WorkloadAudit(note, clock=lambda: now[0])
    details = {"namespace": "shop", "pod": "orders-1", "node": "worker-1"}
    pod = Workload("cluster", "system:serviceaccount:shop:orders", "https://c", 1.0, details)
    other = Workload("cluster", pod.subject, "https://c", 1.0, details | {"pod": "orders-2"})
    for workload in (pod, pod, other):
        await audit.issued(workload, "orders", "192.0.2.1")
    assert entries == [
        ("workload cluster:system:serviceaccount:shop:orders", "192.0.2.1", "token.issue",
         "orders", f"namespace=shop pod={name} node=worker-1")
        for name in ("orders-1", "orders-2")
    ]  # fmt: skip
    now[0] = 86401.0
    await audit.issued(pod, "orders", "192.0.2.1")
    assert len(entries) == 3


@pytest.mark.parametrize("error", certificate_errors(), ids=lambda error: error.__name__)
def test_signature_that_cannot_be_checked_is_none(error: type[Exception]) -> None:
    class Strange:
        def verify_directly_issued_by(self, authority: object) -> None:
            raise error.__new__(error)

    assert not certificates._is_signed_by(Strange(), Strange())  # type: ignore[arg-type]
