"""The console's forms of clients: whatever the admin API takes, and what is wrong beside its
field."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any, get_args

import pytest
from support.clients.console_visitor import Visitor, signed_in
from support.jose_values import jwks, make_key
from support.running_gateway import RunningGateway, StartGateway
from support.servers.raw_upstream import RawUpstream

from gateway.admin.console.client_form import LABELS, METHODS
from gateway.oauth.client_metadata import REGISTRABLE
from gateway.oauth.models import AuthMethod

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
GRANTS = ["client_credentials", "authorization_code", "refresh_token", EXCHANGE, BEARER]
KEYS = jwks(make_key())
SECRET = {"grant:client_credentials": "on"}
SCOPE = {"scope:orders:read": "on"}
ALL = {
    "description": "What the till sends",
    "token_endpoint_auth_method": "private_key_jwt",
    "jwks": json.dumps(KEYS),
    "tls_client_auth_san_dns": "till.shop.example",
    "redirect_uris": "https://a.example/cb\r\nhttp://127.0.0.1/cb",
    "skip_consent": "on",
    "client_uri": "https://a.example/",
    "logo_uri": "https://a.example/logo.png",
    "tos_uri": "https://a.example/tos",
    "policy_uri": "https://a.example/privacy",
    "audience:http://gateway.test": "on",
    "access_token_format": "jwt",
    "tls_client_certificate_bound_access_tokens": "on",
    "dpop_bound_access_tokens": "on",
    "contacts": "ops@a.example",
    "software_id": "till",
    "software_version": "2.1",
    **{f"grant:{name}": "on" for name in GRANTS},
    "scope:orders:read": "on",
}


@pytest.fixture
async def alice(start: StartGateway, upstream: RawUpstream, tmp_path: Path) -> Visitor:
    """An operator of a gateway whose provider has all grants."""
    corp = {"name": "corp", "issuer": "https://idp.example", "audience": ["http://gateway.test"],
            "access_tokens": False}  # fmt: skip
    gateway = await start(
        upstream.url,
        provider={
            "grant_types": [name for name in GRANTS if name not in {"refresh_token", BEARER}],
            "refresh_tokens": {"strategy": "rotating"},
        },
        jwt_issuers=[corp],
        identity_assertions=[{"issuer": "corp"}],
    )
    visitor = await signed_in(gateway, tmp_path)
    await visitor.get("/console/new-client")
    return visitor


async def described(alice: Visitor, client_id: str) -> dict[str, Any]:
    """What the admin API says of a client."""
    status, client = await alice.gateway.call_api("GET", f"/api/v1/clients/{client_id}")
    assert status == 200, client
    return client


def errors(page: str) -> dict[str, str]:
    """What is wrong, by the field that it stands beside."""
    return {name: unescape(text) for name, text in re.findall(r'id="(\w+)-error">([^<]+)<', page)}


def test_form_has_each_member_that_a_registration_may_hold() -> None:
    # `response_types` can only name `code`, which is also the default.
    assert set(LABELS) == set(REGISTRABLE) - {"response_types"}
    assert set(METHODS) == {"", *get_args(AuthMethod)}


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("", SECRET),
        ("client_secret_basic", SECRET),
        ("client_secret_post", SECRET),
        ("private_key_jwt", {**SECRET, "jwks": json.dumps(KEYS)}),
        ("private_key_jwt", {**SECRET, "jwks_uri": "https://a.example/jwks.json"}),
        ("tls_client_auth", {**SECRET, "tls_client_auth_subject_dn": "CN=till,O=Shop"}),
        ("tls_client_auth", {**SECRET, "tls_client_auth_san_dns": "till.shop.example"}),
        ("tls_client_auth", {**SECRET, "tls_client_auth_san_uri": "spiffe://shop.example/till"}),
        ("tls_client_auth", {**SECRET, "tls_client_auth_san_ip": "192.0.2.7"}),
        ("tls_client_auth", {**SECRET, "tls_client_auth_san_email": "till@shop.example"}),
        ("self_signed_tls_client_auth", {**SECRET, "jwks": json.dumps(KEYS)}),
        ("workload", SECRET),
        ("none", {"grant:authorization_code": "on", "redirect_uris": "https://a.example/cb"}),
        ("none", {f"grant:{EXCHANGE}": "on"}),
        ("", {f"grant:{BEARER}": "on"}),
        ("", {"grant:authorization_code": "on", "grant:refresh_token": "on",
              "redirect_uris": "https://a.example/cb"}),
    ],
)  # fmt: skip
async def test_client_of_each_method_and_grant_is_created_and_saved_again_as_it_is(
    alice: Visitor, method: str, more: dict[str, str]
) -> None:
    form = {"client_id": "till", "token_endpoint_auth_method": method, **more}
    status, page = await alice.post("/console/clients", **form)
    assert (status, errors(page)) == (200, {})
    uses_secret = method in {"", "client_secret_basic", "client_secret_post"}
    assert ("client-secret" in page) == uses_secret
    client = await described(alice, "till")
    assert client.get("token_endpoint_auth_method", "") == method
    assert client["grant_types"] == [name for name in GRANTS if f"grant:{name}" in more]
    page = await alice.get("/console/clients/till/edit")
    again = fields_of(page)
    assert (await alice.post("/console/clients/till/edit", **again))[0] == 303
    assert await described(alice, "till") == client


def fields_of(page: str) -> dict[str, str]:
    """What a browser sends of the form of a page, if nothing is changed."""
    page = page[page.index("<main") :]
    fields = {
        name: unescape(value)
        for name, value in re.findall(
            r'<input id="\w+" name="(\w+)" type="text" value="([^"]*)"', page
        )
    }
    for name, value in re.findall(r'<textarea id="\w+" name="(\w+)"[^>]*>([^<]*)</textarea>', page):
        fields[name] = unescape(value)
    for name, value in re.findall(r'type="radio" name="(\w+)" value="([^"]*)" checked', page):
        fields[name] = value
    for name in re.findall(r'type="checkbox" name="([^"]+)" checked', page):
        fields[name] = "on"
    return fields


async def test_all_members_of_a_registration_are_set_shown_changed_and_reset(
    alice: Visitor,
) -> None:
    status, page = await alice.post("/console/clients", client_id="till", **ALL)
    assert (status, errors(page)) == (200, {})
    client = await described(alice, "till")
    assert {name for name in LABELS if name in client} == set(LABELS) - {
        "jwks_uri", "tls_client_auth_subject_dn", "tls_client_auth_san_uri",
        "tls_client_auth_san_ip", "tls_client_auth_san_email",
    }  # fmt: skip
    assert client["redirect_uris"] == ["https://a.example/cb", "http://127.0.0.1/cb"]
    assert (client["jwks"], client["audiences"]) == (KEYS, ["http://gateway.test"])
    page = await alice.get("/console/clients/till")
    for label, text in (
        ("Authenticates by", "private_key_jwt"), ("Public keys", KEYS["keys"][0]["kid"]),
        ("Users are not asked for consent", "yes"), ("Contacts", "ops@a.example"),
    ):  # fmt: skip
        assert re.search(rf"<dt>{label}</dt><dd>{re.escape(text)}", page)
    assert fields_of(await alice.get("/console/clients/till/edit"))["software_id"] == "till"
    reset = {"token_endpoint_auth_method": "private_key_jwt",
             "jwks_uri": "https://a.example/jwks.json", **SECRET}  # fmt: skip
    assert (await alice.post("/console/clients/till/edit", **reset))[0] == 303
    changed = await described(alice, "till")
    assert {name for name in LABELS if name in changed} == {
        "grant_types", "token_endpoint_auth_method", "jwks_uri",
    }  # fmt: skip
    assert changed["scope"] == ""


@pytest.mark.parametrize(
    ("form", "field", "texts"),
    [
        ({"client_id": "a b"}, "client_id", ["'a b'", "without a colon"]),
        ({"client_name": "\u2800"}, "client_name", ["letter or digit"]),
        ({"client_secret": "\u00e9"}, "client_secret", ["printable ASCII"]),
        ({"token_endpoint_auth_method": "none", "client_secret": "s"},
         "token_endpoint_auth_method", ["client credentials"]),
        ({"token_endpoint_auth_method": "tls_client_auth", "client_secret": "s",
          "tls_client_auth_san_ip": "192.0.2.7"}, "client_secret", ["tls_client_auth"]),
        ({"token_endpoint_auth_method": "client_secret_pots"}, "token_endpoint_auth_method",
         ["'client_secret_pots'", "known: client_secret_basic", "mean 'client_secret_post'?"]),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "jwks", ["jwks or jwks_uri"]),
        ({"jwks": "{"}, "jwks", ["JWK set in JSON", "in line 1"]),
        ({"jwks": "[]"}, "jwks", ["Invalid value of jwks"]),
        ({"jwks": '{"keys": []}'}, "jwks", ["public EC, OKP or RSA key"]),
        ({"jwks": json.dumps(KEYS), "jwks_uri": "https://a.example/jwks"}, "jwks_uri", ["both"]),
        ({"jwks_uri": "ftp://a.example"}, "jwks_uri", ["'ftp://a.example'", "http or https"]),
        ({"token_endpoint_auth_method": "tls_client_auth"}, "tls_client_auth_subject_dn",
         ["needs one of tls_client_auth_subject_dn, tls_client_auth_san_dns"]),
        ({"token_endpoint_auth_method": "tls_client_auth", "tls_client_auth_san_ip": "192.0.2.7",
          "tls_client_auth_san_dns": "a.example"}, "tls_client_auth_san_ip", ["and not 2"]),
        ({"tls_client_auth_subject_dn": "till"}, "tls_client_auth_subject_dn", ["till"]),
        ({"tls_client_auth_san_ip": "192.0.2"}, "tls_client_auth_san_ip", ["'192.0.2'"]),
        ({"tls_client_auth_san_dns": "-"}, "tls_client_auth_san_dns", ["'-'", "till.shop.example"]),
        ({"tls_client_auth_san_email": "x"}, "tls_client_auth_san_email", ["'x'", "@"]),
        ({"tls_client_auth_san_uri": "x"}, "tls_client_auth_san_uri", ["'x'", "spiffe://"]),
        ({"redirect_uris": "nonsense"}, "redirect_uris", ["'nonsense'", "https"]),
        ({"grant:authorization_code": "on"}, "redirect_uris", ["https://app.example/callback"]),
        ({"client_uri": "x"}, "client_uri", ["'x'", "http or https"]),
        ({"scope:other": "on"}, "scope", ["'other'", "known: orders:read, orders:write"]),
        ({"grant:password": "on"}, "grant_types", ["'password'", "known: "]),
        ({"audience:urn:x": "on"}, "audiences", ["'urn:x'", "known: http://gateway.test"]),
        ({"access_token_format": "saml"}, "access_token_format", ["'saml'", "known: opaque, jwt"]),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_said_beside_its_field_with_what_would_do(
    alice: Visitor, form: dict[str, str], field: str, texts: list[str]
) -> None:
    status, page = await alice.post("/console/clients", **SECRET | form)
    assert status == 400
    (found,) = errors(page).items()
    assert found[0] == field
    for text in texts:
        assert text in found[1]
    for name, value in form.items():
        if name != "client_secret" and ":" not in name:
            assert value in unescape(page), "what was typed stays"
    assert "see the marked field" in page
    # The part of the form that holds the field is open.
    before = page[: page.index(f'id="{field}-error"')]
    if before.count("<details") > before.count("</details"):
        assert before.rindex("<details") == before.rindex('<details class="part" open')


async def test_taken_id_is_said_and_the_client_can_be_replaced(alice: Visitor) -> None:
    assert (await alice.post("/console/clients", client_id="till", **SECRET))[0] == 200
    status, page = await alice.post("/console/clients", client_id="till", **SECRET)
    assert (status, list(errors(page))) == (409, ["client_id"])
    assert 'name="replace"' in page
    chosen = {"client_secret": "a secret of ours", "replace": "on", **SECRET, **SCOPE}
    status, page = await alice.post("/console/clients", client_id="till", **chosen)
    assert (status, "a secret of ours" in page) == (200, False)
    assert await alice.gateway.get_token("till", secret="a secret of ours")
    _, log = await alice.gateway.call_api("GET", "/api/v1/audit?q=client.")
    assert [one["action"] for one in log["entries"]] == ["client.replace", "client.create"]


async def test_rate_limit_and_overlap_are_set_on_the_page_of_a_client(alice: Visitor) -> None:
    chosen = {"client_secret": "first", **SECRET, **SCOPE}
    assert (await alice.post("/console/clients", client_id="till", **chosen))[0] == 200
    one = "/console/clients/till"
    await alice.get(one)
    for wrong, field in (
        ({"requests": "0"}, "requests"), ({"requests": "1.5"}, "requests"),
        ({"per_seconds": "x"}, "per_seconds"), ({"burst": "-1"}, "burst"),
    ):  # fmt: skip
        form = {"requests": "5", "per_seconds": "0.5", "burst": ""} | wrong
        status, page = await alice.post(f"{one}/limit", **form)
        (text,) = errors(page).values()
        assert (status, list(errors(page))) == (400, [field])
        assert repr(wrong[field]) in text
    assert (await alice.post(f"{one}/limit", requests="5", per_seconds="0.5", burst=""))[0] == 303
    limit = {"requests": 5, "per_seconds": 0.5, "burst": 5}
    assert (await described(alice, "till"))["rate_limit"] == limit
    assert (await alice.post(f"{one}/unlimit"))[0] == 303
    assert "rate_limit" not in await described(alice, "till")
    assert (await alice.post(f"{one}/rotate", overlap="17"))[0] == 400
    status, page = await alice.post(f"{one}/rotate", overlap="3600")
    (new,) = re.findall(r'id="client-secret"[^>]*>([^<]+)<', page)
    for secret in ("first", new):
        assert await alice.gateway.get_token("till", secret=secret)
    assert "End the old secret" in await alice.get(one)
    assert (await alice.post(f"{one}/end-overlap"))[0] == 303
    assert "previous_secret_expires_at" not in await described(alice, "till")


async def test_declared_or_missing_client_is_not_changed(
    gateway: RunningGateway, alice: Visitor
) -> None:
    for path in ("edit", "limit", "unlimit", "rotate", "end-overlap"):
        form = {"requests": "1", "per_seconds": "1", **SECRET}
        assert (await alice.post(f"/console/clients/nemo/{path}", **form))[0] == 404
