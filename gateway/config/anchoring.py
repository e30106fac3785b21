"""Makes relative paths of a configuration relative to its file, whatever the current directory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path as FilePath
from typing import Any, TypeVar, get_args
from urllib.parse import parse_qsl, urlencode

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.config.scalars import IsPath
from gateway.store_url import NoStoreUrl, SqliteUrl, parse_store_url

SectionType = TypeVar("SectionType", bound=BaseModel)

NO_FILES = frozenset({"-", "off"})
"""What stands where a path may stand, and is none."""
STORES = frozenset({"store", "storage"})
"""Keys that hold the URL of a store."""
FILES_OF_STORES = ("ca", "cert", "key", "sslrootcert", "sslcert", "sslkey")


def anchor(section: SectionType, directory: FilePath) -> SectionType:
    """Return a section whose relative paths begin with `directory`."""
    if directory == FilePath() or not _may_hold_paths(type(section)):
        return section
    changes: dict[str, Any] = {}
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if name in STORES and isinstance(value, str):
            moved: Any = anchor_store(value, directory)
        elif isinstance(value, str) and any(isinstance(mark, IsPath) for mark in marks(info)):
            moved = value if value in NO_FILES else str(directory / value)
        else:
            moved = _anchor_inner(value, directory)
        if moved is not value and moved != value:
            changes[name] = moved
    return section.model_copy(update=changes) if changes else section


def _anchor_inner(value: Any, directory: FilePath) -> Any:
    if isinstance(value, BaseModel):
        return anchor(value, directory)
    if isinstance(value, dict):
        return {key: _anchor_inner(inner, directory) for key, inner in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], BaseModel):
        return [_anchor_inner(inner, directory) for inner in value]
    return value


def anchor_store(url: str, directory: FilePath) -> str:
    """Return the URL of a store, the files that it names being relative to `directory`."""
    where = parse_store_url(url)
    if isinstance(where, SqliteUrl):
        return str(SqliteUrl(str(directory / where.path)))
    if isinstance(where, NoStoreUrl) or not any((where.ca, where.cert, where.key)):
        return url
    front, _, query = url.partition("?")
    options = [
        (name, str(directory / value) if name in FILES_OF_STORES else value)
        for name, value in parse_qsl(query, keep_blank_values=True)
    ]
    return f"{front}?{urlencode(options)}"


def marks(info: FieldInfo) -> Iterator[object]:
    """Return the annotations of a key's type, also of `File | None`."""
    yield from info.metadata
    for argument in get_args(info.annotation):
        yield from getattr(argument, "__metadata__", ())


@cache
def _may_hold_paths(kind: type[BaseModel]) -> bool:
    """Whether sections of a kind name files: those of thousands of routes don't."""
    for name, info in kind.model_fields.items():
        if name in STORES or any(isinstance(mark, IsPath) for mark in marks(info)):
            return True
        if any(map(_may_hold_paths, _sections(info.annotation))):
            return True
    return False


def _sections(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)
