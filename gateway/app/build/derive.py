"""Values of the packages below, made from sections of the configuration by the names of fields."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar, get_origin, get_type_hints

from pydantic import SecretStr

from gateway.config.routes import RateLimitConfig
from gateway.config.scalars import Section, key_of
from gateway.rate_limit import RateLimit

Made = TypeVar("Made")


def derive(kind: Callable[..., Made], *sections: Section, **given: Any) -> Made:
    """A dataclass whose fields are those of `sections`, or `given`.

    A field is the key of the same name, its unit left out. Every field must be found, also one
    that has a default: a default is the configuration's to give. Raises `TypeError` else.
    """
    types = _types_of_fields(kind)
    values: dict[str, Any] = dict(given)
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in given:
            continue
        found = [
            (section, key)
            for section in sections
            for key in {field.name, key_of(field.name)} & type(section).model_fields.keys()
        ]
        if len(found) != 1:
            raise TypeError(f"{kind}.{field.name} is in {len(found)} sections, not in one")
        section, key = found[0]
        values[field.name] = _plain(getattr(section, key), types[field.name])
    return kind(**values)


# They are text (`from __future__ import annotations`), which is compiled each time.
_types_of_fields = functools.cache(get_type_hints)


def _plain(value: Any, kind: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    container = get_origin(kind)
    return container(value) if container in {tuple, frozenset} else value


def rate_limit(config: RateLimitConfig | None) -> RateLimit | None:
    """A limit, its burst filled in."""
    if config is None or config.requests is None:
        return None
    return RateLimit(config.requests, config.per, config.burst or config.requests)
