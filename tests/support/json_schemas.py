"""JSON Schemas, and what they say of a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator


def validator_of(schema: dict[str, Any]) -> Draft202012Validator:
    """A validator. Raises `jsonschema.SchemaError` where it is no JSON Schema."""
    # The formats that it knows take a second to load, of each process of a test run.
    from jsonschema import Draft202012Validator  # noqa: PLC0415

    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)
