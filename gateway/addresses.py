"""Sets of networks, and whether an address is in one."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

MAX_KNOWN = 4096


def plain_address(peer: str) -> str:
    """The address of a peer, IPv4 as such: a socket for both families, as systemd makes them,
    calls 192.0.2.1 `::ffff:192.0.2.1`."""
    return peer.removeprefix("::ffff:") if "." in peer else peer


class Networks:
    """A set of networks. What is no address, like a client on a unix socket, is in none."""

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        self._networks = tuple(networks)
        self._contains = lru_cache(maxsize=MAX_KNOWN)(self._look_up)

    def __contains__(self, address: str) -> bool:
        return self._contains(address)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def _look_up(self, text: str) -> bool:
        try:
            address = ip_address(text)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            # How a socket for both families calls IPv4: it is the same client.
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)
