"""From a tree to values: pydantic's findings in words for people.

The words say what is expected and never repeat what was found there, which may be a
secret that came from a variable.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.config.model import Config
from gateway.config.problems import Path
from gateway.config.scalars import NAME_PATTERN

_EXPECTED = {
    "missing": "is required",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "bool_type": "expected true or false",
    "string_type": "expected text",
    "list_type": "expected a list",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
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
    if kind == "extra_forbidden":
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
    annotation: Any = Config
    for part in path:
        annotation = _member(annotation, part)
    model = _model_in(annotation)
    return model.model_fields if model else ()


def _member(annotation: Any, part: str | int) -> Any:
    model = _model_in(annotation)
    if model is not None and isinstance(part, str):
        return model.model_fields[part].annotation
    return get_args(annotation)[-1]  # of a list its items, of a dict its values


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if get_origin(annotation) in {list, dict}:
        return None
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    for candidate in get_args(annotation):
        if model := _model_in(candidate):
            return model
    return None
