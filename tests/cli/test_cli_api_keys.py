"""`gateway key`: API keys of clients, beside the older spellings for signing keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.commands import Run, as_json
from support.running_gateway import make_config

from gateway.cli import main
from gateway.oauth.api_keys import PATTERN, make_api_key


def test_key_is_created_shown_once_listed_found_and_revoked(run: Run) -> None:
    run("client", "create", "shop")
    status, output, _ = run("key", "create", "shop", "--name", "nightly export")
    assert status == 0
    value = re.search(rf"api key +({PATTERN})\n", output)
    assert value
    assert "shown only this once" in output
    assert re.search(r"scope +all of the client's\n", output)
    (listed,) = as_json(run("key", "list", "shop", "--json"))
    assert (listed["name"], listed["scope"], listed["expires_at"]) == ("nightly export", None, None)
    assert "api_key" not in listed
    status, output, _ = run("key", "list", "shop")
    assert re.search(rf"\n{listed['key_id']} +nightly export +all +never +never\n", output)
    status, output, _ = run("key", "inspect", stdin=f"{value[1]}\n")
    assert (status, listed["key_id"] in output, value[1] in output) == (0, True, False)
    status, output, _ = run("api-key", "revoke", "shop", listed["key_id"])
    assert (status, output) == (0, f"revoked API key {listed['key_id']} (nightly export) of shop\n")
    assert as_json(run("key", "list", "shop", "--json")) == []
    assert run("key", "inspect", value[1])[0] == 1
    assert run("key", "revoke", "shop", listed["key_id"])[0] == 1


def test_key_is_created_with_scopes_an_expiry_and_a_limit(run: Run) -> None:
    run("client", "create", "shop")
    made = as_json(
        run(
            "key", "create", "shop", "--name", "partner", "--scope", "orders:read",
            "--expires", "90d", "--requests", "10", "--per", "1m", "--json",
        )
    )  # fmt: skip
    assert made["scope"] == "orders:read"
    assert made["expires_at"] - made["created_at"] == 90 * 86400
    assert made["rate_limit"] == {"requests": 10, "per_seconds": 60.0, "burst": 10}
    rotated = as_json(run("key", "rotate", "shop", made["key_id"], "--overlap", "1d", "--json"))
    assert rotated["api_key"] != made["api_key"]
    listed = as_json(run("key", "list", "shop", "--json"))
    ends = {key["key_id"]: key["expires_at"] for key in listed}
    assert ends[made["key_id"]] - rotated["created_at"] == pytest.approx(86400, abs=1)
    assert ends[rotated["key_id"]] == rotated["expires_at"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("create", "nobody", "--name", "x"), "there is no client 'nobody'"),
        (("create", "shop", "--name", "x", "--scope", "other"), "does not have the scope 'other'"),
        (("rotate", "shop", "x"), "client 'shop' has no API key 'x'"),
        (("inspect", make_api_key()), "no API key that is known here"),
    ],
)
def test_what_is_not_there_is_reported(run: Run, arguments: tuple[str, ...], error: str) -> None:
    run("client", "create", "shop")
    status, _, errors = run("key", *arguments)
    assert (status, error in errors) == (1, True), errors


def test_signing_keys_have_commands_of_their_own_and_the_old_ones_remain(run: Run) -> None:
    run("client", "create", "shop")
    status, output, errors = run("signing-key", "list", "--json")
    assert (status, output, errors) == (0, "[]\n", "")
    status, output, errors = run("key", "list", "--json")
    assert (status, output) == (0, "[]\n"), "standard output is as it was"
    assert errors == "For API keys, name a client: gateway key list CLIENT_ID\n"
    for command in ("key", "signing-key"):
        assert "no signing key" in run(command, "show", "x")[2]


def test_routes_and_explain_show_which_credentials_a_route_accepts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    routes = [
        {
            "name": "k",
            "match": {"path": "/k"},
            "upstream": "main",
            "credentials": ["bearer", "api_key"],
        }
    ]
    path = tmp_path / "gateway.yaml"
    path.write_text(make_config(tmp_path, routes=routes))
    assert main(["routes", "-c", str(path)]) == 0
    assert "required (bearer or api_key)" in capsys.readouterr().out
    assert main(["explain", "-c", str(path), "GET", "/k", "-H", "X-API-Key: a key"]) == 0
    shown = capsys.readouterr().out
    assert "required, bearer or api_key" in shown
    assert "a key" not in shown
