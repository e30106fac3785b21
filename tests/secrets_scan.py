"""After each test: nothing that it left behind holds a token or a secret in clear.

What is secret is learned where it comes to be: drawn at random, put into an answer, hashed, or
read in an answer by one of the clients of the tests, which is how those of other processes become
known. What is left behind is all logs, databases and Redis files below the test's `tmp_path`, and
what was logged or written to standard error. `conftest.py` makes hooks of this for all tests.
"""

from __future__ import annotations

import base64
import functools
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import httpx
import pytest
import requests
from running_gateway import ADMIN_TOKEN, REGISTRATION_TOKEN

from gateway.oauth.credentials import SecretHasher
from gateway.oauth.issuing import IssuedToken

SECRET_MEMBERS = (
    "access_token", "refresh_token", "client_secret", "registration_access_token", "code",
)  # fmt: skip
CONSTANT = (REGISTRATION_TOKEN, ADMIN_TOKEN)
MIN_LENGTH = 11
"""Shorter ones are words (`secret`), which are in table names and messages, too."""
RANDOM_BYTES = 32
"""Random texts of fewer bytes are names: of clients, families, tokens (`jti`)."""
MAX_FILE_BYTES = 64 * 1024 * 1024
_WORD = re.compile(rb"[\w+/=.~-]{%d,}" % (MIN_LENGTH - 2))
LEFT_BEHIND = re.compile(r".*\.(log|db|db-wal|db-shm|db-journal|rdb|aof|sqlite)(\.\d+)?")


class Leak(NamedTuple):
    """A secret where none should be. Does not show it."""

    where: str
    offset: int
    length: int


class SecretsSeen:
    """The secrets that a test has come across, and where they must not be."""

    def __init__(self, constant: Iterable[str] = ()) -> None:
        self._constant = frozenset(constant)
        self._seen: set[str] = set()

    def add(self, secret: str) -> None:
        """Keep in mind what is secret."""
        if len(secret) >= MIN_LENGTH:
            self._seen.add(secret)

    def add_members(self, values: Any) -> None:
        """Keep what is secret in an answer."""
        if isinstance(values, Mapping):
            for name in SECRET_MEMBERS:
                if isinstance(value := values.get(name), str):
                    self.add(value)

    def forget(self) -> None:
        """Begin with the next test."""
        self._seen.clear()

    def find(self, data: bytes, where: str) -> Iterator[Leak]:
        """Where a secret is in clear, or as part of HTTP Basic credentials."""
        # Files are mostly binary, or say the same again and again: words are looked at once.
        words = b"\n".join(set(_WORD.findall(data)))
        for secret in self._seen | self._constant:
            for needle in _written(secret):
                place = words if _WORD.fullmatch(needle) else data
                if needle in place:
                    yield Leak(where, data.find(needle), len(secret))
                    break

    def find_below(self, directory: Path) -> Iterator[Leak]:
        """Look through all that a test left below a directory."""
        for path in sorted(directory.rglob("*")):
            if LEFT_BEHIND.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    yield from self.find(file.read(MAX_FILE_BYTES), str(path))


@functools.lru_cache(maxsize=4096)
def _written(secret: str) -> tuple[bytes, ...]:
    """A secret as it stands, and in base64 behind something of each length modulo 3."""
    clear = secret.encode("utf-8", "surrogatepass")
    encoded = [base64.b64encode(b"x" * ahead + clear) for ahead in range(3)]
    # The outermost characters depend on the neighbours.
    return clear, *(text.rstrip(b"=")[4:-2] for text in encoded)


SEEN = SecretsSeen(CONSTANT)


def _also(owner: Any, name: str, tell: Callable[..., None]) -> None:
    """Have `tell` see what a function was given, and what it returned."""
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def telling(*arguments: Any, **named: Any) -> Any:
        result = inner(*arguments, **named)
        tell(result, *arguments, **named)
        return result

    setattr(owner, name, telling)


def _is_drawn(text: str, size: int = 0) -> None:
    if size >= RANDOM_BYTES:
        SEEN.add(text)


def _is_issued(_: None, issued: IssuedToken, *arguments: Any, **named: Any) -> None:
    SEEN.add(issued.access_token)
    SEEN.add_members(issued.members)


def _is_hashed(_: Any, hasher: SecretHasher, secret: str) -> None:
    SEEN.add(secret)


def _is_answered(response: Any, *arguments: Any, **named: Any) -> None:
    """For httpx and requests."""
    location = response.headers.get("Location", "")
    SEEN.add_members(dict(parse_qsl(urlsplit(location).query)))
    if "json" in response.headers.get("Content-Type", "") and not named.get("stream"):
        _is_body(response.content)


def _is_body(body: bytes) -> None:
    try:
        SEEN.add_members(json.loads(body))
    except ValueError:
        return


def watch() -> None:
    """Learn of secrets from now on, wherever this process comes across them."""
    _also(secrets, "token_urlsafe", _is_drawn)
    _also(IssuedToken, "__init__", _is_issued)
    _also(SecretHasher, "hash", _is_hashed)
    _also(httpx.Client, "send", _is_answered)
    _also(requests.Session, "send", _is_answered)

    read = aiohttp.ClientResponse.read

    async def telling(self: aiohttp.ClientResponse) -> bytes:
        body = await read(self)
        if "json" in self.headers.get("Content-Type", ""):
            _is_body(body)
        return body

    aiohttp.ClientResponse.read = telling  # type: ignore[method-assign]


# pytest's side.

# Lines by the clients and servers of the tests themselves, who log the URLs of a code grant.
_NOT_OURS = re.compile(r"^[A-Z]+ +(?:httpx|httpcore|aiohttp\.access)[:.].*$", re.MULTILINE)


def pytest_configure() -> None:
    """Begin to watch."""
    watch()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin with a test."""
    SEEN.forget()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Look when all that a test started has ended, and the files are whole."""
    directory = getattr(item, "funcargs", {}).get("tmp_path")
    leaks: list[Leak] = []
    if directory is not None:  # a journal is gone when its database is closed
        leaks += SEEN.find_below(directory)
    yield
    if directory is not None:
        leaks += SEEN.find_below(directory)
    for _, kind, text in item._report_sections:
        if kind in {"stderr", "log"}:
            ours = _NOT_OURS.sub("", text)
            leaks += SEEN.find(ours.encode("utf-8", "surrogateescape"), kind)
    if leaks:
        pytest.fail(f"secrets in clear: {sorted(set(leaks))}", pytrace=False)
