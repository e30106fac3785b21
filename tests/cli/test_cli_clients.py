"""Commands about clients and their tokens."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from support.commands import Run, as_json
from support.jose_values import jwks, make_key
from support.refreshing import begin, refresh_token
from support.running_gateway import make_config

from gateway.cli.provider import with_provider
from gateway.oauth.models import digest_token
from gateway.oauth.server import AuthorizationServer
from gateway.store import open_store


def test_client_is_created_with_a_secret_that_is_shown_once(run: Run) -> None:
    status, output, _ = run("client", "create", "--id", "shop", "--name", "The shop")
    assert status == 0
    secret = re.search(r"client_secret +(\S{43})\n", output)
    assert secret
    # And with it, the next command to type.
    assert f"/token -u shop:{secret[1]} -d grant_type=client_credentials" in output
    assert "shown only this once" in output
    status, output, _ = run("client", "show", "shop")
    assert secret[1] not in output
    assert re.search(r"client_name +The shop\n", output)


def test_id_of_a_new_client_is_an_argument_or_an_option(run: Run) -> None:
    assert as_json(run("client", "create", "shop", "--json"))["client_id"] == "shop"
    assert as_json(run("client", "create", "--id", "other", "--json"))["client_id"] == "other"
    status, _, errors = run("client", "create", "a", "--id", "b")
    assert (status, errors) == (1, "gateway: two client ids: 'a' and --id 'b'\n")


def test_client_record_is_printed_as_json(run: Run) -> None:
    created = as_json(run("client", "create", "--id", "shop", "--json"))
    assert created["client_id"] == "shop"
    assert created.pop("client_secret")
    assert as_json(run("client", "show", "shop", "--json")) == created
    assert as_json(run("client", "list", "--json")) == [created]
    assert as_json(run("client", "renew", "shop", "--json"))["client_id"] == "shop"


def test_given_secret_comes_from_a_file_or_stdin_and_is_not_printed(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    path.write_text("from-file\n")
    status, output, _ = run("client", "create", "--id", "a", "--secret-file", str(path))
    assert (status, "from-file" in output) == (0, False)
    status, output, _ = run("client", "rotate", "a", "--secret-file", "-", stdin="from-stdin\n")
    assert (status, "from-stdin" in output) == (0, False)
    status, _, errors = run("client", "rotate", "a", "--secret-file", "-")
    assert (status, errors) == (1, "gateway: standard input is empty\n")
    status, _, errors = run("client", "rotate", "a", "--secret-file", str(tmp_path / "none"))
    assert (status, "No such file" in errors) == (1, True)


def test_rotation_has_an_overlap_that_is_shown_and_ended(run: Run) -> None:
    run("client", "create", "a")
    shown = as_json(run("client", "rotate", "a", "--overlap", "1h", "--json"))
    assert shown["previous_secret_expires_at"] > shown["client_id_issued_at"]
    assert "previous secret expires" in run("client", "show", "a")[1]
    ended = as_json(run("client", "end-overlap", "a", "--json"))
    assert "previous_secret_expires_at" not in ended
    assert run("client", "end-overlap", "b")[0] == 1


@pytest.fixture
def store(tmp_path: Path) -> None:
    """The store of a gateway that has run, without a client."""

    async def make() -> None:
        await (await open_store(f"sqlite:///{tmp_path}/gateway.db")).close()

    asyncio.run(make())


@pytest.mark.usefixtures("store")
def test_clients_are_listed_in_a_table(run: Run) -> None:
    assert run("client", "list") == (0, "CLIENT ID  NAME  SCOPE  EXPIRES\n", "")
    for name in ("b", "a"):
        run("client", "create", "--id", name, "--scope", "orders:read")
    _, output, _ = run("client", "list")
    assert [line.split()[:3] for line in output.splitlines()[1:]] == [
        ["a", "a", "orders:read"],
        ["b", "b", "orders:read"],
    ]


def test_taken_id_is_an_error_unless_it_shall_be_replaced(run: Run) -> None:
    assert run("client", "create", "--id", "a")[0] == 0
    status, _, errors = run("client", "create", "--id", "a")
    assert (status, "there is a client 'a' already; --replace" in errors) == (1, True)
    assert run("client", "create", "--id", "a", "--replace")[0] == 0


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("command", ["show", "renew", "rotate", "delete"])
def test_client_that_is_not_there_is_an_error(run: Run, command: str) -> None:
    assert run("client", command, "nobody") == (1, "", "gateway: there is no client 'nobody'\n")


def test_tokens_of_a_client_are_listed_and_can_not_be_used(run: Run) -> None:
    run("client", "create", "--id", "shop")
    issued = [run("token", "issue", "shop", "--ttl", ttl)[1].strip() for ttl in ("2h", "1h", "3h")]
    listed = as_json(run("token", "list", "shop", "--json"))
    digests = [digest_token(token).hex()[:12] for token in issued]
    assert [one["digest"] for one in listed] == [digests[1], digests[0], digests[2]]
    assert listed[0]["exp"] - listed[0]["iat"] == 3600
    assert listed[0]["sub"] == "shop"
    status, table, _ = run("token", "list", "shop", "--limit", "2")
    assert (status, len(table.splitlines())) == (0, 3)
    assert "orders:read" in table
    assert not any(token in table for token in issued)
    run("token", "revoke", issued[1])
    assert [one["digest"] for one in as_json(run("token", "list", "shop", "--json"))] == [
        digests[0], digests[2],
    ]  # fmt: skip
    assert run("token", "list", "nobody") == (1, "", "gateway: there is no client 'nobody'\n")


def test_families_of_refresh_tokens_are_listed_and_ended(
    run: Run, config: Path, tmp_path: Path
) -> None:
    rules = {"refresh_tokens": {"strategy": "rotating"}}
    config.write_text(make_config(tmp_path, provider=rules))
    run("client", "create", "--id", "shop", "--grant-type", "refresh_token")

    async def begin_two(server: AuthorizationServer) -> list[str]:
        issued = [await begin(server, username=name) for name in ("alice", "bob")]
        return [refresh_token(one) for one in issued]

    first, second = with_provider(config, begin_two)
    families = {row["username"]: row for row in as_json(run("token", "families", "shop", "--json"))}
    assert families["alice"]["scope"] == "orders:read orders:write"
    status, table, _ = run("token", "families", "shop")
    assert (status, len(table.splitlines())) == (0, 3)
    assert first not in table
    assert as_json(run("token", "inspect", first, "--json"))["token_use"] == "refresh_token"
    assert run("token", "families", "shop", "--revoke", families["alice"]["family"])[0] == 0
    assert run("token", "inspect", first)[0] == 1
    assert run("token", "families", "shop", "--revoke", "none")[0] == 1
    assert run("token", "revoke", second)[0] == 0
    with_provider(config, begin_two)
    assert run("token", "families", "shop", "--revoke-all")[0] == 0
    assert as_json(run("token", "families", "shop", "--json")) == []


def test_token_is_issued_inspected_and_revoked(run: Run) -> None:
    run("client", "create", "--id", "shop")
    _, token, _ = run("token", "issue", "shop", "--ttl", "5m", "--scope", "orders:write")
    inspected = as_json(run("token", "inspect", token.strip(), "--json"))
    assert (inspected["active"], inspected["scope"]) == (True, "orders:write")
    assert inspected["exp"] - inspected["iat"] == 300
    status, output, _ = run("token", "inspect", stdin=token)
    assert status == 0
    assert re.search(r"^exp +20\d\d-\d\d-\d\d \d\d:\d\d:\d\dZ$", output, re.MULTILINE)
    assert run("token", "revoke", stdin=token) == (0, "revoked a token of shop\n", "")
    assert run("token", "revoke", token.strip()) == (1, "", "gateway: there is no such token\n")
    status, output, _ = run("token", "inspect", token.strip())
    assert (status, output) == (1, "active  no\n")
    issued = as_json(run("token", "issue", "shop", "--json"))
    assert (issued["token_type"], issued["expires_in"]) == ("Bearer", 3600)
    assert as_json(run("token", "revoke", issued["access_token"], "--json")) == {"revoked": True}


@pytest.mark.usefixtures("store")
def test_token_of_no_client_or_of_a_wrong_scope_is_an_error(run: Run) -> None:
    status, _, errors = run("token", "issue", "nobody")
    assert (status, "there is no client 'nobody'" in errors) == (1, True)
    run("client", "create", "--id", "shop")
    assert run("token", "issue", "shop", "--scope", "nonsense")[0] == 1


def test_deleting_a_client_reports_how_many_tokens_it_revoked(run: Run) -> None:
    run("client", "create", "--id", "shop")
    for _ in range(2):
        run("token", "issue", "shop")
    assert run("client", "delete", "shop") == (0, "deleted shop, 2 live tokens revoked\n", "")
    run("client", "create", "--id", "shop")
    assert as_json(run("client", "delete", "shop", "--json"))["tokens_revoked"] == 0


def test_client_is_registered_and_changed_with_metadata(run: Run, tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(make_key())))
    (tmp_path / "more.json").write_text('{"contacts": ["ops@shop.example"]}')
    created = as_json(
        run(
            "client", "create", "--id", "shop", "--auth-method", "private_key_jwt",
            "--jwks", str(tmp_path / "jwks.json"), "--metadata", str(tmp_path / "more.json"),
            "--grant-type", "client_credentials", "--token-format", "jwt", "--json",
        )
    )  # fmt: skip
    assert "client_secret" not in created
    assert created["token_endpoint_auth_method"] == "private_key_jwt"
    assert created["access_token_format"] == "jwt"
    assert created["contacts"] == ["ops@shop.example"]
    changed = as_json(
        run("client", "update", "shop", "--scope", "orders:read", "--name", "Shop",
            "--token-format", "opaque", "--json")
    )  # fmt: skip
    assert (changed["scope"], changed["client_name"]) == ("orders:read", "Shop")
    assert changed["access_token_format"] == "opaque"
    assert changed["contacts"] == ["ops@shop.example"], "what is not named stays"
    status, output, _ = run("client", "show", "shop")
    assert (status, "private_key_jwt" in output) == (0, True)


def test_metadata_that_cannot_be_used_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"colour": "red"}')
    (tmp_path / "list.json").write_text("[]")
    for arguments, problem in (
        (["--metadata", str(tmp_path / "bad.json")], "unknown members: colour"),
        (["--metadata", str(tmp_path / "list.json")], "is not a JSON object"),
        (["--jwks", str(tmp_path / "missing.json")], "can't be read"),
        (["--grant-type", "password"], "Unknown grant type 'password' (known: "),
        (
            ["--auth-method", "magic"],
            "Unknown token_endpoint_auth_method 'magic' (known: client_secret_basic, ",
        ),
        (["--audience", "urn:unknown"], "Unknown audience 'urn:unknown' (known: "),
    ):
        status, output, errors = run("client", "create", *arguments)
        assert (status, output) == (1, "")
        assert problem in errors
        assert errors.count("\n") == 1
    assert run("client", "update", "nobody", "--name", "x")[0] == 1


def test_client_gets_a_rate_limit_of_its_own(run: Run) -> None:
    run("client", "create", "--id", "shop")
    limited = run("client", "limit", "shop", "--requests", "100", "--per", "1m", "--burst", "5")
    assert limited[0] == 0
    assert "100 in 1m, 5 at once" in limited[1]
    assert "100 in 1m, 5 at once" in run("client", "show", "shop")[1]
    shown = as_json(run("client", "show", "shop", "--json"))
    assert shown["rate_limit"] == {"requests": 100, "per_seconds": 60.0, "burst": 5}
    assert as_json(run("client", "limit", "shop", "--none", "--json"))["rate_limit"] is None
    assert "rate_limit" not in as_json(run("client", "show", "shop", "--json"))
    status, _, errors = run("client", "limit", "nobody", "--requests", "1")
    assert (status, errors) == (1, "gateway: there is no client 'nobody'\n")


@pytest.mark.parametrize(
    "arguments", [[], ["--requests", "0"], ["--requests", "1", "--per", "0"], ["--requests", "x"]]
)
def test_rate_limit_that_is_none_is_a_usage_error(run: Run, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("client", "limit", "shop", *arguments)
    assert caught.value.code == 2


def test_a_client_for_users_is_created_by_options(run: Run, config: Path) -> None:
    config.write_text(
        make_config(
            config.parent, provider={"grant_types": ["client_credentials", "authorization_code"]}
        )
    )
    created = as_json(
        run("client", "create", "--id", "app", "--auth-method", "none",
            "--grant-type", "authorization_code", "--redirect-uri", "https://app.example/cb",
            "--skip-consent", "--json")
    )  # fmt: skip
    assert created["redirect_uris"] == ["https://app.example/cb"]
    assert created["skip_consent"] is True
    changed = as_json(run("client", "update", "app", "--no-skip-consent", "--json"))
    assert "skip_consent" not in changed
