"""The file behind the SQLite store: whose it is, that it is still there, and what it costs."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.stores.faults import break_store
from support.stores.values import make_client, make_record, make_token

from gateway.oauth.models import (
    StoreDataError,
    StoreError,
    StoreRejectedError,
    StoreUnavailableError,
)
from gateway.store import StoreHealth, open_store
from gateway.store.sqlite.errors import as_store_error
from gateway.store.sqlite.file import SqliteFile
from gateway.store.sqlite.migrations import APPLICATION_ID, MIGRATIONS
from gateway.store.sqlite.store import SqliteStore


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(SqliteFile(tmp_path / "a.db"))
    await store.clients.add_client(make_client())
    yield store
    await store.close()


def delete(path: Path) -> None:
    for name in path.parent.glob(f"{path.name}*"):
        name.unlink()


def replace(path: Path) -> None:
    other = path.parent / "other.db"
    shutil.copyfile(path, other)
    os.replace(other, path)


@pytest.mark.parametrize("lose", [delete, replace])
async def test_file_that_is_lost_under_the_gateway_is_unavailable_at_once(
    tmp_path: Path, lose: object, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.db"
    up: list[bool] = []
    store = SqliteStore(SqliteFile(path, health=StoreHealth(on_up=up.append)))
    await store.clients.add_client(make_client())
    assert callable(lose)
    lose(path)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match=r"restart the gateway"):
            await store.ping()
        with pytest.raises(StoreUnavailableError, match=r"restart the gateway"):
            await store.clients.add_client(make_client("another"))
    assert not up[-1]
    assert len(caplog.records) == 1
    assert str(path) in caplog.records[0].message
    assert lose is replace or not path.exists(), "nothing makes another file"
    await store.close()


async def test_file_that_is_put_back_is_used_again(opened: SqliteStore, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.rename(tmp_path / "elsewhere.db")
    with pytest.raises(StoreUnavailableError, match="moved or deleted"):
        await opened.clients.get_client("shop")
    (tmp_path / "elsewhere.db").rename(path)
    assert await opened.clients.get_client("shop") == make_client()
    await opened.clients.add_client(make_client("another"))


async def test_link_that_leads_elsewhere_is_noticed(tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    (tmp_path / "one").mkdir()
    link.symlink_to(tmp_path / "one" / "a.db")
    store = SqliteStore(SqliteFile(link))
    await store.ping()
    link.unlink()
    link.symlink_to(tmp_path / "two.db")
    with pytest.raises(StoreUnavailableError):
        await store.ping()
    await store.close()


async def test_file_that_must_exist_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"there is no database at {tmp_path}/a.db"):
        await open_store(f"sqlite:///{tmp_path}/a.db", must_exist=True)
    assert not list(tmp_path.iterdir())


async def test_file_is_marked_as_ours(opened: SqliteStore, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "a.db")
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    connection.close()


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE songs (title)"],
        ["CREATE TABLE clients (name)", f"PRAGMA user_version = {len(MIGRATIONS)}"],
        ["PRAGMA application_id = 1598903374", "CREATE TABLE clients (name)"],
        ["CREATE TABLE songs (title)", f"PRAGMA user_version = {len(MIGRATIONS)}"],
    ],
)
async def test_database_of_another_program_is_left_alone(
    tmp_path: Path, statements: list[str]
) -> None:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="the database of another program") as caught:
        SqliteStore(SqliteFile(path))
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


async def test_file_of_a_version_without_the_mark_is_marked(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    for step in MIGRATIONS[:4]:
        for statement in step:
            connection.execute(statement)
    token = make_token()
    connection.execute("INSERT INTO clients VALUES ('shop', 'n', 'h', 'a', 1, NULL, 7, '{}', NULL)")
    connection.execute(
        "INSERT INTO tokens VALUES (?, 'shop', 'a', 1, ?, '{}')", (token.digest, token.expires_at)
    )
    connection.execute("PRAGMA user_version = 4")
    connection.commit()
    connection.close()
    store = SqliteStore(SqliteFile(path))
    assert await store.tokens.get_token(token.digest) is not None
    assert await store.tokens.revoke_client_tokens("shop") == 0  # it has expired
    assert await store.tokens.get_token(token.digest) is None
    await store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    connection.close()


async def test_schema_that_is_too_new_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await SqliteStore(SqliteFile(path)).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(StoreError, match=str(path)):
        SqliteStore(SqliteFile(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to become")
async def test_directory_that_is_not_writable_is_named(tmp_path: Path) -> None:
    path = tmp_path / "inner" / "a.db"
    path.parent.mkdir()
    await SqliteStore(SqliteFile(path)).close()
    os.chown(path, 65534, 65534)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent != Path("/") and parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        with pytest.raises(StoreError, match=f"{path.parent} is not writable"):
            SqliteStore(SqliteFile(path))
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    "kind",
    [one for one in vars(sqlite3).values() if isinstance(one, type) and issubclass(one, Exception)],
    ids=lambda one: one.__name__,
)
def test_every_exception_class_of_the_module_is_unavailability(kind: type[Exception]) -> None:
    for is_write in (False, True):
        assert isinstance(as_store_error(kind("x"), is_write=is_write), StoreUnavailableError)


REJECTED = {
    "FULL", "READONLY", "PERM", "AUTH", "BUSY", "LOCKED", "CONSTRAINT", "MISMATCH", "TOOBIG",
    "NOLFS", "IOERR_WRITE", "IOERR_FSYNC", "IOERR_DIR_FSYNC", "IOERR_TRUNCATE", "IOERR_DELETE",
    "IOERR_LOCK", "IOERR_CHECKRESERVEDLOCK", "IOERR_SHMSIZE", "IOERR_BEGIN_ATOMIC",
    "IOERR_COMMIT_ATOMIC",
}  # fmt: skip
"""Result codes of writes that fail although reads work."""
RESULT_CODE = re.compile(
    "SQLITE_((?:ERROR|INTERNAL|PERM|ABORT|BUSY|LOCKED|NOMEM|READONLY|INTERRUPT|IOERR|CORRUPT|NOTFOUND"
    "|FULL|CANTOPEN|PROTOCOL|EMPTY|SCHEMA|TOOBIG|CONSTRAINT|MISMATCH|MISUSE|NOLFS|AUTH|FORMAT|RANGE"
    "|NOTADB)(?:_[A-Z0-9_]+)?)"
)
CODES = [match[1] for name in vars(sqlite3) if (match := RESULT_CODE.fullmatch(name))]


@pytest.mark.parametrize("name", CODES)
def test_write_is_rejected_only_where_its_code_leaves_reads_working(name: str) -> None:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{name}")
    is_rejected = name != "READONLY_DBMOVED" and (
        name in REJECTED or name.partition("_")[0] in REJECTED
    )
    assert isinstance(as_store_error(error, is_write=True), StoreRejectedError) is is_rejected
    assert not isinstance(as_store_error(error), StoreRejectedError)


async def test_failed_write_to_a_missing_table_is_an_outage(
    opened: SqliteStore, tmp_path: Path
) -> None:
    states: list[bool] = []
    health = StoreHealth(on_up=states.append)
    store = SqliteStore(SqliteFile(tmp_path / "a.db", health=health))
    break_store(tmp_path / "a.db")
    for work in (
        store.clients.add_client(make_client("b")),
        store.clients.get_client("shop"),
        store.ping(),
    ):
        with pytest.raises(StoreUnavailableError, match="no such table"):
            await work
    assert states == [False, False, False]
    assert not health.rejects_writes
    await store.close()


async def test_column_that_can_not_be_read_is_no_crash(opened: SqliteStore, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.execute("UPDATE clients SET metadata = 'no json'")
    connection.commit()
    connection.close()
    with pytest.raises(StoreDataError):
        await opened.clients.get_client("shop")


async def count_steps(store: SqliteStore, work: object) -> int:
    """About how many thousand instructions of SQLite's the writer takes for `work`."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    store._file.writer._connection.set_progress_handler(count, 100)
    assert callable(work)
    await work()
    store._file.writer._connection.set_progress_handler(None, 0)
    return steps


