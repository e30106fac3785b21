"""A name of a public class stands for one class, so that a search for it finds that one."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import gateway

PACKAGE = Path(gateway.__file__).parent


def test_no_two_public_classes_have_one_name() -> None:
    places = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for statement in ast.parse(path.read_text("utf-8")).body:
            if isinstance(statement, ast.ClassDef) and not statement.name.startswith("_"):
                places[statement.name].append(f"{path.relative_to(PACKAGE)}:{statement.lineno}")
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
