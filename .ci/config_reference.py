"""Write the tables of keys in configuration.md from the JSON Schema of the configuration, and
the schema for editors beside the examples, config/gateway.schema.json.

python .ci/config_reference.py            # rewrites both
python .ci/config_reference.py --check    # exits with 1 where one is out of date
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from gateway.config import json_schema  # noqa: E402
from gateway.config.schema import VARIABLE  # noqa: E402

PAGE = ROOT / "docs" / "reference" / "configuration.md"
SCHEMA = ROOT / "config" / "gateway.schema.json"
PART = re.compile(r"(<!-- keys: ([a-z_, \[\].]+) -->\n).*?(<!-- /keys -->)", re.DOTALL)
TYPES = {
    "string": "text", "integer": "number", "number": "number", "boolean": "true \\| false",
    "object": "mapping of text", "value": "value", "share": "0 to 1",
}  # fmt: skip
VALUE = ["string", "integer", "boolean"]
"""What a claim may be."""
HEAD = "| Key | Type | Default | Meaning |\n|---|---|---|---|\n"

Schema = dict[str, Any]


def main() -> int:
    """Write the page and the schema, or compare them."""
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    made = {PAGE: render(PAGE.read_text()), SCHEMA: schema}
    stale = [file for file, text in made.items() if not file.exists() or file.read_text() != text]
    is_check = "--check" in sys.argv[1:]
    for file in stale:
        if not is_check:
            file.write_text(made[file])
        print(f"{file.relative_to(ROOT)} is {'out of date' if is_check else 'written'}")
    return 1 if stale and is_check else 0


def render(text: str) -> str:
    """The page with its tables as the schema has them."""
    schema = json_schema()
    rows = {key: row for key, *row in keys(schema, schema)}
    shown: list[str] = []

    def table(match: re.Match[str]) -> str:
        prefixes = tuple(match[2].split(", "))
        chosen = [
            key
            for prefix in prefixes
            for key in rows
            if key == prefix or key.startswith((f"{prefix}.", f"{prefix}["))
        ]
        shown.extend(chosen)
        lines = (f"| `{key}` | {' | '.join(rows[key])} |\n" for key in chosen)
        return match[1] + HEAD + "".join(lines) + match[3]

    rendered = PART.sub(table, text)
    if sorted(shown) != sorted(rows):
        raise SystemExit(f"keys in no table, or in two: {set(rows) ^ set(shown) or shown}")
    return rendered


def keys(schema: Schema, section: Schema, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Each key that has a value of its own: its name, type, default and meaning."""
    required = section.get("required", ())
    for name, value in section["properties"].items():
        inner, marker = section_in(schema, value)
        if inner is not None:
            if is_mixed(value):
                yield row(prefix, name, value, required)
            yield from keys(schema, inner, f"{prefix}{name}{marker}.")
        else:
            yield row(prefix, name, value, required)


def row(
    prefix: str, name: str, value: Schema, required: Collection[str]
) -> tuple[str, str, str, str]:
    """The row of a key."""
    return (
        f"{prefix}{name}",
        type_of(value),
        "required" if name in required else default_of(value),
        value.get("description", "").replace("|", "\\|"),
    )


def is_mixed(value: Schema) -> bool:
    """Whether a key, or each in a mapping, may also hold something else than a section."""
    each = value.get("additionalProperties", value)
    choices = each.get("anyOf", []) if isinstance(each, dict) else []
    return any("$ref" in one for one in choices) and any("items" in one for one in choices)


def section_in(schema: Schema, value: Schema) -> tuple[Schema | None, str]:
    """The section that a key holds, and what stands between its name and those of its keys."""
    for choice in (value, *value.get("anyOf", ()), *value.get("oneOf", ())):
        if "$ref" in choice:
            return schema["$defs"][choice["$ref"].rpartition("/")[2]], ""
        items = choice.get("items")
        if isinstance(items, dict) and (inner := section_in(schema, items)[0]):
            return inner, "[]"
        mapped = [choice.get("additionalProperties"), *choice.get("patternProperties", {}).values()]
        for each in mapped:
            if isinstance(each, dict) and (inner := section_in(schema, each)[0]):
                return inner, ".NAME"
    return None, ""


def mixed_type(each: Schema | None, kinds: list[Schema]) -> str:
    """A type in words, of a key that may hold a section, or of a mapping whose values may."""
    if each is not None:
        return f"mapping of {type_of(each)}"
    return " or ".join("mapping" if "$ref" in one else type_of(one) for one in kinds)


def type_of(value: Schema) -> str:
    """A type in words."""
    kinds = [
        one for one in value.get("anyOf", [value]) if one.get("type") != "null" and one != VARIABLE
    ]
    texts = json.dumps(kinds)
    units = (("ms|s|m|h|d", "duration"), ("KiB", "size"))
    if name := next((name for unit, name in units if unit in texts), ""):
        return name
    if is_mixed(value):
        return mixed_type(value.get("additionalProperties"), kinds)
    if any("const" in one for one in kinds):
        return " or ".join(f"`{one['const']}`" if "const" in one else type_of(one) for one in kinds)
    kind = kinds[0] if len(kinds) == 1 else {"type": [one["type"] for one in kinds]}
    if "enum" in kind:
        return " \\| ".join(f"`{one}`" for one in kind["enum"])
    if kind.get("type") == VALUE:
        kind = {"type": "value"}
    if (items := kind.get("items")) is not None:
        of = ", ".join(f"`{one}`" for one in items.get("enum", ())) or type_of(items)
        return f"list of {of}"
    names = kind.get("type", "")
    if names == "number" and kind.get("maximum") == 1:
        names = "share"
    return " or ".join(TYPES[name] for name in ([names] if isinstance(names, str) else names))


def default_of(value: Schema) -> str:
    """A default as it would be written in the file; empty where there is none."""
    default = value.get("default")
    if default in (None, ""):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, list):
        return f"`[{', '.join(map(str, default))}]`"
    if isinstance(default, dict):
        return f"`{json.dumps(default)}`"
    if isinstance(default, float) and default.is_integer():
        default = int(default)
    if isinstance(default, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", default):
        default = f'"{default}"'  # YAML would take it for a number
    return f"`{default}`"


if __name__ == "__main__":
    sys.exit(main())
