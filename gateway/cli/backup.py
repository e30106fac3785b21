"""`gateway backup` and `gateway restore`: copies of a SQLite store."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.needs import NOT_FOR_STORE
from gateway.cli.output import CommandError
from gateway.cli.progress import ProgressBar

if TYPE_CHECKING:
    from gateway.config import Config

OWN_MEANS = {"Redis": "RDB or AOF files", "PostgreSQL": "pg_dump, or archived WAL"}
"""What a store that is no file is backed up by."""


def add_commands(commands: Any, with_config: argparse.ArgumentParser) -> None:
    """Add the commands to the parser."""
    backup = commands.add_parser(
        "backup",
        parents=[with_config],
        help="write the SQLite store into a file",
        description="Write clients, tokens and records, as they are now, into a new file, also "
        "while gateways run. It holds hashes of secrets and sealed keys: keep it as safe as the "
        "store.",
    )
    backup.add_argument("file", metavar="FILE", type=Path, help="new file to write")
    backup.set_defaults(command=_back_up)
    restore = commands.add_parser(
        "restore",
        parents=[with_config],
        help="replace the content of the SQLite store by that of a backup",
        description="Replace everything in the store by the content of a backup, in one step, also "
        "while gateways run: they drop what they have cached. What was registered, issued or "
        "revoked since the backup is lost.",
    )
    restore.add_argument("file", metavar="FILE", type=Path, help="file of `gateway backup`")
    restore.set_defaults(command=_restore)


def _back_up(options: argparse.Namespace) -> int:
    from gateway.store.sqlite.backup import back_up

    config = _load(options.config)
    with _shown("pages") as progress:
        back_up(_store(config), options.file, progress)
    print(f"wrote {options.file}", file=sys.stderr)
    if config.provider.seal_key is None and Path(config.provider.seal_key_file).exists():
        print(
            f"keep {config.provider.seal_key_file}, too, apart from it: it encrypts signing keys",
            file=sys.stderr,
        )
    return 0


def _restore(options: argparse.Namespace) -> int:
    from gateway.store.sqlite.backup import restore

    path = _store(_load(options.config))
    with _shown("pages") as progress:
        restore(options.file, path, progress)
    print(f"restored {path} from {options.file}", file=sys.stderr)
    return 0


@contextlib.contextmanager
def _shown(part: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show progress on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    expected: dict[str, int] = {}
    bar = ProgressBar(expected)

    def show(done: int, total: int) -> None:
        expected[part] = total
        bar.show(part, done)

    yield show
    bar.finish()


def _load(path: Path) -> Config:
    from gateway.config import load_config

    return load_config(path, leave_out=NOT_FOR_STORE)


def _store(config: Config) -> Path:
    """The file of the store that a configuration names."""
    from gateway.store import NO_STORE
    from gateway.store_url import NoStoreUrl, SqliteUrl, parse_store_url

    url = parse_store_url(config.store)
    if isinstance(url, NoStoreUrl):
        raise CommandError(f"store: {NO_STORE}")
    if not isinstance(url, SqliteUrl):
        raise CommandError(
            f"the store is {url}: back up {url.kind} by its own means ({OWN_MEANS[url.kind]}), or "
            "copy it into a file by `gateway migrate`"
        )
    return Path(url.path)
