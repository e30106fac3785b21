"""The command line, in this process and as the process that people start."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.deadlines import scaled
from support.jose_values import jwks, make_key
from support.json_schemas import validator_of
from support.refreshing import begin, refresh_token
from support.running_gateway import make_config

from gateway import __version__, codec, rate_limit
from gateway.cli import main
from gateway.cli.provider import with_provider
from gateway.oauth.server import AuthorizationServer
from gateway.store import open_store

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(make_config(tmp_path))
    return path


@pytest.fixture
def run(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on `config`; returns exit status, output and errors."""

    def run_one(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        monkeypatch.setenv("GATEWAY_CONFIG", str(config))
        status = main(arguments)
        output = capsys.readouterr()
        return status, output.out, output.err

    return run_one


def as_json(result: tuple[int, str, str]) -> Any:
    status, output, errors = result
    assert (status, errors) == (0, "")
    return json.loads(output)


def test_version_is_that_of_the_package(run: Run) -> None:
    assert run("version") == (0, f"{__version__}\n", "")
    shown = as_json(run("version", "--json"))
    assert shown.keys() == {"version", "compiled", "codec", "python", "http2"}
    assert shown["version"] == __version__
    assert shown["compiled"] == (not str(rate_limit.__file__).endswith(".py"))
    assert shown["codec"] == codec.IS_NATIVE
    assert shown["http2"] == {"name": "ngh2", "version": "0.3.0", "nghttp2": "1.70.0"}


def test_version_without_an_http2_engine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert as_json(run("version", "--json"))["http2"] is None


def test_sound_configuration_is_checked(run: Run, config: Path) -> None:
    assert run("check") == (0, f"{config}: ok (4 routes, 1 upstream); HTTP/2: on\n", "")
    assert run("check", "-c", str(config))[0] == 0


def test_every_problem_has_a_line_of_its_own(run: Run, config: Path) -> None:
    config.write_text("listen: {port: high}\nroutes: 1\nzzz: 1\n")
    status, output, errors = run("check")
    assert (status, output) == (1, "")
    lines = errors.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{config}:{n}" for n in (1, 1, 2, 3)]
    assert "listen.port: expected a whole number" in errors


def test_check_warns_of_what_every_peer_can_register_for(
    run: Run, tmp_path: Path, config: Path
) -> None:
    exchange = "urn:ietf:params:oauth:grant-type:token-exchange"
    provider: dict[str, Any] = {
        "scopes": ["read", "admin"], "default_scopes": ["read"],
        "grant_types": ["client_credentials", exchange],
    }  # fmt: skip
    routes = [{"name": "a", "match": {"path": "/"}, "upstream": "main", "scopes": ["admin"]}]
    for registration, expected in (
        ({"mode": "token", "token": "a-registration-token"}, []),
        ({"mode": "open"}, ["mode"]),
        ({"mode": "open", "scopes": ["admin"]}, ["mode", "scopes"]),
        ({"mode": "open", "grant_types": [exchange]}, ["mode", "grant_types"]),
    ):
        config.write_text(
            make_config(tmp_path, provider=provider | {"registration": registration}, routes=routes)
        )
        status, _, errors = run("check")
        assert status == 0
        assert re.findall(r"registration\.(\w+): warning", errors) == expected


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"registration": {"mode": "open", "fail_if_present": False}}, "fail_if_present"),
        ({"registration": {"mode": "open", "scopes": ["x"]}}, "scopes[0]"),
        ({"registration": {"mode": "open", "grant_types": ["refresh_token"]}}, "grant_types[0]"),
        ({"redirect_schemes": ["javascript"]}, "redirect_schemes[0]"),
        ({"redirect_schemes": ["cursor:"]}, "redirect_schemes[0]"),
    ],
)
def test_check_rejects_registration_that_is_not_safe_or_means_nothing(
    run: Run, tmp_path: Path, config: Path, keys: dict[str, Any], place: str
) -> None:
    config.write_text(make_config(tmp_path, provider=keys))
    status, _, errors = run("check")
    assert (status, f"{place}: " in errors) == (1, True), errors


