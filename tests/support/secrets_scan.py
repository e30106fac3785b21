"""Nothing that tests leave behind holds a token or a secret in clear.

What is secret is learned where it comes to be: drawn at random, put into a response, hashed, or
sent or read by one of the clients of the tests, which is how those of other processes become
known. What is left behind is all logs, databases and Redis files, and what was logged or written
to standard error: after each test, what it left below its `tmp_path`; after the last one, what
all tests and the fixtures that they share left below pytest's base directory. `conftest.py` makes
hooks and a fixture of this for all tests.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import aiohttp
import httpx
import pytest
import requests
from support.running_gateway import ADMIN_TOKEN, REGISTRATION_TOKEN

from gateway.oauth.credentials import SecretHasher
from gateway.oauth.issuing import IssuedToken

SECRET_MEMBERS = (
    "access_token", "refresh_token", "client_secret", "registration_access_token", "code",
    "password", "client_assertion", "token", "subject_token",
)  # fmt: skip
"""Of responses, forms and JSON objects."""
ACME_CHALLENGES = ("http-01", "tls-alpn-01", "dns-01")
"""Their tokens are public: a CA puts them into the URL of a plain HTTP request (RFC 8555 8.3)."""
RANDOM = "random text"
CONSTANT = {REGISTRATION_TOKEN: "registration token", ADMIN_TOKEN: "admin token"}
MIN_LENGTH = 11
"""Shorter ones are words (`secret`), which are in table names and messages, too."""
RANDOM_BYTES = 32
"""Random texts of fewer bytes are names: of clients, families, tokens (`jti`)."""
MAX_FILE_BYTES = 64 * 1024 * 1024
_WORD = re.compile(rb"[\w+/=.~-]{%d,}" % (MIN_LENGTH - 2))
_NO_WORDS = bytes(byte if _WORD.match(bytes([byte]) * MIN_LENGTH) else 0x20 for byte in range(256))
"""Has blanks between words, which splits a database ten times as fast as the pattern finds them."""
_START = MIN_LENGTH - 3
"""By how many of their first bytes words are looked up."""
_PRIVATE_KEYS = (
    (b"PRIVATE KEY-----", re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")),  # PEM
    # A JWK, maybe as a string within JSON.
    (b'"d', re.compile(rb"""\\?"d\\?"\s*:\s*\\?"[\w-]{40,}""")),
)
"""Each with what it can't be without, which is found a hundred times as fast."""
LEFT_BEHIND = re.compile(r"(.*\.)?(log|db|db-wal|db-shm|db-journal|rdb|aof|sqlite)(\.\d+)?")


class Leak(NamedTuple):
    """A secret where none should be. Does not show it."""

    where: str
    kind: str
    offset: int
    length: int


class SecretsSeen:
    """The secrets that tests have come across, and where they must not be."""

    def __init__(
        self, constant: Mapping[str, str] | None = None, *, also: SecretsSeen | None = None
    ) -> None:
        """`constant` tells the kinds of those that are always looked for; what is seen here has
        been seen by `also`, too."""
        self._constant = constant or {}
        self._also = also
        self.forget()

    def add(self, secret: str, kind: str) -> None:
        """Keep in mind what is secret."""
        if self._also is not None:
            self._also.add(secret, kind)
        if len(secret) < MIN_LENGTH:
            return
        if secret not in self._kinds:
            for needle in _written(secret):
                start = needle[:_START] if _WORD.fullmatch(needle) else b""
                self._needles.setdefault(start, []).append((needle, secret))
        elif kind == RANDOM:
            return  # it has a better name already
        self._kinds[secret] = kind

    def add_members(self, values: Any) -> None:
        """Keep what is secret in a response or a request."""
        if isinstance(values, Mapping) and values.get("type") not in ACME_CHALLENGES:
            for name in SECRET_MEMBERS:
                if isinstance(value := values.get(name), str):
                    self.add(value, name)

    def forget(self) -> None:
        """Begin with the next test."""
        self._kinds: dict[str, str] = {}
        self._needles: dict[bytes, list[tuple[bytes, str]]] = {}
        """By how they begin; those that are no words are under nothing."""
        for secret, kind in self._constant.items():
            self.add(secret, kind)

    def find(self, data: bytes, where: str) -> Iterator[Leak]:
        """Where a secret is in clear, or as part of HTTP Basic credentials."""
        for part, pattern in _PRIVATE_KEYS:
            for key in pattern.finditer(data) if part in data else ():
                yield Leak(where, "private key", key.start(), len(key[0]))
        found = {secret: needle for needle, secret in self._find(data)}
        for secret, needle in found.items():
            yield Leak(where, self._kinds[secret], data.find(needle), len(secret))

    def _find(self, data: bytes) -> Iterator[tuple[bytes, str]]:
        for needle, secret in self._needles.get(b"", ()):
            if needle in data:
                yield needle, secret
        # Files are mostly binary, or say the same again and again: words are looked at once.
        for word in set(data.translate(_NO_WORDS).split()):
            for at in range(len(word) - _START + 1):
                for needle, secret in self._needles.get(word[at : at + _START], ()):
                    if word.startswith(needle, at):
                        yield needle, secret

    def find_below(self, directory: Path) -> Iterator[Leak]:
        """Look through all that was left below a directory."""
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


