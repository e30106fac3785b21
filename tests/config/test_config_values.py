"""What a sound configuration comes to: variables, durations, defaults, examples, schema."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.json_schemas import validator_of
from support.sound_config import SOUND

from gateway import __version__
from gateway.config import Config, ConfigError, config_hash, json_schema, load_config, parse_config
from gateway.config.source import parse_document
from gateway.units import format_duration, parse_duration

ROOT = Path(__file__).parents[2]
ENVIRON = {
    "ISSUER": "https://gateway.example",
    "ADMIN_TOKEN": "admin-secret",
    "SEAL_KEY": "0123456789abcdef" * 4,
}


def parse(text: str, **environ: str) -> Config:
    return parse_config(text, file="g.yaml", environ=environ)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("1.5s", 1.5), ("10m", 600), ("1h", 3600), ("30d", 2592000),
     ("0", 0), (0, 0)],
)  # fmt: skip
def test_duration_is_kept_in_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", ["", "s", "10", "10 s", "-1s", "1w", "1h30m", 5, 1.5, True, None])
def test_anything_else_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0"), (0.25, "250ms"), (90, "90s"), (3600, "1h"), (86400, "1d")]
)
def test_duration_is_written_in_the_shortest_way(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
    assert parse_duration(text) == seconds


def test_variables_are_filled_in() -> None:
    text = SOUND.replace("host: 127.0.0.1", "host: '${HOST:-::1}'").replace("8080", "'${PORT}'")
    text = text.replace("gateway.example", "${NAME}.${DOMAIN:-example}")
    config = parse(text, PORT="8081", NAME="gw")
    assert (config.listen.host, config.listen.port) == ("::1", 8081)
    assert config.provider.issuer == "https://gw.example"


def test_empty_variable_takes_the_default() -> None:
    assert parse(SOUND.replace("8080", "'${PORT:-9}'"), PORT="").listen.port == 9


def test_variable_is_a_number_only_where_one_is_expected() -> None:
    text = SOUND.replace("mode: off", "mode: token, fail_if_present: '${F}', token: '${T}'")
    registration = parse(text, F="false", T="12345").provider.registration
    assert registration.fail_if_present is False
    assert registration.token is not None
    assert registration.token.get_secret_value() == "12345"


def test_escaped_variable_is_text() -> None:
    text = SOUND.replace("mode: off", "mode: token, token: 'a$${B}c'")
    token = parse(text).provider.registration.token
    assert token is not None
    assert token.get_secret_value() == "a${B}c"


def test_variable_cannot_bring_structure_in() -> None:
    config = parse(SOUND.replace("mode: off", "mode: token, token: '${T}'"), T="[a, b]: *c # d")
    token = config.provider.registration.token
    assert token is not None
    assert token.get_secret_value() == "[a, b]: *c # d"


def test_secret_comes_from_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    path = tmp_path / "g.yaml"
    path.write_text(SOUND.replace("mode: off", "mode: token, token: '${file:token}'"))
    config = load_config(path, environ={})
    token = config.provider.registration.token
    assert token is not None
    assert token.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(config) + config.model_dump_json()


def test_anchors_and_merge_keys_work() -> None:
    text = SOUND + (
        "  - &base {name: b, match: {path: /b}, upstream: app}\n"
        "  - {<<: *base, name: c, match: {path: /c}}\n"
    )
    assert [route.name for route in parse(text).routes] == ["app", "b", "c"]
    assert parse(text).routes[2].upstream == "app"


def test_values_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(SOUND).listen.port = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", ["store", "rate_limit.store"])
def test_password_of_a_store_is_neither_hashed_nor_shown(name: str) -> None:
    url = "postgresql://gateway:{}@db.test/gateway"
    key = "store: '{}'" if name == "store" else "rate_limit: {{store: '{}'}}"
    one, two = (parse(SOUND + key.format(url.format(text)) + "\n") for text in ("a-secret", "b"))
    assert config_hash(one) == config_hash(two)
    assert "a-secret" not in repr(one)


def test_rate_limit_may_name_a_store_alone_and_no_file() -> None:
    limit = parse(SOUND + "rate_limit: {store: 'redis://redis.test'}\n").rate_limit
    assert limit is not None
    assert limit.requests is None
    for text, key in (
        ("rate_limit: {store: 'sqlite:///a.db'}\n", "rate_limit.store: expected redis://"),
        ("rate_limit: {store: none}\n", "rate_limit.store: expected redis://"),
        ("rate_limit: {per: 1s}\n", "rate_limit.requests: is required"),
        ("rate_limit: {burst: 5, store: 'redis://r'}\n", "rate_limit.requests: is required"),
        ("rate_limit: {}\n", "rate_limit.requests: is required"),
    ):
        with pytest.raises(ConfigError) as error:
            parse(SOUND + text)
        assert key in str(error.value)


def test_hash_follows_the_values_and_not_the_secrets() -> None:
    text = SOUND.replace("mode: off", "mode: token, token: '${T}'")
    one, two = parse(text, T="a"), parse(text, T="b")
    assert config_hash(one) == config_hash(two)
    assert re.fullmatch("[0-9a-f]{64}", config_hash(one))
    assert config_hash(one) != config_hash(parse(text.replace("8080", "8081"), T="a"))


@functools.cache
def schema_of_the_gateway() -> dict[str, Any]:
    return json_schema()


@functools.cache
def validator_of_the_gateway() -> Any:
    return validator_of(schema_of_the_gateway())


EXAMPLES = sorted(path.relative_to(ROOT) for path in (ROOT / "config").rglob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=str)
def test_example_fits_the_schema_as_it_stands(path: Path) -> None:
    if path.name == "envoy.yaml":
        pytest.skip("it is Envoy's")
    text = (ROOT / path).read_text()
    tree = yaml.safe_load(re.sub(r"\boff\b", "'off'", text))
    validator_of_the_gateway().validate(tree)


@pytest.mark.parametrize(
    "name", ["demo", "sidecar", "edge", "services", "upstreams", "routes", "grpc"]
)
def test_example_is_sound(name: str, tmp_path: Path) -> None:
    source = (ROOT / "config" / f"{name}.yaml").read_text()
    for secret in ("registration-token", "admin-token"):
        (tmp_path / secret).write_text("mounted-secret")
    path = tmp_path / f"{name}.yaml"
    path.write_text(source.replace("/run/secrets/gateway/", f"{tmp_path}/"))
    config = load_config(path, environ=ENVIRON)
    assert config.routes


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML was built without LibYAML")
def test_sound_text_is_read_by_libyaml_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(yaml.scanner.Scanner, "fetch_more_tokens")
    assert parse(SOUND).routes


@pytest.mark.parametrize(
    "text",
    [
        *(pytest.param((ROOT / path).read_text(), id=str(path)) for path in EXAMPLES),
        "a: &b {c: 1}\nd:\n  <<: *b\n  e: [1,\n  2]\n",
        "a: [1\nb: 2\n",
        "a: ${B\n",
        pytest.param("a: " + "[" * 1000, id="nested too deeply"),
        "a: '\ud800'\n",
        "",
    ],
)
def test_document_is_the_same_without_libyaml(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = parse_document(text, file="a", environ={}, directory=tmp_path)
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    other = parse_document(text, file="a", environ={}, directory=tmp_path)
    assert (one.tree, one.lines(), one.problems) == (other.tree, other.lines(), other.problems)


def test_schema_refuses_what_the_gateway_refuses() -> None:
    schema = schema_of_the_gateway()
    json.dumps(schema)
    validator = validator_of_the_gateway()
    assert not validator.is_valid({"listne": {}})
    assert not validator.is_valid({"provider": {"token_ttl": "1 hour"}})
    assert validator.is_valid({"provider": {"token_ttl": "1h"}})
    assert not validator.is_valid({"listen": {"port": 99999}})
    assert not validator.is_valid({"listen": {"port": "http"}})
    for value in ("${PORT}", "${PORT:-8080}"):
        assert validator.is_valid({"listen": {"port": value, "timeouts": {"head": value}}})
        assert validator.is_valid({"provider": {"token_format": value, "grant_types": [value]}})
    assert schema["$defs"]["Provider"]["properties"]["token_ttl"]["default"] == "1h"


def test_schema_marks_what_is_typed_wrong_in_an_editor() -> None:
    schema = schema_of_the_gateway()
    validator = validator_of_the_gateway()
    for target in ("127.0.0.1:9", "http://", "http://a/b", "ftp://a"):
        assert not validator.is_valid({"upstreams": {"a": {"targets": [target]}}})
    for target in ("http://127.0.0.1:9", "unix:///run/a.sock", "https://${HOST}:1", "${TARGET}"):
        assert validator.is_valid({"upstreams": {"a": {"targets": [target, {"url": target}]}}})
    assert not validator.is_valid({"trusted_proxies": ["proxy"]})
    assert not validator.is_valid({"store": "mysql://a"})
    assert not validator.is_valid({"listen": {"port": "none"}})
    assert validator.is_valid({"listen": {"port": "off"}})
    assert schema["$id"] == f"urn:bearer-gateway:configuration:{__version__}"
    sections = (schema, *schema["$defs"].values())
    titles = [section["title"] for section in sections if "title" in section]
    assert titles == ["Configuration of bearer-gateway"]


@pytest.mark.parametrize("path", EXAMPLES, ids=str)
def test_example_names_its_schema_for_editors(path: Path) -> None:
    if path.name == "envoy.yaml":
        pytest.skip("it is Envoy's")
    first = (ROOT / path).read_text().splitlines()[0]
    named = first.removeprefix("# yaml-language-server: $schema=")
    assert json.loads((ROOT / path.parent / named).read_text()) == schema_of_the_gateway()


def keys_of(schema: dict[str, Any], section: dict[str, Any], prefix: str = "") -> set[str]:
    """Every key of the schema, dotted; list items and map values by their parent's name."""
    keys = set()
    for name, value in section["properties"].items():
        key = f"{prefix}{name}"
        keys.add(key)
        for reference in re.findall(r"#/\$defs/(\w+)", json.dumps(value)):
            marker = "[]" if value.get("type") == "array" else ""
            marker = ".NAME" if value.get("type") == "object" else marker
            keys |= keys_of(schema, schema["$defs"][reference], f"{key}{marker}.")
    return keys


