"""A shell into which the lines of a document are typed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from support.deadlines import wait_until

ROOT = Path(__file__).parents[3]
PORTS = ("8080", "9090", "9001", "9002")
"""The ports that documents name."""


class Terminal:
    """A shell in a checkout, into which lines are typed."""

    def __init__(self, checkout: Path, ports: dict[str, str]) -> None:
        self._ports = ports
        self._shown: list[str] = []
        self._runs = 0
        self._shell = subprocess.Popen(
            ["bash", "--norc"], cwd=checkout, start_new_session=True, text=True, bufsize=1,
            env={"PATH": os.environ["PATH"], "HOME": str(checkout), **upstream_port(ports)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        # A pipe, not a file: `tee /dev/stderr` would empty that.
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._shell.stdout is not None
        for line in self._shell.stdout:
            self._shown.append(line)

    def type(self, line: str) -> None:
        """Type a line."""
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{moved(line, self._ports)}\n")

    def shows(self) -> str:
        """All that it showed."""
        return "".join(self._shown)

    def wait_for(self, text: str) -> None:
        """Wait until it shows a text."""
        wait_until(lambda: text in self.shows() or self._shell.poll() is not None, within_s=60)
        assert text in self.shows()

    def run(self, lines: list[str]) -> None:
        """Type lines, and wait until the last has ended."""
        for line in lines:
            self.type(line)
        self._runs += 1
        self.type(f"echo; echo run {self._runs} ended with $?")
        self.wait_for(f"\nrun {self._runs} ended with ")

    def close(self) -> None:
        """End it with all that runs in it."""
        os.killpg(self._shell.pid, signal.SIGTERM)
        self._reader.join()
        self._shell.communicate()


def moved(text: str, ports: dict[str, str]) -> str:
    """A text with other ports than those that it names."""
    return re.sub(rf"\b(?:{'|'.join(ports)})\b", lambda match: ports[match[0]], text)


def upstream_port(ports: dict[str, str]) -> dict[str, str]:
    """The variable that has the stand-in listen elsewhere."""
    return {"UPSTREAM_PORT": ports["9001"]}


def make_checkout(directory: Path) -> Path:
    """A checkout with its environment, as `make install` leaves it."""
    for name in ("config", "examples", "gateway"):
        (directory / name).symlink_to(ROOT / name)
    commands = directory / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name, arguments in {"python": "", "gateway": "-P -m gateway "}.items():
        script = commands / name
        script.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} {arguments}"$@"\n')
        script.chmod(0o755)
    return directory
