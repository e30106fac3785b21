"""News of changes, pushed by Redis over a connection of their own (pub/sub).

What is pushed is only that there is something to read; what it is stands in the log of
changes. So news that come twice, late or not at all do no harm by themselves: whoever
follows the log reads it at times anyway.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

from redis.exceptions import RedisError

from gateway.oauth.models import StoreUnavailableError
from gateway.store.redis.link import Connection, RedisLink, heed_cancellation

SILENCE_S = 1.0
"""After this without a word, the server is asked whether it is still there."""
RECONNECT_S = 0.25
"""About this long after a connection was lost, another one is tried."""


async def watch(
    link: RedisLink, channel: str, on_change: Callable[[], None], on_gap: Callable[[], None]
) -> None:
    """Call `on_change` for each message, and `on_gap` whenever the connection is there again
    after it was lost. Runs until it is cancelled."""
    was_subscribed = False
    while True:
        try:
            async for is_message in _messages(link, channel):
                if is_message:
                    on_change()
                elif was_subscribed:
                    on_gap()
                was_subscribed = True
        except StoreUnavailableError:
            heed_cancellation()
            # Not all at once: everybody has lost it at the same moment.
            pause_s = RECONNECT_S * (0.5 + random.random())  # noqa: S311
            await asyncio.sleep(pause_s)


async def _messages(link: RedisLink, channel: str) -> AsyncIterator[bool]:
    """False once the subscription holds, then True for each message.

    Raises `StoreUnavailableError` once it is lost.
    """
    connection = await link.get_ready()
    pubsub = connection.pubsub()
    try:
        async with asyncio.timeout(link.timeout_s):
            await pubsub.subscribe(channel)
        while True:
            message = await _next_message(pubsub)
            heed_cancellation()
            if message is None:
                # A connection into nowhere looks like one on which nothing happens.
                async with asyncio.timeout(link.timeout_s):
                    await pubsub.ping()
                message = await _next_message(pubsub)
                if message is None:
                    raise TimeoutError
            if message["type"] in {"subscribe", "message"}:
                yield message["type"] == "message"
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailableError(f"Redis: {error or 'the connection is dead'}") from None
    finally:
        await pubsub.aclose()


async def _next_message(pubsub: Connection) -> dict[str, str] | None:
    message: dict[str, str] | None = await pubsub.get_message(timeout=SILENCE_S)
    return message
