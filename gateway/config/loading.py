"""A configuration file with all that belongs to it: what it says, where it says so, and which
other files it is made of."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path as FilePath

from pydantic import BaseModel, ValidationError

from gateway.config.anchoring import anchor, marks
from gateway.config.client_files import check_secrets, include_clients
from gateway.config.model import Config
from gateway.config.problems import (
    ConfigError,
    ConfigProblem,
    Path,
    is_below,
    locate,
)
from gateway.config.rules import check_rules
from gateway.config.scalars import IsFile
from gateway.config.shape import describe_errors
from gateway.config.source import parse_document


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A sound configuration, and where it came from."""

    config: Config = field(repr=False)
    file: str
    """What it is called in messages."""
    lines: Mapping[Path, int] = field(repr=False)
    filled: frozenset[Path]
    """Values that came from variables: maybe secrets, whatever their key."""
    files: Mapping[FilePath, bytes | None] = field(repr=False)
    """The files it was read from, `${file:...}` included, and the SHA-256 of what was read."""
    included: Mapping[Path, str] = field(default_factory=dict, repr=False)
    """The files that parts of it came from, beside `file`."""

    def problem(self, path: Path, message: str) -> ConfigProblem:
        """Something wrong with the value at a path."""
        return locate(self.file, self.lines, self.included, path, message)


def load(
    path: FilePath,
    *,
    environ: Mapping[str, str] = os.environ,
    leave_out: Collection[Path] = (),
) -> LoadedConfig:
    """Read a configuration file. Keys at `leave_out`, which the caller does not need, are read
    as if they were not there, so that their variables need not be set; `*` is any key or position.

    Raises `ConfigError` with all that is wrong with the rest.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        problem = ConfigProblem(str(path), 1, "", f"can't be read: {error.strerror}")
        raise ConfigError([problem], files={path: None}) from None
    files: dict[FilePath, bytes | None] = {path: sha256(data).digest()}
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(
            [ConfigProblem(str(path), 1, "", "is not UTF-8 text")], files=files
        ) from None
    return parse(
        text,
        file=str(path),
        environ=environ,
        # What comes through a pipe, as `<(...)` of a shell, has no directory of its own.
        directory=path.parent if path.is_file() else FilePath(),
        files=files,
        leave_out=leave_out,
    )


def parse(
    text: str,
    *,
    file: str,
    environ: Mapping[str, str] = os.environ,
    directory: FilePath = FilePath(),
    files: Mapping[FilePath, bytes | None] | None = None,
    leave_out: Collection[Path] = (),
) -> LoadedConfig:
    """Read a configuration that is called `file` in messages and was read from `files`.

    Paths are relative to `directory`, `leave_out` as for `load`. Raises `ConfigError`
    with all that is wrong.
    """
    document = parse_document(
        text, file=file, environ=environ, directory=directory, leave_out=leave_out
    )
    if document.tree is not None:
        include_clients(document, environ=environ, directory=directory)
    problems = list(document.problems)
    config = None
    if document.tree is not None:
        # What could not be read, like a variable that is not set, is reported already; the
        # gap that it left is not worth a second message.
        reported = {problem.key for problem in problems}
        findings = [
            found
            for found in (*check_rules(document.tree), *check_secrets(document))
            if not is_below(found[0], leave_out)
        ]
        try:
            config = Config.model_validate(document.tree)
        except ValidationError as error:
            findings += describe_errors(error)
        for path, message in findings:
            problem = document.problem(path, message)
            if problem.key not in reported:
                problems.append(problem)
    read = {**(files or {}), **document.files}
    if problems or config is None:
        raise ConfigError(problems, files=read)
    config = anchor(config, directory)
    filled = frozenset(document.filled)
    config.note_filled(filled)
    return LoadedConfig(config, file, document.lines(), filled, read, document.included)


def named_files(section: BaseModel, where: Path = ()) -> Iterator[tuple[Path, FilePath]]:
    """Each file that a section names and that is read when it is activated: its place, and
    itself."""
    for name, info in type(section).model_fields.items():
        value, place = getattr(section, name), (*where, name)
        is_file = any(isinstance(mark, IsFile) for mark in marks(info))
        if is_file and isinstance(value, str):
            yield place, FilePath(value)
        elif isinstance(value, BaseModel):
            yield from named_files(value, place)
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, BaseModel):
                    yield from named_files(inner, (*place, key))
        elif isinstance(value, list):
            for at, inner in enumerate(value):
                if isinstance(inner, BaseModel):
                    yield from named_files(inner, (*place, at))
