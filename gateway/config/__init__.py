"""The configuration: a YAML file in, frozen values out, or everything that is wrong with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gateway.config.durations import format_duration
from gateway.config.model import Config
from gateway.config.problems import ConfigError, Problem
from gateway.config.rules import check_rules
from gateway.config.shape import describe_errors
from gateway.config.source import parse_document
from gateway.store_url import parse_store_url

__all__ = ["Config", "ConfigError", "Problem", "config_hash", "json_schema", "load_config",
           "parse_config"]  # fmt: skip


def load_config(path: Path, *, environ: Mapping[str, str] = os.environ) -> Config:
    """Read a configuration file. Raises `ConfigError` with all that is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        problem = Problem(str(path), 1, "", f"can't be read: {error.strerror}")
        raise ConfigError([problem]) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem(str(path), 1, "", "is not UTF-8 text")]) from None
    return parse_config(text, file=str(path), environ=environ, directory=path.parent)


def parse_config(
    text: str,
    *,
    file: str,
    environ: Mapping[str, str] = os.environ,
    directory: Path = Path(),
) -> Config:
    """Read a configuration that is called `file` in messages; `${file:...}` is relative to
    `directory`. Raises `ConfigError` with all that is wrong with it."""
    document = parse_document(text, file=file, environ=environ, directory=directory)
    problems = list(document.problems)
    config = None
    if document.tree is not None:
        # What could not be read, like a variable that is not set, is told already; the
        # gap that it left is not worth a second message.
        told = {problem.key for problem in problems}
        findings = list(check_rules(document.tree))
        try:
            config = Config.model_validate(document.tree)
        except ValidationError as error:
            findings += describe_errors(error)
        for path, message in findings:
            problem = document.problem(path, message)
            if problem.key not in told:
                problems.append(problem)
    if problems or config is None:
        raise ConfigError(problems)
    return config


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the YAML file."""
    schema = Config.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        for key in section["properties"].values():
            is_duration = any("pattern" in kind for kind in key.get("anyOf", ()))
            if is_duration and isinstance(key.get("default"), float):
                key["default"] = format_duration(key["default"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def config_hash(config: Config) -> str:
    """SHA-256 of the effective values, secrets left out, in hexadecimal digits."""
    shown = config.model_copy(update={"store": str(parse_store_url(config.store))})
    return hashlib.sha256(shown.model_dump_json().encode()).hexdigest()