def test_schema_is_a_json_schema(run: Run) -> None:
    validator_of(as_json(run("schema")))


def test_routes_are_listed_in_order_of_precedence(run: Run, tmp_path: Path, config: Path) -> None:
    route = {"upstream": "main"}
    config.write_text(
        make_config(
            tmp_path,
            routes=[
                {"name": "root", "match": {"path": "/"}, **route},
                {"name": "long", "match": {"path": "/a/b"}, **route},
                {"name": "exact", "match": {"path": "/a", "exact": True}, **route},
                {"name": "get", "match": {"path": "/a/b", "methods": ["GET"]}, **route},
                {"name": "wild", "match": {"path": "/", "hosts": ["*.example"]}, **route},
                {"name": "host", "match": {"path": "/", "hosts": ["a.example"]}, **route},
            ],
        )
    )
    names = [row["name"] for row in as_json(run("routes", "--json"))]
    assert names == ["host", "wild", "exact", "get", "long", "root"]
    _, output, _ = run("routes")
    header, *rows = output.splitlines()
    assert header.split() == [
        "HOST", "PATH", "METHODS", "ROUTE", "AUTH", "SCOPES", "CLIENTS", "UPSTREAM",
    ]  # fmt: skip
    assert rows[0].split() == ["a.example", "/", "...", "*", "host", "required", "-", "-", "main"]


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
    assert (status, errors) == (1, "gateway: A client with this id is already registered.\n")
    assert run("client", "create", "--id", "a", "--replace")[0] == 0


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("command", ["show", "renew", "rotate", "delete"])
def test_client_that_is_not_there_is_an_error(run: Run, command: str) -> None:
    assert run("client", command, "nobody") == (1, "", "gateway: there is no client 'nobody'\n")


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
    assert (status, "no such client" in errors) == (1, True)
    run("client", "create", "--id", "shop")
    assert run("token", "issue", "shop", "--scope", "nonsense")[0] == 1


def test_deleting_a_client_reports_how_many_tokens_it_revoked(run: Run) -> None:
    run("client", "create", "--id", "shop")
    for _ in range(2):
        run("token", "issue", "shop")
    assert run("client", "delete", "shop") == (0, "deleted shop, 2 live tokens revoked\n", "")
    run("client", "create", "--id", "shop")
    assert as_json(run("client", "delete", "shop", "--json"))["tokens_revoked"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["nonsense"], ["client"], ["client", "show"], ["token", "issue", "a", "--ttl", "5"],
        ["token", "issue", "a", "--ttl", "0"], ["client", "create", "--secret", "s3cret"],
        ["client", "show", "\udcff"], ["token", "issue", "\udcff"],
    ],
)  # fmt: skip
def test_usage_error_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_store_that_cannot_be_opened_is_one_line(run: Run, tmp_path: Path, config: Path) -> None:
    config.write_text(make_config(tmp_path / "missing"))
    status, output, errors = run("client", "list")
    assert (status, output, len(errors.splitlines())) == (1, "", 1)
    assert errors.startswith("gateway: the store: ")


def gateway(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        capture_output=True, text=True, timeout=scaled(30), **options,
    )  # fmt: skip


def test_process_ends_with_the_status_of_the_command(tmp_path: Path, config: Path) -> None:
    checked = gateway("check", "-c", str(config))
    assert (checked.returncode, checked.stderr) == (0, "")
    config.write_text("nonsense")
    for command in ("check", "run", "routes"):
        failed = gateway(command, "-c", str(config))
        assert failed.returncode == 1
        assert failed.stderr == f"{config}:1: expected a mapping of sections\n"


def test_reader_that_has_seen_enough_is_no_error() -> None:
    finished = subprocess.run(
        f"{sys.executable} -m gateway schema | head -1",
        shell=True, capture_output=True, text=True, timeout=scaled(30),
    )  # fmt: skip
    assert (finished.stdout, finished.stderr) == ("{\n", "")


