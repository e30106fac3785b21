"""Errors of commands: each names the value that is wrong, and those that would do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.commands import Run
from support.running_gateway import make_config

from gateway.cli import main


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one client, one user, one admin user, one token and one key."""
    directory = tmp_path_factory.mktemp("filled")
    config, password = directory / "gateway.yaml", directory / "password"
    config.write_text(make_config(directory))
    password.write_text("correct horse battery")
    for arguments in (
        ("client", "create", "shop", "--scope", "orders:read"),
        ("user", "create", "carol", "--password-file", str(password)),
        ("admin", "create", "alice", "--password-file", str(password)),
        ("admin", "token", "create", "nightly"),
        ("key", "create", "shop", "--name", "till"),
    ):
        assert main((*arguments, "--config", str(config))) == 0
    (store,) = directory.glob("*.db")
    return store


@pytest.fixture
def known(run: Run, tmp_path: Path, filled: Path) -> Run:
    """Commands on a store of the test's own, with what is in `filled`."""
    shutil.copy(filled, tmp_path)
    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ("client", "show"), ("client", "renew"), ("client", "delete"), ("client", "rotate"),
        ("client", "end-overlap"), ("client", "release"), ("client", "limit", "--none"),
        ("client", "update", "--name", "x"), ("token", "issue"), ("token", "list"),
        ("token", "families"), ("key", "list"), ("key", "create", "--name", "x"),
    ],
)  # fmt: skip
def test_client_that_is_not_there_is_named_with_the_one_that_is_near(
    known: Run, arguments: tuple[str, ...]
) -> None:
    verb, options = arguments[:2], arguments[2:]
    status, output, errors = known(*verb, "shpo", *options)
    assert (status, output) == (1, "")
    assert errors == "gateway: there is no client 'shpo'; did you mean 'shop'?\n"
    assert known(*verb, "xyz", *options)[2] == "gateway: there is no client 'xyz'\n"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("admin", "show", "alcie"), "There is no admin user 'alcie'; did you mean 'alice'?"),
        (("admin", "role", "alcie", "viewer"), "admin user 'alcie'; did you mean 'alice'?"),
        (("admin", "delete", "bob"), "There is no admin user 'bob'."),
        (("admin", "token", "show", "nihgtly"), "no token 'nihgtly'; did you mean 'nightly'?"),
        (("admin", "token", "revoke", "x"), "There is no token 'x'."),
        (("user", "show", "carrol"), "There is no user 'carrol'; did you mean 'carol'?"),
        (("user", "update", "carrol", "--name", "x"), "user 'carrol'; did you mean 'carol'?"),
        (("user", "delete", "xyz"), "There is no user 'xyz'."),
        (("key", "revoke", "shop", "x"), "client 'shop' has no API key 'x' (it has: "),
        (("key", "rotate", "shpo", "x"), "there is no client 'shpo'; did you mean 'shop'?"),
        (("signing-key", "show", "x"), "there is no signing key 'x' (known: none)"),
        (("token", "families", "shop", "--revoke", "x"),
         "client 'shop' has no family 'x' (it has: none)"),
        (("token", "issue", "shop", "--scope", "orders:raed"),
         "the scope 'orders:raed' (it has: orders:read); did you mean 'orders:read'?"),
        (("client", "create", "shop"), "there is a client 'shop' already; --replace replaces it"),
        (("client", "create", "carol"), "there is a user of the name 'carol'"),
        (("client", "create", "x", "--grant-type", "client_credential"),
         "'client_credential' (known: client_credentials); did you mean 'client_credentials'?"),
        (("client", "create", "x", "--auth-method", "private_key_jtw"),
         "did you mean 'private_key_jwt'?"),
        (("client", "update", "shop"), "nothing to change: give --name, --scope"),
        (("migrate", "--from", "reddis://x", "--to", "y"),
         "--from: unknown scheme 'reddis', expected sqlite:///PATH"),
        (("status", "--url", "nonsense"), "'nonsense' is no URL of an admin listener: expected "),
        (("status", "--url", "http://127.0.0.1:x"), "'http://127.0.0.1:x' is no URL"),
    ],
)  # fmt: skip
def test_wrong_value_is_named_with_what_would_do(
    known: Run, arguments: tuple[str, ...], error: str
) -> None:
    status, output, errors = known(*arguments)
    assert (status, output) == (1, "")
    assert error in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("clinet", "list"), "did you mean 'client'?"),
        (("client", "lst"), "did you mean 'list'?"),
        (("help", "client", "craete"), "did you mean 'create'?"),
        (("admin", "create", "bob", "--role", "opperator"),
         "argument --role: invalid choice: 'opperator' (choose from viewer, operator); did you "
         "mean 'operator'?"),
        (("client", "create", "--token-format", "jtw"), "did you mean 'jwt'?"),
        (("completion", "zhs"), "invalid choice: 'zhs' (choose from bash, zsh, fish); did you "),
        (("client", "create", "--gant-type", "x"),
         "gateway client create: error: unrecognized arguments: --gant-type; did you mean "
         "'--grant-type'?"),
        (("version", "x"), "gateway version: error: unrecognized arguments: x\n"),
        (("client", "list", "--limit", "x"), "must be a whole number from 1, not 'x'"),
        (("client", "rotate", "shop", "--overlap", "1 h"), "30s, 10m, 1h or 30d, not '1 h'"),
        (("token", "issue", "shop", "--ttl", "0s"), "must be longer than 0, not '0s'"),
        (("explain", "GET", "/", "--source", "x"), "must be an IP address, not 'x'"),
        (("explain", "GET", "nonsense"), "or a path such as /orders, not 'nonsense'"),
        (("explain", "G T", "/"), "'G T' is no method: expected letters, such as GET"),
        (("explain", "GET", "/", "--claims", "{"), "--claims '{' is no JSON object"),
        (("explain", "GET"), "expected METHOD and URL, or --subject, not GET"),
        (("explain", "GET", "/", "--issuer", "x"), "--issuer goes with --subject"),
    ],
)  # fmt: skip
def test_wrong_usage_is_status_2_with_what_would_do(
    run: Run, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], error: str
) -> None:
    try:
        status, _, errors = run(*arguments)
    except SystemExit as exit_:
        status, errors = int(exit_.code or 0), capsys.readouterr().err
    assert status == 2
    assert error in errors


def test_file_that_is_not_there_is_named_with_the_one_that_is_near(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "keys.json").write_text(json.dumps({"keys": []}))
    for option in ("--jwks", "--metadata", "--secret-file"):
        status, _, errors = run("client", "create", option, str(tmp_path / "kyes.json"))
        assert status == 1
        assert "kyes.json can't be read: No such file or directory" in errors
        assert "did you mean 'keys.json'?" in errors
    (tmp_path / "keys.json").write_text(json.dumps({"redirect_uri": []}))
    _, _, errors = run("client", "create", "--metadata", str(tmp_path / "keys.json"))
    assert "unknown members: redirect_uri (known: " in errors
    assert "did you mean 'redirect_uris'?" in errors
