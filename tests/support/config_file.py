"""A configuration file that tests change while a gateway runs by it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a configuration file as careful editors do: whole, by a rename into place."""
    config = yaml.safe_load(path.read_text())
    change(config)
    replace(path, yaml.safe_dump(config, sort_keys=False))


def replace(path: Path, text: str) -> None:
    """Put another file in the place of one."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    os.replace(new, path)


def route(name: str, upstream: str = "main", **keys: Any) -> dict[str, Any]:
    """An open route for `/NAME`."""
    return {
        "name": name,
        "match": {"path": f"/{name}"},
        "upstream": upstream,
        "auth": "none",
    } | keys
