"""Distinguished names of certificates as text (RFC 4514), and their comparison.

Values are compared as RFC 4517 section 4.2.11 has it for the strings of certificates: without
regard to ASCII case and to repeated or outer blanks. As section 2.1 of RFC 2253 did, blanks
around `,`, `+` and `=` are taken, and the names of attributes in any case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

_OIDS = {
    "cn": "2.5.4.3", "sn": "2.5.4.4", "surname": "2.5.4.4", "serialnumber": "2.5.4.5",
    "c": "2.5.4.6", "l": "2.5.4.7", "st": "2.5.4.8", "s": "2.5.4.8", "street": "2.5.4.9",
    "o": "2.5.4.10", "ou": "2.5.4.11", "title": "2.5.4.12", "t": "2.5.4.12",
    "businesscategory": "2.5.4.15", "postalcode": "2.5.4.17", "gn": "2.5.4.42",
    "givenname": "2.5.4.42", "initials": "2.5.4.43", "generationqualifier": "2.5.4.44",
    "dnqualifier": "2.5.4.46", "pseudonym": "2.5.4.65", "organizationidentifier": "2.5.4.97",
    "uid": "0.9.2342.19200300.100.1.1", "userid": "0.9.2342.19200300.100.1.1",
    "dc": "0.9.2342.19200300.100.1.25", "e": "1.2.840.113549.1.9.1",
    "emailaddress": "1.2.840.113549.1.9.1", "email": "1.2.840.113549.1.9.1",
}  # fmt: skip
_ATTRIBUTE = re.compile(
    r"\s*(?:OID\.)?([A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)+)\s*=\s*", re.ASCII
)
_SPECIAL = frozenset(',+"\\<>;')
_ENCODINGS = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1E: "utf-16-be"}
"""By the tag of the ASN.1 string."""

Name = tuple[frozenset[tuple[str, str]], ...]
"""The relative names in the order of the text, the most specific first; each a set of pairs of
object identifier and value."""


def parse_name(text: str) -> Name:
    """Parse a name. Raises `ValueError` for what is none, and for attributes that are not known by
    name, which can be given by their number."""
    names: list[frozenset[tuple[str, str]]] = []
    pairs: set[tuple[str, str]] = set()
    for oid, value, separator in _read_attributes(text):
        pairs.add((oid, _fold(value)))
        if separator != "+":
            names.append(frozenset(pairs))
            pairs = set()
    return tuple(names)


def name_of(subject: x509.Name) -> Name:
    """The name in a certificate."""
    return tuple(
        frozenset((one.oid.dotted_string, _fold(_as_text(one.value))) for one in rdn)
        for rdn in reversed(subject.rdns)
    )


def _read_attributes(text: str) -> Iterator[tuple[str, str, str]]:
    at = 0
    while True:
        match = _ATTRIBUTE.match(text, at)
        if match is None:
            raise ValueError("expected ATTRIBUTE=VALUE, separated by commas (RFC 4514)")
        kind = match[1]
        oid = kind if kind[0].isdigit() else _OIDS.get(kind.lower())
        if oid is None:
            raise ValueError(f"{kind!r} is no known attribute; its object identifier would do")
        value, at = _read_value(text, match.end())
        separator = text[at : at + 1]
        yield oid, value, separator
        if not separator:
            return
        at += 1


def _read_value(text: str, at: int) -> tuple[str, int]:
    """A value and where it ends: at a separator, or the end of the text."""
    if text[at : at + 1] == "#":
        end = next((n for n in range(at, len(text)) if text[n] in ",+"), len(text))
        return _decode_ber(bytes.fromhex(text[at + 1 : end])), end
    encoded, kept = bytearray(), 0
    while at < len(text) and text[at] not in ",+":
        if text[at] == "\\":
            piece, at = _read_escape(text, at + 1)
            encoded += piece
            kept = len(encoded)  # an escaped blank at the end counts
            continue
        if text[at] in _SPECIAL:
            raise ValueError(f"{text[at]!r} must be escaped")
        encoded += text[at].encode()
        kept = len(encoded) if text[at] != " " else kept
        at += 1
    if not kept:
        raise ValueError("an attribute has no value")
    return encoded[:kept].decode(), at


def _read_escape(text: str, at: int) -> tuple[bytes, int]:
    pair = text[at : at + 2]
    if re.fullmatch("[0-9A-Fa-f]{2}", pair, re.ASCII):
        return bytes.fromhex(pair), at + 2
    if pair[:1] and (pair[0] in _SPECIAL or pair[0] in " #="):
        return pair[0].encode(), at + 1
    raise ValueError("a backslash escapes a special character or two hexadecimal digits")


def _decode_ber(encoded: bytes) -> str:
    if len(encoded) < 2 or encoded[0] not in _ENCODINGS or encoded[1] != len(encoded) - 2:
        raise ValueError("expected an ASN.1 string of up to 127 bytes after `#`")
    return encoded[2:].decode(_ENCODINGS[encoded[0]])


def _as_text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _fold(value: str) -> str:
    single = re.sub(" +", " ", value.strip(" "))
    return "".join(char.lower() if char.isascii() else char for char in single)
