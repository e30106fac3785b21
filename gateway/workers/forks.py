"""A process that forks workers: they share the memory of all that is imported, and import nothing.

    supervisor ── fork, before it has threads or a loop ──► fork server ── fork ──► workers
        ├───── a worker's request and descriptors ──────────────►│
        │◄──── its process id; later, its exit status ───────────┤

The fork server has one thread, no event loop, no connection to the store, and no TLS of its own:
nothing that a fork would break. It ends with its supervisor. Where it is gone, or there is none,
workers are started as any program is (`gateway.workers.process.execute`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

Work = Callable[[bytes, list[int]], int]
"""What a worker does, given the request for it and its descriptors: its exit status."""

MAX_MESSAGE_BYTES = 64 * 1024
MAX_DESCRIPTORS = 200
"""In a message; the kernel takes 253 (unix(7))."""
MORE = b"+"
"""A message with descriptors of a request that is not complete."""
ORPHAN_LOOK_S = 0.05

_log = logging.getLogger(__name__)


class ForkedProcess:
    """A worker that the fork server made."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Its exit status; negative for the signal that ended it."""

    def kill(self) -> None:
        """End it now. Raises `ProcessLookupError`."""
        if not self.ended.done():
            os.kill(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Wait until it has ended, and return its exit status."""
        return await asyncio.shield(self.ended)

    async def watch(self) -> None:
        """Wait for it without a parent, which alone would learn its exit status."""
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(self.pid, 0)
                await asyncio.sleep(ORPHAN_LOOK_S)
        self.ended.set_result(0)


class ForkServer:
    """The supervisor's end."""

    def __init__(self, control: socket.socket, pid: int) -> None:
        self.pid = pid
        self._control = control
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending: deque[asyncio.Future[ForkedProcess]] = deque()
        self._processes: dict[int, ForkedProcess] = {}
        self._watching: list[asyncio.Task[None]] = []
        self._is_lost = False

    @classmethod
    def start(cls, work: Work, *, prepare: Callable[[], None]) -> ForkServer | None:
        """Fork the server, which calls `prepare` first; None where this process has threads,
        which a fork would lose."""
        if threading.active_count() > 1 or not hasattr(socket, "send_fds"):
            return None
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:  # macOS has no such sockets
            return None
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        # What the collector does not look at stays shared.
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _serve(theirs, work, prepare)
        theirs.close()
        ours.setblocking(False)
        return cls(ours, pid)

    async def launch(self, request: bytes, descriptors: Sequence[int]) -> ForkedProcess:
        """Fork a worker with copies of these descriptors. Raises `OSError`."""
        if self._is_lost:
            raise OSError("the fork server has ended")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._control.fileno(), self._receive)
        launched: asyncio.Future[ForkedProcess] = self._loop.create_future()
        rest = list(descriptors)
        try:
            while len(rest) > MAX_DESCRIPTORS:
                socket.send_fds(self._control, [MORE], rest[:MAX_DESCRIPTORS])
                rest = rest[MAX_DESCRIPTORS:]
            socket.send_fds(self._control, [request], rest)
        except OSError:
            self._lose()
            raise
        self._pending.append(launched)
        return await launched

    def close(self) -> None:
        """Let the server end; its workers have ended, or will see that their supervisor did."""
        if self._loop is not None and not self._is_lost:
            self._loop.remove_reader(self._control.fileno())
        self._control.close()
        for task in self._watching:
            task.cancel()

    def _receive(self) -> None:
        try:
            data = self._control.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        message = json.loads(data)
        if "ended" in message:
            process = self._processes.pop(message["ended"])
            process.ended.set_result(message["status"])
            return
        launched = self._pending.popleft()
        if "error" in message:
            if not launched.done():
                launched.set_exception(OSError(message["error"], os.strerror(message["error"])))
            return
        process = self._processes[message["pid"]] = ForkedProcess(message["pid"])
        if launched.done():  # its caller was cancelled, and its channel is closed
            return
        launched.set_result(process)

    def _lose(self) -> None:
        """The server has ended, for whatever reason; its workers go on."""
        assert self._loop is not None
        self._is_lost = True
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        _log.error("the fork server (pid %d) has ended; workers go on without it", self.pid)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        while self._pending:
            launched = self._pending.popleft()
            if not launched.done():
                launched.set_exception(OSError("the fork server has ended"))
        for process in self._processes.values():
            self._watching.append(self._loop.create_task(process.watch()))
        self._processes = {}


def _serve(control: socket.socket, work: Work, prepare: Callable[[], None]) -> NoReturn:
    """Fork a worker for each request, until the supervisor is gone."""
    try:
        prepare()
        os.setsid()  # Ctrl-C on a terminal is for the supervisor to understand
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.close(null)
        set_title("gateway.app.forks")
        _take_requests(control, work)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _take_requests(control: socket.socket, work: Work) -> None:
    woken, wake = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    descriptors: list[int] = []
    while True:
        for key, _ in selector.select():
            if key.fileobj is woken:
                woken.recv(MAX_MESSAGE_BYTES)
                for ended, status in _reap():
                    _send(control, {"ended": ended, "status": status})
                continue
            request, received, _, _ = socket.recv_fds(control, MAX_MESSAGE_BYTES, MAX_DESCRIPTORS)
            if not request:
                return
            descriptors += received
            if request == MORE:
                continue
            try:
                pid = os.fork()
            except OSError as error:
                _send(control, {"error": error.errno or errno.EAGAIN})
            else:
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for opened in (selector, control, woken, wake):
                        opened.close()
                    _work(work, request, descriptors)
                _send(control, {"pid": pid})
            for descriptor in descriptors:
                os.close(descriptor)
            descriptors = []


def _work(work: Work, request: bytes, descriptors: list[int]) -> NoReturn:
    """Be the worker."""
    status = 1
    try:
        os.setsid()
        status = work(request, descriptors)
    except BaseException:
        traceback.print_exc()
    finally:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(status)


def _reap() -> Iterable[tuple[int, int]]:
    """Each child that has ended, with its exit status."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            yield ended[0], os.waitstatus_to_exitcode(ended[1])


def _send(control: socket.socket, message: dict[str, int]) -> None:
    with contextlib.suppress(OSError):  # the supervisor is gone, which is seen next
        control.send(json.dumps(message).encode())


def set_title(*arguments: str) -> None:
    """Show these arguments as the command line of this process, in place of those of the process
    that it was forked from; as far as they have room, and on Linux only."""
    title = "".join(f"{argument}\0" for argument in arguments).encode()
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        begin, end = int(fields[45]), int(fields[46])  # arg_start, arg_end (proc(5))
        if 0 < len(title) <= end - begin:
            with open("/proc/self/mem", "r+b", buffering=0) as memory:
                memory.seek(begin)
                memory.write(title.ljust(end - begin, b"\0"))
