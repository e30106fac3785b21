"""The format of API keys, and that they are no tokens."""

from __future__ import annotations

import re
import zlib

from gateway.oauth.api_keys import PATTERN, has_checksum, is_api_key, make_api_key

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_key_has_a_prefix_256_random_bits_and_a_checksum_as_github_has_it() -> None:
    key = make_api_key()
    assert re.fullmatch(PATTERN, key)
    body, checksum = key[4:47], key[47:]
    value = 0
    for digit in checksum:
        value = value * 62 + ALPHABET.index(digit)
    assert value == zlib.crc32(body.encode())
    assert make_api_key() != key
    assert 62**43 > 2**256


def test_small_checksum_is_filled_up_with_zeros() -> None:
    key = make_api_key(lambda alphabet: "0")
    assert is_api_key(key)
    assert has_checksum(key)


def test_mistyped_key_is_known_by_its_checksum() -> None:
    key = make_api_key()
    for at in range(4, len(key)):
        wrong = "x" if key[at] != "x" else "y"
        assert not has_checksum(f"{key[:at]}{wrong}{key[at + 1 :]}")


def test_text_in_another_format_is_no_key() -> None:
    key = make_api_key()
    for text in (
        key[:-1],
        f"{key}0",
        key.upper(),
        f" {key}",
        key.replace(key[10], "-"),
        "",
        "bgk_",
    ):
        assert not is_api_key(text)
