"""`gateway import mule`: clients of a Mule application, from its XML or JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.running_gateway import make_config

from gateway.cli import main
from gateway.cli.mule_clients import read_clients, read_properties
from gateway.cli.output import CommandError

CONFIG = Path(__file__).parents[2] / "config"
MULE_3 = """\
<mule xmlns="http://www.mulesoft.org/schema/mule/core"
      xmlns:oauth2-provider="http://www.mulesoft.org/schema/mule/oauth2-provider">
  <oauth2-provider:config name="p"><oauth2-provider:clients>
    <oauth2-provider:client clientId="clientId1" secret="clientSecret1" principal="clusr"
        type="CONFIDENTIAL">
      <oauth2-provider:redirect-uris>
        <oauth2-provider:redirect-uri>
            https://fake.example/redirect
        </oauth2-provider:redirect-uri>
      </oauth2-provider:redirect-uris>
      <oauth2-provider:authorized-grant-types>
        <oauth2-provider:authorized-grant-type>CLIENT_CREDENTIALS</oauth2-provider:authorized-grant-type>
      </oauth2-provider:authorized-grant-types>
      <oauth2-provider:scopes>
        <oauth2-provider:scope>orders:read</oauth2-provider:scope>
      </oauth2-provider:scopes>
    </oauth2-provider:client>
  </oauth2-provider:clients></oauth2-provider:config>
