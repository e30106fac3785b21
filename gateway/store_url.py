"""Parses store URLs of the configuration and the command line.

    sqlite:///relative/path  sqlite:////absolute/path
    redis://[[user]:password@]host[:port][/database]       rediss:// over TLS
    redis+sentinel://...@host:port,host:port/service[/database]
    redis+cluster://...@host:port,host:port

Reserved characters of user and password are percent-encoded (RFC 3986 section 2.1). Options
follow as a query, see `OPTIONS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote

Topology = Literal["standalone", "sentinel", "cluster"]

REDIS_PORT = 6379
SENTINEL_PORT = 26379
EXPECTED = (
    "expected sqlite:///PATH, redis://HOST:PORT/DB, rediss://HOST:PORT/DB, "
    "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB or redis+cluster://HOST:PORT,HOST:PORT"
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
_BLANKS = re.compile(r"[\x00-\x20\x7f\ufeff]")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class SqliteUrl:
    """A file."""

    path: str

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

    def __str__(self) -> str:
        scheme = next(
            name for name, kind in _SCHEMES.items() if kind == (self.topology, self.is_tls)
        )
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        path = f"/{self.service}" if self.service else ""
        return f"{scheme}://{hosts}{path}" + (f"/{self.database}" if self.database else "")


def parse_store_url(url: str) -> SqliteUrl | RedisUrl:
    """Raises `ValueError`, whose text never repeats a part of the URL that may be secret."""
    scheme, separator, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return SqliteUrl(_parse_file(rest[1:]))
    if scheme not in _SCHEMES or not separator:
        raise ValueError(EXPECTED)
    if _BLANKS.search(rest):
        raise ValueError(
            "must not hold a blank, a line break or another control character; in a password they "
            "are percent-encoded"
        )
    topology, is_tls = _SCHEMES[scheme]
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    userinfo, at, hosts = authority.rpartition("@")
    username, _, password = userinfo.partition(":")
    options = _parse_options(query)
    if not is_tls and options.keys() & {"ca", "cert", "key"}:
        raise ValueError(f"ca, cert and key have no effect here, use {_with_tls(scheme)}://")
    service, database = _parse_path(topology, path)
    return RedisUrl(
        topology,
        is_tls,
        _parse_hosts(hosts, topology),
        service=service,
        database=database,
        username=unquote(username) or None,
        password=unquote(password) if at and password else None,
        **options,
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
    hosts = []
    for part in text.split(","):
        match = _HOST.fullmatch(part)
        port = int(match["port"] or default) if match else 0
        if not match or not 0 < port < 65536:
            raise ValueError("expected HOST or HOST:PORT after ://, several separated by commas")
        hosts.append((match["host"].strip("[]"), port))
    if topology == "standalone" and len(hosts) > 1:
        raise ValueError(
            "expected one HOST:PORT; several need redis+sentinel:// or redis+cluster://"
        )
    return tuple(hosts)


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


def _parse_options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS:
            raise ValueError(f"unknown option {name!r}, expected {', '.join(OPTIONS)}")
        if not re.fullmatch(OPTIONS[name], value):
            raise ValueError(f"option {name} must match {OPTIONS[name]}")
        options[name] = value
    if ("cert" in options) != ("key" in options):
        raise ValueError("options cert and key go together")
    return options
