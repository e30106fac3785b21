"""What routes accept: mistakes that `gateway check` finds, and what it warns of."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from gateway.config import ConfigError, parse_config
from gateway.config.advice import find_warnings


def configure(route: dict[str, Any], **provider: Any) -> str:
    return yaml.safe_dump(
        {
            "provider": {"registration": {"mode": "off"}, **provider},
            "upstreams": {"app": {"targets": ["http://127.0.0.1:1"]}},
            "routes": [{"name": "r", "match": {"path": "/"}, "upstream": "app", **route}],
        }
    )


@pytest.mark.parametrize(
    ("route", "says"),
    [
        ({"credentials": []}, "routes[0].credentials: "),
        ({"credentials": ["token"]}, "routes[0].credentials[0]: expected 'bearer', 'api_key'"),
        ({"credentials": ["api_key", "api_key"]}, "names a credential twice"),
        ({"credentials": ["api_key"], "auth": "none"}, "credentials: has no effect with auth none"),
        ({"client_secret": {}}, "client_secret: has no effect unless credentials list"),
        ({"forward_credentials": True}, "expected forward_token"),
        (
            {"credentials": ["api_key"], "audience": ["https://a.example"]},
            "routes[0].audience: has no effect unless credentials list bearer",
        ),
        (
            {"credentials": ["client_secret"], "client_secret": {"secret_name": "Host"}},
            "client_secret.secret_name: is no field for a credential",
        ),
        (
            {"credentials": ["client_secret"], "client_secret": {"id_name": "a b"}},
            "expected the name of a field or parameter",
        ),
        (
            {"credentials": ["client_secret"], "client_secret": {"id_name": "client_secret"}},
            "is the name of the client id, too",
        ),
        (
            {"credentials": ["client_secret"], "client_secret": {"sent_in": ["body"]}},
            "routes[0].client_secret.sent_in[0]: ",
        ),
    ],
)
def test_credentials_that_make_no_sense_are_rejected(route: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(configure(route), file="g.yaml")
    assert says in str(raised.value)


@pytest.mark.parametrize("header", ["Authorization", "X-Client-Id", "a b"])
def test_field_with_a_meaning_is_none_for_keys(header: str) -> None:
    with pytest.raises(ConfigError, match=r"provider\.api_keys\.header"):
        parse_config(configure({}, api_keys={"header": header}), file="g.yaml")


def test_check_warns_of_secrets_in_a_query() -> None:
    route = {"credentials": ["client_secret"], "client_secret": {"sent_in": ["query", "header"]}}
    (found,) = find_warnings(parse_config(configure(route), file="g.yaml"))
    assert found[0] == ("routes", 0, "client_secret", "sent_in")
    assert "whatever is in front" in found[1]
