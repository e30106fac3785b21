"""Heads of HTTP/2, whatever the engine lets through: one request, also to readers of HTTP/1."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import settings
from support.running_gateway import make_config

from gateway.app.build import listeners
from gateway.app.build.checks import find_unusable_files
from gateway.app.build.listeners import http2_settings
from gateway.config import load
from gateway.downstream.h2_head import RequestReader, response_fields, trailer_fields
from gateway.downstream.request import Peer
from gateway.http import h2
from gateway.http.request_head import read_request_head
from gateway.http.response_head import make_response_head

PSEUDO = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"h"), (b":path", b"/a")]
TEXT = st.binary(max_size=12) | st.sampled_from(
    [b"a\r\nX-Client-Id: admin", b"a\nb", b"\r\n\r\nGET / HTTP/1.1", b"chunked", b"close", b"0"]
)
NAMES = TEXT | st.sampled_from(
    [b"cookie", b"host", b"content-length", b"transfer-encoding", b"connection", b"te", b"x-own",
     b"Host", b"x-client-id", b":path", b"expect"]
)  # fmt: skip


def reader() -> RequestReader:
    return RequestReader(Peer("192.0.2.1"), settings.CLIENT_LIMITS)


@given(st.lists(st.tuples(NAMES, TEXT), max_size=6), st.booleans())
def test_fields_become_one_head_or_an_error(fields: list[tuple[bytes, bytes]], ends: bool) -> None:
    request = reader().read([*PSEUDO, *fields], ends=ends)
    if request.error is not None:
        return
    raw = request.raw_headers
    cookies = sum(name == b"cookie" for name, _ in fields)
    hosts = sum(name == b"host" for name, _ in fields)
    assert len(raw) == len(fields) - max(cookies - 1, 0) + (1 - hosts)
    assert not any(b"\r" in part or b"\n" in part for field in raw for part in field)
    assert request.host.lower() == b"h"
    names = {name.lower() for name, _ in raw}
    assert not names & {b"transfer-encoding", b"connection", b"upgrade", b"keep-alive"}
    # What passes is, line by line, a head of HTTP/1 that says the same.
    block = b"\r\n".join(b"%b: %b" % field for field in raw)
    again = read_request_head(block, max_fields=100)
    assert again.lines == request.head.lines
    assert again.length == request.head.length
    if ends:
        assert not request.head.has_body
    else:
        assert request.head.is_chunked == (b"content-length" not in names)


@given(st.lists(st.tuples(st.sampled_from([one for one, _ in PSEUDO]) | TEXT, TEXT), max_size=8))
def test_no_fields_at_all_are_too_odd_to_read(fields: list[tuple[bytes, bytes]]) -> None:
    request = reader().read(fields, ends=True)
    assert request.error is None or request.error.status in {400, 417, 431, 501}


def test_a_head_that_comes_again_is_the_same_one() -> None:
    own = reader()
    first = own.read(PSEUDO, ends=True)
    assert own.read(PSEUDO, ends=True).head is first.head
    # Not where it has a body this time.
    assert own.read(PSEUDO, ends=False).head.is_chunked
    assert not own.read(PSEUDO, ends=True).head.is_chunked


def test_fields_of_a_connection_are_in_no_response() -> None:
    head = make_response_head(200, (("Connection", "close"), ("X-A", "1")), length=0)
    names = [name for name, _ in response_fields(head, b"id")]
    assert names == [b":status", b"date", b"x-a", b"content-length", b"x-request-id"]


def test_trailers_hold_nothing_of_routing_and_framing() -> None:
    fields = [(b":path", b"/"), (b"Content-Length", b"1"), (b"host", b"h"), (b"grpc-status", b"0")]
    assert trailer_fields(fields) == ((b"grpc-status", b"0"),)


@pytest.mark.parametrize(("enabled", "is_on"), [("auto", True), ("true", True), ("false", False)])
def test_with_the_extra(tmp_path: Path, enabled: str, *, is_on: bool) -> None:
    loaded = load(configured(tmp_path, enabled))
    assert (http2_settings(loaded.config) is not None) == is_on
    assert find_unusable_files(loaded) == []


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (h2, listeners):
        monkeypatch.setattr(module, "is_available", lambda: False)
    assert http2_settings(load(configured(tmp_path, "auto")).config) is None
    problems = find_unusable_files(load(configured(tmp_path, "true")))
    assert ["listen.http2.enabled" in str(problem) for problem in problems] == [True]


def configured(directory: Path, enabled: str) -> Path:
    """The file of a configuration."""
    value = {"auto": "auto", "true": True, "false": False}[enabled]
    file = directory / "gateway.yaml"
    file.write_text(make_config(directory, listen={"http2": {"enabled": value}}))
    return file
