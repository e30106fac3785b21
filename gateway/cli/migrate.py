"""`gateway migrate`: copy everything from one store into another."""

from __future__ import annotations

import argparse
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.output import CommandError, print_json, print_table, read_secret
from gateway.cli.progress import ProgressBar

if TYPE_CHECKING:
    from gateway.store.transfer import Digest, Part
    from gateway.store_url import StoreUrl


def add_commands(
    commands: Any, with_config: argparse.ArgumentParser, with_json: argparse.ArgumentParser
) -> None:
    """Make the command known."""
    migrate = commands.add_parser(
        "migrate",
        parents=[with_json],
        help="copy clients, tokens and records from one store into another",
        description="Copy everything from one store into another, empty one, and compare them by "
        "count and digest. A run that was cut off is taken up where it was when the same command "
        "is given again. Stop every gateway that writes to the source first.",
    )
    for name, text in (("from", "store to read"), ("to", "store to fill")):
        migrate.add_argument(
            f"--{name}",
            dest=f"{name}_url",
            metavar="URL",
            required=True,
            help=f"{text}: its URL, or @FILE with the URL in it, which hides a password",
        )
    migrate.set_defaults(command=_migrate)


def _migrate(options: argparse.Namespace) -> int:
    import asyncio

    from gateway.store_url import SqliteUrl, parse_store_url

    urls = [_read_url("--from", options.from_url), _read_url("--to", options.to_url)]
    source, target = (parse_store_url(url) for url in urls)
    if isinstance(source, SqliteUrl) and not Path(source.path).exists():
        raise CommandError(f"--from: there is no file {source.path}")
    if str(source) == str(target) and _prefix(source) == _prefix(target):
        raise CommandError("--from and --to are the same store")
    found = asyncio.run(_transfer(urls, name=_name(source, target)))
    if options.json:
        print_json(
            {part: {"count": one.count, "digest": one.digest} for part, one in found.items()}
        )
    else:
        print_table(
            ("PART", "COUNT", "DIGEST"),
            [(part, str(one.count), one.digest) for part, one in found.items()],
        )
    return 0


def _read_url(option: str, given: str) -> str:
    from gateway.store_url import parse_store_url

    url = read_secret(given[1:]) if given.startswith("@") else given
    try:
        parse_store_url(url)
    except ValueError as error:
        raise CommandError(f"{option}: {error}") from None
    return url


def _prefix(url: StoreUrl) -> str:
    from gateway.store_url import RedisUrl

    return url.prefix if isinstance(url, RedisUrl) else ""


def _name(source: StoreUrl, target: StoreUrl) -> str:
    parts = (str(source), _prefix(source), str(target), _prefix(target))
    return sha256("\n".join(parts).encode()).hexdigest()


async def _transfer(urls: list[str], *, name: str) -> dict[Part, Digest]:
    from gateway.store import open_store
    from gateway.store.transfer import Transfer

    source = await open_store(urls[0])
    try:
        target = await open_store(urls[1])
        try:
            bar = ProgressBar({"tokens": await source.content.estimate_tokens()})
            transfer = Transfer(source, target, name=name, progress=bar.show)
            if await transfer.is_begun():
                print("an earlier run was cut off: going on where it was", file=sys.stderr)
            await transfer.copy()
            found = await transfer.verify()
            bar.finish()
            return found
        finally:
            await target.close()
    finally:
        await source.close()
