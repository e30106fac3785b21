"""Follow changes that PostgreSQL announces (LISTEN), over a connection of their own.

A notification only says that there is something to read; the content is in the change log. So those
that come twice, late or not at all do no harm by themselves: the log is read at intervals anyway.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from gateway.background import RetryPauses
from gateway.store.postgresql.errors import as_store_error
from gateway.store.postgresql.link import PostgresLink

SILENCE_S = 1.0
"""This often, the server is asked whether it is still there."""
RECONNECT_S = 0.25
"""About this long after a connection was lost, another one is tried."""
LONGEST_PAUSE_S = 5.0
"""The most between two attempts where the client library fails in an unforeseen way."""


async def watch(
    link: PostgresLink, channel: str, on_change: Callable[[], None], on_gap: Callable[[], None]
) -> None:
    """Call `on_change` for each notification, and `on_gap` whenever the connection is there again
    after it was lost. Runs until it is cancelled, whatever is raised meanwhile."""
    was_listening = False
    retries = RetryPauses(
        "changes announced by PostgreSQL",
        first_pause_s=RECONNECT_S,
        longest_pause_s=LONGEST_PAUSE_S,
    )
    while True:
        try:
            async with link.listening(channel, on_change) as connection:
                retries.succeed()
                if was_listening:
                    on_gap()
                was_listening = True
                while True:
                    await asyncio.sleep(SILENCE_S)
                    async with asyncio.timeout(link.timeout_s):
                        await connection.fetchval("SELECT 1")
        except Exception as error:
            if as_store_error(error) is None:
                pause_s = retries.fail(error)
            else:
                # Not all at once: all processes have lost it at the same moment.
                pause_s = RECONNECT_S * (0.5 + random.random())  # noqa: S311
        await asyncio.sleep(pause_s)
