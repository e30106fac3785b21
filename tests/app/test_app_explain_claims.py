"""Which scope or claim of a token fails, explained without the token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.running_gateway import make_config

from gateway.app.explain import ExplainError, explain
from gateway.config import Config, parse_config

ISSUER = "https://idp.example"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    def route(name: str, **keys: Any) -> dict[str, Any]:
        return {"name": name, "match": {"path": f"/{name}"}, "upstream": "main"} | keys

    filled = {"X-Tenant": "{claim:tenant}", "X-Pod": "{claim:kubernetes.io.pod.name}"}
    text = make_config(
        tmp_path,
        jwt_issuers=[{
            "name": "idp", "preset": "okta", "issuer": ISSUER, "audience": ["api", "urn:one"],
        }],
        routes=[
            route(
                "orders",
                scopes={"all": ["orders:read"]},
                claims={"tenant": ["a", "b"], "realm_access.roles": {"all": ["x", "y"]}},
                request_headers={"set": filled},
            ),
            route("any", scopes={"any": ["orders:read", "orders:write"]}),
            route("one", audience=["urn:one"]),
        ],
    )  # fmt: skip
    return parse_config(text, file="g.yaml", environ={})


OKTA = {
    "iss": ISSUER, "aud": "api", "cid": "shop", "sub": "alice", "scp": ["orders:read"],
    "tenant": "a", "realm_access": {"roles": ["x", "y", "z"]}, "cnf": {"jkt": "x"},
    "kubernetes.io": {"pod": {"name": "p"}},
}  # fmt: skip


async def test_each_rule_is_shown_with_what_the_token_has(config: Config) -> None:
    good = explain(config, "GET", "/orders", claims=OKTA)
    assert good["result"] == {"answered_by": "upstream"}
    assert good["auth"]["claims"] == [
        {"claim": "tenant", "any": ["a", "b"], "all": [], "has": ["a"], "holds": True},
        {
            "claim": "realm_access.roles", "any": [], "all": ["x", "y"], "has": ["x", "y", "z"],
            "holds": True,
        },
    ]  # fmt: skip
    for line in ("X-Client-Id: idp:shop", "X-Tenant: a", "X-Pod: p"):
        assert line in good["forwarded_head"]
    bad = explain(config, "GET", "/orders", claims=OKTA | {"tenant": "c"})
    assert [row["holds"] for row in bad["auth"]["claims"]] == [False, True]
    assert bad["result"] == {
        "answered_by": "gateway", "status": 403, "reason": "claim",
        "detail": "The claim tenant of the token does not permit this.",
    }  # fmt: skip
    assert "forwarded_head" not in bad


@pytest.mark.parametrize(
    ("path", "claims", "reason"),
    [
        ("/orders", OKTA | {"scp": []}, "scope"), ("/any", OKTA | {"scp": []}, "scope"),
        ("/one", OKTA, "audience"), ("/any", {"client_id": "shop", "scope": "x"}, "scope"),
        ("/orders", {"scope": "orders:read", "tenant": "a"}, "claim"),
    ],
)  # fmt: skip
async def test_what_else_a_token_lacks_is_shown(
    config: Config, path: str, claims: dict[str, Any], reason: str
) -> None:
    assert explain(config, "GET", path, claims=claims)["result"]["reason"] == reason


@pytest.mark.parametrize(
    "claims", [OKTA | {"aud": "x"}, OKTA | {"cid": None}, {"client_id": 7}, {"scope": ["a"]}]
)
async def test_claims_of_no_token_are_refused(config: Config, claims: dict[str, Any]) -> None:
    with pytest.raises(ExplainError):
        explain(config, "GET", "/orders", claims=claims)


async def test_without_claims_the_rules_are_shown_and_a_token_that_fulfils_them(
    config: Config,
) -> None:
    shown = explain(config, "GET", "/orders")
    assert shown["auth"]["claims"][0] == {"claim": "tenant", "any": ["a", "b"], "all": []}
    assert "X-Tenant: a" in shown["forwarded_head"]
    assert "X-Pod: CLAIM kubernetes.io.pod.name" in shown["forwarded_head"]
    assert explain(config, "GET", "/any")["auth"]["any_scopes"] == ["orders:read", "orders:write"]
