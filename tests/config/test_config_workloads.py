"""`workloads`: what is rejected, what is warned of, what `gateway explain` and a reload say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.app.build.checks import find_cautions, find_unusable_files
from gateway.app.build.provider import provider_policy
from gateway.app.reloading.changes import describe_changes
from gateway.cli import main
from gateway.config import LoadedConfig, parse_config
from gateway.config.loading import parse
from gateway.config.problems import ConfigError
from gateway.oauth.policy import JWT_BEARER
from gateway.oauth.workloads.subjects import SubjectPattern, SubjectPatternError
from gateway.oauth.workloads.subjects import check_subject_pattern as check

ISSUERS = [
    {"name": "cluster", "issuer": "https://k8s.example", "jwks_uri": "https://k8s.example/keys",
     "audience": ["https://gateway.example"], "access_tokens": False},
    {"name": "github", "issuer": "https://token.actions.githubusercontent.com",
     "jwks_uri": "https://token.actions.githubusercontent.com/.well-known/jwks",
     "audience": ["https://gateway.example"], "access_tokens": False},
]  # fmt: skip
RULE = {
    "issuer": "cluster", "subject": "system:serviceaccount:shop:*", "client_id": "orders",
    "scopes": ["orders:read"],
}  # fmt: skip


def load(*rules: dict[str, Any], **sections: Any) -> LoadedConfig:
    tree = {
        "store": "sqlite:///:memory-less.db",
        "provider": {
            "issuer": "https://gateway.example", "scopes": ["orders:read"],
            "registration": {"mode": "off"},
        },
        "jwt_issuers": ISSUERS,
        "workloads": list(rules),
    } | sections  # fmt: skip
    return parse(yaml.safe_dump(tree), file="g.yaml", environ={})


@pytest.mark.parametrize(
    ("change", "key", "complaint"),
    [
        ({"issuer": "clutser"}, "workloads[0].issuer", "not the name of an entry of jwt_issuers"),
        ({"issuer": None}, "workloads[0]", "expected either issuer or trust_domain"),
        ({"trust_domain": "td"}, "workloads[0]", "expected either issuer or trust_domain"),
        ({"scopes": ["orders:raed"]}, "workloads[0].scopes[0]", "not one of provider.scopes"),
        ({"client_id": "a:b"}, "workloads[0].client_id", "without a colon"),
        ({"subject": "**"}, "workloads[0].subject", "in the middle of a part"),
        ({"subject": "*"}, "workloads[0].subject", "matches every subject"),
        ({"subject": "repo:org**"}, "workloads[0].subject", "in the middle of a part"),
        ({"subject": "repo:**:x"}, "workloads[0].subject", "in the middle of a part"),
        ({"subject": "a b"}, "workloads[0].subject", "without blanks"),
        ({"subject": "spiffe://*/sa"}, "workloads[0].subject", "without `*`"),
        ({"subject": "spiffe://Shop/sa"}, "workloads[0].subject", "lower case"),
        ({"claims": {"ref": {}}}, "workloads[0].claims.ref", "expected values"),
        ({"ca": "ca.pem"}, "workloads[0].ca", "has no effect without trust_domain"),
        ({"token_ttl": "0"}, "workloads[0].token_ttl", "must be longer than 0"),
        ({"clinet_id": "x"}, "workloads[0].clinet_id", "unknown key"),
    ],
)
def test_rule_that_cannot_work_is_rejected_at_its_key(
    change: dict[str, Any], key: str, complaint: str
) -> None:
    rule = {name: value for name, value in (RULE | change).items() if value is not None}
    with pytest.raises(ConfigError) as caught:
        load(rule)
    found = {problem.key: problem.message for problem in caught.value.problems}
    assert complaint in found[key]


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        ([RULE, RULE], "for the subject and the client of workloads[0] too"),
        ([{"trust_domain": "a", "subject": "spiffe://b/x", "client_id": "c"}],
         "expected a SPIFFE ID of the trust domain: spiffe://a/"),
        ([{"trust_domain": name, "subject": f"spiffe://{name}/x", "client_id": "c"}
          for name in ("a", "b")], "needs ca: with several trust domains"),
        ([{"trust_domain": "a", "subject": "spiffe://a/x", "client_id": "c", "single_use": True}],
         "a certificate has no jti"),
        ([{"trust_domain": "a", "subject": "spiffe://a/x", "client_id": "c"}],
         "certificates of clients get here by listen.tls.client_ca"),
    ],
)  # fmt: skip
def test_rules_that_do_not_fit_each_other_are_rejected(
    rules: list[dict[str, Any]], complaint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*rules, listen={"port": 8080})
    assert any(complaint in problem.message for problem in caught.value.problems)


def test_what_a_command_leaves_out_is_missed_before_a_start_only() -> None:
    domain = {"trust_domain": "a", "subject": "spiffe://a/x", "client_id": "c"}
    sections = {"provider": {"registration": {"mode": "off"}, "scopes": ["orders:read"]}}
    tree = {"store": "sqlite:///g.db", "workloads": [RULE, domain]} | sections
    loaded = parse(yaml.safe_dump(tree), file="g.yaml", environ={})
    found = {problem.key: problem.message for problem in find_unusable_files(loaded)}
    assert "jwt_issuers" in found["workloads[0].issuer"]
    assert "listen.tls.client_ca" in found["workloads[1].trust_domain"]


@pytest.mark.parametrize(
    ("rule", "key", "warning"),
    [
        ({"scopes": None}, "workloads[0]", "lists no scopes"),
        ({"audiences": ["https://typo.example"]}, "workloads[0].audiences[0]", "of no route"),
        ({"issuer": "github", "subject": "repo:*/orders:ref:refs/heads/main"},
         "workloads[0].subject", "takes jobs of anyone at token.actions.githubusercontent.com"),
    ],
)  # fmt: skip
def test_check_warns_of_what_is_probably_not_meant(
    rule: dict[str, Any], key: str, warning: str
) -> None:
    kept = {name: value for name, value in (RULE | rule).items() if value is not None}
    found = {problem.key: problem.message for problem in find_cautions(load(kept))}
    assert warning in found[key]
    assert not [one for one in find_cautions(load(RULE)) if "workloads" in one.key]


def test_check_warns_of_an_issuer_whose_tokens_open_routes_as_well() -> None:
    issuer = {name: value for name, value in ISSUERS[0].items() if name != "access_tokens"}
    found = {one.key: one.message for one in find_cautions(load(RULE, jwt_issuers=[issuer]))}
    assert "set `access_tokens: false` for 'cluster'" in found["workloads[0].issuer"]


def test_change_of_a_rule_is_shown_by_its_key() -> None:
    changes = describe_changes(load(RULE), load(RULE | {"token_ttl": "5m"}))
    assert [(one.key, one.before, one.after) for one in changes] == [
        ("workloads[0].token_ttl", "null", "300.0")
    ]


def test_grant_is_given_and_ids_are_reserved_where_there_are_rules() -> None:
    policy = provider_policy(load(RULE).config)
    assert JWT_BEARER in policy.grant_types
    assert "orders" in policy.reserved_client_ids
    assert JWT_BEARER not in provider_policy(load().config).grant_types


@pytest.mark.parametrize(
    ("pattern", "subject", "fits"),
    [
        ("a:*", "a:b", True), ("a:*", "a:", False), ("a:*", "a:b:c", False),
        ("a:*", "a:b/c", False), ("a:*", "A:b", False), ("a:*", "a:\n", False),
        ("a:*", "a:b\n", False), ("a:**", "a:b:c/d", True), ("a:**", "a:", False),
        ("a/x-*", "a/x-1", True), ("a/x-*", "a/y-1", False), ("a.c", "abc", False),
        ("(a|b)", "a", False), ("a:*:c", "a:b:c", True), ("a:*:c", "a::c", False),
        ("a:*", "a:é", True), ("a", "", False), ("a:**", "a:" + "b" * 3000, False),
        ("spiffe://td/*", "spiffe://td/x", True), ("spiffe://td/*", "spiffe://td/%41", False),
        ("spiffe://td/**", "spiffe://td/a/../b", False),
        ("spiffe://td/**", "spiffe://td/a//b", False),
    ],
)  # fmt: skip
def test_pattern_fits_a_subject_as_a_whole(pattern: str, subject: str, fits: bool) -> None:
    assert SubjectPattern(check(pattern)).matches(subject) is fits


def test_pattern_of_many_wildcards_is_rejected_or_takes_no_time() -> None:
    with pytest.raises(SubjectPatternError):
        check("a*" * 257)
    pattern = SubjectPattern(check("a:" + "*x" * 40))
    assert not pattern.matches("a:" + "x" * 2000 + "y")


def test_explain_shows_which_entry_fits_and_why_others_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gateway.yaml"
    other = RULE | {"subject": "system:serviceaccount:bank:*", "client_id": "bank"}
    tree = {
        "provider": {"registration": {"mode": "off"}, "scopes": ["orders:read"]},
        "jwt_issuers": ISSUERS, "workloads": [other, RULE, RULE | {"client_id": "second"}],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(tree))
    subject = "system:serviceaccount:shop:orders"
    assert main(["explain", "-c", str(path), "--subject", subject, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["workload"], said["client_id"]) == ("workloads[1]", "orders")
    assert said["others"] == [
        {"name": "workloads[0]", "why_not": "the subject is not system:serviceaccount:bank:*"},
        {"name": "workloads[2]",
         "why_not": "comes after workloads[1]; a request with its client_id gets it"},
    ]  # fmt: skip
    assert main(["explain", "-c", str(path), "--subject", subject]) == 0
    assert "client    orders\nscopes    orders:read\n" in capsys.readouterr().out
    assert main(["explain", "-c", str(path), "--subject", subject, "--issuer", "github"]) == 1
    assert "workloads[1]: is for cluster" in capsys.readouterr().out
    assert main(["explain", "-c", str(path)]) == 2
    assert "expected METHOD and URL, or --subject" in capsys.readouterr().err


def test_grant_may_be_listed_for_registration_where_it_is_given() -> None:
    registration = {"mode": "off", "grant_types": [JWT_BEARER]}
    provider = {"registration": registration, "scopes": ["orders:read"]}
    assert load(RULE, provider=provider).config.provider.registration.grant_types == [JWT_BEARER]
    with pytest.raises(ConfigError, match="is not one that the provider gives"):
        load(provider=provider)


def test_workloads_are_optional() -> None:
    config = parse_config("provider: {registration: {mode: 'off'}}", file="g.yaml", environ={})
    assert config.workloads == []


def test_declared_client_may_have_no_other_method_and_the_grant() -> None:
    clients = {"orders": {"token_endpoint_auth_method": "workload", "grant_types": [JWT_BEARER]}}
    declared = load(RULE, clients=clients).config.clients["orders"]
    assert declared.token_endpoint_auth_method == "workload"
    assert declared.grant_types == [JWT_BEARER]