async def fill(store: SqliteStore, tokens: int) -> None:
    await store.clients.add_client(make_client("many"))
    end = time.time() + 3600
    await store.content.import_tokens(
        [make_token(f"t{number}", client_id="many", ends=end) for number in range(tokens)]
    )


@pytest.mark.parametrize("operation", ["revoke_client_tokens", "delete_client"])
async def test_work_of_the_writer_for_a_revocation_does_not_grow_with_the_tokens(
    tmp_path: Path, operation: str
) -> None:
    steps = []
    for number, tokens in enumerate((2_000, 8_000)):
        store = SqliteStore(SqliteFile(tmp_path / f"{number}.db"))
        await fill(store, tokens)
        revoked: list[int] = []

        async def revoke(store: SqliteStore = store, revoked: list[int] = revoked) -> None:
            part = store.clients if operation == "delete_client" else store.tokens
            revoked.append(await getattr(part, operation)("many"))

        steps.append(await count_steps(store, revoke))
        assert revoked == [tokens]
        assert await store.tokens.get_token(make_token("t5").digest) is None
        assert await store.usage.count_tokens("many") == 0
        if operation == "revoke_client_tokens":
            await store.tokens.add_token(make_token("new", client_id="many"), generation=7)
            assert await store.tokens.get_token(make_token("new").digest) is not None
        else:
            await store.clients.add_client(make_client("many"))
            assert await store.tokens.get_token(make_token("t5").digest) is None, "of its namesake"
        await store.close()
    assert steps[1] <= steps[0] + 10


async def test_records_of_a_client_go_in_batches(opened: SqliteStore) -> None:
    await opened.content.import_records(
        [make_record(f"r{number}", ends=None) for number in range(3_500)]
    )
    sizes: list[int] = []
    writer = opened._file.writer
    original = writer._commit

    def commit(group: list[object]) -> Exception | None:
        before = writer._connection.total_changes
        error = original(group)  # type: ignore[arg-type]
        sizes.append(writer._connection.total_changes - before)
        return error

    writer._commit = commit  # type: ignore[method-assign,assignment]
    await opened.clients.delete_client("shop")
    assert await opened.records.list_records("code") == []
    assert max(sizes) <= 1_010
    assert sum(sizes) >= 3_500


async def test_search_goes_in_slices(opened: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.store.sqlite.usage.LOOK_AT", 3)
    await opened.content.import_clients([make_client(f"c{number:02}") for number in range(20)])
    found = await opened.usage.search_clients("C1", limit=7)
    assert [client.client_id for client in found] == [f"c1{number}" for number in range(7)]
    rest = await opened.usage.search_clients("c1", after="c16", limit=100)
    assert [client.client_id for client in rest] == ["c17", "c18", "c19"]
    assert await opened.usage.search_clients("nothing") == []


async def test_write_that_breaks_the_writer_fails_and_the_next_succeeds(
    opened: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    writer = opened._file.writer
    original = writer._commit

    def commit(group: object) -> Exception | None:
        raise KeyError("unforeseen")

    writer._commit = commit  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailableError):
        await opened.clients.add_client(make_client("another"))
    writer._commit = original  # type: ignore[method-assign]
    await opened.clients.add_client(make_client("another"))
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]
