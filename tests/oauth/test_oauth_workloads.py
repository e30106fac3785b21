"""Workloads: tokens that their platform gives them, mapped to clients by rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from support import settings
from support.jose_values import make_key
from support.platforms import (
    CLUSTER,
    GITHUB,
    ORDERS,
    SPIRE,
    github_token,
    jwt_svid,
    service_account_token,
)
from support.provider import FORM, JSON, REGISTER, Provider, basic
from support.servers.issuer import Issuer, issuer
from support.workload_calls import (
    KEY,
    SPIFFE_KEY,
    US,
    WAYS,
    assert_by,
    exchange,
    grant_by,
    make_token,
    trust,
    use_rules,
)

from gateway.oauth.client_metadata import ClientMetadata, metadata_of
from gateway.oauth.jose import sign_jwt
from gateway.oauth.models import StoreUnavailableError
from gateway.oauth.policy import JWT_BEARER, TOKEN_EXCHANGE, ProtectedResource


@pytest.fixture
async def platforms(provider: Provider) -> AsyncIterator[Issuer]:
    """Issuers of four platforms, behind one URL, and rules for some of their subjects."""
    async with issuer(KEY, SPIFFE_KEY) as running:
        trust(provider, running)
        use_rules(
            provider,
            settings.workload(issuer="cluster", subject="system:serviceaccount:shop:*",
                              client_id="orders", scopes=["orders:read"], token_ttl="15m"),
            settings.workload(issuer="spire", subject="spiffe://shop.example/ns/shop/sa/*",
                              client_id="svid", scopes=["orders:read"]),
            settings.workload(issuer="github", subject="repo:org/name:ref:refs/heads/main",
                              client_id="deploy", scopes=["orders:write"]),
            settings.workload(issuer="gitlab",
                              subject="project_path:shop/*:ref_type:branch:ref:main",
                              client_id="deploy", scopes=["orders:read"]),
        )  # fmt: skip
        yield running


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("kind", "client_id", "scope"),
    [
        ("cluster", "orders", "orders:read"), ("spire", "svid", "orders:read"),
        ("github", "deploy", "orders:write"), ("gitlab", "deploy", "orders:read"),
    ],
)  # fmt: skip
async def test_token_of_a_platform_stands_for_a_client(
    provider: Provider, platforms: Issuer, way: Any, kind: str, client_id: str, scope: str
) -> None:
    reply = await way(provider, make_token(kind, provider.clock.now))
    assert reply.status == 200, reply.json
    assert reply.json["scope"] == scope
    token = await provider.server.inspect_token(reply.json["access_token"])
    assert token is not None
    assert token.client_id == client_id
    headers = {"Authorization": f"Bearer {reply.json['access_token']}"}
    assert (await provider.fetch("GET", "/validate", headers)).status == 200


async def test_token_says_which_workload_it_was_issued_to(
    provider: Provider, platforms: Issuer
) -> None:
    assertion = service_account_token(KEY, US, provider.clock.now)
    reply = await grant_by(provider, assertion)
    await provider.server.register_client(client_id="api", client_secret="secret")
    form = urlencode({"token": reply.json["access_token"]})
    said = await provider.fetch("POST", "/introspect", FORM | basic("api", "secret"), form)
    assert said.json["workload"] == {"iss": CLUSTER, "sub": ORDERS}
    assert said.json["client_id"] == "orders"


async def test_life_of_the_token_is_that_of_the_rule_or_what_is_left_in_an_exchange(
    provider: Provider, platforms: Issuer
) -> None:
    now = provider.clock.now
    assert (await grant_by(provider, make_token("cluster", now))).json["expires_in"] == 900
    assert (await grant_by(provider, make_token("spire", now))).json["expires_in"] == 3600
    assert (await exchange(provider, make_token("spire", now))).json["expires_in"] == 300


async def test_rule_alone_makes_the_client_and_its_use_extends_it(
    provider: Provider, platforms: Issuer
) -> None:
    now = provider.clock.now
    await grant_by(provider, make_token("cluster", now))
    client = await provider.store.clients.get_client("orders")
    assert client is not None
    assert (client.scopes, client.secret_hash) == (("orders:read",), "")
    assert metadata_of(client).registered_by == "workload"
    assert client.expires_at == now + 30 * 86400
    provider.clock.now += 20 * 86400
    await grant_by(provider, make_token("cluster", provider.clock.now))
    client = await provider.store.clients.get_client("orders")
    assert client is not None
    assert client.expires_at == provider.clock.now + 30 * 86400
    # No one gets in as this client by a secret.
    for secret in ("", "orders"):
        headers = FORM | basic("orders", secret)
        reply = await provider.fetch("POST", "/token", headers, "grant_type=client_credentials")
        assert reply.error == (401, "invalid_client")


async def test_client_of_several_rules_has_in_each_token_the_scopes_of_one(
    provider: Provider, platforms: Issuer
) -> None:
    now = provider.clock.now
    assert (await grant_by(provider, make_token("github", now))).json["scope"] == "orders:write"
    assert (await grant_by(provider, make_token("gitlab", now))).json["scope"] == "orders:read"
    reply = await grant_by(provider, make_token("gitlab", now, jti="2"), scope="orders:write")
    assert reply.error == (400, "invalid_scope")
    client = await provider.store.clients.get_client("deploy")
    assert client is not None
    assert set(client.scopes) == {"orders:read", "orders:write"}


async def test_registered_client_gets_what_both_the_rule_and_its_registration_allow(
    provider: Provider, platforms: Issuer
) -> None:
    await provider.server.register_client(
        client_id="deploy", client_secret="secret", scopes=["orders:read"],
        metadata=ClientMetadata(audiences=()),
    )  # fmt: skip
    now = provider.clock.now
    reply = await grant_by(provider, make_token("github", now))
    assert reply.error == (400, "invalid_scope")
    assert (await grant_by(provider, make_token("gitlab", now))).json["scope"] == "orders:read"
    provider.clock.now += 31 * 86400
    reply = await grant_by(provider, make_token("gitlab", provider.clock.now, jti="2"))
    assert reply.error == (400, "invalid_grant")
    assert reply.reason == "client_expired"


async def test_client_that_is_declared_after_a_rule_added_it_is_a_registered_one(
    provider: Provider, platforms: Issuer
) -> None:
    token = make_token("cluster", provider.clock.now)
    await grant_by(provider, token)
    client = await provider.store.clients.get_client("orders")
    assert client is not None
    declared = replace(metadata_of(client), managed_by="here", disabled_at=provider.clock.now)
    disabled = replace(client, metadata=declared.stored(), expires_at=provider.clock.now)
    await provider.store.clients.update_client(disabled, generation=client.generation)
    assert (await grant_by(provider, token)).reason == "client_expired"


async def test_registered_client_can_exchange_tokens_only_if_it_is_registered_for_that(
    provider: Provider, platforms: Issuer
) -> None:
    await provider.server.register_client(client_id="orders", client_secret="secret")
    reply = await exchange(provider, make_token("cluster", provider.clock.now))
    assert reply.error == (400, "unauthorized_client")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "https://kubernetes.default.svc"}, "audience"),
        ({"aud": None}, "audience"),
        ({"aud": f"{US}/"}, "audience"),
        ({"subject": "system:serviceaccount:evil:orders"}, "workload_unknown"),
        ({"subject": "system:serviceaccount:SHOP:orders"}, "workload_unknown"),
        ({"sub": "system:serviceaccount:shop:orders:extra"}, "workload_unknown"),
        ({"sub": "system:serviceaccount:shop:"}, "workload_unknown"),
        ({"sub": "xsystem:serviceaccount:shop:orders"}, "workload_unknown"),
        ({"sub": "system:serviceaccount:shop:a/b"}, "workload_unknown"),
        ({"sub": "system:serviceaccount:shop:a\n"}, "workload_unknown"),
        ({"exp": 1_000_000 - 61}, "expired"),
        ({"exp": 1_000_000 + 2 * 86400}, "workload_unknown"),
        ({"exp": None}, "workload_unknown"),
        ({"exp": "soon"}, "workload_unknown"),
        ({"nbf": 1_000_000 + 61}, "not_yet_valid"),
        ({"iat": 1_000_000 + 61}, "not_yet_valid"),
    ],
)  # fmt: skip
async def test_token_that_says_something_else_is_rejected_with_the_reason(
    provider: Provider, platforms: Issuer, way: Any, claims: dict[str, Any], reason: str
) -> None:
    reply = await way(provider, make_token("cluster", provider.clock.now, **claims))
    status, error = {assert_by: (401, "invalid_client"), grant_by: (400, "invalid_grant")}.get(
        way, (400, "invalid_request")
    )
    assert (*reply.error, reply.reason) == (status, error, reason)
    assert await provider.store.clients.get_client("orders") is None


@pytest.mark.parametrize("skew_s", [-59, 59])
async def test_clocks_of_platform_and_gateway_may_be_apart(
    provider: Provider, platforms: Issuer, skew_s: int
) -> None:
    token = make_token("github", provider.clock.now + skew_s, exp=int(provider.clock.now) - 59)
    assert (await grant_by(provider, token)).status == 200


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        ("github", "repo:org/name:ref:refs/heads/main2"),
        ("github", "repo:org/name-evil:ref:refs/heads/main"),
        ("github", "repo:Org/name:ref:refs/heads/main"),
        ("github", "repo:org/name:pull_request"),
        ("gitlab", "project_path:shop/sub/orders:ref_type:branch:ref:main"),
        ("gitlab", "project_path:shop/orders:ref_type:tag:ref:main"),
        ("spire", "spiffe://shop.example/ns/shop/sa/orders/extra"),
        ("spire", "spiffe://shop.example/ns/shop/sa/.."),
        ("spire", "spiffe://shop.example/ns/shop/sa/a%2Fb"),
        ("spire", "spiffe://evil.example/ns/shop/sa/orders"),
        ("spire", "spiffe://shop.example.evil.example/ns/shop/sa/orders"),
        ("spire", "SPIFFE://shop.example/ns/shop/sa/orders"),
    ],
)
async def test_pattern_takes_no_other_subject(
    provider: Provider, platforms: Issuer, kind: str, subject: str
) -> None:
    reply = await grant_by(provider, make_token(kind, provider.clock.now, sub=subject))
    assert reply.error == (400, "invalid_grant")


async def test_rule_may_need_claims_beside_the_subject(
    provider: Provider, platforms: Issuer
) -> None:
    subject = "project_path:shop/*:ref_type:branch:ref:main"
    rule = {"issuer": "gitlab", "subject": subject, "client_id": "deploy"}
    use_rules(
        provider,
        settings.workload(**rule, scopes=["orders:write"],
                          claims={"ref_protected": True, "project_id": [22, 23]}),
        settings.workload(**rule, scopes=["orders:read"], claims={"ref_protected": "false"}),
    )  # fmt: skip
    now = provider.clock.now
    assert (await grant_by(provider, make_token("gitlab", now))).json["scope"] == "orders:write"
    token = make_token("gitlab", now, jti="2", ref_protected="false")
    assert (await grant_by(provider, token)).json["scope"] == "orders:read"
    token = make_token("gitlab", now, jti="3", project_id="24")
    reply = await grant_by(provider, token)
    assert reply.error == (400, "invalid_grant")
    assert "The claim 'project_id' of the token" in reply.json["error_description"]


async def test_peers_that_register_themselves_do_not_get_the_grant_unless_it_is_listed(
    provider: Provider, platforms: Issuer
) -> None:
    provider.change(registration_mode="open")
    assert JWT_BEARER not in provider.policy.registrable_grant_types
    provider.change(registration_mode="token")
    assert JWT_BEARER in provider.policy.registrable_grant_types


async def test_issuer_cannot_name_workloads_of_another(
    provider: Provider, platforms: Issuer
) -> None:
    token = make_token("github", provider.clock.now, sub=ORDERS)
    assert (await grant_by(provider, token)).error == (400, "invalid_grant")
    # One that names itself the issuer of the trust domain, and one that another key signed.
    token = make_token("spire", provider.clock.now, iss=GITHUB)
    assert (await grant_by(provider, token)).error == (400, "invalid_grant")
    token = jwt_svid(make_key(), US, provider.clock.now)
    assert (await grant_by(provider, token)).error == (400, "invalid_grant")


async def test_jwt_svid_may_name_its_issuer(provider: Provider, platforms: Issuer) -> None:
    token = make_token("spire", provider.clock.now, iss=SPIRE)
    assert (await grant_by(provider, token)).status == 200


async def test_assertion_type_of_spiffe_is_taken(provider: Provider, platforms: Issuer) -> None:
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
    token = make_token("spire", provider.clock.now)
    assert (await assert_by(provider, token, client_assertion_type=kind)).status == 200


@pytest.mark.parametrize("way", WAYS)
async def test_token_with_a_jti_is_good_once_in_whatever_way(
    provider: Provider, platforms: Issuer, way: Any
) -> None:
    token = make_token("github", provider.clock.now)
    assert (await way(provider, token)).status == 200
    for other in WAYS:
        reply = await other(provider, token)
        assert reply.status in {400, 401}
        assert reply.reason == "workload_replayed"


async def test_service_account_token_is_used_again_until_the_kubelet_replaces_it(
    provider: Provider, platforms: Issuer
) -> None:
    token = make_token("cluster", provider.clock.now)
    for _ in range(2):
        assert (await assert_by(provider, token)).status == 200
    rule = settings.workload(
        issuer="cluster", subject=ORDERS, client_id="orders", scopes=["orders:read"],
        single_use=True,
    )  # fmt: skip
    use_rules(provider, rule)
    assert (await assert_by(provider, token)).status == 200
    assert (await assert_by(provider, token)).reason == "workload_replayed"


async def test_token_without_a_jti_is_used_again(provider: Provider, platforms: Issuer) -> None:
    token = make_token("spire", provider.clock.now)
    for _ in range(2):
        assert (await assert_by(provider, token)).status == 200
    unusable = make_token("github", provider.clock.now, jti=["x"])
    assert (await assert_by(provider, unusable)).error == (401, "invalid_client")


async def test_keys_of_a_cluster_rotate(provider: Provider, platforms: Issuer) -> None:
    assert (await grant_by(provider, make_token("cluster", provider.clock.now))).status == 200
    following = make_key("RS256")
    platforms.keys.append(following)
    provider.clock.now += 10
    token = service_account_token(following, US, provider.clock.now)
    assert (await grant_by(provider, token)).status == 200


async def test_issuer_or_store_that_does_not_respond_is_503_and_no_verdict(
    provider: Provider, platforms: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    platforms.status = 500
    reply = await grant_by(provider, make_token("github", provider.clock.now))
    assert reply.status == 503
    assert reply.reason == "issuer_unavailable"
    platforms.status = 200
    provider.clock.now += 10

    async def fail(*_: Any) -> None:
        raise StoreUnavailableError("down")

    with monkeypatch.context() as patched:
        patched.setattr(provider.store.records, "add_record", fail)
        for way in WAYS:
            reply = await way(provider, make_token("github", provider.clock.now))
            assert (reply.status, reply.reason) == (503, "store_unavailable")
    assert (await grant_by(provider, make_token("github", provider.clock.now))).status == 200


async def test_client_id_chooses_among_rules_and_must_fit(
    provider: Provider, platforms: Issuer
) -> None:
    rules = [
        settings.workload(issuer="cluster", subject="system:serviceaccount:shop:*",
                          client_id=name, scopes=[scope])
        for name, scope in (("reader", "orders:read"), ("writer", "orders:write"))
    ]  # fmt: skip
    use_rules(provider, *rules)
    token = make_token("cluster", provider.clock.now)
    for way in WAYS:
        assert (await way(provider, token)).json["scope"] == "orders:read"
        assert (await way(provider, token, client_id="writer")).json["scope"] == "orders:write"
        assert (await way(provider, token, client_id="admin")).reason == "workload_unknown"


async def test_grant_beside_client_authentication_must_be_of_the_same_client(
    provider: Provider, platforms: Issuer
) -> None:
    metadata = ClientMetadata(grant_types=("client_credentials", JWT_BEARER))
    for name in ("orders", "other"):
        await provider.server.register_client(
            client_id=name, client_secret="secret", metadata=metadata
        )
    token = make_token("cluster", provider.clock.now)
    assert (await grant_by(provider, token, basic("orders", "secret"))).status == 200
    reply = await grant_by(provider, token, basic("other", "secret"))
    assert reply.error == (400, "invalid_grant")


async def test_service_exchanges_the_token_of_a_workload_for_one_that_speaks_for_it(
    provider: Provider, platforms: Issuer
) -> None:
    metadata = ClientMetadata(grant_types=("client_credentials", TOKEN_EXCHANGE))
    await provider.server.register_client(
        client_id="front", client_secret="secret", metadata=metadata
    )
    token = make_token("github", provider.clock.now)
    reply = await exchange(provider, token, basic("front", "secret"))
    assert reply.status == 200
    issued = await provider.server.inspect_token(reply.json["access_token"])
    assert issued is not None
    assert (issued.client_id, issued.claims["sub"]) == ("front", "deploy")
    assert issued.claims["act"] == {"sub": "front"}
    assert issued.scopes == ("orders:write",)


async def test_service_gets_nothing_for_a_workload_beyond_the_audiences_of_its_rule(
    provider: Provider, platforms: Issuer
) -> None:
    metadata = ClientMetadata(grant_types=("client_credentials", TOKEN_EXCHANGE))
    await provider.server.register_client(
        client_id="front", client_secret="secret", metadata=metadata
    )
    rule = settings.workload(
        issuer="github", subject="repo:org/name:ref:refs/heads/main", client_id="deploy",
        scopes=["orders:write"], audiences=["urn:b"],
    )  # fmt: skip
    provider.change(workloads=(rule,), audiences=("urn:b", "urn:c"))
    for count, (wanted, status) in enumerate((({}, 200), ({"audience": "urn:c"}, 400))):
        token = make_token("github", provider.clock.now, jti=str(count))
        reply = await exchange(provider, token, basic("front", "secret"), **wanted)
        assert reply.status == status
        if status == 200:
            issued = await provider.server.inspect_token(reply.json["access_token"])
            assert issued is not None
            assert issued.claims["aud"] == ["urn:b"]


async def test_tokens_of_an_issuer_of_workloads_are_no_access_tokens(
    provider: Provider, platforms: Issuer
) -> None:
    token = github_token(KEY, "https://api.example", provider.clock.now)
    headers = {"Authorization": f"Bearer {token}"}
    assert (await provider.fetch("GET", "/validate", headers)).status == 401


@pytest.mark.parametrize(
    ("typ", "status"),
    [
        ("JWT", 200), ("client-authentication+jwt", 200), ("at+jwt", 401), ("dpop+jwt", 401),
        ("logout+jwt", 401), ("oauth-id-jag+jwt", 401),
    ],
)  # fmt: skip
async def test_jwt_of_another_type_is_no_token_of_a_workload(
    provider: Provider, platforms: Issuer, typ: str, status: int
) -> None:
    claims = {"iss": CLUSTER, "sub": ORDERS, "aud": US, "exp": int(provider.clock.now) + 60}
    token = sign_jwt({"alg": "RS256", "kid": KEY.kid, "typ": typ}, claims, KEY)
    assert (await assert_by(provider, token)).status == status


async def test_audience_of_a_route_is_not_the_providers(
    provider: Provider, platforms: Issuer
) -> None:
    """A service that gets the token of a pod for itself cannot use it here."""
    token = service_account_token(KEY, "https://api.example", provider.clock.now)
    assert (await assert_by(provider, token)).status == 200
    route = ProtectedResource("/orders", audiences=("https://api.example",))
    provider.change(resources=(route,))
    assert (await assert_by(provider, token)).reason == "audience"


async def test_metadata_lists_the_grant_and_the_methods_only_where_there_are_rules(
    provider: Provider, platforms: Issuer
) -> None:
    path = "/.well-known/oauth-authorization-server"
    said = (await provider.fetch("GET", path)).json
    assert JWT_BEARER in said["grant_types_supported"]
    assert "spiffe_jwt" in said["token_endpoint_auth_methods_supported"]
    assert "spiffe_x509" not in said["token_endpoint_auth_methods_supported"]
    provider.change(workloads=(), grant_types=("client_credentials",))
    said = (await provider.fetch("GET", path)).json
    assert JWT_BEARER not in said["grant_types_supported"]
    assert "spiffe_jwt" not in said["token_endpoint_auth_methods_supported"]
    token = make_token("cluster", provider.clock.now)
    assert (await grant_by(provider, token)).error == (400, "unsupported_grant_type")
    assert (await assert_by(provider, token)).error == (401, "invalid_client")


async def test_id_of_a_workload_is_not_one_to_register_over_http(
    provider: Provider, platforms: Issuer
) -> None:
    provider.change(reserved_client_ids=frozenset({"orders"}))
    body = '{"client_id": "orders", "client_name": "orders"}'
    reply = await provider.fetch("POST", "/createClient", JSON | REGISTER, body)
    assert reply.error == (400, "invalid_client_metadata")
    body = '{"client_name": "x", "token_endpoint_auth_method": "workload"}'
    reply = await provider.fetch("POST", "/register", JSON | REGISTER, body)
    assert reply.error == (400, "invalid_client_metadata")
