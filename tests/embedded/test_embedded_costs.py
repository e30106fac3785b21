"""`gateway.aiohttp` and `gateway.asgi` are thin; importing them loads nothing that is unused."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import gateway

PACKAGE = Path(gateway.__file__).parent
UNUSED = {
    "gateway.asgi": {
        "aiohttp", "aiohttp_jinja2", "fastapi", "jinja2", "opentelemetry", "redis", "starlette",
        "uvloop", "gateway.admin", "gateway.aiohttp", "gateway.workers", "gateway.store.redis",
    },
    "gateway.aiohttp": {
        "aiohttp_jinja2", "fastapi", "jinja2", "opentelemetry", "redis", "starlette", "uvloop",
        "gateway.admin", "gateway.asgi", "gateway.workers", "gateway.store.redis",
    },
    "gateway.testing": {"aiohttp", "redis", "starlette", "uvloop", "gateway.admin"},
}  # fmt: skip


@pytest.mark.parametrize("module", UNUSED)
def test_import_loads_nothing_that_is_unused(module: str) -> None:
    source = f"import sys, {module}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert UNUSED[module] & set(result.stdout.split()) == set()


def lines_of_code(path: Path) -> int:
    """Lines that are neither empty nor comments nor docstrings."""
    source = path.read_text("utf-8")
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            documentation |= set(range(node.lineno, (node.end_lineno or 0) + 1))
    lines: set[int] = set()
    skipped = {
        tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
        tokenize.ENDMARKER,
    }  # fmt: skip
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - documentation)


def test_adapters_are_thin() -> None:
    files = [path for name in ("aiohttp", "asgi") for path in (PACKAGE / name).glob("*.py")]
    assert sum(map(lines_of_code, files)) < 400


def test_library_is_not_shadowed() -> None:
    import aiohttp  # noqa: PLC0415 - the one that the package's modules get

    import gateway.aiohttp as adapter  # noqa: PLC0415
    from gateway.aiohttp import proxy  # noqa: PLC0415

    assert adapter.web is aiohttp.web  # type: ignore[attr-defined]
    assert proxy.aiohttp is aiohttp  # type: ignore[attr-defined]
