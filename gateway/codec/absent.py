"""Stands for the native codec where it is not installed or is switched off: it reads nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gateway.codec.records import HeadRecord, LineRecord, ResponseRecord


class RequestCodec:
    """See `native.pyi`."""

    def __init__(self, special: Collection[bytes]) -> None:
        pass

    def read(
        self, head: bytes, known_line: bytes, known_block: bytes, max_fields: int
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

    def read(self, head: bytes) -> ResponseRecord | None:
        return None


def digest_bearer(value: bytes) -> bytes | None:
    return None


def is_traceparent(value: bytes) -> bool | None:
    return None


def new_id() -> bytes | None:
    return None


def write_access_line(  # noqa: PLR0917 - as C takes them
    lines: bytearray, time: str, client: str, method: str, path: str, route: str, status: int,
    source: str, duration_s: float, request_id: bytes, reason: str, client_id: str, upstream: str,
    upstream_s: float, bytes_in: int, bytes_out: int, grpc_status: int, protocol: str,
) -> bool:  # fmt: skip
    return False
