"""The part of an init process, where the gateway is the first process of a container.

    PID 1: passes signals on, reaps orphans ──fork──► the gateway
      ▲                                                   │
      └──────────────── its exit status ──────────────────┘

The kernel gives the orphans of a container to PID 1, such as those of a command that was run in
it; they stay as zombies until PID 1 waits for them. A process that also waits for children of its
own, as the supervisor does for its workers, can't wait for just any child: so PID 1 does only that.

Imports nothing that takes long.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

FIRST_PROCESS = 1
SIGNALS = frozenset(
    {
        signal.SIGTERM, signal.SIGINT, signal.SIGQUIT,
        signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
    }
)  # fmt: skip
"""What is passed on; SIGKILL and SIGSTOP of its own container don't reach PID 1."""
BY_TERMINAL = 0x80
"""`SI_KERNEL`: the whole group of processes has got the signal already."""
KILLED = 128
"""Added to the number of the signal that ended a process, as shells do."""


def leave_init_behind() -> None:
    """As PID 1, go on in a child, and leave this process to reap and to pass on signals. Does
    nothing elsewhere.

    A signal that comes meanwhile is not lost: it waits until there is a child to pass it on to.
    """
    if os.getpid() != FIRST_PROCESS:
        return
    waited = SIGNALS | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if os.environ.get("LISTEN_PID") == str(FIRST_PROCESS):  # sd_listen_fds(3)
            os.environ["LISTEN_PID"] = str(os.getpid())
        return
    os._exit(_serve_as_init(child, waited))


def _serve_as_init(child: int, waited: frozenset[signal.Signals]) -> int:
    """Pass signals on until the child ends, and return its exit status."""
    while True:
        caught = signal.sigwaitinfo(waited)
        if caught.si_signo == signal.SIGCHLD:
            status = _reap(child)
            if status is not None:
                return status
        elif caught.si_code != BY_TERMINAL:
            with suppress(ProcessLookupError):
                os.kill(child, caught.si_signo)


def _reap(child: int) -> int | None:
    """Wait for all that have ended; the exit status of the child, if it is among them."""
    found = None
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            if ended[0] == child:
                code = os.waitstatus_to_exitcode(ended[1])
                found = code if code >= 0 else KILLED - code
    return found
