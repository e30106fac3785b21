"""What the processes of a gateway say of themselves, on standard error."""

from __future__ import annotations

import logging
import sys


def set_up_logging(speaker: str = "") -> None:
    """Write log lines; `speaker` tells which of several processes says it."""
    who = f" [{speaker}]" if speaker else ""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format=f"%(asctime)s %(levelname)s %(name)s{who}: %(message)s",
    )
