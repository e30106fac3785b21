"""Clients that the configuration declares: what is accepted, and what is said about the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.jose_values import jwks, make_key

from gateway.app.build.checks import find_unusable_files
from gateway.app.build.clients import declared_clients
from gateway.config import ConfigError, LoadedConfig, load

HASH = (
    "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA"
    "$6e0mKbC8S7Gg2kTnqQ2Yx0xkq5Z1u8mJ0mE3p2T4v5w"
)
BASE = """\
provider:
  scopes: [orders:read, orders:write]
  grant_types: [client_credentials, authorization_code]
  registration: {mode: "off"}
"""


def read(directory: Path, text: str, **files: str) -> LoadedConfig:
    """A configuration that a gateway can use. Raises `ConfigError`."""
    for name, content in files.items():
        path = directory / name.replace("__", "/").replace("_yaml", ".yaml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    file = directory / "gateway.yaml"
    file.write_text(BASE + text)
    loaded = load(file)
    if problems := find_unusable_files(loaded):
        raise ConfigError(problems)
    return loaded


def problems(directory: Path, text: str, **files: str) -> list[str]:
    """What is wrong, as `FILE:LINE: KEY: MESSAGE` without the directory."""
    with pytest.raises(ConfigError) as raised:
        read(directory, text, **files)
    return [str(one).removeprefix(f"{directory}/") for one in raised.value.problems]


def test_clients_of_the_file_and_of_a_directory_are_declared(tmp_path: Path) -> None:
    loaded = read(
        tmp_path,
        "clients_dir: teams\nclients:\n  billing: {secret: '${file:secret}', scopes: []}\n",
        secret="s3cret\n",
        teams__shop_yaml=f"shop:\n  secret_hash: {HASH}\n  client_name: The shop\n",
        teams__README="not a client",
    )
    billing, shop = declared_clients(loaded.config) or ()
    assert billing.secret is not None
    assert shop.secret is not None
    assert (billing.client_id, billing.secret.secret, billing.scopes) == ("billing", "s3cret", ())
    assert (shop.client_name, shop.secret.secret_hash) == ("The shop", HASH)
    assert shop.scopes == ("orders:read", "orders:write")
    assert "s3cret" not in repr(loaded.config) + repr(billing)


def test_file_of_a_directory_names_secrets_beside_it(tmp_path: Path) -> None:
    loaded = read(
        tmp_path,
        "clients_dir: teams\n",
        teams__secret="s3cret",
        teams__a_yaml="shop: {secret: '${file:secret}'}\n",
    )
    (shop,) = declared_clients(loaded.config) or ()
    assert shop.secret is not None
    assert shop.secret.secret == "s3cret"


def test_keys_come_as_a_mapping_or_from_a_file(tmp_path: Path) -> None:
    key_set = json.dumps(jwks(make_key()))
    loaded = read(
        tmp_path,
        f"clients:\n  a: {{jwks: {key_set}}}\n"
        "  b: {jwks: '${file:keys}'}\n  c: {jwks_uri: https://c.example/jwks}\n",
        keys=key_set,
    )
    clients = declared_clients(loaded.config) or ()
    methods = {client.metadata.token_endpoint_auth_method for client in clients}
    assert methods == {"private_key_jwt"}
    assert clients[0].metadata.jwks == clients[1].metadata.jwks


@pytest.mark.parametrize(
    ("client", "problem"),
    [
        ("{secret: plain}", "gateway.yaml:6: clients.billing.secret: expected ${file:PATH}"),
        ("{secret: '${SECRET}'}", "gateway.yaml:6: clients.billing.secret: expected ${file:PATH}"),
        ("{secret_hash: abc}", "gateway.yaml:6: clients.billing.secret_hash: expected an argon2id"),
        ("{}", "gateway.yaml:6: clients.billing: needs secret, secret_hash, jwks or jwks_uri"),
        ("{scope: [a]}", "gateway.yaml:6: clients.billing.scope: unknown key, did you mean 'scop"),
        ("{secret_hash: HASH, scopes: [x]}", "scopes: scope 'x' is not one of provider.scopes"),
        ("{secret_hash: HASH, grant_types: [refresh_token]}", "Unknown grant type 'refresh_token'"),
        ("{secret_hash: HASH, grant_types: [authorization_code]}", "needs redirect_uris"),
        ("{secret_hash: HASH, audiences: ['urn:x']}", "Unknown audience 'urn:x'"),
        ("{secret_hash: HASH, secret: '${file:secret}'}", "secret_hash: can't stand beside secret"),
        ("{jwks: {keys: []}}", "clients.billing: jwks must hold a public"),
        ("{jwks: 'x'}", "clients.billing.jwks: expected a JSON Web Key Set"),
        (
            "{secret_hash: HASH, token_endpoint_auth_method: private_key_jwt, "
            "jwks_uri: https://c.example/jwks}",
            "secret_hash: has no effect with token_endpoint_auth_method private_key_jwt",
        ),
    ],
)
def test_wrong_client_is_reported_with_file_line_and_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: str, problem: str
) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    text = f"clients:\n  billing: {client}\n".replace("HASH", f"'{HASH}'")
    found = problems(tmp_path, text, secret="s3cret")
    assert any(problem in one for one in found), found
    assert "s3cret" not in "".join(found)


def test_id_that_can_not_be_one_is_reported(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, f"clients:\n  'a b': {{secret_hash: '{HASH}'}}\n")
    assert "gateway.yaml:6: clients.a b: client_id must be 1 to 255 visible ASCII" in found


def test_problem_within_a_directory_names_its_file(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        f"clients_dir: teams\nclients:\n  shop: {{secret_hash: '{HASH}'}}\n",
        teams__a_yaml=f"shop: {{secret_hash: '{HASH}'}}\nother:\n  scopes: 5\n",
        teams__b_yaml="- a list\n",
        teams__c_yaml="x: {secret: '${file:gone}'}\n",
    )
    assert found == [
        f"teams/a.yaml:1: shop: is declared in {tmp_path}/gateway.yaml, too",
        "teams/a.yaml:3: other.scopes: expected a list",
        "teams/b.yaml:1: expected a mapping of sections",
        "teams/c.yaml:1: x.secret: gone can't be read: No such file or directory",
    ]


def test_directory_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "clients_dir: teams\n")
    assert found == (
        f"gateway.yaml:5: clients_dir: {tmp_path}/teams can't be read: No such file or directory"
    )


def test_configuration_without_clients_leaves_those_of_the_store_alone(tmp_path: Path) -> None:
    assert declared_clients(read(tmp_path, "").config) is None
    assert declared_clients(read(tmp_path, "clients: {}\n").config) == ()
