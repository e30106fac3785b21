"""Commands that are run in this process, and what they print."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main

Run = Callable[..., tuple[int, str, str]]
"""Exit status, output and errors of a command."""


def as_json(result: tuple[int, str, str]) -> Any:
    """What a command printed as JSON."""
    status, output, errors = result
    assert (status, errors) == (0, "")
    return json.loads(output)


def run_beside(config: Path, *arguments: str, stdin: str = "") -> str:
    """Run a command on the configuration of a gateway that is another process; returns what it
    printed."""
    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.setattr("sys.stdin", io.StringIO(stdin))
        status = main([*arguments, "-c", str(config)])
    assert status == 0, errors.getvalue()
    return output.getvalue()
