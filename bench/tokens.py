"""The gateway's store, filled beforehand with more tokens than the command line could issue.

The client and a first token are made by the command line. The others are copies of that
token's row under the digests of other random tokens, so that they are whatever the store
keeps of a token, in this version and in later ones. One of them is then shown to the
command line: where it is not taken as valid, nothing is measured.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BenchError, run
from bench.subjects import Site
from bench.subjects.gateway import COMMAND, write_gateway_config

CLIENT_ID = "bench"
TTL = "12h"
MAX_SENT = 300_000
"""Tokens written down to be sent. More than any cache here holds, so that sending them in
turn never finds one cached."""


@dataclass(frozen=True, slots=True)
class TokenStore:
    """A store with a client and its tokens, in clear only for the bench's own use."""

    path: Path
    client_secret: str
    token: str
    token_file: Path
    """Some of the others, one a line."""
    count: int

    def read_tokens(self, count: int) -> list[str]:
        """The first tokens of the file."""
        with self.token_file.open() as file:
            return [line.strip() for line, _ in zip(file, range(count), strict=False)]


def make_store(site: Site, count: int) -> TokenStore:
    """A client with `count` live tokens in the site's store. Raises `BenchError`."""
    config = str(write_gateway_config(site, "off"))
    secret = secrets.token_urlsafe(32)
    secret_file = site.directory / "client-secret"
    secret_file.write_text(secret)

    def gateway(*arguments: str) -> str:
        return run((*COMMAND, *arguments, "-c", config), timeout_s=60).strip()

    gateway("client", "create", "--id", CLIENT_ID, "--secret-file", str(secret_file))
    token = gateway("token", "issue", CLIENT_ID, "--ttl", TTL)
    others = [secrets.token_urlsafe(32) for _ in range(count - 1)]
    copy_token(site.store, token, others)
    if others:
        # On standard input: a token that begins with a hyphen would be taken for an option.
        inspected = run(
            (*COMMAND, "token", "inspect", "-", "-c", config),
            timeout_s=60,
            check=False,
            given=others[-1],
        )
        if CLIENT_ID not in inspected:
            raise BenchError(
                "a token written into the store is not valid: the store's format has changed, "
                "and bench/tokens.py has to follow"
            )
    token_file = site.directory / "tokens"
    token_file.write_text("\n".join(others[:MAX_SENT]) + "\n")
    return TokenStore(site.store, secret, token, token_file, count)


def copy_token(store: Path, token: str, others: list[str]) -> None:
    """Copies of one token's row, under the digests of `others`, in an SQLite store."""
    connection = sqlite3.connect(store, isolation_level=None)
    try:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(tokens)")]
        copied = ", ".join(name for name in columns if name != "digest")
        # In the order of the digests, pages are filled one after the other.
        rows = sorted(_digest(other) for other in others)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            f"CREATE TEMP TABLE original AS SELECT {copied} FROM tokens WHERE digest = ?",
            (_digest(token),),
        )
        connection.executemany(
            f"INSERT INTO tokens (digest, {copied}) SELECT ?, {copied} FROM original", _each(rows)
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise BenchError(f"tokens could not be written into the store: {error}") from None
    finally:
        connection.close()


def copy_clients(store: Path, token: str, count: int) -> list[str]:
    """A token for each of so many copies of its client, in an SQLite store."""
    tokens = [secrets.token_urlsafe(32) for _ in range(count)]
    connection = sqlite3.connect(store, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        for table, key in (("clients", "client_id"), ("tokens", "digest")):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            kept = ", ".join(name for name in columns if name not in {key, "client_id"})
            new = [(f"{CLIENT_ID}-{number}", _digest(one)) for number, one in enumerate(tokens)]
            if table == "clients":
                connection.executemany(
                    f"INSERT INTO clients (client_id, {kept}) SELECT ?, {kept} FROM clients"
                    f" WHERE client_id = '{CLIENT_ID}'",
                    [(name,) for name, _ in new],
                )
            else:
                connection.executemany(
                    f"INSERT INTO tokens (client_id, digest, {kept}) SELECT ?, ?, {kept} FROM"
                    " tokens WHERE digest = ?",
                    [(*one, _digest(token)) for one in new],
                )
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise BenchError(f"clients could not be written into the store: {error}") from None
    finally:
        connection.close()
    return tokens


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _each(rows: list[bytes]) -> Iterator[tuple[bytes]]:
    for row in rows:
        yield (row,)
