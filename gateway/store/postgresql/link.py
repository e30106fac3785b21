"""The connections to PostgreSQL.

Every call has a deadline and goes through a circuit breaker; only so many are under way at once.
A connection on which something was cut off is never used again. Nothing is tried twice here but
what conflicted with another transaction: a write whose response was lost may have happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from gateway.oauth.models import StoreError, StoreUnavailableError
from gateway.store.breaker import StoreBreaker
from gateway.store.link import TIMEOUT_S, Connection, StoreLink
from gateway.store.postgresql.errors import (
    CONNECTION_LOST,
    NO_PRIMARY,
    RETRIED,
    as_store_error,
    is_response,
    sqlstate_of,
)
from gateway.store.postgresql.migrations import has_schema, migrate, read_version
from gateway.store_url import PostgresUrl

Result = TypeVar("Result")

MIGRATION_TIMEOUT_S = 60.0
"""Of a schema that is not up to date."""
MAX_CONNECTIONS = 20
"""Of a process: PostgreSQL serves each by a process of its own, 100 of them by default."""
MAX_OPENING = 5
"""At once, by a process: a connection costs PostgreSQL 40 times what a call does. Where all were
opened at once on a busy machine, none would be ready before the deadline of its call, which closes
it, and the next call would open another. Those that wait cost the server nothing."""
CONFLICT_ATTEMPTS = 3


class NoServerError(ConnectionError):
    """None of several hosts can be used, for reasons that it names."""


class PostgresLink(StoreLink):
    """PostgreSQL as everything above sees it: calls that complete in time, or fail."""

    server = "PostgreSQL"

    def __init__(
        self,
        url: PostgresUrl,
        *,
        timeout_s: float = TIMEOUT_S,
        max_connections: int = MAX_CONNECTIONS,
        breaker: StoreBreaker | None = None,
    ) -> None:
        """Raises `StoreError` for TLS files that can't be read. Connects later, when asked."""
        super().__init__((url.ca, url.cert, url.key), timeout_s, breaker)
        self.url = url
        self._max_connections = max_connections
        self._opening: asyncio.Task[asyncpg.Pool] | None = None
        self._pool: asyncpg.Pool | None = None
        self._openings = asyncio.Semaphore(MAX_OPENING)
        self._settings: dict[str, Any] = {}
        self._hosts = url.hosts

    async def _call(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        pool = await self._get_ready()
        async with asyncio.timeout(self.timeout_s):
            return await self._attempt(pool, work)

    async def _attempt(
        self, pool: asyncpg.Pool, work: Callable[[Connection], Awaitable[Result]]
    ) -> Result:
        for attempt in range(CONFLICT_ATTEMPTS):
            try:
                async with _borrowed(pool) as connection:
                    if not self.url.is_pgbouncer:
                        return await work(connection)
                    # Statements of one call must reach one server.
                    async with connection.transaction():
                        return await work(connection)
            except asyncpg.PostgresError as error:
                if error.sqlstate not in RETRIED or attempt + 1 == CONFLICT_ATTEMPTS:
                    raise
        raise AssertionError

    def _explain(self, error: Exception) -> StoreUnavailableError | None:
        return as_store_error(error)

    def _is_response(self, error: Exception) -> bool:
        return is_response(error)

    def _is_foreseen(self, error: Exception) -> bool:
        return isinstance(error, asyncpg.PostgresError | OSError | TimeoutError)

    async def _give_up_connections(self, error: Exception) -> None:
        # Where the server is gone or no primary any more, or calls fail in a row: each of the other
        # connections would cost one more call, until its deadline. Once for calls that fail in a
        # row: connections that are opened after that are good ones, when older calls fail yet.
        is_lost = sqlstate_of(error).startswith((CONNECTION_LOST, *NO_PRIMARY))
        if (is_lost or self._breaker.has_just_opened) and self._pool is not None:
            await self._pool.expire_connections()

    async def _get_ready(self) -> asyncpg.Pool:
        """The pool, once the schema is known to be up to date."""
        if self._pool is None:
            # Once for all that wait: in turn, each would wait for a server that hangs.
            if self._opening is None or self._opening.done():
                self._opening = asyncio.create_task(self._open())
            self._pool = await asyncio.shield(self._opening)
        return self._pool

    async def _open(self) -> asyncpg.Pool:
        async with asyncio.timeout(self.timeout_s):
            self._settings = await self._make_settings()
            connection = await self._connect()
            try:
                is_up_to_date = await has_schema(connection)
            except BaseException:
                connection.terminate()
                raise
        try:
            if not is_up_to_date:
                async with asyncio.timeout(MIGRATION_TIMEOUT_S):
                    await migrate(connection)
        finally:
            connection.terminate()
        return await asyncpg.create_pool(
            connect=self._connect_for_pool, min_size=0, max_size=self._max_connections, reset=_keep
        )

    async def check(self) -> None:
        """Look whether the server responds, and knows no later version of the schema; change
        nothing. Raises `StoreError`."""
        try:
            self._settings = await self._make_settings()
            connection = await self._connect()
            try:
                await read_version(connection)
            finally:
                connection.terminate()
        except Exception as error:
            raise (as_store_error(error) or error) from None

    async def _make_settings(self) -> dict[str, Any]:
        url = self.url
        return {
            "user": url.username,
            "password": url.password,
            "database": url.database,
            "ssl": await asyncio.to_thread(_make_context, url),
            # Of several servers, the one that takes writes.
            "target_session_attrs": "read-write" if len(url.hosts) > 1 else "any",
            # Statements are prepared on a server, and PgBouncer changes servers.
            "statement_cache_size": 0 if url.is_pgbouncer else 100,
            "server_settings": {"application_name": "bearer-gateway"},
        }

    async def _connect_for_pool(self, *_: object, **pool: Any) -> Connection:
        async with self._openings:
            return await self._connect(**pool)

    async def _connect(self, **pool: Any) -> Connection:
        """Connect to the host that was the right one last, or another. Each has a share of the
        time: one that is gone, and does not say so, must leave time for the others."""
        hosts = self._hosts
        share_s = self.timeout_s / (len(hosts) + 1 if len(hosts) > 1 else 1)
        reasons = []
        for number, (host, port) in enumerate(hosts):
            try:
                connection = await asyncpg.connect(
                    host=host, port=port, timeout=share_s, **self._settings, **pool
                )
            except Exception as error:
                failure = as_store_error(error)
                if failure is None or len(hosts) == 1:
                    raise
                reasons.append(f"{host}:{port}: {failure}".replace("PostgreSQL: ", "", 1))
            else:
                self._hosts = hosts[number:] + hosts[:number]
                return connection
        raise NoServerError("; ".join(reasons))

    @contextlib.asynccontextmanager
    async def listening(
        self, channel: str, on_message: Callable[[], None]
    ) -> AsyncIterator[Connection]:
        """Call `on_message` for each notification, on a connection of its own, which the caller
        has to try now and then. Raises exceptions of asyncpg."""
        await self._get_ready()
        async with asyncio.timeout(self.timeout_s):
            connection = await self._connect()
        try:
            async with asyncio.timeout(self.timeout_s):
                await connection.add_listener(channel, lambda *_: on_message())
            yield connection
        finally:
            connection.terminate()

    async def close(self) -> None:
        """Close every connection."""
        self.is_closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if self._pool is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(self.timeout_s):
                    await self._pool.close()
            self._pool.terminate()


@contextlib.asynccontextmanager
async def _borrowed(pool: asyncpg.Pool) -> AsyncIterator[Connection]:
    """A connection of the pool. One that was left in the middle of something is closed."""
    connection = await pool.acquire()
    try:
        yield connection
    except (StoreError, asyncpg.PostgresError):
        raise
    except BaseException as error:
        with contextlib.suppress(asyncpg.InterfaceError):  # it is closed, and the pool's again
            connection.terminate()
        if isinstance(error, asyncpg.InterfaceError) and error.__context__ is not None:
            # It ended within a transaction, which can't be rolled back: the cause is what counts.
            raise error.__context__ from None
        raise
    finally:
        await pool.release(connection)


async def _keep(connection: Connection) -> None:
    """Nothing to set back: no call changes a setting of its session."""


def _make_context(url: PostgresUrl) -> ssl.SSLContext | str | bool:
    """Make what `sslmode` asks for (PostgreSQL's manual, section 34.19). Reads files."""
    if url.sslmode in {"disable", "allow", "prefer"}:
        return False if url.sslmode == "disable" else url.sslmode
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = url.sslmode == "verify-full"
    if url.sslmode == "require" and url.ca is None:
        context.verify_mode = ssl.CERT_NONE
    elif url.ca is not None:
        context.load_verify_locations(url.ca)
    else:
        context.load_default_certs()
    if url.cert is not None:
        context.load_cert_chain(url.cert, url.key)
    return context
