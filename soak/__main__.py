"""Runs a gateway under mixed traffic, reloads, revocations and faults, and prints the account.

    python -m soak                      # ten minutes
    python -m soak --seconds 3600 --workers 2 --store redis://127.0.0.1:6379/0

Ends with 1 where a response was wrong, a request was lost that no fault excuses, a request was
sent twice that may not be, or connections, descriptors or tasks leaked.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from soak.run import Plan, soak


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser("python -m soak", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--h2-callers", type=int, default=8, help="which speak HTTP/2")
    parser.add_argument("--grpc-callers", type=int, default=8)
    parser.add_argument("--socket-callers", type=int, default=4, help="which speak WebSocket")
    parser.add_argument("--pace-ms", type=float, default=10, help="between a caller's requests")
    parser.add_argument("--store", help="a store URL; a SQLite file of its own where not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        plan = Plan(
            directory=Path(name),
            seconds=options.seconds,
            workers=options.workers,
            callers=options.callers,
            h2_callers=options.h2_callers,
            grpc_callers=options.grpc_callers,
            socket_callers=options.socket_callers,
            pace_s=options.pace_ms / 1000,
            store=options.store or f"sqlite:///{name}/gateway.db",
        )
        report = asyncio.run(soak(plan, show=lambda line: print(line, flush=True)))
    print(report)
    return int(bool(report.faults))


if __name__ == "__main__":
    sys.exit(main())
