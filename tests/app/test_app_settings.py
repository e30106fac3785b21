"""The configuration makes the values that the packages work with: no field is left out."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest
from support import settings

from gateway.app.build.derive import derive
from gateway.config import parse_config
from gateway.config.model import ListenLimits
from gateway.config.scalars import fields_of, key_of
from gateway.config.upstreams import UpstreamConfig
from gateway.upstream.settings import (
    Backoff,
    CircuitBreaker,
    OutlierDetection,
    Retries,
    RetryBudget,
    SlowStart,
    UpstreamTimeouts,
)

SECTIONS = (
    UpstreamTimeouts, SlowStart, OutlierDetection, CircuitBreaker, Backoff, RetryBudget, Retries,
)  # fmt: skip


@pytest.mark.parametrize("kind", SECTIONS)
def test_every_field_of_a_value_is_a_key_with_the_default_of_the_value(kind: type) -> None:
    keys = fields_of(kind)
    assert [attribute for attribute, _ in keys.values()] == [field.name for field in fields(kind)]
    assert list(keys) == [key_of(field.name) for field in fields(kind)]
    upstream = UpstreamConfig.model_validate({"targets": ["http://a:1"], "outlier_detection": {}})
    sections = [getattr(upstream, name) for name in UpstreamConfig.model_fields]
    sections += [upstream.retries.backoff, upstream.retries.budget]
    assert kind() in sections


def test_text_from_a_variable_is_read_as_a_number_in_a_value_too() -> None:
    text = """
    provider: {registration: {mode: "off"}}
    upstreams:
      u:
        targets: ["http://a:1"]
        timeouts: {connect: 250ms}
        retries: {attempts: "${ATTEMPTS}", retry_on: [reset], backoff: {max: 2s}}
    """
    (upstream,) = parse_config(text, file="x", environ={"ATTEMPTS": "3"}).upstreams.values()
    assert upstream.timeouts == UpstreamTimeouts(connect_s=0.25)
    assert upstream.retries == Retries(3, ("reset",), backoff=Backoff(max_s=2.0))


@dataclass
class Wanted:
    head_bytes: int
    headers: int
    is_new: bool = False


def test_value_with_a_field_that_no_section_has_is_not_made() -> None:
    with pytest.raises(TypeError, match="is_new is in 0 sections"):
        derive(Wanted, ListenLimits())
    assert derive(Wanted, ListenLimits(), is_new=True) == Wanted(32768, 100, True)


def test_defaults_are_those_of_the_configuration() -> None:
    assert settings.CLIENT_LIMITS.min_body_rate == 240
    assert settings.policy().client_ttl_s == 30 * 86400
