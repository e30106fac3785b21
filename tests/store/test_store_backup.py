"""Backup and restore of the SQLite store while it is in use."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest
from support.deadlines import until
from support.stores.values import make_client, make_token

from gateway.app.invalidation import Invalidation
from gateway.metrics import Metrics
from gateway.oauth.models import StoreError
from gateway.oauth.token_cache import TokenCache
from gateway.store.sqlite.backup import back_up, restore
from gateway.store.sqlite.file import SqliteFile
from gateway.store.sqlite.migrations import MIGRATIONS
from gateway.store.sqlite.store import SqliteStore


async def test_backup_has_what_is_only_in_the_log_yet(tmp_path: Path) -> None:
    store = SqliteStore(SqliteFile(tmp_path / "a.db"))
    await store.clients.add_client(make_client())
    copy = tmp_path / "copy.db"
    shutil.copyfile(tmp_path / "a.db", copy)
    assert b"shop name" not in copy.read_bytes(), "this is why a copy of the file is no backup"
    target = tmp_path / "backup.db"
    back_up(tmp_path / "a.db", target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert not list(tmp_path.glob("backup.db-*"))
    assert not list(tmp_path.glob(".backup*"))
    restored = SqliteStore(SqliteFile(target))
    assert await restored.clients.get_client("shop") == make_client()
    for one in (store, restored):
        await one.close()


async def test_restore_is_seen_by_a_gateway_that_runs(tmp_path: Path) -> None:
    path, backup = tmp_path / "a.db", tmp_path / "backup.db"
    store = SqliteStore(SqliteFile(path))
    await store.clients.add_client(make_client(ends=None))
    back_up(path, backup)
    await store.clients.add_client(make_client("later"))
    await store.tokens.add_token(make_token(ends=4_000_000_000.0), generation=7)
    metrics = Metrics()
    cache = TokenCache(store.tokens, metrics)
    invalidation = Invalidation(store, cache, metrics, poll_s=0.02)
    await invalidation.start()
    for _ in range(3):  # so that the log has more changes than that of the backup
        await store.tokens.revoke_client_tokens("later")
    await cache.lookup("token")
    await asyncio.to_thread(restore, backup, path)
    await until(lambda: cache.cached("token") is None)
    assert await store.clients.get_client("later") is None
    assert await store.clients.get_client("shop") is not None
    assert await store.tokens.get_token(make_token().digest) is None
    await store.clients.add_client(make_client("after"))
    await invalidation.stop()
    await store.close()
    reopened = SqliteStore(SqliteFile(path))
    assert [one.client_id for one in await reopened.clients.list_clients()] == ["after", "shop"]
    await reopened.close()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.db", "backup.db"]


async def test_restore_heeds_no_log_that_a_crash_left(tmp_path: Path) -> None:
    path, backup, crashed = tmp_path / "a.db", tmp_path / "backup.db", tmp_path / "crashed"
    store = SqliteStore(SqliteFile(path))
    await store.clients.add_client(make_client())
    back_up(path, backup)
    await store.clients.add_client(make_client("later"))
    crashed.mkdir()
    for name in ("a.db", "a.db-wal"):
        shutil.copyfile(tmp_path / name, crashed / name)
    await store.close()
    restore(backup, crashed / "a.db")
    restored = SqliteStore(SqliteFile(crashed / "a.db"))
    assert [one.client_id for one in await restored.clients.list_clients()] == ["shop"]
    await restored.close()


async def test_restore_makes_the_file_and_brings_the_schema_up_to_date(tmp_path: Path) -> None:
    backup = tmp_path / "old.db"
    connection = sqlite3.connect(backup)
    for step in MIGRATIONS[:2]:
        for statement in step:
            connection.execute(statement)
    connection.execute("INSERT INTO clients VALUES ('shop', 'n', 'h', 'a', 1, NULL, 7, '{}')")
    connection.execute("PRAGMA user_version = 2")
    connection.commit()
    connection.close()
    restore(backup, tmp_path / "new.db")
    assert stat.S_IMODE((tmp_path / "new.db").stat().st_mode) == 0o600
    restored = SqliteStore(SqliteFile(tmp_path / "new.db"))
    assert (await restored.clients.list_clients())[0].client_id == "shop"
    await restored.close()


async def test_what_is_no_store_is_neither_backed_up_nor_restored(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with pytest.raises(StoreError, match="there is no database at"):
        back_up(path, tmp_path / "backup.db")
    store = SqliteStore(SqliteFile(path))
    await store.clients.add_client(make_client())
    (tmp_path / "text").write_text("no database, but somebody's file" * 100)
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE songs (title)")
    other.close()
    for name in ("missing.db", "text", "other.db"):
        with pytest.raises(StoreError, match=name):
            restore(tmp_path / name, path)
        with pytest.raises(StoreError, match=name):
            back_up(tmp_path / name, tmp_path / "backup.db")
    with pytest.raises(StoreError, match="another program"):
        restore(path, tmp_path / "other.db")
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(StoreError, match="exists already"):
        back_up(path, tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"
    assert await store.clients.get_client("shop") == make_client()
    await store.close()
