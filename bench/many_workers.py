"""What workers cost that wait: `python -m bench.many_workers 1 2 16 64`.

For each number of workers a gateway is started and left idle: CPU until it is ready, memory of
all its processes, CPU of the supervisor, and what a scrape of all their metrics costs it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from bench.cores import TICKS_PER_SECOND
from bench.processes import Launch, Server, get
from bench.usage import cpu_seconds, memory

PORT, ADMIN_PORT = 18099, 18098
IDLE_S = 8.0
SCRAPES = 20
CONFIG = """
listen: {{host: 127.0.0.1, port: {port}}}
admin: {{host: 127.0.0.1, port: {admin}}}
workers: {workers}
shutdown: {{delay: 0, grace: 1s}}
access_log: {{path: {directory}/access.log}}
store: sqlite:///{directory}/gateway.db
provider: {{registration: {{mode: off}}}}
routes: [{{name: a, match: {{path: /}}, auth: none, respond: {{status: 200, body: a}}}}]
"""


def measure(workers: int, directory: Path) -> None:
    """Print the figures of one gateway."""
    config = directory / "gateway.yaml"
    config.write_text(
        CONFIG.format(port=PORT, admin=ADMIN_PORT, workers=workers, directory=directory)
    )
    launch = Launch(
        (sys.executable, "-m", "gateway", "run", "-c", str(config)), ADMIN_PORT, "/readyz", 200
    )
    with Server("gateway", launch, (0, 1), directory) as server:
        server.wait_until_ready()
        start_s = cpu_seconds(server.pid)
        before_s = own_seconds(server.pid)
        time.sleep(IDLE_S)
        idle = (own_seconds(server.pid) - before_s) / IDLE_S
        held = memory(server.pid)
        before_s = own_seconds(server.pid)
        for _ in range(SCRAPES):
            get(ADMIN_PORT, "/metrics")
        scrape_s = (own_seconds(server.pid) - before_s) / SCRAPES
    print(
        f"{workers} workers: start {start_s:.2f} s of CPU, {held.mib:.0f} MiB {held.kind}, "
        f"supervisor {idle:.1%} of a core, {scrape_s * 1e3:.1f} ms a scrape"
    )


def own_seconds(pid: int) -> float:
    """User and system time of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


if __name__ == "__main__":
    for number in map(int, sys.argv[1:] or ("1", "2")):
        with tempfile.TemporaryDirectory() as made:
            measure(number, Path(made))
