"""An upstream in a thread, for tests whose gateway and clients are processes and threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from support.deadlines import scaled
from support.servers.raw_upstream import RawUpstream, Script


@contextmanager
def thread_upstream(script: Script | None = None) -> Iterator[RawUpstream]:
    """A `RawUpstream` on an event loop of its own."""
    upstream = RawUpstream(script=script)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(upstream.start(), loop).result(scaled())
    try:
        yield upstream
    finally:
        asyncio.run_coroutine_threadsafe(upstream.stop(), loop).result(scaled())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
