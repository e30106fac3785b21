"""Set up a virtual environment for this checkout: the packages of a lock file, and `gateway`.

    python .ci/environment.py VENV LOCK [--only-binary]

Needs nothing but Python's standard library. The checkout itself is on the path of the
environment, as after an editable install, but nothing is built. pip's output goes to
VENV/install-*.log; its end is shown if pip fails.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = """\
#!/bin/sh
exec '{python}' -P -m gateway "$@"
"""
MIN_VERSION = (3, 11)
SHARES = 3
REDRAW_S = 5.0
"""Without a terminal, a line of progress so often."""
SHOWN_LINES = 15


def main(arguments: Sequence[str]) -> int:
    """Run; returns the exit status."""
    venv, lock, *options = arguments
    started = time.monotonic()
    if sys.version_info < MIN_VERSION:
        found = ".".join(map(str, sys.version_info[:3]))
        print(f"Python 3.11 or newer is needed, this is {found}: make PYTHON=python3.12 ...")
        return 1
    packages = re.findall(
        r"^[\w.-]+==.*\n(?:[ \t].*\n)*", Path(lock).read_text(encoding="utf-8"), re.MULTILINE
    )
    python = Path(venv, "bin", "python").absolute()
    if not python.exists():
        print(f"Making a virtual environment in {venv} ...", flush=True)
        # Where Python has a pip that can install for others, copying it would only take time.
        without_pip = ["--without-pip"] if _has_pip() else []
        command = [sys.executable, "-m", "venv", *without_pip, venv]
        if status := subprocess.run(command, check=False).returncode:  # noqa: S603
            return status
    print(f"Installing the {len(packages)} packages of {lock} into it ...", flush=True)
    # Several at once: pip mostly waits for the index, which it asks about one package at a time.
    # A pip of the environment's own might be replaced meanwhile.
    shares = SHARES if _has_pip() else 1
    progress = _Progress(len(packages))
    installs = []
    for number in range(shares):
        share = Path(venv, f"install-{number}.lock")
        share.write_text("".join(packages[number::shares]), encoding="utf-8")
        installs.append(_Install(_pip(python, options, share), share.with_suffix(".log"), progress))
    failed = [install for install in installs if install.wait()]
    progress.clear()
    for install in failed[:1]:
        lines = install.log.read_text(encoding="utf-8", errors="replace").splitlines()
        print(*lines[-SHOWN_LINES:], f"pip failed; all of its output is in {install.log}", sep="\n")
        return 1
    for site in Path(venv, "lib").glob("python3*/site-packages"):
        (site / "bearer-gateway-checkout.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    script = python.with_name("gateway")
    script.write_text(COMMAND.format(python=python), encoding="utf-8")
    script.chmod(0o755)
    print(f"Done in {time.monotonic() - started:.0f} s.", flush=True)
    return 0


def _has_pip() -> bool:
    """Whether this Python has pip 22.3 or newer, which knows `--python`."""
    try:
        major, minor, *_ = version("pip").split(".")
    except PackageNotFoundError:
        return False
    return (int(major), int(minor)) >= (22, 3)


def _pip(python: Path, options: Sequence[str], lock: Path) -> list[str]:
    """The command that installs the packages of a lock file."""
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    return [
        *(pip if _has_pip() else [str(python), "-m", "pip"]),
        "--disable-pip-version-check", "--no-input", "install",
        # Python compiles what is imported, when it is.
        "--require-hashes", "--no-deps", "--no-compile", "--progress-bar", "off",
        *(["--only-binary", ":all:"] if "--only-binary" in options else []),
        "-r", str(lock),
    ]  # fmt: skip


class _Progress:
    """One line for all, redrawn on a terminal, else printed every few seconds."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._found = 0
        self._shown_at = time.monotonic()
        self._lock = threading.Lock()

    def found(self, name: str) -> None:
        """Count a package that pip has found."""
        with self._lock:
            self._found += 1
            text = f"  {self._found} of {self._count} found: {name}"
            if sys.stdout.isatty():
                print(f"\r{text:<78}", end="", flush=True)
            elif time.monotonic() - self._shown_at > REDRAW_S:
                self._shown_at = time.monotonic()
                print(text, flush=True)

    def clear(self) -> None:
        """Clear the line."""
        if sys.stdout.isatty():
            print("\r" + " " * 78 + "\r", end="", flush=True)


class _Install:
    """A running pip, whose output goes to a file."""

    def __init__(self, command: Sequence[str], log: Path, progress: _Progress) -> None:
        self.log = log
        self._progress = progress
        self._process = subprocess.Popen(  # noqa: S603
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self.log.open("w", encoding="utf-8") as file:
            for line in self._process.stdout:
                file.write(line)
                if line.startswith(("Collecting ", "Processing ")):
                    self._progress.found(_name(line))

    def wait(self) -> int:
        """Wait for its end; the exit status."""
        self._reader.join()
        return self._process.wait()


def _name(line: str) -> str:
    """The package in a line of pip's: `Collecting NAME==...`, `Processing FILE ...`."""
    return re.split(r"==|-\d", Path(line.split()[1]).name)[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