</mule>
"""


class Imported:
    """What the command did."""

    def __init__(self, status: int, output: str, errors: str) -> None:
        self.status = status
        self.output = output
        self.errors = errors

    @property
    def records(self) -> dict[str, Any]:
        """By client id."""
        return {record["client_id"]: record for record in json.loads(self.output)}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    config = tmp_path / "gateway.yaml"
    config.write_text(make_config(tmp_path))
    monkeypatch.setenv("GATEWAY_CONFIG", str(config))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Imported:
    status = main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return Imported(status, output.out, output.err)


def import_text(
    capsys: pytest.CaptureFixture[str], directory: Path, text: str, *more: object
) -> Imported:
    path = directory / "clients"
    path.write_text(text)
    return run(capsys, "import", "mule", path, "--json", *more)


def test_clients_of_mule_4_get_tokens_with_the_secrets_they_have(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported = run(
        capsys, "import", "mule", CONFIG / "mule-clients.xml",
        "--properties", CONFIG / "mule.properties", "--json",
    )  # fmt: skip
    assert (imported.status, imported.errors) == (0, "")
    assert imported.records["shop"] == {"client_id": "shop", "result": "created", "notes": []}
    assert imported.records["reports"]["notes"] == ["PASSWORD is refused by design (RFC 9700)"]
    assert "secret" not in imported.output
    shown = json.loads(run(capsys, "client", "show", "shop", "--json").output)
    assert (shown["client_name"], shown["scope"]) == ("The shop", "orders:read orders:write")
    assert shown["grant_types"] == ["client_credentials"]
    shown = json.loads(run(capsys, "client", "show", "reports", "--json").output)
    assert shown["scope"] == "orders:read", "none in Mule means the default scopes"
    assert shown["description"] == "Reads at night"


def test_clients_of_mule_3_are_read_too(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported = import_text(capsys, directory, MULE_3)
    assert imported.status == 0
    assert "principal 'clusr' is not kept" in imported.records["clientId1"]["notes"][0]
    shown = json.loads(run(capsys, "client", "show", "clientId1", "--json").output)
    assert shown["redirect_uris"] == ["https://fake.example/redirect"]
    assert shown["scope"] == "orders:read"


def test_json_uses_the_same_names(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clients = [
        {"clientId": "a", "secret": "s", "clientName": "A", "type": "CONFIDENTIAL",
         "clientAuthorizedGrantTypes": ["CLIENT_CREDENTIALS"], "clientScopes": ["orders:write"]},
        {"clientId": "b", "scopes": "orders:read, orders:write"},
    ]  # fmt: skip
    imported = import_text(capsys, directory, json.dumps({"clients": clients}))
    assert imported.status == 0
    made = imported.records["b"]
    assert made["notes"] == ["had no secret: it has one now"]
    assert len(made["client_secret"]) >= 43
    assert "client_secret" not in imported.records["a"]


def test_what_cannot_be_imported_is_reported_and_the_rest_is(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clients = [
        {"clientId": "implicit", "authorizedGrantTypes": ["TOKEN", "PASSWORD"]},
        {"clientId": "good", "secret": "s"},
        {"clientId": "scoped", "secret": "s", "scopes": ["UNKNOWN"]},
        {"clientId": "a:b", "secret": "s"},
        {"clientId": "code", "secret": "s", "authorizedGrantTypes": ["AUTHORIZATION_CODE"]},
    ]
    imported = import_text(capsys, directory, json.dumps(clients))
    assert imported.status == 1
    results = {name: record["result"] for name, record in imported.records.items()}
    assert results.pop("good") == "created"
    assert set(results.values()) == {"skipped"}
    assert (
        "Unknown scope 'UNKNOWN' (known: orders:read, orders:write)"
        in imported.records["scoped"]["notes"][0]
    )


def test_grant_that_is_not_given_is_left_out_and_reported(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grants = ["CLIENT_CREDENTIALS", "REFRESH_TOKEN"]
    text = json.dumps([{"clientId": "a", "secret": "s", "authorizedGrantTypes": grants}])
    record = import_text(capsys, directory, text).records["a"]
    assert record["result"] == "created"
    assert record["notes"] == [
        "REFRESH_TOKEN is left out: provider.refresh_tokens.strategy does not give it"
    ]
    rules = {"refresh_tokens": {"strategy": "reusable"}}
    (directory / "gateway.yaml").write_text(make_config(directory, provider=rules))
    record = import_text(capsys, directory, text, "--replace").records["a"]
    assert (record["result"], record["notes"]) == ("replaced", [])


def test_client_that_exists_is_left_alone_unless_it_shall_be_replaced(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = json.dumps([{"clientId": "a", "secret": "s"}])
    dry = import_text(capsys, directory, text, "--dry-run")
    assert (dry.status, dry.records["a"]["result"]) == (0, "would be created")
    assert run(capsys, "client", "show", "a").status == 1, "a dry run keeps nothing"
    assert import_text(capsys, directory, text).records["a"]["result"] == "created"
    again = import_text(capsys, directory, text)
    assert (again.status, again.records["a"]["result"]) == (1, "skipped")
    assert import_text(capsys, directory, text, "--dry-run").status == 1
    assert import_text(capsys, directory, text, "--replace").records["a"]["result"] == "replaced"


def test_users_get_a_table(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "c.json").write_text('[{"clientId": "a"}]')
    imported = run(capsys, "import", "mule", directory / "c.json")
    assert imported.output.splitlines()[0].split() == ["CLIENT", "ID", "RESULT", "NOTES"]
    assert "The secret of a is shown only this once:" in imported.output


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not XML"), ("<a", "is not XML"), ("<a/>", "holds no clients"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "is not XML without a document type"),
        ("{", "is not JSON"), ("[]", "holds no clients"), ('{"clients": 1}', "expected"),
        ('[{"secret": "s"}]', "a client has no clientId"),
        ('[{"clientId": "a", "scopes": 7}]', "is not a list"),
        ('[{"clientId": "a", "secret": "${x.y}"}]', "${x.y} is known to Mule alone"),
        ('[{"clientId": "a", "secret": "#[vars.x]"}]', "an expression is known to Mule alone"),
        ('[{"clientId": "a", "secret": "![c4n4ry]"}]', "an expression is known to Mule alone"),
    ],
)  # fmt: skip
def test_file_that_is_not_understood_is_one_line(
    directory: Path, capsys: pytest.CaptureFixture[str], text: str, problem: str
) -> None:
    imported = import_text(capsys, directory, text)
    assert (imported.status, imported.output) == (1, "")
    assert problem in imported.errors
    assert imported.errors.count("\n") == 1
    assert "c4n4ry" not in imported.errors


def test_properties_come_from_either_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "p.properties").write_text("# a\n! b\n\na.b = c=d\ne:f\ng h\nalone\n")
    assert read_properties(tmp_path / "p.properties") == {"a.b": "c=d", "e": "f", "g": "h"}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"a": {"b": "c", "n": 1}, "d": "e"}))
    assert read_properties(tmp_path / "p.yaml") == {"a.b": "c", "a.n": "1", "d": "e"}
    (tmp_path / "c.json").write_text('[{"clientId": "${a.b}-x", "secret": "${secure::d}"}]')
    (client,) = read_clients(tmp_path / "c.json", read_properties(tmp_path / "p.yaml"))
    assert (client.client_id, client.secret) == ("c-x", "e")
    assert "'e'" not in repr(client)
    for bad in ("missing", "bad.yaml"):
        (tmp_path / "bad.yaml").write_text("a: [")
        with pytest.raises(CommandError):
            read_properties(tmp_path / bad)


def test_import_shows_its_progress_on_a_terminal_only(directory: Path) -> None:
    clients = [{"clientId": f"c{number}", "secret": "s3cret-s3cret"} for number in range(3)]
    (directory / "mule.json").write_text(json.dumps({"clients": clients}))
    command = [sys.executable, "-m", "gateway", "import", "mule", str(directory / "mule.json")]
    terminal, other_side = os.openpty()
    try:
        done = subprocess.run(
            [*command, "--json"], stdout=subprocess.PIPE, stderr=other_side, check=True
        )
        shown = os.read(terminal, 10_000).decode()
    finally:
        os.close(terminal)
        os.close(other_side)
    assert len(json.loads(done.stdout)) == 3
    assert "clients" in shown
    assert "3 done" in shown
    quiet = subprocess.run([*command, "--replace"], capture_output=True, text=True, check=True)
    assert quiet.stderr == ""
