"""Programs that are not Python packages, and may be missing."""

from __future__ import annotations

import shutil

import pytest


def needs(program: str, *, package: str = "") -> pytest.MarkDecorator:
    """The mark of a test that runs a program: skipped where it is missing, with how to get it from
    the Debian `package` (by default of the same name)."""
    return pytest.mark.skipif(
        shutil.which(program) is None,
        reason=f"{program} is missing: apt-get install {package or program}",
    )