SEEN_EVER = SecretsSeen(CONSTANT)
"""What all tests have come across."""
SEEN = SecretsSeen(CONSTANT, also=SEEN_EVER)
"""What the test that runs has come across."""


def _also(owner: Any, name: str, report: Callable[..., None]) -> None:
    """Have `tell` see what a function was given, and what it returned."""
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def reporting(*arguments: Any, **named: Any) -> Any:
        result = inner(*arguments, **named)
        report(result, *arguments, **named)
        return result

    setattr(owner, name, reporting)


def _is_drawn(text: str, size: int = 0) -> None:
    if size >= RANDOM_BYTES:
        SEEN.add(text, RANDOM)


def _is_issued(_: None, issued: IssuedToken, *arguments: Any, **named: Any) -> None:
    SEEN.add(issued.access_token, "access_token")
    SEEN.add_members(issued.members)


def _is_hashed(_: Any, hasher: SecretHasher, secret: str) -> None:
    SEEN.add(secret, "client secret or password")


def _has_responded(response: Any, _: Any, request: Any, **named: Any) -> None:
    """For httpx and requests."""
    _is_sent(request)
    location = response.headers.get("Location", "")
    SEEN.add_members(dict(parse_qsl(urlsplit(location).query)))
    if "json" in response.headers.get("Content-Type", "") and not named.get("stream"):
        _is_body(response.content)


def _is_sent(request: Any) -> None:
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme == "Basic":
        try:
            clear = base64.b64decode(credentials).decode("latin-1")
        except binascii.Error:
            return  # wrong on purpose
        SEEN.add(unquote_plus(clear.partition(":")[2]), "client secret or password")
    elif credentials:
        SEEN.add(credentials, "bearer token")
    SEEN.add_members(request.headers)
    body = request.body if isinstance(request, requests.PreparedRequest) else _content(request)
    if isinstance(body, str):
        body = body.encode()
    if isinstance(body, bytes):
        SEEN.add_members(dict(parse_qsl(body.decode("latin-1"))))
        _is_body(body)


def _content(request: httpx.Request) -> bytes:
    try:
        return request.content
    except httpx.RequestNotRead:
        return b""  # a stream


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
    _also(httpx.Client, "send", _has_responded)
    _also(requests.Session, "send", _has_responded)

    read = aiohttp.ClientResponse.read

    async def reporting(self: aiohttp.ClientResponse) -> bytes:
        body = await read(self)
        if "json" in self.headers.get("Content-Type", ""):
            _is_body(body)
        return body

    aiohttp.ClientResponse.read = reporting  # type: ignore[method-assign]


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
    _fail_on(leaks)


@pytest.fixture(scope="session", autouse=True)
def no_secrets_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Look when all fixtures have ended, those that tests share too: this one is the first."""
    yield
    _fail_on(SEEN_EVER.find_below(tmp_path_factory.getbasetemp()))


def _fail_on(leaks: Iterable[Leak]) -> None:
    if found := sorted(set(leaks)):
        pytest.fail(f"secrets in clear: {found}", pytrace=False)
