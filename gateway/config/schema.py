"""The JSON Schema (2020-12) of the configuration file, for editors and other programs."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from gateway import __version__
from gateway.config.model import Config
from gateway.config.scalars import DATACLASSES, key_of
from gateway.units import format_duration

VARIABLE = {"type": "string", "pattern": r"\$\{.+\}"}
"""A value that is filled in when the file is read, whatever it then has to be."""
BOUNDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
ANNOTATIONS = ("title", "description", "default")


def json_schema() -> dict[str, Any]:
    """Make the schema."""
    text = json.dumps(Config.model_json_schema())
    # Sections are named as in the file: `Route`, where the class is `RouteConfig`.
    schema = json.loads(re.sub(r'(?<=["/])(\w+)Config"', r'\1"', text))
    for kind in DATACLASSES:
        keys = schema["$defs"][kind.__name__]["properties"]
        for field, description in _texts_below_fields(kind):
            described = {**keys[key_of(field)], "description": description}
            keys[key_of(field)] = dict(sorted(described.items()))
    for section in (schema, *schema["$defs"].values()):
        section.pop("title", None)  # the name of a class
        for name, key in section["properties"].items():
            key.pop("title", None)
            is_duration = any("pattern" in kind for kind in key.get("anyOf", ()))
            if is_duration and isinstance(key.get("default"), float):
                key["default"] = format_duration(key["default"])
            section["properties"][name] = _or_variable(_with_bounds(key))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:bearer-gateway:configuration:{__version__}",
        "title": "Configuration of bearer-gateway",
        **schema,
    }


def _texts_below_fields(kind: type) -> Iterator[tuple[str, str]]:
    """Each field of a dataclass, and its description. From the source, which pydantic would read
    at each start."""
    (declared,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(declared, ast.ClassDef)
    for field, text in pairwise(declared.body):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(description))),
            ):
                yield name, " ".join(description.split())


def _with_bounds(value: Any) -> Any:
    """A schema with the limits of numbers under the names that JSON Schema has for them."""
    if isinstance(value, dict):
        names = BOUNDS if value.get("type") in ("integer", "number") else {}
        return {names.get(name, name): _with_bounds(inner) for name, inner in value.items()}
    return [*map(_with_bounds, value)] if isinstance(value, list) else value


def _or_variable(key: dict[str, Any]) -> dict[str, Any]:
    """A schema of a value that also allows `${NAME}` where it would refuse that text."""
    if isinstance(key.get("items"), dict):
        key = {**key, "items": _or_variable(key["items"])}
    if "oneOf" in key:  # text, or a mapping: never both
        key = {"anyOf": key["oneOf"], **{n: key[n] for n in ANNOTATIONS if n in key}}
    if "anyOf" in key:
        lists = [_or_variable(kind) if "items" in kind else kind for kind in key["anyOf"]]
        key = {**key, "anyOf": lists}
    if isinstance(key.get("additionalProperties"), dict):
        key = {**key, "additionalProperties": _or_variable(key["additionalProperties"])}
    kinds = key.get("anyOf", [{n: value for n, value in key.items() if n not in ANNOTATIONS}])
    if not any(_is_restricted(kind) for kind in kinds):
        return key
    shown = {name: key[name] for name in ANNOTATIONS if name in key}
    return {"anyOf": [*kinds, VARIABLE], **shown}


def _is_restricted(kind: dict[str, Any]) -> bool:
    is_text = kind.get("type") == "string"
    if is_text:
        return "enum" in kind or "pattern" in kind
    if "const" in kind:
        return True
    return kind.get("type") in ("integer", "number", "boolean") or "enum" in kind
