"""Follow changes that Redis pushes over a connection of their own (pub/sub).

A message only says that there is something to read; the content is in the change log. So
messages that come twice, late or not at all do no harm by themselves: who follows the log
reads it at intervals anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable

from gateway.background import RetryPauses
from gateway.oauth.models import StoreUnavailableError
from gateway.store.link import Connection
from gateway.store.redis.errors import as_store_error, is_foreseen
from gateway.store.redis.link import RedisLink, heed_cancellation

SILENCE_S = 1.0
"""After this without a word, the server is asked whether it is still there."""
RECONNECT_S = 0.25
"""About this long after a connection was lost, another one is tried."""
LONGEST_PAUSE_S = 5.0
"""The most between two attempts where the client library fails in an unforeseen way."""


async def watch(
    link: RedisLink, channel: str, on_change: Callable[[], None], on_gap: Callable[[], None]
) -> None:
    """Call `on_change` for each message, and `on_gap` whenever the connection is there again
    after it was lost. Runs until it is cancelled, whatever is raised meanwhile."""
    was_subscribed = False
    retries = RetryPauses(
        "changes pushed by Redis", first_pause_s=RECONNECT_S, longest_pause_s=LONGEST_PAUSE_S
    )
    while True:
        try:
            async for is_message in _messages(link, channel):
                if is_message:
                    on_change()
                else:
                    retries.succeed()
                    if was_subscribed:
                        on_gap()
                was_subscribed = True
        except StoreUnavailableError:
            heed_cancellation()
            # Not all at once: all processes have lost it at the same moment.
            pause_s = RECONNECT_S * (0.5 + random.random())  # noqa: S311
        except Exception as error:
            heed_cancellation()
            pause_s = retries.fail(error)
        await asyncio.sleep(pause_s)


async def _messages(link: RedisLink, channel: str) -> AsyncIterator[bool]:
    """False once the subscription holds, then True for each message.

    Raises `StoreUnavailableError` once it is lost.
    """
    connection = await link.get_ready()
    pubsub: Connection = None
    try:
        pubsub = connection.pubsub()
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
    except Exception as error:
        failure = as_store_error(error)
        if failure is None or not is_foreseen(error):
            raise
        raise failure from None
    finally:
        if pubsub is not None:
            with contextlib.suppress(Exception):
                await pubsub.aclose()


async def _next_message(pubsub: Connection) -> dict[str, str] | None:
    message: dict[str, str] | None = await pubsub.get_message(timeout=SILENCE_S)
    return message
