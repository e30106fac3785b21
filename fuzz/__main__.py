"""Searches for inputs that break a reader, by coverage (Atheris), and keeps what it finds.

    python -m fuzz                       # each target for a minute
    python -m fuzz chunks --seconds 600  # one, longer
    python -m fuzz --runs 20000          # bounded by count: as the tests do
    python -m fuzz codec_bearer --keep   # and keep what reached new code, in fuzz/corpus

A crash is written to `fuzz/cases/TARGET/`, where the tests replay it for ever.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import atheris

MAX_KEPT = 150
"""Inputs of a target, the shortest first."""


def main() -> int:
    """Fuzz the named targets one after another; 1 where one of them broke."""
    with atheris.instrument_imports(include=["gateway", "joserfc", "fuzz"]):
        from fuzz.targets import CASES, CORPUS, SEEDS, TARGETS  # noqa: PLC0415

    options = _read_options(sorted(TARGETS))
    codes = []
    for name in options.targets or sorted(TARGETS):
        with tempfile.TemporaryDirectory() as corpus:
            for number, seed in enumerate(SEEDS[name]):
                (Path(corpus) / str(number)).write_bytes(seed)
            kept = CASES / name
            kept.mkdir(parents=True, exist_ok=True)
            arguments = [sys.argv[0], _bound(options), f"-artifact_prefix={kept}/"]
            arguments += ["-max_len=4096", "-timeout=10", corpus, str(kept)]
            code = _search(name, TARGETS[name], arguments)
            codes.append(code)
            if options.keep and not code:
                found = {path.read_bytes() for path in Path(corpus).iterdir()}
                lines = [f"{one!r}\n" for one in sorted(found, key=lambda one: (len(one), one))]
                (CORPUS / f"{name}.txt").write_text("".join(lines[:MAX_KEPT]))
    return int(any(codes))


def _search(name: str, target: Callable[[bytes], None], arguments: list[str]) -> int:
    """Search for what breaks a target; returns 0 where nothing does."""
    print(f"fuzzing {name}", flush=True)
    # libFuzzer ends the process it runs in, so each target gets one of its own: a copy, since to
    # instrument all modules takes longer than a short search.
    if child := os.fork():
        try:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        except BaseException:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
    atheris.Setup(arguments, target, custom_mutator=_make_mutator(name))
    atheris.Fuzz()
    raise SystemExit(1)  # it does not come back


def _make_mutator(name: str) -> Callable[[bytes, int, int], bytes] | None:
    """Make the mutator of a reader of the codec; the others take libFuzzer's own. Coverage does
    not see into compiled code, and a search without it would hardly leave what the codec rejects:
    half of the cases come from those that it is known to read."""
    if not name.startswith("codec_"):
        return None
    from fuzz.differential import mutations  # noqa: PLC0415 - it was instrumented before

    cases: Iterator[bytes] | None = None

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        nonlocal cases
        if cases is None:
            cases = mutations(name.removeprefix("codec_"), seed)
        if seed % 2:
            return next(cases)[:max_size]
        return bytes(atheris.Mutate(data, max_size))

    return mutate


def _read_options(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(names)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--runs", type=int, default=0, help="instead of a time")
    parser.add_argument("--keep", action="store_true", help="what reaches new code, in fuzz/corpus")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(names):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    return options


def _bound(options: argparse.Namespace) -> str:
    return f"-runs={options.runs}" if options.runs else f"-max_total_time={options.seconds}"


if __name__ == "__main__":
    sys.exit(main())
