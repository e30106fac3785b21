"""The native codec for tests: that of the wheel, or built from the source tree."""

from __future__ import annotations

import subprocess
from functools import cache
from types import ModuleType

import pytest

from fuzz.differential import load_codec


@cache
def native_codec() -> ModuleType:
    """Return the codec; skips the test where there is no compiler."""
    try:
        return load_codec()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the codec needs a C compiler: apt-get install gcc libc6-dev")
