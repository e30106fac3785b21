"""`gateway admin`, and what commands leave in the audit log."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path

import pytest
from support.running_gateway import make_config

from gateway.app.build.accounts import open_store_accounts
from gateway.app.provider import open_provider_alone
from gateway.cli import main
from gateway.config import load_config
from gateway.oauth.keys.sealing import Seal
from gateway.oauth.keys.signing import SigningKeys, SigningPolicy

PASSWORD = "a long enough password"


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "gateway.yaml"
    path.write_text(make_config(tmp_path))
    (tmp_path / "password").write_text(PASSWORD)
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert main(arguments) == status
    captured = capsys.readouterr()
    return captured.out if status == 0 else captured.err


def audit(config: str) -> list[tuple[str, str]]:
    async def read() -> list[tuple[str, str]]:
        async with open_store_accounts(load_config(Path(config))) as accounts:
            entries = await accounts.audit.page()
            assert all(entry.actor.startswith("command line") for entry in entries)
            return [(entry.action, entry.target) for entry in entries]

    return asyncio.run(read())


def test_admin_users_are_added_changed_and_deleted(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    password = str(tmp_path / "password")
    run(capsys, "admin", "add", "alice", "--password-file", password, "-c", config)
    wrong = run(capsys, "admin", "add", "alice", "--password-file", password, "-c", config,
                status=1)  # fmt: skip
    assert "already" in wrong
    run(capsys, "admin", "role", "alice", "viewer", "-c", config)
    (user,) = json.loads(run(capsys, "admin", "list", "--json", "-c", config))
    assert (user["name"], user["role"]) == ("alice", "viewer")
    run(capsys, "admin", "password", "alice", "--password-file", password, "-c", config)
    run(capsys, "admin", "delete", "alice", "-c", config)
    assert json.loads(run(capsys, "admin", "list", "--json", "-c", config)) == []
    run(capsys, "admin", "role", "alice", "viewer", "-c", config, status=1)
    actions = ["admin.delete", "admin.password", "admin.role", "admin.add"]
    assert audit(config) == [(action, "alice") for action in actions]


def test_short_password_and_odd_name_are_refused(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short").write_text("11 letters.")
    short, good = str(tmp_path / "short"), str(tmp_path / "password")
    assert "12" in run(
        capsys, "admin", "add", "bob", "--password-file", short, "-c", config, status=1
    )
    run(capsys, "admin", "add", "b b", "--password-file", good, "-c", config, status=1)
    assert audit(config) == []


def test_api_token_is_shown_once_listed_and_revoked(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = json.loads(
        run(capsys, "admin", "token", "create", "ci", "--expires", "1h", "--json", "-c", config)
    )
    assert made["token"].startswith("gwa_")
    assert made["expires_at"] - made["created_at"] in {3599, 3600}
    listed = run(capsys, "admin", "token", "list", "--json", "-c", config)
    assert made["token"] not in listed
    run(capsys, "admin", "token", "revoke", "ci", "-c", config)
    run(capsys, "admin", "token", "revoke", "ci", "-c", config, status=1)
    assert audit(config) == [("admin.token.revoke", "ci"), ("admin.token.create", "ci")]


def test_what_commands_do_to_clients_is_in_the_audit_log(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "client", "create", "--id", "shop", "-c", config)
    run(capsys, "client", "renew", "shop", "-c", config)
    run(capsys, "client", "show", "shop", "-c", config)
    run(capsys, "token", "issue", "shop", "-c", config)
    run(capsys, "client", "delete", "shop", "-c", config)
    run(capsys, "client", "renew", "shop", "-c", config, status=1)
    actions = ["client.delete", "token.issue", "client.renew", "client.create"]
    assert audit(config) == [(action, "shop") for action in actions]


def test_admin_user_is_updated(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    password = str(tmp_path / "password")
    run(capsys, "admin", "create", "alice", "--password-file", password, "-c", config)
    changed = run(capsys, "admin", "update", "alice", "--role", "viewer", "--password-file",
                  password, "--json", "-c", config)  # fmt: skip
    assert json.loads(changed)["role"] == "viewer"
    assert audit(config)[:2] == [("admin.password", "alice"), ("admin.role", "alice")]
    assert "nothing to change" in run(capsys, "admin", "update", "alice", "-c", config, status=1)
    missing = run(capsys, "admin", "update", "bob", "--role", "viewer", "-c", config, status=1)
    assert "There is no admin user 'bob'." in missing


def test_admin_user_and_token_are_disabled_and_enabled(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    password = str(tmp_path / "password")
    run(capsys, "admin", "create", "alice", "--password-file", password, "-c", config)
    # On the command line even the last one: it can always create another.
    assert run(capsys, "admin", "disable", "alice", "-c", config) == "alice: operator, disabled\n"
    assert "operator, disabled" in run(capsys, "admin", "list", "-c", config)
    assert run(capsys, "admin", "enable", "alice", "-c", config) == "alice: operator\n"
    made = json.loads(run(capsys, "admin", "token", "create", "ci", "--json", "-c", config))
    assert "viewer, disabled" in run(capsys, "admin", "token", "disable", "ci", "-c", config)
    assert "disabled" in run(capsys, "admin", "token", "show", "ci", "-c", config)
    assert "disabled" not in run(capsys, "admin", "token", "enable", "ci", "-c", config)
    rotated = json.loads(run(capsys, "admin", "token", "rotate", "ci", "--json", "-c", config))
    assert rotated["token"] != made["token"]
    missing = run(capsys, "admin", "token", "rotate", "cd", "-c", config, status=1)
    assert "There is no token 'cd'." in missing
    assert [action for action, _ in audit(config)] == [
        "admin.token.rotate", "admin.token.enable", "admin.token.disable", "admin.token.create",
        "admin.enable", "admin.disable", "admin.add",
    ]  # fmt: skip


def test_user_is_disabled_enabled_and_deleted_and_the_audit_log_has_it(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    password = str(tmp_path / "password")
    run(capsys, "user", "create", "carol", "--password-file", password, "-c", config)
    disabled = run(capsys, "user", "disable", "carol", "-c", config)
    assert disabled == "disabled carol, 0 live tokens revoked\n"
    assert "disabled_at" in run(capsys, "user", "show", "carol", "-c", config)
    assert "store, disabled" in run(capsys, "user", "list", "-c", config)
    assert "disabled" not in run(capsys, "user", "enable", "carol", "-c", config)
    run(capsys, "user", "delete", "carol", "-c", config)
    missing = run(capsys, "user", "disable", "carol", "-c", config, status=1)
    assert "There is no user 'carol'." in missing
    actions = ["user.delete", "user.enable", "user.disable", "user.create"]
    assert audit(config) == [(action, "carol") for action in actions]


def test_user_is_updated(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    password = str(tmp_path / "password")
    run(capsys, "user", "create", "carol", "--password-file", password, "-c", config)
    changed = run(capsys, "user", "update", "carol", "--name", "Carol", "--json", "-c", config)
    assert json.loads(changed)["name"] == "Carol"
    run(capsys, "user", "update", "carol", "--password-file", password, "-c", config)
    assert json.loads(run(capsys, "user", "show", "carol", "--json", "-c", config))["name"] == (
        "Carol"
    )
    run(capsys, "user", "update", "carol", "--name", "a\nb", "-c", config, status=1)
    run(capsys, "user", "update", "dave", "--name", "Dave", "-c", config, status=1)
    assert "nothing to change" in run(capsys, "user", "update", "carol", "-c", config, status=1)


def test_lists_are_read_in_parts(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    password = str(tmp_path / "password")
    for name in ("a", "b", "c"):
        run(capsys, "client", "create", name, "--auth-method", "client_secret_basic", "-c", config)
        run(capsys, "user", "create", f"user-{name}", "--password-file", password, "-c", config)

    def listed(kind: str, key: str, *more: str) -> list[str]:
        found = run(capsys, kind, "list", "--json", *more, "-c", config)
        return [one[key] for one in json.loads(found)]

    assert listed("client", "client_id") == ["a", "b", "c"]
    assert listed("client", "client_id", "--limit", "2") == ["a", "b"]
    assert listed("client", "client_id", "--limit", "2", "--after", "b") == ["c"]
    assert listed("user", "username", "--limit", "1", "--after", "user-a") == ["user-b"]


def test_admin_user_and_token_are_shown_with_dates(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "admin", "create", "alice", "--password-file", str(tmp_path / "password"),
        "-c", config)  # fmt: skip
    assert re.search(r"role +operator\ncreated +20\d\d-", run(
        capsys, "admin", "show", "alice", "-c", config
    ))  # fmt: skip
    assert "no admin user 'bob'" in run(capsys, "admin", "show", "bob", "-c", config, status=1)
    run(capsys, "admin", "token", "create", "ci", "-c", config)
    assert re.search(r"expires +20\d\d-", run(
        capsys, "admin", "token", "show", "ci", "-c", config
    ))  # fmt: skip
    assert "no token 'x'" in run(capsys, "admin", "token", "show", "x", "-c", config, status=1)


def test_signing_keys_are_listed_by_what_they_do(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    now = time.time()

    async def make() -> None:
        async with open_provider_alone(load_config(Path(config))) as provider:
            records = provider.store.records
            for moment in (now - 86400.0, now):
                await SigningKeys(
                    records,
                    Seal(lambda: b"x" * 32),
                    SigningPolicy("ES256", 86400.0, 3 * 86400.0),
                    wall_clock=lambda at=moment: at,  # type: ignore[misc]
                ).sign_access_token({"sub": "x"})

    asyncio.run(make())
    keys = json.loads(run(capsys, "key", "list", "--json", "-c", config))
    assert [key["state"] for key in keys if key["state"] != "next"] == ["signs", "verifies"]
    shown = run(capsys, "key", "show", keys[-1]["kid"], "-c", config)
    assert re.search(r"state +verifies", shown)
    assert '"d"' not in run(capsys, "key", "show", keys[-1]["kid"], "--json", "-c", config)
    assert "no signing key" in run(capsys, "key", "show", "x", "-c", config, status=1)
