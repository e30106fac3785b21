"""The configuration: a YAML file in, frozen values out, or everything that is wrong with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.config.loading import LoadedConfig, load, named_files, parse
from gateway.config.model import Config
from gateway.config.problems import ConfigError, Problem
from gateway.store_url import parse_store_url
from gateway.units import format_duration

__all__ = ["Config", "ConfigError", "LoadedConfig", "Problem", "config_hash", "json_schema",
           "load", "load_config", "named_files", "parse", "parse_config"]  # fmt: skip


def load_config(path: Path, *, environ: Mapping[str, str] = os.environ) -> Config:
    """Read a configuration file. Raises `ConfigError` with all that is wrong with it."""
    return load(path, environ=environ).config


def parse_config(
    text: str,
    *,
    file: str,
    environ: Mapping[str, str] = os.environ,
    directory: Path = Path(),
) -> Config:
    """Read a configuration that is called `file` in messages; `${file:...}` is relative to
    `directory`. Raises `ConfigError` with all that is wrong with it."""
    return parse(text, file=file, environ=environ, directory=directory).config


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the YAML file."""
    schema = Config.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        for key in section["properties"].values():
            if "description" in key:
                # The text below a field of a dataclass goes on over lines.
                key["description"] = key["description"].replace("\n", " ")
            is_duration = any("pattern" in kind for kind in key.get("anyOf", ()))
            if is_duration and isinstance(key.get("default"), float):
                key["default"] = format_duration(key["default"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def config_hash(config: Config) -> str:
    """SHA-256 of the effective values, secrets left out, in hexadecimal digits."""
    shown = config.model_copy(update={"store": str(parse_store_url(config.store))})
    return hashlib.sha256(shown.model_dump_json().encode()).hexdigest()