def test_every_key_is_described_in_the_schema_and_in_the_docs() -> None:
    schema = schema_of_the_gateway()
    for section in (schema, *schema["$defs"].values()):
        for name, value in section["properties"].items():
            assert value.get("description") or "$ref" in value, name
    documented = set(
        re.findall(
            r"^\| `([a-z0-9_.\[\]NAME]+)` \|",
            (ROOT / "docs/reference/configuration.md").read_text(),
            re.M,
        )
    )
    keys = keys_of(schema, schema)
    parents = {
        key for key in keys if any(other.startswith((f"{key}.", f"{key}[]")) for other in keys)
    }
    # A section, or values: such a key has a row of its own beside those of the section.
    mixed = {key for key in parents if f"{key}.any" in keys or f"{key}.NAME.any" in keys}
    assert documented == keys - parents | mixed


def test_password_of_the_store_is_neither_shown_nor_hashed() -> None:
    config = parse(f"store: 'redis://user:geheim@redis.example/3'\n{SOUND}", **ENVIRON)
    assert config.store == "redis://user:geheim@redis.example/3"
    assert "geheim" not in repr(config)
    other = parse(f"store: 'redis://user:anders@redis.example/3'\n{SOUND}", **ENVIRON)
    assert config_hash(config) == config_hash(other)
    elsewhere = parse(f"store: 'redis://user:geheim@redis.example/4'\n{SOUND}", **ENVIRON)
    assert config_hash(config) != config_hash(elsewhere)
