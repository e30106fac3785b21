"""A regression guard that is not a timing: instructions per request on the hot path.

Counted by callgrind, so the figure is the same on a busy machine: two runs that differ
only in the number of requests, and the difference between them divided by it. Prints a
line for a head that is the same as the last one, for one whose traceparent differs each time, and
for one of which everything does that differs behind a tracing mesh, as do the responses.

    python bench/instructions.py            # needs valgrind: apt-get install valgrind
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FEW, MANY = 200, 1200
KINDS = {
    "same": "head as before",
    "varying": "head never the same",
    "varied": "path, query, token, ids and response vary",
    "grpc": "unary call of gRPC, HTTP/2 on both sides, token and ids vary",
}
_TOTAL = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)
ROOT = Path(__file__).parent.parent


def count_instructions(requests: int, kind: str) -> int:
    """Instructions of a whole process that sends so many requests."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "callgrind.out"
        subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}", sys.executable,
             "-P", __file__, "--send", str(requests), kind],
            check=True, capture_output=True,
            env=os.environ | {"PYTHONHASHSEED": "0"},
        )  # fmt: skip
        total = _TOTAL.search(output.read_text())
    if total is None:
        raise RuntimeError("callgrind did not tell a total")
    return int(total[1])


def send(requests: int, kind: str) -> None:
    """Send requests through the hot path of this process."""
    sys.path.append(str(ROOT))
    from bench.hot_path import VARYING, HotPath, with_hot_path  # noqa: PLC0415 - with its path
    from bench.hot_path_h2 import GrpcPath  # noqa: PLC0415

    if kind == "grpc":
        with_hot_path(lambda path: path.run_calls(requests), logs=True, make=GrpcPath)
        return

    def work(path: HotPath) -> None:
        if kind == "varied":
            path.run_varied(requests)
        else:
            path.run(requests, extra=VARYING if kind == "varying" else b"")

    with_hot_path(work, logs=True)


def main() -> int:
    """Print the figures; returns the exit status."""
    if sys.argv[1:2] == ["--send"]:
        send(int(sys.argv[2]), sys.argv[3])
        return 0
    if shutil.which("valgrind") is None:
        print("instructions per request: skipped, needs valgrind (apt-get install valgrind)")
        return 0
    for kind, text in KINDS.items():
        difference = count_instructions(MANY, kind) - count_instructions(FEW, kind)
        print(f"instructions per request, {text}: {difference / (MANY - FEW):,.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
