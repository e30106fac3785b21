"""Commands that are run in this process, and what they print."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Run = Callable[..., tuple[int, str, str]]
"""Exit status, output and errors of a command."""


def as_json(result: tuple[int, str, str]) -> Any:
    """What a command printed as JSON."""
    status, output, errors = result
    assert (status, errors) == (0, "")
    return json.loads(output)
