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

_EXPECTED_NAME = "expected letters, digits, `_`, `.` and `-`, beginning with a letter or digit"


_MARKS = {"[key]", "[text]", "[mapping]"}
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
    known = sorted(_known_keys(path[:-1]))
    nearest = difflib.get_close_matches(str(path[-1]), known, n=1)
    if nearest:
        return f"unknown key, did you mean {nearest[0]!r}?"
    return f"unknown key, expected one of {', '.join(known)}"


def _known_keys(path: Path) -> Iterable[str]:
    kind: Any = Config
    for part in path:
        keys = _keys_in(kind)
        # Of a list its items, of a mapping its values.
        kind = keys[str(part)][1] if keys else get_args(kind)[-1]
    return _keys_in(kind)


def _keys_in(kind: Any) -> dict[str, tuple[str, Any]]:
    """The keys of a section, or of the one among several types."""
    if get_origin(kind) in {list, dict}:
        return {}
    if keys := fields_of(kind):
        return keys
    return next(filter(None, map(_keys_in, get_args(kind))), {})
