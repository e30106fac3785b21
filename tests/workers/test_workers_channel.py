"""Frames between two processes, here between two ends in one."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest
from support.deadlines import until, within

from gateway.oauth.limiter import FailingClient
from gateway.oauth.models import Change, ClientChange, TokenChange
from gateway.rate_limit import Demand, Quota, RateLimit
from gateway.workers import channel as channel_module
from gateway.workers.channel import Channel
from gateway.workers.messages import (
    Acquire,
    Adopt,
    ClientFailed,
    ClientSucceeded,
    Collect,
    Drain,
    Failed,
    Granted,
    Message,
    MetricFamily,
    Ready,
    Release,
    Revoked,
    Snapshot,
    Start,
    Stop,
)

FAMILY = MetricFamily(
    "requests", "counter", "Requests.", [("requests_total", {"code": "200"}, 3.0)]
)


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    channel = await Channel.open(ours)
    yield channel, theirs
    theirs.close()
    await channel.close()


@pytest.mark.parametrize(
    "message",
    [
        Start("1.2", b"\x80config", [FailingClient("shop", "192.0.2.1", 3, 12.5)]),
        Ready(), Failed("why"), Collect(7), Snapshot([FAMILY], 7), Adopt(2), Release(2),
        Drain(25.0), Stop(), Revoked(client_id="shop"), Revoked(digest=bytes(32)),
        ClientFailed("shop", "192.0.2.1"), ClientSucceeded("shop", "192.0.2.1"),
        Acquire(7, [Demand("client:shop", "api", RateLimit(5, 1.0, 10))]),
        Granted(7, Quota(False, 10, 0, 2, 1)),
    ],
    ids=lambda message: type(message).__name__,
)  # fmt: skip
async def test_message_arrives_as_it_was_sent(
    ends: tuple[Channel, socket.socket], message: Message
) -> None:
    channel, theirs = ends
    other = await Channel.open(theirs.dup())
    channel.send(message)
    channel.send(Stop())
    assert await other.receive() == message
    assert await other.receive() == Stop()
    await other.close()


async def test_message_larger_than_any_buffer_arrives_in_pieces(
    ends: tuple[Channel, socket.socket],
) -> None:
    channel, theirs = ends
    other = await Channel.open(theirs.dup())
    large = Failed("x" * 5_000_000)
    channel.send(large)
    assert await other.receive() == large
    await other.close()


async def test_end_of_the_other_process_is_the_end(ends: tuple[Channel, socket.socket]) -> None:
    channel, theirs = ends
    theirs.send(b"\0\0\0\5half")
    theirs.close()
    assert await channel.receive() is None
    channel.send(Stop())  # to nobody, and no error


@pytest.mark.parametrize("frame", [b"\xc1", b"\x80", b"\x81\xa4type\xa4none"])
async def test_nonsense_is_the_end_too(
    ends: tuple[Channel, socket.socket], frame: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    channel, theirs = ends
    theirs.send(len(frame).to_bytes(4, "big") + frame)
    assert await channel.receive() is None
    assert "can't be read" in caplog.text


async def test_what_a_stuck_process_does_not_take_is_lost_and_bounded(
    ends: tuple[Channel, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "MAX_PENDING_BYTES", 100_000)
    monkeypatch.setattr(channel_module, "CLOSE_S", 0.05)
    channel, _ = ends
    for _ in range(1000):
        channel.send(Failed("x" * 10_000))
    transport = channel._writer.transport
    assert 100_000 < transport.get_write_buffer_size() < 120_000
    async with within():
        await channel.close()
    await until(transport.is_closing)


@pytest.mark.parametrize("change", [ClientChange("shop"), TokenChange(bytes(32))])
def test_revocation_is_reported_as_it_is(change: Change) -> None:
    assert Revoked.of(change).change == change


def test_configuration_is_not_shown_with_the_message() -> None:
    assert "secret" not in repr(Start("1", b"secret", []))


async def test_message_that_can_not_be_written_is_lost_and_logged_once(
    ends: tuple[Channel, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    channel, theirs = ends
    other = await Channel.open(theirs)
    for _ in range(3):
        channel.send(ClientFailed("lone surrogate \ud800", "192.0.2.1"))
    channel.send(Ready())
    async with within():
        assert await other.receive() == Ready()
    assert len(caplog.records) == 1
    await other.close()
