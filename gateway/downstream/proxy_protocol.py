"""The PROXY protocol, versions 1 and 2: who a load balancer says the client is.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt. A header comes before anything else
on a connection, TLS included. It is read to its last byte and not one further, and what is not
exactly as the text has it is refused: half-believing it would let clients choose an address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
MAX_V1_BYTES = 107
"""The longest line of version 1, its end included (section 2.1)."""
MAX_V2_BYTES = 4096
"""Of addresses and TLVs: far more than proxies send, far less than the format allows."""

_V1 = re.compile(
    rb"PROXY (?:UNKNOWN(?: [ -~]*)?"
    rb"|(TCP4|TCP6) ([0-9a-fA-F.:]+) ([0-9a-fA-F.:]+) ([0-9]{1,5}) ([0-9]{1,5}))\r\n"
)
_LOCAL, _PROXY = 0, 1
_ADDRESS_BYTES = {0: 0, 1: 12, 2: 36, 3: 216}
"""Of an address family: unspecified, IPv4, IPv6, Unix."""
_STREAM = 1
_CRC32C = 0x03


class ProxyProtocolError(Exception):
    """There is no header, or it is not valid."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A whole header."""

    source: str | None
    """The client's address; None where the sender speaks for itself, or does not know."""


class ProxyHeaderReader:
    """Reads one header off the front of a connection: `wanted` bytes at most at a time."""

    def __init__(self) -> None:
        self._data = b""
        self.wanted = len(SIGNATURE)
        """How many bytes are surely of the header."""
        self.peeks = False
        """Whether the end is only to be seen by looking: then `wanted` is a bound."""

    def feed(self, data: bytes) -> ProxyHeader | None:
        """Take bytes; the header, once it is whole. Raises `ProxyProtocolError`."""
        self._data += data
        head = self._data
        if SIGNATURE.startswith(head[:12]):
            return self._read_v2(head)
        if b"PROXY "[: len(head)] != head[:6]:
            raise ProxyProtocolError("no header")
        self.peeks = True
        self.wanted = MAX_V1_BYTES - len(head)
        if head.endswith(b"\r\n"):
            return _read_v1(head)
        if self.wanted <= 0 or b"\n" in head:
            raise ProxyProtocolError("the line has no end")
        return None

    def _read_v2(self, head: bytes) -> ProxyHeader | None:
        if len(head) < 16:
            self.wanted = 16 - len(head)
            return None
        length = int.from_bytes(head[14:16], "big")
        if length > MAX_V2_BYTES:
            raise ProxyProtocolError("the header is too long")
        self.wanted = 16 + length - len(head)
        return None if self.wanted else _parse_v2(head)


def end_of_line(seen: bytes) -> int:
    """How many of the bytes that are seen belong to a line."""
    at = seen.find(b"\n")
    return len(seen) if at < 0 else at + 1


def _read_v1(line: bytes) -> ProxyHeader:
    match = _V1.fullmatch(line)
    if match is None:
        raise ProxyProtocolError("the line is not valid")
    family, source, destination, *ports = match.groups()
    if family is None:
        return ProxyHeader(None)
    kind = IPv4Address if family == b"TCP4" else IPv6Address
    try:
        addresses = [kind(address.decode("ascii")) for address in (source, destination)]
    except ValueError:
        raise ProxyProtocolError("an address is not valid") from None
    for port in ports:
        if int(port) > 65535 or (port[:1] == b"0" and port != b"0"):
            raise ProxyProtocolError("a port is not valid")
    return ProxyHeader(_plain(addresses[0]))


def _parse_v2(head: bytes) -> ProxyHeader:
    version, command = head[12] >> 4, head[12] & 0x0F
    family, transport = head[13] >> 4, head[13] & 0x0F
    if version != 2 or command not in {_LOCAL, _PROXY} or transport > 2:
        raise ProxyProtocolError("the version or command is unknown")
    if command == _LOCAL:
        return ProxyHeader(None)  # section 2.2: the rest is to be ignored
    size = _ADDRESS_BYTES.get(family)
    block = head[16:]
    if size is None or len(block) < size:
        raise ProxyProtocolError("the addresses are not valid")
    if family in {1, 2} and transport != _STREAM:
        raise ProxyProtocolError("the connection is no stream")
    _check_tlvs(head, 16 + size)
    if family not in {1, 2}:
        return ProxyHeader(None)
    return ProxyHeader(_plain(ip_address(block[: 4 if family == 1 else 16])))


def _check_tlvs(head: bytes, at: int) -> None:
    """Section 2.2.1; a checksum that is there must be right (section 2.2.3)."""
    while at < len(head):
        if at + 3 > len(head):
            raise ProxyProtocolError("a TLV is cut off")
        kind, length = head[at], int.from_bytes(head[at + 1 : at + 3], "big")
        at += 3
        if at + length > len(head):
            raise ProxyProtocolError("a TLV is cut off")
        if kind == _CRC32C:
            zeroed = head[:at] + bytes(length) + head[at + length :]
            if length != 4 or int.from_bytes(head[at : at + 4], "big") != crc32c(zeroed):
                raise ProxyProtocolError("the checksum is wrong")
        at += length


def _plain(address: IPv4Address | IPv6Address) -> str:
    """Format an address as the socket would."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def crc32c(data: bytes) -> int:
    """The Castagnoli CRC (RFC 3309 appendix B.1)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _table_entry(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value


_CRC_TABLE = [_table_entry(value) for value in range(256)]
