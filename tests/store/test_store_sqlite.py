"""The SQLite store on a bad day: locked, damaged, full, killed, or shared."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.deadlines import scaled, within
from support.stores.values import make_client, make_record, make_token

from gateway.oauth.models import (
    Purged,
    StoreError,
    StoreUnavailableError,
    digest_token,
)
from gateway.store import StoreHealth, open_store
from gateway.store.sqlite.file import SqliteFile
from gateway.store.sqlite.migrations import MIGRATIONS, SchemaTooNewError, migrate
from gateway.store.sqlite.store import SqliteStore


async def test_clients_and_tokens_survive_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    store = await open_store(url)
    await store.clients.add_client(make_client())
    await store.tokens.add_token(make_token(), generation=7)
    await store.close()
    store = await open_store(url)
    assert await store.clients.get_client("shop") == make_client()
    assert await store.tokens.get_token(make_token().digest) == make_token()
    await store.close()


async def test_file_holds_neither_token_nor_secret_and_only_its_owner_reads_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.db"
    store = SqliteStore(SqliteFile(path))
    await store.clients.add_client(make_client())
    await store.tokens.add_token(make_token("the-token-itself"), generation=7)
    await store.close()
    content = path.read_bytes()
    assert b"the-token-itself" not in content
    assert digest_token("the-token-itself") in content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("url", ["sqlite:a.db", "sqlite:///", "mysql://h/0", "nonsense"])
async def test_url_of_no_store_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="sqlite:///PATH"):
        await open_store(url)


async def test_missing_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file or directory"):
        SqliteStore(SqliteFile(tmp_path / "missing" / "a.db"))


async def test_file_that_is_no_database_is_reported_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_text("not a database, but somebody's file" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a database"):
        SqliteStore(SqliteFile(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["overwritten", "truncated"])
async def test_damaged_file_is_reported_and_never_replaced(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.db"
    store = SqliteStore(SqliteFile(path))
    for number in range(500):
        await store.clients.add_client(make_client(f"client-{number}"))
    await store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        if damage == "truncated":
            file.truncate(size // 2)
        else:
            file.seek(8192)
            file.write(b"\xff" * (size - 8192))
    with pytest.raises(StoreError, match=r"a\.db: .*(malformed|damaged)"):
        SqliteStore(SqliteFile(path))


async def test_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await SqliteStore(SqliteFile(path)).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(SchemaTooNewError, match="run the newer gateway"):
        SqliteStore(SqliteFile(path))


async def test_file_of_the_first_release_keeps_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    connection.execute("INSERT INTO clients VALUES ('shop', 'shop name', 'hash', 'a b', 1.5, ?, 7)",
                       (make_client().expires_at,))  # fmt: skip
    token = make_token()
    connection.execute("INSERT INTO tokens VALUES (?, 'shop', 'a', ?, ?)",
                       (token.digest, token.issued_at, token.expires_at))  # fmt: skip
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    store = SqliteStore(SqliteFile(path))
    assert await store.clients.get_client("shop") == make_client()
    assert await store.tokens.get_token(token.digest) == token
    await store.close()


async def test_two_processes_can_open_a_new_file_at_once(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import asyncio, sys
        from gateway.store import open_store

        async def main():
            store = await open_store(sys.argv[1])
            await store.ping()
            await store.close()

        asyncio.run(main())
        """
    )
    command = [sys.executable, "-c", script, f"sqlite:///{tmp_path}/a.db"]
    children = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    for child in children:
        _, errors = child.communicate(timeout=scaled(30))
        assert child.returncode == 0, errors.decode()


def test_schema_that_another_process_makes_meanwhile_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    first, second = (
        sqlite3.connect(path, isolation_level=None, check_same_thread=False) for _ in range(2)
    )
    first.execute("PRAGMA journal_mode = WAL")
    first.execute("BEGIN IMMEDIATE")
    waits = threading.Event()

    def watch(statement: str) -> None:
        if statement == "BEGIN IMMEDIATE":
            waits.set()

    second.set_trace_callback(watch)
    with ThreadPoolExecutor() as pool:
        migration = pool.submit(migrate, second, tmp_path / "a.db")
        assert waits.wait(5), "it read the version without looking again under the lock"
        for step in MIGRATIONS:
            for statement in step:
                first.execute(statement)
        first.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        first.execute("COMMIT")
        migration.result(timeout=scaled())
    first.close()
    second.close()


