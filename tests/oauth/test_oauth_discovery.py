"""What clients find out by themselves (RFC 8414, RFC 9728)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.provider import REGISTER, Provider

from gateway.oauth.policy import ProtectedResource

ORDERS = ProtectedResource("/api/orders", scopes=("orders:read",))


async def test_provider_describes_itself(provider: Provider) -> None:
    reply = await provider.fetch("GET", "/.well-known/oauth-authorization-server")
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Cache-Control"] == "public, max-age=300"
    document = reply.json
    assert document["issuer"] == "http://gateway.test"
    assert document["token_endpoint"] == "http://gateway.test/token"
    assert document["revocation_endpoint"] == "http://gateway.test/revoke"
    assert document["introspection_endpoint"] == "http://gateway.test/introspect"
    assert document["registration_endpoint"] == "http://gateway.test/register"
    assert document["jwks_uri"] == "http://gateway.test/jwks.json"
    assert document["grant_types_supported"] == ["client_credentials"]
    assert document["response_types_supported"] == []
    assert document["scopes_supported"] == ["orders:read", "orders:write"]
    assert document["token_endpoint_auth_methods_supported"] == [
        "client_secret_basic", "client_secret_post", "private_key_jwt",
    ]  # fmt: skip
    assert "tls_client_certificate_bound_access_tokens" not in document
    provider.change(takes_certificates=True)
    path = "/.well-known/oauth-authorization-server"
    document = (await provider.fetch("GET", path)).json
    assert document["tls_client_certificate_bound_access_tokens"] is True
    assert document["token_endpoint_auth_methods_supported"][3:] == [
        "tls_client_auth", "self_signed_tls_client_auth",
    ]  # fmt: skip
    assert "none" not in document["token_endpoint_auth_signing_alg_values_supported"]
    assert not any(value is None or value == "" for value in document.values())


async def test_what_is_off_is_not_promised(provider: Provider) -> None:
    provider.change(
        registration_mode="off", scopes=(), default_scopes=(), credentials_in=frozenset({"basic"})
    )
    document = (await provider.fetch("GET", "/.well-known/oauth-authorization-server")).json
    assert "registration_endpoint" not in document
    assert "scopes_supported" not in document
    assert "client_secret_post" not in document["token_endpoint_auth_methods_supported"]


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/oauth-authorization-server/tenant/a",
        "/.well-known/openid-configuration/tenant/a",
        "/tenant/a/.well-known/openid-configuration",
    ],
)
@pytest.mark.parametrize("slash", ["", "/"])
async def test_metadata_of_an_issuer_with_a_path_is_wherever_clients_look_for_it(
    provider: Provider, path: str, slash: str
) -> None:
    """RFC 8414 sections 3.1 and 5, OpenID Connect Discovery 1.0 section 4."""
    provider.change(issuer=f"https://gateway.example:8443/tenant/a{slash}")
    document = (await provider.fetch("GET", path)).json
    assert document["issuer"] == f"https://gateway.example:8443/tenant/a{slash}"
    assert document["token_endpoint"] == "https://gateway.example:8443/token"


async def test_issuer_without_a_path_leaves_openid_configuration_to_upstreams(
    provider: Provider,
) -> None:
    for issuer, is_served in (("", False), ("/", False), ("/a", True)):
        provider.change(issuer=f"https://gateway.example{issuer}")
        known = provider.endpoints.known_paths
        path = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        assert known.serves(path) is is_served


async def test_host_of_a_request_changes_nothing(provider: Provider) -> None:
    for host in ("", "evil.example"):
        for path in ("oauth-authorization-server", "oauth-protected-resource"):
            reply = await provider.fetch(
                "GET", f"/.well-known/{path}", {"Host": "evil.example"}, host=host
            )
            assert b"evil" not in reply.body


async def test_each_route_describes_itself(provider: Provider) -> None:
    provider.change(resources=(ORDERS, ProtectedResource("/", host="files.example")))
    reply = await provider.fetch("GET", "/.well-known/oauth-protected-resource/api/orders")
    assert reply.json == {
        "resource": "http://gateway.test/api/orders",
        "authorization_servers": ["http://gateway.test"],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["orders:read"],
    }
    root = "/.well-known/oauth-protected-resource"
    assert (await provider.fetch("GET", root)).json["resource"] == "http://gateway.test"
    reply = await provider.fetch("GET", root, host="files.example")
    assert reply.json["resource"] == "http://files.example"


async def test_what_is_below_a_route_has_its_own_url_and_the_rest_of_the_route(
    provider: Provider,
) -> None:
    files = ProtectedResource("/files", host="files.example", scopes=("orders:write",))
    provider.change(resources=(ORDERS, files))
    known, root = provider.endpoints.known_paths, "/.well-known/oauth-protected-resource"
    assert known.serves(f"{root}/api/orders/7/lines")
    reply = await provider.fetch("GET", f"{root}/api/orders/7/lines")
    assert reply.json == {
        "resource": "http://gateway.test/api/orders/7/lines",
        "authorization_servers": ["http://gateway.test"],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["orders:read"],
    }
    reply = await provider.fetch("GET", f"{root}/files/x", host="files.example")
    assert reply.json["resource"] == "http://files.example/files/x"
    assert not known.serves(f"{root}/api/ordersx")
    provider.change(resources=(replace(ORDERS, exact=True),))
    assert not provider.endpoints.known_paths.serves(f"{root}/api/orders/7")


async def test_route_that_needs_no_scope_lists_none(provider: Provider) -> None:
    provider.change(resources=(ProtectedResource("/open"),))
    reply = await provider.fetch("GET", "/.well-known/oauth-protected-resource/open")
    assert "scopes_supported" not in reply.json


def test_requests_below_a_route_are_for_that_route(provider: Provider) -> None:
    provider.change(resources=(ORDERS, replace(ORDERS, path="/one", exact=True)))
    name = provider.policy.name_resources
    orders = ("http://gateway.test/api/orders",)
    for url in ("HTTP://Gateway.test:80/api/orders/", "http://gateway.test/api/orders/7?x=1"):
        assert name((url,)) == orders
    for url in (
        "http://gateway.test/api/ordersx",
        "http://gateway.test/api",
        "urn:x",
        "http://other.test/api/orders",
        "http://gateway.test/one/two",
        "http://[",
    ):
        assert name((url,)) == (url,)
    provider.change(resources=(ProtectedResource("/"),))
    assert provider.policy.name_resources(("http://gateway.test/a/b",)) == ("http://gateway.test",)


async def test_path_that_is_no_resource_is_not_one_of_the_providers(provider: Provider) -> None:
    path = "/.well-known/oauth-protected-resource/api/orders"
    assert not provider.endpoints.known_paths.serves(path)


@pytest.mark.parametrize(
    "path",
    ["/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource",
     "/jwks.json"],
)  # fmt: skip
async def test_documents_are_only_read(provider: Provider, path: str) -> None:
    reply = await provider.fetch("POST", path)
    assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD")


async def test_challenge_reports_where_the_metadata_is(provider: Provider) -> None:
    for headers in ({}, {"Authorization": "Bearer unknown"}):
        reply = await provider.fetch("GET", "/validate", headers)
        assert reply.headers["WWW-Authenticate"].endswith(
            'resource_metadata="http://gateway.test/.well-known/oauth-protected-resource"'
        )
    reply = await provider.fetch("POST", "/register", REGISTER | {"Authorization": "Bearer x"})
    assert "resource_metadata" not in reply.headers["WWW-Authenticate"]
