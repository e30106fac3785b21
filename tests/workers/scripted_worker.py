"""A worker process that does what its configuration says: `python scripted_worker.py N FD`.

It tells what it was told by metrics of its own, so that tests can see it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

from gateway.workers.channel import Channel
from gateway.workers.messages import (
    Collect,
    Drain,
    Failed,
    Message,
    MetricFamily,
    Ready,
    Snapshot,
    Start,
    Stop,
)


async def main(number: int, descriptor: int) -> int:
    channel = await Channel.open(socket.socket(fileno=descriptor))
    start = await channel.receive()
    assert isinstance(start, Start)
    script = start.config.decode()
    if script == "fail":
        channel.send(Failed("the certificate is missing"))
        await channel.close()
        return 1
    if script == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if script == "babble":
        os.write(descriptor, b"\0\0\0\1\xc1")
    channel.send(Ready())
    received: list[Message] = []
    while (message := await channel.receive()) is not None:
        if isinstance(message, Collect):
            if script != "sulk":
                channel.send(Snapshot(report(received), message.number))
        elif isinstance(message, Drain | Stop) and script != "stubborn":
            break
        else:
            received.append(message)
    await channel.close()
    return 0


def report(received: list[Message]) -> list[MetricFamily]:
    samples = [("heard_total", {"message": repr(message)}, 1.0) for message in received]
    return [
        MetricFamily("heard", "counter", "What was heard.", [*samples, ("heard_total", {}, 1.0)])
    ]


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]))))
