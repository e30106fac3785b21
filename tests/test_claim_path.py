"""Paths to claims."""

from __future__ import annotations

import pytest

from gateway.claim_path import ClaimPathError, parse_claim_path, read_values


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cid", ("cid",)),
        ("realm_access.roles", ("realm_access", "roles")),
        ("https://app.example/roles", ("https://app.example/roles",)),
        ("urn:example.com:tenant", ("urn:example.com:tenant",)),
        ("cognito:groups", ("cognito:groups",)),
        ("kubernetes.io.pod.name", ("kubernetes.io", "pod", "name")),
        ("kubernetes.iox.pod", ("kubernetes", "iox", "pod")),
        ('"app.example".roles', ("app.example", "roles")),
        ('resource_access."my app".roles', ("resource_access", "my app", "roles")),
    ],
)
def test_path_is_read_once_and_means_one_claim(text: str, names: tuple[str, ...]) -> None:
    path = parse_claim_path(text)
    assert path.names == names
    claims: dict[str, object] = {"x": 1, ".".join(names) + ".": 3}
    inner = claims
    for name in names[:-1]:
        inner[name] = inner = {}
    inner[names[-1]] = "found"
    assert path.find(claims) == "found"
    inner[names[-1]] = None
    assert path.find(claims) is None


@pytest.mark.parametrize(
    "text",
    ["", ".", "a.", ".a", "a..b", 'a."b', '""', 'a"b"', "a b", "a\n", "{a}", '"a"b', "a\\.b"],
)
def test_text_that_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ClaimPathError):
        parse_claim_path(text)


@pytest.mark.parametrize("claims", [{}, {"a": None}, {"a": "b"}, {"a": ["b"]}, {"a.b": 1}])
def test_path_that_leads_nowhere_finds_nothing(claims: dict[str, object]) -> None:
    assert parse_claim_path("a.b").find(claims) is None


def test_values_are_texts() -> None:
    assert read_values(["a", 1, True, None, {"x": 1}, ["y"], 1.5]) == ("a", "1", "true", "1.5")
    assert read_values("a b") == ("a b",)
    assert read_values(None) == read_values({}) == ()