async def test_locked_file_is_unavailable_for_writes_and_goes_on_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    outcomes: list[bool] = []
    writes: list[bool] = []
    health = StoreHealth(on_up=outcomes.append, on_writable=writes.append)
    store = SqliteStore(SqliteFile(path, busy_timeout_s=0.1, health=health))
    await store.clients.add_client(make_client())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="locked"):
        await store.tokens.add_token(make_token(), generation=7)
    assert outcomes[-1:] == [True], "it responds, though it takes no writes"
    assert writes[-1:] == [False]
    assert await store.clients.get_client("shop") == make_client()
    other.execute("ROLLBACK")
    other.close()
    await store.tokens.add_token(make_token(), generation=7)
    assert writes[-1:] == [True]
    assert await store.tokens.get_token(make_token().digest) is not None
    await store.close()


async def test_full_disk_fails_the_write_cleanly_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteStore(SqliteFile(path))
    await store.clients.add_client(make_client())

    def cap_pages(pages: int) -> None:
        store._file.writer._connection.execute(f"PRAGMA max_page_count = {pages}")

    # What a full disk is to SQLite: no page can be added.
    (pages,) = sqlite3.connect(path).execute("PRAGMA page_count").fetchone()
    await asyncio.to_thread(cap_pages, pages)
    added = 0

    async def fill() -> None:
        nonlocal added
        while True:
            await store.tokens.add_token(make_token(f"t{added}"), generation=7)
            added += 1

    with pytest.raises(StoreUnavailableError, match="full"):
        await fill()
    assert added > 0
    assert await store.tokens.get_token(digest_token(f"t{added}")) is None
    assert await store.tokens.get_token(digest_token("t0")) is not None
    await asyncio.to_thread(cap_pages, 1_000_000)
    await store.tokens.add_token(make_token(f"t{added}"), generation=7)
    assert await store.tokens.get_token(digest_token(f"t{added}")) is not None
    await store.close()


