"""A process that has no file descriptor left."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def no_descriptor_left() -> Iterator[Callable[[], None]]:
    """Let this process open no file and no socket. What it gives takes those that were closed
    meanwhile, by whatever an earlier test left behind: call it while waiting."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    with contextlib.ExitStack() as taken:

        def take() -> None:
            while True:
                try:
                    descriptor = os.open(os.devnull, os.O_RDONLY)
                except OSError as error:
                    if error.errno == errno.EMFILE:
                        return
                    raise
                taken.callback(os.close, descriptor)

        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        taken.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        take()
        yield take
