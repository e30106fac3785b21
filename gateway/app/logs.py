"""Logging of a gateway's processes to standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable


def set_up_logging(speaker: str = "") -> None:
    """Write log lines; `speaker` names the process, where there are several."""
    who = f" [{speaker}]" if speaker else ""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format=f"%(asctime)s %(levelname)s %(name)s{who}: %(message)s",
    )


class OwnLogLevel:
    """The log level of this process, and of others that are notified by `announce`."""

    def __init__(self, announce: Callable[[str], None] = lambda level: None) -> None:
        self._announce = announce

    def get(self) -> str:
        """The level's name."""
        return logging.getLevelName(logging.getLogger().level)

    def set(self, level: str) -> None:
        """Say as much as `level` asks for, from now on."""
        logging.getLogger().setLevel(level)
        logging.getLogger(__name__).warning("the log level is %s", level)
        self._announce(level)

    def toggle(self) -> None:
        """Between DEBUG and INFO: for SIGUSR1."""
        self.set("INFO" if self.get() == "DEBUG" else "DEBUG")
