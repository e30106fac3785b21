"""Errors of a configuration: reported all at once, each with its place."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath

Path = tuple[str | int, ...]
"""Where a value stands in the document: keys and list positions from the top."""


@dataclass(frozen=True, slots=True, order=True)
class ConfigProblem:
    """One thing that is wrong."""

    file: str
    line: int
    """Counted from 1."""
    key: str
    """As `routes[0].match.path`; empty for the document as a whole."""
    message: str
    """What is wrong, and what is expected."""

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}: {key}{self.message}"


class ConfigError(Exception):
    """A configuration that can't be used, with every problem found in it."""

    def __init__(
        self,
        problems: Sequence[ConfigProblem],
        *,
        files: Mapping[FilePath, bytes | None] | None = None,
    ) -> None:
        self.problems = tuple(sorted(set(problems)))
        self.files = dict(files or {})
        """The files that were read, as in `LoadedConfig.files`: a change of one may mend it."""
        super().__init__("\n".join(map(str, self.problems)))


def nearest_line(lines: Mapping[Path, int], path: Path) -> int:
    """The line of a path, or of its nearest parent that stands in the file."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def locate(
    file: str,
    lines: Mapping[Path, int],
    included: Mapping[Path, str],
    path: Path,
    message: str,
) -> ConfigProblem:
    """A problem at a path of `file`, or of the file that this part was included from."""
    line = nearest_line(lines, path)
    if origin := included.get(path[:2]):
        return ConfigProblem(origin, line, format_key(path[1:]), message)
    return ConfigProblem(file, line, format_key(path), message)


def format_key(path: Path) -> str:
    """Format a path as it is written in documents."""
    key = ""
    for part in path:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return key


def is_below(path: Path, patterns: Collection[Path]) -> bool:
    """Whether a path is at or below one of `patterns`, in which `*` is any key or position."""
    return any(
        len(path) >= len(pattern)
        and all(wanted in {"*", part} for wanted, part in zip(pattern, path, strict=False))
        for pattern in patterns
    )
