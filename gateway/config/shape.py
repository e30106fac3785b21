"""From a tree to values: pydantic's findings in readable words.

The words say what is expected and never repeat what was found there, which may be a
secret that came from a variable.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.config.model import Config
from gateway.config.problems import Path
from gateway.config.scalars import NAME_PATTERN, fields_of

_EXPECTED = {
    "missing": "is required",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "bool_type": "expected true or false",
    "string_type": "expected text",
    "list_type": "expected a list",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
    "dataclass_type": "expected a mapping",
    "tuple_type": "expected a list",
    "model_attributes_type": "expected a mapping",
    "string_too_short": "must not be empty",
    "literal_error": "expected {expected}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_short": "expected at least {min_length} item",
    "value_error": "{error}",
}

CLOSE = 0.8
"""How alike a key must be to one beside it before those of other sections are looked at."""

_EXPECTED_NAME = "expected letters, digits, `_`, `.` and `-`, beginning with a letter or digit"


_MARKS = {"[key]", "[list]", "[text]", "[mapping]"}
"""What pydantic, or a tagged union of ours, puts into a path that is no part of the document."""


def describe_errors(error: ValidationError) -> Iterable[tuple[Path, str]]:
    """Each finding as its path and what is wrong there."""
    for details in error.errors(include_url=False, include_input=False):
        path = tuple(part for part in details["loc"] if part not in _MARKS)
        yield path, _describe(details, path)


def _describe(details: ErrorDetails, path: Path) -> str:
    kind = details["type"]
    context = details.get("ctx", {})
    if kind in {"extra_forbidden", "unexpected_keyword_argument"}:
        return _describe_unknown_key(path)
    if kind == "string_pattern_mismatch":
        is_name = context["pattern"] == NAME_PATTERN
        return _EXPECTED_NAME if is_name else "must start with /"
    return _EXPECTED.get(kind, details["msg"]).format(**context)


def _describe_unknown_key(path: Path) -> str:
    key, above = str(path[-1]), path[:-1]
    known = _known_keys(above)
    inner = {
        f"{name}.{below}": below
        for name, (_, kind) in known.items()
        if not _is_mapping(kind)
        for below in _keys_in(kind)
    }
    # A key of a section below, or of the one above: the indentation is wrong.
    if places := [place for place, name in inner.items() if name in {key, f"{key}s"}]:
        if any(inner[place] != key for place in places):
            return f"unknown key here, did you mean {_any_of(places)}?"
        return (
            f"unknown key here, it belongs below {_any_of([p.rpartition('.')[0] for p in places])}"
        )
    if nearest := difflib.get_close_matches(key, known, n=1, cutoff=CLOSE):
        return f"unknown key, did you mean {nearest[0]!r}?"
    if any(key in _known_keys(outer) for outer in _above(above)):
        return f"unknown key here, it belongs one level up, beside {_name_of(above)!r}"
    if nearest := difflib.get_close_matches(key, [*known, *inner.values()], n=1, cutoff=0.7):
        places = [place for place, name in inner.items() if name == nearest[0]]
        is_here = nearest[0] in known
        return f"unknown key, did you mean {_any_of(nearest if is_here else places)}?"
    return f"unknown key, expected one of {', '.join(sorted(known))}"


def _any_of(names: list[str]) -> str:
    return " or ".join(map(repr, names[:3]))


def _above(path: Path) -> Iterable[Path]:
    """The section around one: of the item of a list, that of the list."""
    if path:
        yield path[:-1]
    if len(path) > 1 and isinstance(path[-1], int):
        yield path[:-2]


def _name_of(path: Path) -> str:
    """The key of a section, or of the list that it is an item of."""
    return str(path[-2] if isinstance(path[-1], int) and len(path) > 1 else path[-1])


def _known_keys(path: Path) -> dict[str, tuple[str, Any]]:
    kind: Any = Config
    for part in path:
        keys = _keys_in(kind)
        # Of a list its items, of a mapping its values.
        kind = keys[str(part)][1] if keys else get_args(kind)[-1]
    return _keys_in(kind)


def _is_mapping(kind: Any) -> bool:
    """Whether keys below are names of the operator's choice, or items of a list."""
    return get_origin(kind) in {list, dict}


def _keys_in(kind: Any) -> dict[str, tuple[str, Any]]:
    """The keys of a section, or of the one among several types."""
    if get_origin(kind) in {list, dict}:
        return {}
    if keys := fields_of(kind):
        return keys
    return next(filter(None, map(_keys_in, get_args(kind))), {})
