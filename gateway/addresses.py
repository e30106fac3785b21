"""Addresses of clients: sets of networks, and what trusted proxies say of the client in front.

Everything that asks for an address or a network asks here, so that an address has one spelling:
without port and brackets, IPv4 as such though a socket for both families calls it
`::ffff:192.0.2.1`.

RFC 7239 (Forwarded), RFC 4291 section 2.5.5.2 (IPv4-mapped addresses), RFC 4007 section 11 (zones).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

Network = IPv4Network | IPv6Network

LOCAL_PEER = "unix"
"""The address of a client on a Unix socket."""
UNKNOWN_PEER = "0.0.0.0"  # noqa: S104 # nosec B104
"""The address of a client that disconnected before its address could be read."""
MAX_KNOWN = 4096
IPV6_PREFIX_BITS = 64

_PORT = re.compile(r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?")  # RFC 7239 section 6.3
_SCHEMES = {"http": "http", "ws": "http", "https": "https", "wss": "https"}
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = re.compile(rf'({_TOKEN})=({_TOKEN}|"(?:[^"\\]|\\.)*")[ \t]*')
_PAIR_END = re.compile(r"[;,]|$")


def read_address(text: str) -> str | None:
    """Read an IP address as proxies write it: bare, with a port, in brackets, IPv4-mapped.

    Returns None for what is no address. Nor is one with a zone, which means something only on the
    host that wrote it, and may be any text.
    """
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket:
            return None
    else:
        port = ""
        if text.count(":") == 1:  # IPv6 without brackets has no port
            text, _, port = text.partition(":")
            port = f":{port}"
    if "%" in text or not _PORT.fullmatch(port):
        return None
    try:
        return str(_plain(ip_address(text)))
    except ValueError:
        return None


def plain_address(peer: str) -> str:
    """The address of a socket's peer, IPv4 as such."""
    return peer.removeprefix("::ffff:") if "." in peer else peer


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


@lru_cache(maxsize=MAX_KNOWN)
def source_of(address: str) -> str:
    """Return what the requests of an address are counted by: an IPv4 address, or the network (/64)
    of an IPv6 address. A client that has one address of it has them all, and could use another one
    for each request (RFC 6177, RFC 4291 section 2.5.4)."""
    try:
        parsed = _plain(ip_address(address))
    except ValueError:  # a peer without an address, at a Unix socket
        return address
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    host_bits = 128 - IPV6_PREFIX_BITS
    return f"{IPv6Address(int(parsed) >> host_bits << host_bits)}/{IPV6_PREFIX_BITS}"


class Networks:
    """A set of networks. Clients of a Unix socket are in it with `has_local` only."""

    def __init__(self, networks: Iterable[Network] = (), *, has_local: bool = False) -> None:
        self._networks = tuple(networks)
        self._has_local = has_local
        self._contains = lru_cache(maxsize=MAX_KNOWN)(self._look_up)

    @classmethod
    def parse(cls, cidrs: Iterable[str]) -> Networks:
        """Networks as the configuration names them, `unix` among them. Raises `ValueError`."""
        named = tuple(cidrs)
        networks = (ip_network(cidr) for cidr in named if cidr != LOCAL_PEER)
        return cls(networks, has_local=LOCAL_PEER in named)

    def __contains__(self, address: str) -> bool:
        return bool(self) and self._contains(address)

    def __bool__(self) -> bool:
        return self._has_local or bool(self._networks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Networks) and (self._networks, self._has_local) == (
            other._networks, other._has_local
        )  # fmt: skip

    def __hash__(self) -> int:
        return hash((self._networks, self._has_local))

    def _look_up(self, text: str) -> bool:
        if text == LOCAL_PEER:
            return self._has_local
        try:
            address = _plain(ip_address(text))
        except ValueError:
            return False
        return any(address in network for network in self._networks)


