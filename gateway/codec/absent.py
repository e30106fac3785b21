"""Stands for the native codec where it is not installed or is switched off: it reads nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from gateway.codec.records import HeadRecord, LineRecord, ResponseRecord


class RequestCodec:
    """See `native.pyi`."""

    def __init__(self, special: Collection[bytes]) -> None:
        pass

    def read(
        self, data: bytes, known_line: bytes, known_block: bytes, max_fields: int, max_bytes: int
    ) -> tuple[LineRecord | None, HeadRecord | None, int] | None:
        return None

    def read_h2(
        self,
        fields: Sequence[tuple[bytes, bytes]],
        known_line: bytes,
        known_block: bytes | None,
        max_fields: int,
        max_bytes: int,
    ) -> tuple[LineRecord | None, HeadRecord | None] | None:
        return None

    def read_line(self, line: bytes) -> LineRecord | None:
        return None

    def read_fields(self, block: bytes, max_fields: int) -> HeadRecord | None:
        return None


class ResponseCodec:
    """See `native.pyi`."""

    def __init__(
        self, dropped: Collection[bytes], asked: Collection[bytes], phrases: Mapping[int, bytes]
    ) -> None:
        pass

    def read(
        self, data: bytes, known: bytes, max_bytes: int
    ) -> tuple[ResponseRecord | None, int] | None:
        return None

    def read_h2(self, fields: Sequence[tuple[bytes, bytes]]) -> ResponseRecord | None:
        return None

    def read_head(self, head: bytes) -> ResponseRecord | None:
        return None


class LineLister:
    """See `native.pyi`."""

    def __init__(self, dropped: Collection[bytes]) -> None:
        pass

    def fields(
        self,
        first: tuple[tuple[bytes, bytes], ...],
        lines: bytes,
        last: tuple[tuple[bytes, bytes], ...],
    ) -> tuple[tuple[bytes, bytes], ...] | None:
        return None


def digest_bearer(value: bytes) -> bytes | None:
    return None


def is_traceparent(value: bytes) -> bool | None:
    return None


def new_id() -> bytes | None:
    return None


def write_access_line(  # noqa: PLR0917 - as C takes them
    lines: bytearray, now: float, client: str, method: str, path: str, route: str, status: int,
    source: str, duration_s: float, request_id: bytes, reason: str, client_id: str, upstream: str,
    upstream_s: float, bytes_in: int, bytes_out: int, grpc_status: int, protocol: str,
) -> bool:  # fmt: skip
    return False


def count_request(
    requests: dict[tuple[str, int, str], int], method: str, status: int, source: str
) -> bool:
    return False


class BucketCounts:
    """Counts observations by bucket, at the cost of one bisection."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Collection[float]) -> None:
        self.bounds = tuple(bounds)
        """The inclusive upper bounds of all buckets but the last."""
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


Entry = TypeVar("Entry")


def longest_prefix(table: dict[str, Entry], path: str) -> Entry | None:
    return None
