"""The configuration: a YAML file in, frozen values out, or everything that is wrong with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from gateway.config.loading import LoadedConfig, load, named_files, parse
from gateway.config.model import Config
from gateway.config.problems import ConfigError, ConfigProblem
from gateway.config.problems import Path as KeyPath
from gateway.config.schema import json_schema

__all__ = [
    "Config",
    "ConfigError",
    "ConfigProblem",
    "LoadedConfig",
    "config_hash",
    "json_schema",
    "load",
    "load_config",
    "named_files",
    "parse",
    "parse_config",
]  # fmt: skip


def load_config(
    path: Path,
    *,
    environ: Mapping[str, str] = os.environ,
    leave_out: Collection[KeyPath] = (),
) -> Config:
    """Read a configuration file; `leave_out` as for `load`. Raises `ConfigError` with all that is
    wrong with it."""
    return load(path, environ=environ, leave_out=leave_out).config


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


def config_hash(config: Config) -> str:
    """SHA-256 of the effective values, secrets left out, in hexadecimal digits."""
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()
