"""One worker process, as the supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from asyncio.subprocess import DEVNULL
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from gateway.workers.channel import Channel
from gateway.workers.messages import Message, Start

EXIT_S = 5.0
"""How long a process may take to exit once its channel is closed."""


class Process(Protocol):
    """A process that was executed, or forked."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def kill(self) -> None:
        """End it now. Raises `ProcessLookupError`."""

    async def wait(self) -> int:
        """Wait until it has ended, and return its exit status."""


Launch = Callable[[int, socket.socket], Awaitable[Process]]
"""Starts worker N with its end of the channel. Raises `OSError`."""
Command = Callable[[int, int], Sequence[str]]
"""The command line of worker N with its end of the channel at this descriptor."""


def execute(command: Command, inherited: Sequence[int]) -> Launch:
    """Start workers as any program is started, with these descriptors open."""

    async def launch(number: int, channel: socket.socket) -> Process:
        return await asyncio.create_subprocess_exec(
            *command(number, channel.fileno()),
            stdin=DEVNULL,
            pass_fds=(channel.fileno(), *inherited),
            # Ctrl-C on a terminal is for the supervisor to understand.
            start_new_session=True,
        )

    return launch


class WorkerProcess:
    """A process and the way to it."""

    def __init__(
        self, number: int, process: Process, channel: Channel, generation: int = 0
    ) -> None:
        self.number = number
        self.generation = generation
        """Of the configuration that it serves by."""
        self.config_result: asyncio.Future[str] | None = None
        """Who waits for its word about a configuration."""
        self.is_ready = False
        self.failure = ""
        """Why it could not start, in its own words."""
        self.silence = 0
        """How many checks in a row found no message from it."""
        self.responses: dict[int, asyncio.Future[None]] = {}
        """Who waits for which snapshot."""
        self._process = process
        self._channel = channel

    @classmethod
    async def spawn(cls, number: int, launch: Launch, start: Start) -> WorkerProcess:
        """Start a process, and make it start.

        Raises `OSError`.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await launch(number, theirs)
            channel = await Channel.open(ours)
        except BaseException:
            ours.close()
            raise
        channel.send(start)
        return cls(number, process, channel, start.generation)

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.number}, pid {self.pid}>"

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def send(self, message: Message) -> None:
        """Send a message; lost where the process is gone or stuck."""
        self._channel.send(message)

    async def receive(self) -> Message | None:
        """The next message; None at the end of the process."""
        message = await self._channel.receive()
        self.silence = 0
        return message

    def kill(self) -> None:
        """End the process at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self) -> str:
        """How the process ended, once nothing more can come from it."""
        await self._channel.close()
        try:
            async with asyncio.timeout(EXIT_S):
                status = await self._process.wait()
        except TimeoutError:
            self.kill()
            status = await self._process.wait()
        if self.config_result is not None and not self.config_result.done():
            self.config_result.set_result(f"worker {self.number} ended")
        for response in self.responses.values():
            if not response.done():
                response.set_result(None)
        if status < 0:
            how = f"was killed by signal {-status} ({signal.strsignal(-status)})"
        else:
            how = f"ended with status {status}"
        return f"worker {self.number} {how}"