class ClientOrigin(NamedTuple):
    """Determine where a request comes from, as far as that can be trusted."""

    address: str
    scheme: str = ""
    """`http` or `https`, by which the client called; empty where no trusted proxy says."""
    host: str = ""
    """The host that the client called, from `Forwarded`; empty where no trusted proxy says."""


class ForwardedElement(NamedTuple):
    """One proxy's element of `Forwarded` (RFC 7239 section 4)."""

    node: str
    """What the proxy received the request from: an address, with or without port, or else."""
    proto: str = ""
    host: str = ""


def find_client(
    peer: str,
    trusted: Networks,
    *,
    forwarded_for: Sequence[bytes],
    forwarded_proto: Sequence[bytes],
    forwarded: Sequence[bytes],
) -> ClientOrigin:
    """Find the client behind `peer`: the address nearest to us that no trusted proxy vouches for.

    The hops are walked from the right: each trusted hop vouches for the one that it wrote down.
    What is not an address ends the walk. `Forwarded` is read only where no X-Forwarded-For and
    no X-Forwarded-Proto came: most proxies write these, and pass a client's Forwarded on.
    """
    if peer not in trusted:
        return ClientOrigin(peer)
    if forwarded and not forwarded_for and not forwarded_proto:
        return _walk_elements(peer, trusted, read_forwarded(forwarded))
    hops = split_hops(forwarded_for)
    address = peer
    while hops and address in trusted:
        hop = read_address(hops.pop())
        if hop is None:
            break
        address = hop
    return ClientOrigin(address, read_scheme(forwarded_proto))


def _walk_elements(peer: str, trusted: Networks, elements: list[ForwardedElement]) -> ClientOrigin:
    client = ClientOrigin(peer)
    while elements and client.address in trusted:
        element = elements.pop()
        address = read_address(element.node)
        scheme, host = _SCHEMES.get(element.proto.lower(), ""), element.host
        client = ClientOrigin(
            address or client.address, scheme or client.scheme, host or client.host
        )
        if address is None:
            break
    return client


def split_hops(forwarded_for: Sequence[bytes]) -> list[str]:
    """The hops of X-Forwarded-For, as they were written, without empty ones."""
    hops = b",".join(forwarded_for).decode("latin-1").split(",")
    return [text for hop in hops if (text := hop.strip(" \t"))]


def read_scheme(forwarded_proto: Sequence[bytes]) -> str:
    """`http` or `https`: the first member of X-Forwarded-Proto, a WebSocket's scheme as that of
    its handshake; empty where it is neither."""
    first = b",".join(forwarded_proto).decode("latin-1").partition(",")[0]
    return _SCHEMES.get(first.strip(" \t").lower(), "")


def read_forwarded(values: Sequence[bytes]) -> list[ForwardedElement]:
    """Read the elements of Forwarded; none of a value that is malformed."""
    text = b",".join(values).decode("latin-1")
    elements: list[ForwardedElement] = []
    pairs: dict[str, str] = {}
    at = 0
    while at <= len(text):
        at = len(text) - len(text[at:].lstrip(" \t"))
        if pair := _PAIR.match(text, at):
            name, value = pair.groups()
            if value.startswith('"'):
                value = re.sub(r"\\(.)", r"\1", value[1:-1])
            pairs.setdefault(name.lower(), value)
            at = pair.end()
        end = _PAIR_END.match(text, at)
        if end is None:
            return []
        if end[0] != ";" and pairs:
            elements.append(
                ForwardedElement(*(pairs.get(name, "") for name in ("for", "proto", "host")))
            )
            pairs = {}
        at = end.end() if end[0] else len(text) + 1
    return elements


def forwarded_node(hop: str) -> str:
    """A hop as `for=` names it (RFC 7239 section 6): `unknown` for what is no address."""
    address = read_address(hop)
    if address is None:
        return "unknown"
    return f'"[{address}]"' if ":" in address else address


def is_loopback_address(address: str) -> bool:
    """Whether an IP address is one that only this machine reaches; IPv4-mapped ones, too."""
    return ip_address(plain_address(address)).is_loopback
