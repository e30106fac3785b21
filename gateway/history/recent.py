"""The last minutes of all processes of a gateway, in the one that people ask."""

from __future__ import annotations

from gateway.history.events import Events
from gateway.history.ring import History
from gateway.history.sampling import Slice

OWN = 0
"""The number of the process that holds this; workers are numbered from 1."""


class Recent:
    """Hears the slices of all processes."""

    def __init__(self) -> None:
        self.history = History()
        self.events = Events()

    def receive(self, process: int, part: Slice) -> None:
        """A process told what it counted."""
        self.history.add(process, part)
        self.events.receive(process, part)

    def forget(self, process: int) -> None:
        """A process ended."""
        self.history.forget(process)
        self.events.forget(process)
