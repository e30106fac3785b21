"""Parses store URLs of the configuration and the command line.

    sqlite:///relative/path  sqlite:////absolute/path
    redis://[[user]:password@]host[:port][/database]       rediss:// over TLS
    redis+sentinel://...@host:port,host:port/service[/database]
    redis+cluster://...@host:port,host:port
    postgresql://[user[:password]@]host[:port][,host[:port]]/database     as libpq reads it
    none                                     no store, for gateways that only verify tokens

Reserved characters of user and password are percent-encoded (RFC 3986 section 2.1). Options
follow as a query, see `OPTIONS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar, Literal, cast
from urllib.parse import parse_qsl, unquote

from gateway.suggestions import did_you_mean

Topology = Literal["standalone", "sentinel", "cluster"]

NONE = "none"
REDIS_PORT = 6379
SENTINEL_PORT = 26379
POSTGRES_PORT = 5432
EXPECTED = (
    "expected sqlite:///PATH, redis://HOST:PORT/DB, rediss://HOST:PORT/DB, "
    "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB, redis+cluster://HOST:PORT,HOST:PORT, "
    "postgresql://USER@HOST:PORT/DATABASE, or none"
)
_SCHEMES: dict[str, tuple[Topology, bool]] = {
    "redis": ("standalone", False),
    "rediss": ("standalone", True),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
OPTIONS = {
    "prefix": r"[A-Za-z0-9_.:-]+",
    "ca": ".+",
    "cert": ".+",
    "key": ".+",
    "sentinel_username": ".*",
    "sentinel_password": ".*",
}
"""`prefix` begins every key. `ca`, `cert` and `key` are PEM files for TLS: whom to trust, and
who we are. The others are for sentinels that ask for a password of their own."""
SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
POSTGRES_OPTIONS = {
    "sslmode": "disable|allow|prefer|require|verify-ca|verify-full",
    "sslrootcert": ".+",
    "sslcert": ".+",
    "sslkey": ".+",
    "pgbouncer": "true|false",
}
"""By their names in libpq; `pgbouncer` says that the server is one, in transaction mode."""
_BLANKS = re.compile(r"[\x00-\x20\x7f\ufeff]")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class SqliteUrl:
    """A file."""

    path: str
    kind: ClassVar[str] = "SQLite"

    def __str__(self) -> str:
        return f"sqlite:///{self.path}"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """One Redis server, what a group of Sentinels watches over, or a Cluster."""

    topology: Topology
    is_tls: bool
    hosts: tuple[tuple[str, int], ...]
    """The server; the sentinels; some of the nodes."""
    service: str = ""
    """What the sentinels call the primary."""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    prefix: str = "gateway"
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    kind: ClassVar[str] = "Redis"

    def __str__(self) -> str:
        scheme = next(
            name for name, kind in _SCHEMES.items() if kind == (self.topology, self.is_tls)
        )
        path = f"/{self.service}" if self.service else ""
        database = f"/{self.database}" if self.database else ""
        return f"{scheme}://{_join(self.hosts)}{path}{database}"


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """A database of PostgreSQL. Of several servers, the one that takes writes is used."""

    hosts: tuple[tuple[str, int], ...]
    database: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sslmode: SslMode = "prefer"
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    is_pgbouncer: bool = False
    """Whether another server may take each transaction (PgBouncer in transaction mode)."""
    kind: ClassVar[str] = "PostgreSQL"

    @property
    def is_local(self) -> bool:
        """Whether no network is between."""
        return all(
            host in {"localhost", "::1"} or host.startswith("127.") for host, _ in self.hosts
        )

    def __str__(self) -> str:
        return f"postgresql://{_join(self.hosts)}/{self.database}"


@dataclass(frozen=True, slots=True)
class NoStoreUrl:
    """No store: the gateway issues no tokens, and keeps nothing."""

    kind: ClassVar[str] = "none"

    def __str__(self) -> str:
        return NONE


StoreUrl = SqliteUrl | RedisUrl | PostgresUrl | NoStoreUrl


def parse_store_url(url: str) -> StoreUrl:
    """Raises `ValueError`, whose text never repeats a part of the URL that may be secret."""
    if url == NONE:
        return NoStoreUrl()
    scheme, separator, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return SqliteUrl(_parse_file(rest[1:]))
    is_postgres = scheme in {"postgresql", "postgres"}
    if not (scheme in _SCHEMES or is_postgres) or not separator:
        raise ValueError(_unknown_scheme(scheme) if separator else EXPECTED)
    if _BLANKS.search(rest):
        raise ValueError(
            "must not hold a blank, a line break or another control character; in a password they "
            "are percent-encoded"
        )
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    userinfo, at, hosts = authority.rpartition("@")
    username, _, password = userinfo.partition(":")
    who = (unquote(username) or None, unquote(password) if at and password else None)
    if is_postgres:
        return _parse_postgres(hosts, path, who, _parse_options(query, POSTGRES_OPTIONS))
    topology, is_tls = _SCHEMES[scheme]
    options = _parse_options(query, OPTIONS)
    if ("cert" in options) != ("key" in options):
        raise ValueError("options cert and key go together")
    if not is_tls and options.keys() & {"ca", "cert", "key"}:
        raise ValueError(f"ca, cert and key have no effect here, use {_with_tls(scheme)}://")
    service, database = _parse_path(topology, path)
    return RedisUrl(
        topology,
        is_tls,
        _parse_hosts(hosts, topology),
        service=service,
        database=database,
        username=who[0],
        password=who[1],
        **options,
    )


def _unknown_scheme(scheme: str) -> str:
    # Only what is like a scheme is repeated: anything else may be a part of a password.
    known = ["sqlite", *_SCHEMES, "postgresql"]
    near = did_you_mean(scheme, known)
    return f"unknown scheme {scheme!r}, {EXPECTED}{near}" if near else EXPECTED


def _parse_postgres(
    hosts: str, path: str, who: tuple[str | None, str | None], options: dict[str, str]
) -> PostgresUrl:
    if not path or "/" in path:
        raise ValueError("expected postgresql://HOST:PORT/DATABASE")
    ca, cert, key = (options.get(name) for name in ("sslrootcert", "sslcert", "sslkey"))
    if (cert is None) != (key is None):
        raise ValueError("options sslcert and sslkey go together")
    mode = options.get("sslmode", "prefer")
    if any((ca, cert)) and mode in {"disable", "allow", "prefer"}:
        raise ValueError(
            f"sslrootcert, sslcert and sslkey have no effect with sslmode={mode}, use verify-full"
        )
    return PostgresUrl(
        tuple(_parse_host(part, POSTGRES_PORT) for part in hosts.split(",")),
        unquote(path),
        *who,
        cast(SslMode, mode),
        ca,
        cert,
        key,
        options.get("pgbouncer") == "true",
    )


def _parse_file(path: str) -> str:
    """The path of a file, as it stands: nothing in it has a meaning of its own."""
    if "?" in path:
        raise ValueError("a SQLite file has no options, expected sqlite:///PATH without a ?")
    if path.startswith((":memory:", "file:")):
        raise ValueError(
            "a store in memory can't be shared by processes, and is lost at each restart; "
            "expected sqlite:///PATH with the path of a file"
        )
    if re.search("%[0-9A-Fa-f]{2}", path):
        raise ValueError("the path of a SQLite file is not percent-decoded, write it as it is")
    if re.search(r"[\x00-\x1f\x7f]", path):
        raise ValueError("the path of a SQLite file holds a control character")
    if path.endswith("/"):
        raise ValueError("expected the path of a file after sqlite:///, not that of a directory")
    return path


def _with_tls(scheme: str) -> str:
    return scheme.replace("redis", "rediss", 1)


def _parse_hosts(text: str, topology: Topology) -> tuple[tuple[str, int], ...]:
    default = SENTINEL_PORT if topology == "sentinel" else REDIS_PORT
    hosts = [_parse_host(part, default) for part in text.split(",")]
    if topology == "standalone" and len(hosts) > 1:
        raise ValueError(
            "expected one HOST:PORT; several need redis+sentinel:// or redis+cluster://"
        )
    return tuple(hosts)


def _parse_host(text: str, default_port: int) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    port = int(match["port"] or default_port) if match else 0
    if not match or not 0 < port < 65536:
        raise ValueError("expected HOST or HOST:PORT after ://, several separated by commas")
    return match["host"].strip("[]"), port


def _join(hosts: tuple[tuple[str, int], ...]) -> str:
    return ",".join(f"{host}:{port}" for host, port in hosts)


def _parse_path(topology: Topology, path: str) -> tuple[str, int]:
    service = ""
    if topology == "sentinel":
        service, _, path = path.partition("/")
        if not service:
            raise ValueError("expected redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB")
    if topology == "cluster" and path not in {"", "0"}:
        raise ValueError("a cluster has database 0 only, expected no path")
    if not re.fullmatch("[0-9]{0,5}", path):
        raise ValueError("expected the number of a database at the end of the path")
    return unquote(service), int(path or 0)


def _parse_options(query: str, known: dict[str, str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise ValueError(f"unknown option {name!r}, expected {', '.join(known)}")
        if not re.fullmatch(known[name], value):
            raise ValueError(f"option {name} must match {known[name]}")
        options[name] = value
    return options
