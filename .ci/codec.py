"""Build the native codec for its tests: the wheel is built by setup.py, the source tree is never.

    python .ci/codec.py [--sanitize]      # prints the path of the extension module

The result is kept in build/codec until a source, Cython or Python changes. With `--sanitize`, it
stops at the first access out of bounds and the first undefined operation (ASAN, UBSAN); the runtime
of ASAN has to be preloaded: `make sanitized` does.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "gateway" / "codec"
SANITIZE = (
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g",
    "-O1",
)  # fmt: skip


def build(*, sanitize: bool = False) -> Path:
    """Build the codec, unless it is there. Raises `OSError` and `subprocess.CalledProcessError`."""
    options = SANITIZE if sanitize else ("-O2",)
    state = hashlib.sha256(repr((options, version("Cython"), sys.version)).encode())
    for source in sorted(SOURCE.glob("*.[ph]*")):
        state.update(source.read_bytes())
    folder = ROOT / "build" / "codec" / state.hexdigest()[:16]
    made = folder / f"native{sysconfig.get_config_var('EXT_SUFFIX')}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # tests run in several processes
        fcntl.lockf(lock, fcntl.LOCK_EX)
        if not made.exists():
            code, part = folder / "native.c", folder / "native.part"
            compiler = str(sysconfig.get_config_var("CC") or "cc").split()
            _run([sys.executable, "-m", "cython", "-3", SOURCE / "native.pyx", "-o", code])
            _run([*compiler, "-shared", "-fPIC", *options, "-I", sysconfig.get_paths()["include"],
                  "-I", SOURCE, code, "-o", part])  # fmt: skip
            part.rename(made)
    return made


def _run(command: Sequence[str | Path]) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: S603 - no shell, our own files


if __name__ == "__main__":
    print(build(sanitize="--sanitize" in sys.argv[1:]))
