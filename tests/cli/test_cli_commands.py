"""The command line, in this process and as the process that people start."""

from __future__ import annotations

import io
import json
import os
import re
import sqlite3
import subprocess
import sys
from importlib import metadata
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.commands import Run, as_json
from support.deadlines import scaled
from support.json_schemas import validator_of
from support.running_gateway import make_config

from gateway import __version__, codec, rate_limit
from gateway.cli import main


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


def test_process_ends_with_the_status_of_the_command(run: Run, config: Path) -> None:
    checked = gateway("check", "-c", str(config))
    assert (checked.returncode, checked.stderr) == (0, "")
    config.write_text("nonsense")
    failed = gateway("run", "-c", str(config))
    error = f"{config}:1: expected a mapping of sections\n"
    assert (failed.returncode, failed.stderr) == (1, error)
    for command in ("check", "routes"):
        assert run(command) == (1, "", error)


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
    assert run("user", "show", "alice") == (1, "", "gateway: There is no user 'alice'.\n")
    assert run("user", "delete", "alice")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "stdin", "problem"),
    [
        (("alice",), "", "there is no terminal to ask for the password: use --password-file"),
        (("alice", "--password-stdin"), "", "standard input is empty"),
        (
            ("alice", "--password-stdin"),
            "short",
            "A password is 12 to 256 char",
        ),
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


def test_explain_shows_which_claim_fails(config: Path, run: Run) -> None:
    text = yaml.safe_load(config.read_text())
    route = text["routes"][-1]
    route |= {"scopes": {"any": ["orders:read", "orders:write"]}, "claims": {"sub": ["a", "b"]}}
    config.write_text(yaml.safe_dump(text))
    path = route["match"]["path"]
    status, shown, _ = run("explain", "GET", path)
    assert status == 0
    assert "auth      required, one of the scopes orders:read orders:write\n" in shown
    assert "claim     sub: any of a b\n" in shown
    given = '{"client_id": "shop", "scope": "orders:read", "sub": "c"}'
    status, shown, _ = run("explain", "GET", path, "--claims", "-", stdin=given)
    assert status == 1
    assert "claim     sub: any of a b; fails: c\n" in shown
    assert "response  by gateway: 403 claim\n" in shown
    status, shown, _ = run("explain", "GET", path, "--claims", given.replace('"c"', '"b"'))
    assert (status, "; holds: b\n" in shown) == (0, True)
    for wrong in ("{", "[]", "7"):
        assert run("explain", "GET", path, "--claims", wrong)[0] == 2
    shown = run("routes")[1]
    assert "orders:read|orders:write" in shown
