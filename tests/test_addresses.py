"""Addresses as proxies write them, and the client that a trusted proxy names."""

from __future__ import annotations

import pytest

from gateway.addresses import (
    ClientOrigin,
    ForwardedElement,
    Networks,
    find_client,
    read_address,
    read_forwarded,
)

PROXY = "10.0.0.1"
TRUSTED = Networks.parse(["10.0.0.0/8", "unix"])


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:5123", "203.0.113.7"),
        ("203.0.113.7:_hidden", "203.0.113.7"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:5123", "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("[::ffff:203.0.113.7]:80", "203.0.113.7"),
        ("::ffff:cb00:7107", "203.0.113.7"),
        *((text, None) for text in (
            "", "unknown", "_hidden", "203.0.113.7:", "203.0.113.7:port", "203.0.113.7:123456",
            "[2001:db8::1", "[2001:db8::1]80", "fe80::1%eth0", "203.0.113.007", "localhost",
        )),
    ],
)  # fmt: skip
def test_address_has_one_spelling(written: str, address: str | None) -> None:
    assert read_address(written) == address


@pytest.mark.parametrize(
    ("fields", "address", "scheme"),
    [
        (("for 203.0.113.7",), "203.0.113.7", ""),
        (("for 203.0.113.7:5123",), "203.0.113.7", ""),
        (("for 203.0.113.7:99, 10.0.0.9:80",), "203.0.113.7", ""),
        (("for 203.0.113.7, ::ffff:10.0.0.9",), "203.0.113.7", ""),
        (("for ::ffff:203.0.113.7",), "203.0.113.7", ""),
        (("for 6.6.6.6, 203.0.113.7",), "203.0.113.7", ""),
        (("for 203.0.113.7, ,",), "203.0.113.7", ""),
        (("for 203.0.113.7", "for 10.0.0.9"), "203.0.113.7", ""),
        (("for 203.0.113.7, unknown",), PROXY, ""),
        (("for",), PROXY, ""),
        (("proto https",), PROXY, "https"),
        (("proto wss",), PROXY, "https"),
        (("proto WS",), PROXY, "http"),
        (("proto https, http",), PROXY, "https"),
        (("proto https", "proto https"), PROXY, "https"),
        (("proto http, https",), PROXY, "http"),
        (("proto ftp",), PROXY, ""),
        (("forwarded for=203.0.113.7;proto=https;host=www.example",), "203.0.113.7", "https"),
        (('forwarded For="[2001:db8::1]:80";Proto=wss',), "2001:db8::1", "https"),
        (("forwarded for=6.6.6.6;proto=https, for=203.0.113.7;proto=http",), "203.0.113.7", "http"),
        (("forwarded for=203.0.113.7;proto=https, for=10.0.0.9",), "203.0.113.7", "https"),
        (("forwarded for=_hidden;proto=https",), PROXY, "https"),
        (("forwarded for=203.0.113.7;proto=https, for",), PROXY, ""),
        # Most proxies write X-Forwarded-* and pass on what a client says in Forwarded.
        (("for 203.0.113.7", "forwarded for=6.6.6.6;proto=https"), "203.0.113.7", ""),
        (("proto http", "forwarded for=6.6.6.6;proto=https"), PROXY, "http"),
    ],
)
def test_client_is_who_a_trusted_proxy_says(
    fields: tuple[str, ...], address: str, scheme: str
) -> None:
    given: dict[str, list[bytes]] = {"for": [], "proto": [], "forwarded": []}
    for field in fields:
        name, _, value = field.partition(" ")
        given[name].append(value.encode())
    found = find_client(
        PROXY, TRUSTED, forwarded_for=given["for"], forwarded_proto=given["proto"],
        forwarded=given["forwarded"],
    )  # fmt: skip
    assert (found.address, found.scheme) == (address, scheme)


def test_untrusted_peer_is_the_client_itself() -> None:
    found = find_client(
        "192.0.2.1", TRUSTED, forwarded_for=[b"203.0.113.7"], forwarded_proto=[b"https"],
        forwarded=[],
    )  # fmt: skip
    assert found == ClientOrigin("192.0.2.1")


def test_forwarded_is_read_with_quotes_and_lists() -> None:
    values = [b'for="a;b,c\\"d" ; host="x:80",,', b"by=1;proto=http"]
    assert read_forwarded(values) == [
        ForwardedElement('a;b,c"d', host="x:80"), ForwardedElement("", "http"),
    ]  # fmt: skip


@pytest.mark.parametrize("value", [b"for", b'for="', b"for=a b", b"=a", b" " * 30_000 + b"@"])
def test_forwarded_that_is_malformed_says_nothing(value: bytes) -> None:
    assert read_forwarded([b"for=1.2.3.4", value]) == []


def test_networks_know_ipv4_mapped_addresses_and_unix_sockets() -> None:
    assert "::ffff:10.0.0.9" in TRUSTED
    assert "unix" in TRUSTED
    assert "unix" not in Networks.parse(["0.0.0.0/0"])
    assert "nonsense" not in TRUSTED
    assert not Networks()