def test_secret_is_not_taken_for_the_name_of_a_file(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("client", "create", "--secret", "s3cret")
    assert "unrecognized arguments: --secret" in capsys.readouterr().err


def test_interrupted_command_ends_without_a_traceback(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Keyboard(io.StringIO):
        def read(self, size: int | None = -1, /) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Keyboard())
    assert main(["token", "inspect", "-c", str(config)]) == 130
    assert capsys.readouterr() == ("", "")


def test_clients_are_listed_beside_a_process_that_writes(
    run: Run, config: Path, tmp_path: Path
) -> None:
    assert run("client", "create", "--id", "shop")[0] == 0
    other = sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert run("client", "list")[0] == 0
    status, output, errors = run("client", "renew", "shop")
    other.close()
    assert (status, output) == (1, "")
    assert errors == "gateway: the store: SQLite: database is locked\n"


def test_name_that_the_terminal_cannot_show_is_escaped(config: Path) -> None:
    create = ("client", "create", "-c", str(config), "--id", "shop", "--name", "Å")
    created = gateway(*create, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (created.returncode, created.stderr) == (0, "")
    assert re.search(r"client_name +\\xc5\n", created.stdout)
    assert re.search(r"client_secret +\S{43}\n", created.stdout)


def test_output_that_cannot_be_written_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        failed = subprocess.run(
            [sys.executable, "-m", "gateway", "schema"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=scaled(30),
        )  # fmt: skip
    assert (failed.returncode, failed.stderr) == (1, "gateway: No space left on device\n")


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
            "Invalid value of token_endpoint_auth_method (one of: client_secret_basic, ",
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


def test_store_is_copied_into_another_and_compared(run: Run, tmp_path: Path) -> None:
    for number in range(3):
        run("client", "create", "--id", f"client-{number}")
    token = as_json(run("token", "issue", "client-1", "--json"))["access_token"]
    source, target = (f"sqlite:///{tmp_path}/{name}.db" for name in ("gateway", "copy"))
    status, output, errors = run("migrate", "--from", source, "--to", target)
    assert status == 0
    assert re.search(r"^clients +3 +[0-9a-f]{64}$", output, re.MULTILINE), output
    assert re.search(r"^tokens +1 +[0-9a-f]{64}$", output, re.MULTILINE), output
    assert "clients" in errors
    (tmp_path / "gateway.db").unlink()
    (tmp_path / "copy.db").rename(tmp_path / "gateway.db")
    inspected = as_json(run("token", "inspect", "--json", stdin=token))
    assert inspected["client_id"] == "client-1"


def test_store_that_can_not_be_copied_is_reported(run: Run, tmp_path: Path) -> None:
    run("client", "create", "--id", "shop")
    here, other = f"sqlite:///{tmp_path}/gateway.db", f"sqlite:///{tmp_path}/other.db"
    for source, target, message in (
        (here, here, "--from and --to are the same store"),
        (other, here, f"--from: there is no file {tmp_path}/other.db"),
        ("geheim://x", here, "--from: expected sqlite:///PATH"),
        (here, "redis://127.0.0.1:1", "the store: Redis: Error 111 connecting"),
    ):
        status, _, errors = run("migrate", "--from", source, "--to", target)
        assert status == 1
        assert message in errors
        assert "geheim" not in errors
    assert run("migrate", "--from", here, "--to", other)[0] == 0
    status, _, errors = run("migrate", "--from", here, "--to", other)
    assert (status, errors) == (
        1, "gateway: the store: the target holds clients already, expected an empty store\n"
    )  # fmt: skip


def test_url_with_a_password_can_come_from_a_file(run: Run, tmp_path: Path) -> None:
    run("client", "create", "--id", "shop")
    (tmp_path / "from").write_text(f"sqlite:///{tmp_path}/gateway.db\n")
    (tmp_path / "to").write_text(f"sqlite:///{tmp_path}/copy.db\n")
    found = run("migrate", "--from", f"@{tmp_path}/from", "--to", f"@{tmp_path}/to", "--json")
    assert json.loads(found[1])["clients"]["count"] == 1


def test_users_are_added_listed_shown_and_deleted(run: Run) -> None:
    added = as_json(
        run("user", "add", "alice", "--name", "Alice", "--password-stdin", "--json",
            stdin="correct horse battery\n")
    )  # fmt: skip
    assert (added["username"], added["name"], added["source"]) == ("alice", "Alice", "store")
    assert not [name for name in added if "password" in name]
    assert as_json(run("user", "show", "alice", "--json")) == added
    assert as_json(run("user", "list", "--json")) == [added]
    status, output, _ = run("user", "list")
    assert (status, output.split()[:4]) == (0, ["USERNAME", "NAME", "SOURCE", "CREATED"])
    changed = run("user", "password", "alice", "--password-stdin", stdin="another password")
    assert (changed[0], changed[2]) == (0, "")
    deleted = as_json(run("user", "delete", "alice", "--json"))
    assert deleted == {"username": "alice", "tokens_revoked": 0}
    assert run("user", "show", "alice") == (1, "", "gateway: there is no user 'alice'\n")
    assert run("user", "delete", "alice")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "stdin", "problem"),
    [
        (("alice",), "", "there is no terminal to ask for the password: use --password-file"),
        (("alice", "--password-stdin"), "", "standard input is empty"),
        (("alice", "--password-stdin"), "short", "A password is 12 to 256 characters long."),
        (("a:b", "--password-stdin"), "long enough", "A username is"),
    ],
)
def test_a_user_that_cannot_be_is_refused(
    run: Run, arguments: tuple[str, ...], stdin: str, problem: str
) -> None:
    status, output, errors = run("user", "add", *arguments, stdin=stdin)
    assert (status, output) == (1, "")
    assert errors.startswith(f"gateway: {problem}")


def test_a_password_is_asked_for_twice(
    run: Run, monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    typed = iter(["one password", "another password", "one password", "one password"])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(typed))
    monkeypatch.setenv("GATEWAY_CONFIG", str(config))
    monkeypatch.setattr("sys.stdin", Terminal())
    assert main(["user", "add", "alice"]) == 1
    assert main(["user", "add", "alice"]) == 0


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


def test_store_is_backed_up_and_restored(run: Run, tmp_path: Path) -> None:
    run("client", "create", "--id", "shop")
    status, _, errors = run("backup", f"{tmp_path}/backup.db")
    assert (status, errors) == (0, f"wrote {tmp_path}/backup.db\n")
    assert run("backup", f"{tmp_path}/backup.db")[0] == 1
    run("client", "create", "--id", "later")
    status, _, errors = run("restore", f"{tmp_path}/backup.db")
    assert status == 0, errors
    assert [one["client_id"] for one in as_json(run("client", "list", "--json"))] == ["shop"]
    status, _, errors = run("restore", f"{tmp_path}/nothing.db")
    assert (status, errors) == (
        1, f"gateway: the store: there is no database at {tmp_path}/nothing.db\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        "client list", "client show shop", "client renew shop", "client delete shop --yes",
        "token issue shop", "token inspect", "user list", "admin list", "backup copy.db",
    ],
)  # fmt: skip
def test_command_that_makes_nothing_makes_no_database(
    run: Run, tmp_path: Path, command: str
) -> None:
    status, _, errors = run(*command.replace(" --yes", "").split(), stdin="token")
    assert status == 1
    assert f"there is no database at {tmp_path}/gateway.db" in errors
    assert not (tmp_path / "gateway.db").exists()


def test_relative_store_is_beside_the_configuration(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(config.read_text().replace(f"sqlite:///{tmp_path}/", "sqlite:///./"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    _, _, errors = run("client", "list")
    assert f"there is no database at {tmp_path}/gateway.db" in errors
    assert not list((tmp_path / "elsewhere").iterdir())


def test_explain_shows_the_mirror_and_what_is_off(config: Path, run: Run) -> None:
    text = yaml.safe_load(config.read_text())
    text["upstreams"]["copy"] = {"targets": ["http://127.0.0.1:9"]}
    text["routes"][0]["mirror"] = {"upstream": "copy", "percent": 5}
    config.write_text(yaml.safe_dump(text))
    shown = run("explain", "GET", text["routes"][0]["match"]["path"])[1]
    assert "mirror    copy (5%)" in shown
    assert "per_try off, total off, idle 1m" in shown
    assert "tunnel 1h" in shown