async def test_acknowledged_client_survives_kill_9(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import asyncio, os, signal, sys
        from gateway.oauth.models import Client
        from gateway.store import open_store

        async def main():
            store = await open_store(sys.argv[1])
            for number in range(1000):
                client = Client(f"client-{number}", "n", "h", (), 0.0, None, 1)
                await store.clients.add_client(client)
                print(number, flush=True)

        asyncio.run(main())
        """
    )
    url = f"sqlite:///{tmp_path}/a.db"
    child = subprocess.Popen([sys.executable, "-c", script, url], stdout=subprocess.PIPE)
    assert child.stdout is not None
    acknowledged = [int(child.stdout.readline()) for _ in range(20)]
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    store = await open_store(url)
    for number in acknowledged:
        assert await store.clients.get_client(f"client-{number}") is not None
    await store.close()


async def test_write_that_fails_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    store = SqliteStore(SqliteFile(tmp_path / "a.db"))
    await store.clients.add_client(make_client("before"))

    def work(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM clients")
        raise LookupError

    outcomes = await asyncio.gather(
        store._file.writer.run(work, is_durable=True),
        store.clients.add_client(make_client("beside")),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [LookupError, type(None)]
    kept = [client.client_id for client in await store.clients.list_clients()]
    assert kept == ["before", "beside"]
    await store.close()


async def test_purged_space_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteStore(SqliteFile(path))
    await store.clients.add_client(make_client())
    await asyncio.gather(
        *(store.tokens.add_token(make_token(f"t{number}"), generation=7) for number in range(5000))
    )
    await store.purge(tokens_before=0, clients_before=0)
    connection = sqlite3.connect(path)
    (before,) = connection.execute("PRAGMA page_count").fetchone()
    await store.purge(tokens_before=2_000_000.0, clients_before=0)
    (after,) = connection.execute("PRAGMA page_count").fetchone()
    connection.close()
    assert after < before / 2
    await store.close()


async def test_purge_removes_records_that_ended(tmp_path: Path) -> None:
    store = SqliteStore(SqliteFile(tmp_path / "a.db"))
    for start in range(0, 1500, 50):
        await asyncio.gather(
            *(
                store.records.put_record(make_record(f"old-{number}", ends=500.0))
                for number in range(start, start + 50)
            )
        )
    await store.records.put_record(make_record("never", ends=None))
    assert await store.purge(tokens_before=600.0, clients_before=0) == Purged(0, 0, 1500)
    connection = sqlite3.connect(tmp_path / "a.db")
    assert connection.execute("SELECT key FROM records").fetchall() == [("never",)]
    connection.close()
    await store.close()


async def test_operations_are_observed(tmp_path: Path) -> None:
    observed: list[str] = []

    def observe(operation: str, seconds: float) -> None:
        assert seconds > 0
        observed.append(operation)

    store = SqliteStore(SqliteFile(tmp_path / "a.db", observe=observe))
    await store.ping()
    await store.clients.add_client(make_client())
    await store.close()
    assert observed == ["ping", "add_client"]


async def test_closed_store_is_unavailable_rather_than_silent(tmp_path: Path) -> None:
    store = SqliteStore(SqliteFile(tmp_path / "a.db"))
    await store.close()
    async with within():
        with pytest.raises(StoreUnavailableError, match="closed"):
            await store.clients.get_client("shop")
        with pytest.raises(StoreUnavailableError, match="closed"):
            await store.clients.add_client(make_client())
        await store.close()


async def test_commit_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    store = SqliteStore(SqliteFile(tmp_path / "a.db"))

    store._file.writer._connection.execute("PRAGMA foreign_keys = ON")

    def add_orphan(db: sqlite3.Connection) -> None:
        db.execute("PRAGMA defer_foreign_keys = ON")  # so that it is the commit that fails
        db.execute("INSERT INTO tokens VALUES (x'00', 'nobody', '', 0, 0, '{}', 0)")

    with pytest.raises(StoreUnavailableError, match="FOREIGN KEY"):
        await store._file.writer.run(add_orphan, is_durable=False)
    await store.clients.add_client(make_client())
    assert await store.clients.get_client("shop") == make_client()
    await store.close()


async def test_store_can_be_opened_while_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await SqliteStore(SqliteFile(path)).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store = SqliteStore(SqliteFile(path, busy_timeout_s=0.1))
    await store.ping()
    await store.close()
    other.execute("ROLLBACK")
    other.close()


async def test_file_that_may_only_be_read_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (SqliteStore(SqliteFile(tmp_path / "a.db"))).close()
    (tmp_path / "a.db").chmod(0o444)
    # For root every file is writable: be nobody, who reaches the directory as the current one.
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(StoreError, match=r"^a\.db: Permission denied$"):
            SqliteStore(SqliteFile(Path("a.db")))
    finally:
        os.seteuid(me)


async def test_damage_met_while_running_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = SqliteStore(SqliteFile(path))
    await asyncio.gather(
        *(store.clients.add_client(make_client(f"client-{number:03}")) for number in range(500))
    )
    await store.close()
    outcomes: list[bool] = []
    store = SqliteStore(SqliteFile(path, health=StoreHealth(on_up=outcomes.append)))
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * (path.stat().st_size - 8192))
    with pytest.raises(StoreUnavailableError, match="malformed"):
        await store.clients.list_clients(limit=500)
    assert outcomes == [False]
    await store.close()


def test_failing_disk_fails_the_write_and_the_store_recovers(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import asyncio, resource, sys
        from gateway.oauth.models import Client, StoreUnavailableError
        from gateway.store import open_store

        def limit_files(size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        def client(number):
            return Client(f"client-{number}", "n" * 100, "h" * 100, (), 0.0, None, 1)

        async def main():
            store = await open_store(sys.argv[1])
            limit_files(200_000)  # no file can grow beyond: an error of the system, not of SQLite
            added = 0
            try:
                for added in range(100_000):
                    await store.clients.add_client(client(added))
            except StoreUnavailableError as error:
                print("failed:", error)
            assert await store.clients.get_client(f"client-{added}") is None
            assert await store.clients.get_client("client-0") is not None
            limit_files(resource.RLIM_INFINITY)
            await store.clients.add_client(client(added))
            clients = await store.clients.list_clients(limit=200_000)
            assert len(clients) == added + 1, (len(clients), added)
            await store.close()

        asyncio.run(main())
        """
    )
    finished = subprocess.run(
        [sys.executable, "-c", script, f"sqlite:///{tmp_path}/a.db"],
        capture_output=True, text=True, timeout=scaled(60),
    )  # fmt: skip
    assert (finished.returncode, finished.stderr) == (
        0, "the store rejects writes: SQLite: disk I/O error\n"
    )  # fmt: skip
    assert finished.stdout.startswith("failed: SQLite: disk I/O error")
