"""What is different between two configurations, and what can't change in a running process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel, SecretStr

from gateway.config import Config, LoadedConfig
from gateway.config.problems import Path, Problem, format_key
from gateway.config.scalars import fields_of
from gateway.reloads import Change

NEEDS_RESTART: tuple[Path, ...] = (
    ("listen", "host"),
    ("listen", "port"),
    ("listen", "unix"),
    ("admin", "host"),
    ("admin", "port"),
    ("admin", "session_idle"),
    ("admin", "session_ttl"),
    ("admin", "audit_retention"),
    ("authz", "host"),
    ("authz", "port"),
    ("workers",),
    ("store",),
    ("access_log",),
    ("tracing",),
    ("provider", "seal_key"),
    ("provider", "seal_key_file"),
)
"""Sockets, processes, and what is opened once. A key that nothing takes over while the gateway
runs belongs here, so that a reload says so instead of doing half of it."""

NEEDS_RESTART_TO_COME_OR_GO: tuple[Path, ...] = (
    ("listen", "tls"),
    ("listen", "proxy_protocol"),
    ("authz",),
)
"""Sections whose keys reload, and which themselves can't appear or vanish."""

RELOADED = frozenset(
    {"listen", "admin", "authz", "ready_without_store", "provider", "jwt_issuers",
     "introspection_servers", "maintenance",
     "rate_limit", "cache", "shutdown", "reload", "trusted_proxies", "upstreams", "routes"}
)  # fmt: skip
"""The sections that a running gateway takes over, but for the keys above."""

Named = Mapping[Path, tuple[FilePath, bytes | None]]
"""The files that a configuration names, by the place where it does, and what is in them."""

MASK = "***"
MAX_SHOWN = 200

_ABSENT = object()


def find_restarts(old: Config, new: LoadedConfig) -> list[Problem]:
    """What has changed and can't change in a running process."""
    problems = []
    for path in NEEDS_RESTART_TO_COME_OR_GO:
        if (_at(old, path) is None) != (_at(new.config, path) is None):
            problems.append(_needs_restart(new, path))
    come_or_gone = {problem.key for problem in problems}
    for path in NEEDS_RESTART:
        if _at(old, path) != _at(new.config, path) and path[0] not in come_or_gone:
            problems.append(_needs_restart(new, path))
    return problems


def _needs_restart(new: LoadedConfig, path: Path) -> Problem:
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
    before = dict(_leaves(old.config, (), (), old.filled))
    after = dict(_leaves(new.config, (), (), new.filled))
    changes = []
    for key in dict.fromkeys((*before, *after)):
        was, shown_before = before.get(key, (_ABSENT, None))
        is_now, shown_after = after.get(key, (_ABSENT, None))
        if was is _ABSENT or is_now is _ABSENT or was != is_now:
            changes.append(Change(format_key(key), shown_before, shown_after))
    return tuple(changes)


def describe_changed_files(old: Named, new: Named) -> tuple[Change, ...]:
    """The keys that name the same file as before, whose contents are others."""
    return tuple(
        Change(format_key(place), None, None)
        for place, (path, digest) in new.items()
        if place in old and old[place][0] == path and old[place][1] != digest
    )


def _leaves(
    value: Any, path: Path, key: Path, hidden: frozenset[Path]
) -> Iterator[tuple[Path, tuple[object, str]]]:
    """Each value that is no section: its key, itself, and how it is shown."""
    if keys := fields_of(type(value)):
        for name, (attribute, _) in keys.items():
            inner = getattr(value, attribute)
            if _is_hidden(value, attribute):
                yield (*key, name), (inner, MASK)
            else:
                yield from _leaves(inner, (*path, name), (*key, name), hidden)
        return
    match value:
        case dict():
            for name, inner in value.items():
                yield from _leaves(inner, (*path, name), (*key, name), hidden)
        case list() if any(fields_of(type(item)) for item in value):
            for at, item in enumerate(value):
                called = getattr(item, "name", None)
                yield from _leaves(item, (*path, at), _in_list(key, called, at), hidden)
        case _:
            yield key, (_plain(value), _show(value, path, hidden))


def _is_hidden(section: object, attribute: str) -> bool:
    return isinstance(section, BaseModel) and not type(section).model_fields[attribute].repr


def _in_list(key: Path, name: str | None, at: int) -> Path:
    """Items that have names are called by them: one that moved has not changed."""
    return (*key, at) if name is None else (*key[:-1], f"{key[-1]}[{name}]")


def _plain(value: object) -> object:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _show(value: object, path: Path, hidden: frozenset[Path]) -> str:
    if isinstance(value, SecretStr) or _is_filled(path, hidden):
        return MASK
    shown = json.dumps(value, ensure_ascii=False, default=lambda inner: MASK)
    return shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 3] + "..."


def _is_filled(path: Path, hidden: frozenset[Path]) -> bool:
    """Whether a value, or a part of it, came from a variable."""
    return any(place[: len(path)] == path for place in hidden)
