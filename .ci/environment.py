"""Set up a virtual environment for this checkout: the packages of a lock file, and `gateway`.

    python .ci/environment.py VENV LOCK [--only-binary]

Needs nothing but Python's standard library. The checkout itself is on the path of the
environment, as after an editable install, but nothing is built. pip's output goes to
VENV/install.log; its end is shown if pip fails.
"""

from __future__ import annotations

import re
import subprocess
import sys
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
    count = len(re.findall(r"^[\w.-]+==", Path(lock).read_text(encoding="utf-8"), re.MULTILINE))
    python = Path(venv, "bin", "python").absolute()
    if not python.exists():
        print(f"Making a virtual environment in {venv} ...", flush=True)
        # Where Python has a pip that can install for others, copying it would only take time.
        without_pip = ["--without-pip"] if _has_pip() else []
        command = [sys.executable, "-m", "venv", *without_pip, venv]
        if status := subprocess.run(command, check=False).returncode:  # noqa: S603
            return status
    print(f"Installing the {count} packages of {lock} into it ...", flush=True)
    log = Path(venv, "install.log")
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    command = [
        *(pip if _has_pip() else [str(python), "-m", "pip"]),
        "--disable-pip-version-check", "--no-input", "install",
        # Python compiles what is imported, when it is.
        "--require-hashes", "--no-deps", "--no-compile", "--progress-bar", "off",
        *(["--only-binary", ":all:"] if "--only-binary" in options else []),
        "-r", lock,
    ]  # fmt: skip
    if status := _install(command, log, count):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        print(*lines[-SHOWN_LINES:], f"pip failed; all of its output is in {log}", sep="\n")
        return status
    for packages in Path(venv, "lib").glob("python3*/site-packages"):
        (packages / "bearer-gateway-checkout.pth").write_text(f"{ROOT}\n", encoding="utf-8")
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


def _install(command: Sequence[str], log: Path, count: int) -> int:
    """Run pip, its output to a file, and show how many packages it has."""
    collected, shown_at = 0, time.monotonic()
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(  # noqa: S603
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            if line.startswith(("Collecting ", "Processing ")):
                collected += 1
                text = f"  {collected} of {count} found: {_name(line)}"
            elif line.startswith("Installing collected"):
                text = "  installing them"
            else:
                continue
            if sys.stdout.isatty():
                print(f"\r{text:<78}", end="", flush=True)
            elif time.monotonic() - shown_at > REDRAW_S:
                shown_at = time.monotonic()
                print(text, flush=True)
    if sys.stdout.isatty():
        print("\r" + " " * 78 + "\r", end="", flush=True)
    return process.returncode


def _name(line: str) -> str:
    """The package in a line of pip's: `Collecting NAME==...`, `Processing FILE ...`."""
    return re.split(r"==|-\d", Path(line.split()[1]).name)[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
