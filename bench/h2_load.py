"""Load over HTTP/2, by `h2_load.c`: requests are made here, and what it prints is read."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from bench.constant_rate import COMPILER, INSTALL
from bench.cores import Cpus
from bench.processes import BenchError, pinned, run

SOURCE = Path(__file__).with_suffix(".c")
FIRST_DYNAMIC = 62
"""The index of the entry that was put into HPACK's table last (RFC 7541 section 2.3.3)."""
REQUESTS = 4000
"""Different ones, sent in turn: more than the caches of heads in the gateway hold."""
_HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)

Field = tuple[str, str]


@dataclass(frozen=True, slots=True)
class H2Run:
    """What it saw."""

    duration_us: int
    requests: int
    bytes: int
    p50_us: int
    p99_us: int
    errors: int
    """Responses that are not good, and streams that were reset."""
    open: int
    """Requests without a response at the end."""

    @property
    def requests_per_s(self) -> float:
        """Throughput."""
        return self.requests * 1e6 / self.duration_us


@dataclass(frozen=True, slots=True)
class Shape:
    """How requests are spread."""

    connections: int
    streams: int

    @property
    def name(self) -> str:
        """As the results name it."""
        return f"{self.connections}x{self.streams}"


class H2Load:
    """The built program."""

    def __init__(self, program: Path, cpus: Cpus) -> None:
        self._program = program
        self._cpus = cpus

    @classmethod
    def build(cls, directory: Path, cpus: Cpus) -> H2Load:
        """Raises `BenchError` without a C compiler."""
        if shutil.which(COMPILER) is None:
            raise BenchError(f"there is no C compiler; get one by: {INSTALL}")
        program = directory / "h2_load"
        run((COMPILER, "-std=gnu11", "-O2", "-o", str(program), str(SOURCE)), timeout_s=60)
        return cls(program, cpus)

    def run(self, port: int, shape: Shape, requests: Path, *, seconds: float) -> H2Run:
        """Load a subject for some seconds. Raises `BenchError`."""
        arguments = (port, shape.connections, shape.streams, seconds, requests)
        argv = pinned((str(self._program), *map(str, arguments)), self._cpus)
        output = run(tuple(argv), timeout_s=seconds + 30)
        try:
            return msgspec.json.decode(output, type=H2Run)
        except msgspec.DecodeError as error:
            raise BenchError(f"h2_load reported no figures ({error}): {output[-300:]}") from None


def write_h2_requests(
    path: Path,
    constant: Sequence[Field],
    varied: Sequence[Sequence[Field]],
    body: bytes = b"",
) -> Path:
    """A file of requests: `constant` fields are in HPACK's table from the first request on, the
    others are literals each time. Pseudo-fields come first, so those that vary are sent first."""
    # Again and again the same: a request of constant fields only.
    blocks = [encode_block(constant, fields) for fields in varied or ((),)]
    first = encode_block(constant, varied[0] if varied else (), is_first=True)
    with path.open("wb") as file:
        for part in (first, body):
            file.write(len(part).to_bytes(4, "big") + part)
        file.write(len(blocks).to_bytes(4, "big"))
        for block in blocks:
            file.write(len(block).to_bytes(4, "big") + block)
    return path


def encode_block(
    constant: Sequence[Field], varied: Sequence[Field], *, is_first: bool = False
) -> bytes:
    """Encode a head. The first one of a connection puts the constant fields into HPACK's table,
    which the others refer to; those that vary are literals each time."""
    constant = sorted(constant, key=lambda one: not one[0].startswith(":"))
    fields = [(name, _literal(name, value, keep=False)) for name, value in varied]
    for place, (name, value) in enumerate(constant):
        index = FIRST_DYNAMIC + len(constant) - 1 - place
        fields.append((name, _literal(name, value, keep=True) if is_first else _indexed(index)))
    return _join(fields)


def _join(fields: list[tuple[str, bytes]]) -> bytes:
    """Pseudo-fields first, otherwise in order."""
    return b"".join(block for _, block in sorted(fields, key=lambda one: one[0][0] != ":"))


def _literal(name: str, value: str, *, keep: bool) -> bytes:
    return (b"\x40" if keep else b"\x00") + _string(name) + _string(value)


def _indexed(index: int) -> bytes:
    return _number(index, 7, 0x80)


def _string(text: str) -> bytes:
    """By Huffman's code where that is shorter, as clients do."""
    plain = text.encode()
    packed: bytes = _HUFFMAN.encode(plain)
    if len(packed) < len(plain):
        return _number(len(packed), 7, 0x80) + packed
    return _number(len(plain), 7, 0) + plain


def _number(value: int, bits: int, flags: int) -> bytes:
    most = (1 << bits) - 1
    if value < most:
        return bytes((flags | value,))
    out, value = [flags | most], value - most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes((*out, value))
