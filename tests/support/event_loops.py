"""The event loop of tests: the gateway's, which reports what a test left open."""

from __future__ import annotations

import warnings

import uvloop


class Loop(uvloop.Loop):
    """uvloop warns of each transport that is open when it closes, and where warnings are errors,
    does not close that one, and waits for it without end."""

    def close(self) -> None:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            super().close()
        for one in found:
            warnings.warn(one.message, stacklevel=2)
