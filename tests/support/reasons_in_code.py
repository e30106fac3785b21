"""The values that `reason` can have, and the statuses that go with them, read from the source."""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

GATEWAY = Path(__file__).parents[2] / "gateway"
CODE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
OTHERS = ("acme/", "workers/", "config/", "cli/")
"""Where `reason` is none of a response."""
OTHER_TAKERS = {"EndpointState"}
"""Says why an endpoint is not in use."""
NAMES = ("reason", "error")
"""What the parameter is called; `error` in the errors of the authorization endpoint."""


class _Takers:
    """Functions and classes that are given a reason: at which places, and with which status."""

    def __init__(self, modules: list[ast.Module]) -> None:
        self.places: dict[str, set[int]] = defaultdict(set)
        self.status: dict[str, int] = {}
        bases: dict[str, list[str]] = defaultdict(list)
        for node in (node for module in modules for node in ast.walk(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [one.arg for one in (*node.args.args, *node.args.kwonlyargs)]
                if "reason" in names and node.name != "__init__":
                    self.places[node.name].add(names.index("reason") - (names[0] == "self"))
            elif isinstance(node, ast.ClassDef):
                # Two classes may have one name: it is taken for both.
                bases[node.name] += [one.id for one in node.bases if isinstance(one, ast.Name)]
                fields = _fields(node)
                self.places[node.name] |= {fields.index(name) for name in NAMES if name in fields}
                for name, value in _attributes(node):
                    if name == "status" and isinstance(value, ast.Constant):
                        self.status[node.name] = int(ast.unparse(value))
        for _ in range(4):  # as deep as classes are derived
            for name, above in bases.items():
                for base in above:
                    self.places[name] |= self.places.get(base, set())
                    if base in self.status:
                        self.status.setdefault(name, self.status[base])


@functools.cache
def find_reasons() -> dict[str, set[int]]:
    """Each code, with the statuses of the classes that give it."""
    modules = [
        ast.parse(path.read_text())
        for path in sorted(GATEWAY.rglob("*.py"))
        if not str(path.relative_to(GATEWAY)).startswith(OTHERS)
    ]
    takers = _Takers(modules)
    found: dict[str, set[int]] = defaultdict(set)
    for module in modules:
        texts = _assigned_texts(module)
        for code, status in (*_passed(module, takers, texts), *_declared(module, takers)):
            if CODE.fullmatch(code):
                found[code] |= {status} - {0}
        for node in (node for node in ast.walk(module) if isinstance(node, ast.Call)):
            if getattr(node.func, "attr", "") == "refuse":  # by a circuit breaker
                for breaker in _texts(node.args[0], {}):
                    found[f"upstream_{breaker}"].add(503)
    return found


def _fields(node: ast.ClassDef) -> list[str]:
    """What a class is made with: the parameters of its constructor, or its fields."""
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and one.name == "__init__":
            return [arg.arg for arg in (*one.args.args[1:], *one.args.kwonlyargs)]
    if any(isinstance(base, ast.Name) and base.id.endswith("Error") for base in node.bases):
        return []
    return [
        one.target.id
        for one in node.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    ]


def _attributes(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    for one in node.body:
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and one.value:
            yield one.target.id, one.value
        elif isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name):
            yield one.targets[0].id, one.value


def _assigned_texts(module: ast.Module) -> dict[str, set[str]]:
    """Texts that a name of the module may stand for."""
    texts: dict[str, set[str]] = defaultdict(set)
    for node in ast.walk(module):
        if isinstance(node, ast.AnnAssign | ast.Assign) and node.value is not None:
            for target in [node.target] if isinstance(node, ast.AnnAssign) else node.targets:
                if isinstance(target, ast.Name):
                    texts[target.id] |= set(_texts(node.value, {}))
    return texts


def _passed(
    module: ast.Module, takers: _Takers, texts: dict[str, set[str]]
) -> Iterator[tuple[str, int]]:
    """What is passed as a reason."""
    for node in (node for node in ast.walk(module) if isinstance(node, ast.Call)):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        places = takers.places.get(name, set()) if name not in OTHER_TAKERS else set()
        given = [one.value for one in node.keywords if one.arg == "reason"] if places else []
        given += [node.args[place] for place in places if place < len(node.args)]
        if name == "__init__":
            given += [one.value for one in node.keywords if one.arg == "reason"]
        for value in given:
            for code in _texts(value, texts):
                yield code, takers.status.get(name, 0)


def _declared(module: ast.Module, takers: _Takers) -> Iterator[tuple[str, int]]:
    """Defaults of `reason`, and the `error` or `code` of a class, which stands in for it."""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef):
            for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                if argument.arg == "reason" and default is not None:
                    yield from ((code, 0) for code in _texts(default, {}))
        elif isinstance(node, ast.ClassDef) and takers.places.get(node.name):
            for name, value in _attributes(node):
                if name in {"error", "code"}:
                    status = takers.status.get(node.name, 0)
                    yield from ((code, status) for code in _texts(value, {}))


def _texts(value: ast.expr, texts: dict[str, set[str]]) -> Iterator[str]:
    """Each text that an expression may be."""
    match value:
        case ast.Constant(value=str(text)):
            yield text
        case ast.Name(id=name):
            yield from texts.get(name, ())
        case ast.IfExp():
            yield from (*_texts(value.body, texts), *_texts(value.orelse, texts))
        case ast.BoolOp():
            for one in value.values:
                yield from _texts(one, texts)
