"""The schema of the PostgreSQL store, as the list of steps that made it.

Everything is in the schema `gateway` of the database. `gateway.schema_version` counts the steps. A
step is never changed once released; a new one is added below.
"""

from __future__ import annotations

from asyncpg import Connection
from asyncpg.exceptions import UndefinedTableError

from gateway.oauth.models import StoreRejectedError

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # Ids and keys sort by code point, whatever the locale of the database.
        """
        CREATE TABLE gateway.clients (
            client_id   text COLLATE "C" PRIMARY KEY,
            client_name text COLLATE "C" NOT NULL,
            secret_hash text NOT NULL,              -- argon2id, PHC string format
            scopes      text NOT NULL,              -- separated by spaces
            created_at  double precision NOT NULL,  -- Unix time, seconds, as all times here
            expires_at  double precision,           -- NULL is never
            generation  bigint NOT NULL,
            metadata    text NOT NULL,              -- JSON
            rate_limit  text,                       -- JSON; NULL is the one of all clients
            epoch       bigint NOT NULL             -- of the tokens that are valid
        )
        """,
        "CREATE INDEX clients_by_expiry ON gateway.clients (expires_at)",
        """
        CREATE TABLE gateway.tokens (
            digest     bytea PRIMARY KEY,           -- SHA-256 of the token, never the token
            client_id  text COLLATE "C" NOT NULL,
            scopes     text NOT NULL,
            issued_at  double precision NOT NULL,
            expires_at double precision NOT NULL,
            claims     text NOT NULL,               -- JSON
            epoch      bigint NOT NULL
        )
        """,
        "CREATE INDEX tokens_by_client ON gateway.tokens (client_id, epoch, expires_at)",
        "CREATE INDEX tokens_by_expiry ON gateway.tokens (expires_at)",
        """
        CREATE TABLE gateway.records (              -- small values that end, of many kinds
            kind       text COLLATE "C" NOT NULL,
            key        text COLLATE "C" NOT NULL,
            owner      text COLLATE "C" NOT NULL,   -- client:ID or user:NAME
            value      bytea NOT NULL,
            expires_at double precision,            -- NULL is never
            version    bigint NOT NULL,
            PRIMARY KEY (kind, key)
        )
        """,
        "CREATE INDEX records_by_owner ON gateway.records (owner, kind, key)",
        "CREATE INDEX records_by_expiry ON gateway.records (expires_at)",
        """
        CREATE TABLE gateway.changes (              -- what other processes must forget
            seq       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            client_id text,                         -- all tokens of this client, or
            digest    bytea,                        -- this one token
            at        timestamptz NOT NULL DEFAULT clock_timestamp()
        )
        """,
        """
        CREATE TABLE gateway.client_usage (
            client_id     text COLLATE "C" PRIMARY KEY,
            last_used     double precision,         -- NULL is never
            tokens_issued bigint NOT NULL
        )
        """,
    ),
    (
        # Not worth a disk: after a crash, every bucket is empty.
        """
        CREATE UNLOGGED TABLE gateway.rate_limits ( -- buckets, see gateway/rate_limit.py
            key      text COLLATE "C" PRIMARY KEY,
            level    double precision NOT NULL,     -- how full it was
            at       double precision NOT NULL,     -- then
            empty_at double precision NOT NULL
        ) WITH (fillfactor = 50)
        """,
        """
        CREATE FUNCTION gateway.acquire(
            wanted text[], leaks double precision[], bursts double precision[],
            OUT passes boolean, OUT levels double precision[]
        ) LANGUAGE plpgsql AS $$
        DECLARE
            moment double precision;
            bucket record;
        BEGIN
            passes := true;
            levels := array_fill(0::double precision, ARRAY[cardinality(wanted)]);
            -- Locks them, in the same order everywhere.
            INSERT INTO gateway.rate_limits AS kept (key, level, at, empty_at)
                SELECT key, 0, 0, 0 FROM unnest(wanted) AS key ORDER BY key
                ON CONFLICT (key) DO UPDATE SET at = kept.at;
            moment := extract(epoch FROM clock_timestamp());
            FOR bucket IN
                -- Where the clock went back, as it may at a failover, nothing has leaked out.
                SELECT n, burst, greatest(0, level - greatest(0, moment - at) / leak) AS level
                FROM unnest(wanted, leaks, bursts) WITH ORDINALITY AS one(key, leak, burst, n)
                JOIN gateway.rate_limits USING (key)
            LOOP
                levels[bucket.n] := bucket.level;
                passes := passes AND bucket.burst - bucket.level - 1 >= -1e-6;
            END LOOP;
            UPDATE gateway.rate_limits AS kept SET
                level = levels[n] + passes::int,
                at = moment,
                empty_at = moment + (levels[n] + passes::int) * leak
                FROM unnest(wanted, leaks) WITH ORDINALITY AS one(key, leak, n)
                WHERE kept.key = one.key;
        END $$
        """,
    ),
)

LOCK = 0x42475457
"""Of the database, while the schema is made or changed (`pg_advisory_xact_lock`)."""


class DatabaseTooNewError(StoreRejectedError):
    """The schema was written by a later version of the gateway."""


async def migrate(connection: Connection) -> None:
    """Bring the schema up to date. Of several processes that start together, one does it.

    Raises `DatabaseTooNewError` and exceptions of asyncpg.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        # A role that owns the schema may not be permitted to make one.
        if not await connection.fetchval("SELECT to_regnamespace('gateway') IS NOT NULL"):
            await connection.execute("CREATE SCHEMA gateway")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS gateway.schema_version (version bigint NOT NULL)"
        )
        version = await connection.fetchval("SELECT max(version) FROM gateway.schema_version")
        for step in MIGRATIONS[version or 0 :]:
            for statement in step:
                await connection.execute(statement)
        await connection.execute("DELETE FROM gateway.schema_version")
        await connection.execute("INSERT INTO gateway.schema_version VALUES ($1)", len(MIGRATIONS))


async def has_schema(connection: Connection) -> bool:
    """Whether the schema is up to date. Raises as `read_version` does."""
    return await read_version(connection) == len(MIGRATIONS)


async def read_version(connection: Connection) -> int:
    """The version of the schema; 0 where there is none. Raises `DatabaseTooNewError` and exceptions
    of asyncpg."""
    try:
        # PgBouncer may take a statement to another server than the one that it was prepared on.
        async with connection.transaction():
            version = await connection.fetchval("SELECT max(version) FROM gateway.schema_version")
    except UndefinedTableError:
        return 0
    if (version or 0) > len(MIGRATIONS):
        raise DatabaseTooNewError(
            f"the database has schema version {version}, this gateway knows up to "
            f"{len(MIGRATIONS)}: run the newer gateway, or point `store` at another database"
        )
    return int(version or 0)
