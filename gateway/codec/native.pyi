"""The native codec, as type checkers see it; `native.pyx` is the code."""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from gateway.codec.records import HeadRecord, LineRecord, ResponseRecord

class RequestCodec:
    """Reads heads of requests; None where Python has to."""

    def __init__(self, special: Collection[bytes]) -> None:
        """`special` are the names of fields that the gateway looks at, in lower case."""
    def read(
        self, data: bytes, known_line: bytes, known_block: bytes, max_fields: int, max_bytes: int
    ) -> tuple[LineRecord | None, HeadRecord | None, int] | None:
        """Read the head, of at most `max_bytes`, that `data` begins with, and where it ends, its
        empty line included. Where it begins with `known_line`, the line that was made of one for
        the upstream, that is not read again, and its record is None; nor are its fields where they
        are `known_block`."""
    def read_h2(
        self,
        fields: Sequence[tuple[bytes, bytes]],
        known_line: bytes,
        known_block: bytes | None,
        max_fields: int,
        max_bytes: int,
    ) -> tuple[LineRecord | None, HeadRecord | None] | None:
        """Read the fields of a request of HTTP/2, pseudo-fields included, as the lines that they
        stand for. Of a line or a block that is known, the record is None."""
    def read_line(self, line: bytes) -> LineRecord | None:
        """Read a request line, without its end."""
    def read_fields(self, block: bytes, max_fields: int) -> HeadRecord | None:
        """Read lines of fields, the last without its end."""

class ResponseCodec:
    """Reads heads of responses; None where Python has to."""

    def __init__(
        self, dropped: Collection[bytes], asked: Collection[bytes], phrases: Mapping[int, bytes]
    ) -> None:
        """`dropped` and `asked` are names of fields that do not pass, and that Python reads;
        `phrases` are the usual ones by status."""
    def read(
        self, data: bytes, known: bytes, max_bytes: int
    ) -> tuple[ResponseRecord | None, int] | None:
        """Read the head, of at most `max_bytes`, that `data` begins with, and where it ends, but
        for its empty line. Where it is `known`, it is not read again, and its record is None."""
    def read_h2(self, fields: Sequence[tuple[bytes, bytes]]) -> ResponseRecord | None:
        """Read the fields of a response of HTTP/2, pseudo-fields included."""
    def read_head(self, head: bytes) -> ResponseRecord | None:
        """Read a head without the empty line that ends it."""

class LineLister:
    """Lists lines of fields as HTTP/2 has them: names in lower case, and values."""

    def __init__(self, dropped: Collection[bytes]) -> None:
        """`dropped` are names of fields that are left out."""
    def fields(
        self,
        first: tuple[tuple[bytes, bytes], ...],
        lines: bytes,
        last: tuple[tuple[bytes, bytes], ...],
    ) -> tuple[tuple[bytes, bytes], ...] | None:
        """List lines, each with its end, between other fields; None where Python has to."""

def digest_bearer(value: bytes) -> bytes | None:
    """The SHA-256 digest of the token in an Authorization value of the scheme Bearer."""

def sha256(data: bytes, portable: bool = False) -> bytes:
    """The SHA-256 digest; `portable` without the instructions of the processor, for tests."""

def has_sha_instructions() -> bool:
    """Whether digests are made by instructions of the processor."""

def is_traceparent(value: bytes) -> bool | None:
    """True for a well-formed traceparent of version 00, else None."""

def seed_ids() -> None:
    """Seed the generator of request ids again."""

def new_id() -> bytes | None:
    """32 random hexadecimal digits."""

def write_access_line(
    lines: bytearray,
    now: float,
    client: str,
    method: str,
    path: str,
    route: str,
    status: int,
    source: str,
    duration_s: float,
    request_id: bytes,
    reason: str,
    client_id: str,
    upstream: str,
    upstream_s: float,
    bytes_in: int,
    bytes_out: int,
    grpc_status: int,
    protocol: str,
) -> bool:
    """Append a line of the access log, in JSON; False, and nothing, where Python has to. A
    `grpc_status` of -1 is none; `upstream_s` counts only where there is an upstream."""

def count_request(
    requests: dict[tuple[str, int, str], int], method: str, status: int, source: str
) -> bool:
    """Count a request by method, status and source; a method that is not in `metrics.METHODS` is
    `_OTHER`. False where Python has to."""

class BucketCounts:
    """Counts of observations by bucket; see `absent.py`."""

    total: float
    def __init__(self, bounds: Collection[float]) -> None: ...
    @property
    def bounds(self) -> tuple[float, ...]: ...
    @property
    def counts(self) -> list[int]: ...
    def observe(self, value: float) -> None: ...

Entry = TypeVar("Entry")

def longest_prefix(table: dict[str, Entry], path: str) -> Entry | None:
    """Return the entry of a path or of its longest prefix of whole segments; None where there is
    none, or Python has to look."""
