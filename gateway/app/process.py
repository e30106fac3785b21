"""Set up a process before its event loop runs, and clean up after it: signals, descriptors,
threads.

Imports nothing that takes long: signals and descriptors are seen to first.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

Result = TypeVar("Result")

EXIT_WAIT_S = 2.0
"""How long threads that are still at work may take at the end."""

_LARGE_BYTES = 4 * 1024 * 1024
"""More than the buffers of sockets and responses have, less than a hash of argon2 takes."""
_M_MMAP_THRESHOLD = -3
"""Of `mallopt` in glibc."""

_stops: list[int] = []
_is_own = False
"""Whether the process is the gateway's, and not one that it is embedded in."""
_kept = 0
"""Blocks of memory in use when the garbage collector last looked at all."""
_has_kept_later = False
"""Whether the collector passes over what was made since: some of it may be garbage by now."""
_FEW = 20_000
"""Objects that the collector looks at within a turn of the loop that delays no request."""
_GROWTH = 1.25


def prepare_process() -> None:
    """Have no signal lost, and no standard descriptor closed, from here on.

    A signal to stop is kept until `stop_requested` is called for it: as PID 1, a process without
    a handler does not get it at all. SIGHUP and SIGUSR1, which mean something to a running
    gateway, would end one that starts. Nothing is collected until `keep_what_is_made`: what is
    imported and built at the start stays.
    """
    gc.disable()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda caught, frame: _stops.append(caught))
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    open_standard_descriptors()


def keep_what_is_made() -> None:
    """Have the garbage collector run, and pass over all that was made while it was off.

    In later calls only where that is much: requests and connections are among it, too, and cycles
    of them that are garbage later would stay until `collect_what_was_kept` finds them.
    """
    global _kept, _is_own, _has_kept_later  # noqa: PLW0603 - as the collector, of the process
    if gc.isenabled():
        return
    _is_own = True
    if not _kept:
        gc.freeze()
        _kept = sys.getallocatedblocks()  # `get_freeze_count` looks at each object
    elif gc.get_count()[0] > _FEW:
        gc.freeze()
        _has_kept_later = True
    gc.enable()


def collect_what_was_kept() -> None:
    """Collect cycles among what the garbage collector passes over, where something was added to it
    and a quarter more is in use than when this was last done. Looks at every object: for the
    beginning of a reload, when one configuration is in use and not two."""
    global _kept, _has_kept_later
    if _has_kept_later and sys.getallocatedblocks() > _GROWTH * _kept:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        _kept, _has_kept_later = sys.getallocatedblocks(), False


def is_own_process() -> bool:
    """Return whether the garbage collector of this process passes over what the gateway made."""
    return _is_own


def return_large_blocks() -> None:
    """Have glibc return large blocks to the system as soon as they are freed.

    By itself it keeps them after the first of a size: each process would hold the 19 MiB of a
    hash of a secret for good. Other C libraries return them.
    """
    import ctypes  # noqa: PLC0415 - commands need it not

    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def stop_requested() -> bool:
    """Return whether a signal to stop came before the event loop took signals over."""
    return bool(_stops)


def open_standard_descriptors() -> None:
    """Open /dev/null as 0, 1 and 2 where they are closed: the next file that is opened would
    become standard output, and libuv aborts where it has to close one of them."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


async def let_threads_go(work: Coroutine[Any, Any, Result]) -> Result:
    """Do `work` on a loop that does not wait for its threads when it is closed."""
    import asyncio  # noqa: PLC0415 - see above
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(thread_name_prefix="gateway")
    loop.set_default_executor(executor)
    try:
        return await work
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        loop.set_default_executor(ThreadPoolExecutor(1))


def leave(status: int) -> int:
    """Return the exit status, or end the process by it, whatever threads are at work that would
    be waited for: one that reads from a pipe or a dead network file system never ends."""
    deadline = time.monotonic() + EXIT_WAIT_S
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
    if any(
        thread.is_alive() and not thread.daemon and thread is not threading.main_thread()
        for thread in threading.enumerate()
    ):
        _exit_now(status)
    return status


def _exit_now(status: int) -> NoReturn:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)
