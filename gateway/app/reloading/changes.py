"""Compares two configurations: what is different, and what cannot change in a running process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel, SecretStr

from gateway.config import Config, LoadedConfig
from gateway.config.problems import ConfigProblem, Path, format_key, is_below
from gateway.config.scalars import fields_of
from gateway.reloads import Change

NEEDS_RESTART: tuple[Path, ...] = (
    ("listen", "host"),
    ("listen", "port"),
    ("listen", "unix"),
    ("listen", "http_redirect", "host"),
    ("listen", "http_redirect", "port"),
    ("listen", "tls", "acme", "storage"),
    ("admin", "host"),
    ("admin", "port"),
    ("admin", "session_idle"),
    ("admin", "session_ttl"),
    ("admin", "audit_retention"),
    ("authz", "host"),
    ("authz", "port"),
    ("workers",),
    ("store",),
    ("rate_limit", "store"),
    ("access_log",),
    ("log",),
    ("tracing",),
    ("provider", "seal_key"),
    ("provider", "seal_key_file"),
)
"""Sockets, processes, and what is opened once. A key that nothing takes over while the gateway
runs belongs here, so that a reload says so instead of doing half of it."""

NEEDS_RESTART_TO_COME_OR_GO: tuple[Path, ...] = (
    ("listen", "tls"),
    ("listen", "tls", "acme"),
    ("listen", "http_redirect"),
    ("listen", "proxy_protocol"),
    ("authz",),
)
"""Sections whose keys reload, and which themselves can't appear or vanish."""

Named = Mapping[Path, tuple[FilePath, bytes | None]]
"""The files that a configuration names, by the place where it does, and what is in them."""

MASK = "***"
CONFIGURED = "configured"
"""Shown for a whole section that was added or removed."""
MAX_SHOWN = 200

_ABSENT = object()


def find_restarts(old: Config, new: LoadedConfig) -> list[ConfigProblem]:
    """Return the changes that need a restart."""
    found: list[Path] = []
    for path in NEEDS_RESTART_TO_COME_OR_GO:
        has_changed = (_at(old, path) is None) != (_at(new.config, path) is None)
        if has_changed and not is_below(path, found):
            found.append(path)
    for path in NEEDS_RESTART:
        if _at(old, path) != _at(new.config, path) and not is_below(path, found):
            found.append(path)
    return [_needs_restart(new, path) for path in found]


def _needs_restart(new: LoadedConfig, path: Path) -> ConfigProblem:
    return new.problem(
        path, "can't change while the gateway runs: restart it, or put the old value back"
    )


def _at(config: Config, path: Path) -> object:
    value: Any = config
    for part in path:
        value = getattr(value, str(part), None)
    return value


def describe_changes(old: LoadedConfig, new: LoadedConfig) -> tuple[Change, ...]:
    """Each key whose value is another one, in the order of the file."""
    before = dict(_leaves(old.config, (), (), _with_parents(old.filled), new.config))
    after = dict(_leaves(new.config, (), (), _with_parents(new.filled), old.config))
    changes = []
    for key in dict.fromkeys((*before, *after)):
        was, shown_before = before.get(key, (_ABSENT, None))
        is_now, shown_after = after.get(key, (_ABSENT, None))
        if was is _ABSENT or is_now is _ABSENT or was != is_now:
            changes.append(Change(format_key(key), shown_before, shown_after))
    return tuple(changes)


def describe_config(loaded: LoadedConfig) -> tuple[tuple[str, str], ...]:
    """Each key with its value, as text: defaults too. Secrets are masked, and so is all that came
    from a variable."""
    hidden = _with_parents(loaded.filled)
    leaves = _leaves(loaded.config, (), (), hidden, _ABSENT)
    return tuple((format_key(key), shown) for key, (_, shown) in leaves)


def describe_changed_files(old: Named, new: Named) -> tuple[Change, ...]:
    """The keys that name the same file as before, whose contents are others."""
    return tuple(
        Change(format_key(place), None, None)
        for place, (path, digest) in new.items()
        if place in old and old[place][0] == path and old[place][1] != digest
    )


def _leaves(
    value: Any, path: Path, key: Path, hidden: frozenset[Path], other: Any
) -> Iterator[tuple[Path, tuple[object, str]]]:
    """Each value that is no section: its key, itself, and how it is shown.

    What is the same in the `other` configuration is left out, whole sections at a time: a reload
    that changes one route of thousands describes one. A route, an upstream or a client that the
    other one lacks is one change, not one for each of its keys.
    """
    if value == other:
        return
    if keys := fields_of(type(value)):
        for name, (attribute, _) in keys.items():
            inner = getattr(value, attribute)
            if _is_hidden(value, attribute):
                yield (*key, name), (inner, MASK)
            else:
                counterpart = getattr(other, attribute, _ABSENT)
                yield from _leaves(inner, (*path, name), (*key, name), hidden, counterpart)
        return
    match value:
        case dict():
            others = other if isinstance(other, dict) else {}
            for name, inner in value.items():
                counterpart = others.get(name, _ABSENT)
                if _is_alone(inner, counterpart, other):
                    yield (*key, name), (inner, CONFIGURED)
                    continue
                yield from _leaves(inner, (*path, name), (*key, name), hidden, counterpart)
        case list() if any(fields_of(type(item)) for item in value):
            counterparts = _by_key(key, other)
            for at, item in enumerate(value):
                item_key = _in_list(key, getattr(item, "name", None), at)
                counterpart = counterparts.get(item_key, _ABSENT)
                if _is_alone(item, counterpart, other):
                    yield item_key, (item, CONFIGURED)
                    continue
                yield from _leaves(item, (*path, at), item_key, hidden, counterpart)
        case _:
            yield key, (_plain(value), _show(value, path, hidden))


def _is_alone(value: object, counterpart: object, other: object) -> bool:
    """Return whether a section of several has none that it could be compared with."""
    return counterpart is _ABSENT and other is not _ABSENT and bool(fields_of(type(value)))


def _is_hidden(section: object, attribute: str) -> bool:
    return isinstance(section, BaseModel) and not type(section).model_fields[attribute].repr


def _by_key(key: Path, items: object) -> dict[Path, object]:
    if not isinstance(items, list):
        return {}
    return {_in_list(key, getattr(item, "name", None), at): item for at, item in enumerate(items)}


def _in_list(key: Path, name: str | None, at: int) -> Path:
    """Items that have names are called by them: one that moved has not changed."""
    return (*key, at) if name is None else (*key[:-1], f"{key[-1]}[{name}]")


def _plain(value: object) -> object:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _show(value: object, path: Path, hidden: frozenset[Path]) -> str:
    if isinstance(value, SecretStr) or path in hidden:
        return MASK
    shown = json.dumps(value, ensure_ascii=False, default=lambda inner: MASK)
    return shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 3] + "..."


def _with_parents(filled: frozenset[Path]) -> frozenset[Path]:
    """The values of which the whole, or a part, came from a variable."""
    return frozenset(path[:end] for path in filled for end in range(len(path) + 1))
