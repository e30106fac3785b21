"""What `EmbeddedGateway` makes of the requests of a framework."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.addresses import LOCAL_PEER, UNKNOWN_PEER
from gateway.app.embedded import BearerRules, RejectedError
from gateway.downstream.request import Request
from gateway.testing import TemporaryGateway

HOST = (b"Host", b"a")


def read(gateway: TemporaryGateway, *fields: tuple[bytes, bytes], **how: Any) -> Request:
    given: dict[str, Any] = {"address": "192.0.2.1", "scheme": "http"} | how
    return gateway.read_request("GET", b"/a?b", fields, **given)


async def test_no_credential_outlives_the_check_of_its_request(embedded: TemporaryGateway) -> None:
    async with embedded:
        value = (await embedded.issue_token()).encode()
        request = read(embedded, HOST, (b"Authorization", b"Bearer " + value))
        assert (await embedded.check(request, BearerRules())).token is not None
        assert request.peer.bearer is None
        assert read(embedded, HOST).peer is request.peer  # it is kept


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([HOST, (b"X", b"1\r\nY: 2")], "malformed"),
        ([HOST, (b"X", b"1\n")], "malformed"),
        ([(b"Host", b"a,b")], "host"),
        ([], "host"),
    ],
)
async def test_malformed_request_is_rejected(
    embedded: TemporaryGateway, fields: list[tuple[bytes, bytes]], reason: str
) -> None:
    async with embedded:
        with pytest.raises(RejectedError) as caught:
            await embedded.check(read(embedded, *fields), BearerRules(optional=True))
        assert (caught.value.response.status, caught.value.response.reason) == (400, reason)


def test_addresses_are_those_of_the_gateway(embedded: TemporaryGateway) -> None:
    for address, expected in (
        (None, UNKNOWN_PEER),
        ("", LOCAL_PEER),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ):
        assert read(embedded, HOST, address=address).client == expected


def test_rules_take_texts_and_lists() -> None:
    assert BearerRules.of(scopes="a b") == BearerRules.of(scopes=["b", "a"])
    assert BearerRules.of(optional=True).requiring(frozenset("a")) == BearerRules.of(scopes="a")
    with pytest.raises(TypeError, match="resources"):
        BearerRules.of(resources="a")  # type: ignore[call-arg]
