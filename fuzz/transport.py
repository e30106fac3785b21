"""A connection's transport without a socket, so that every split of the bytes can be tried."""

from __future__ import annotations


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.is_paused = False
        self.pauses = 0
        self.is_closed = False
        self.has_ended = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more is written."""
        return self.is_closed or self.has_ended

    def write(self, chunk: bytes) -> None:
        """Keep it."""
        self.written += chunk

    def write_eof(self) -> None:
        """The response is over."""
        self.has_ended = True

    def can_write_eof(self) -> bool:
        """As TCP can."""
        return True

    def is_closing(self) -> bool:
        """Whether somebody closed it."""
        return self.is_closed

    def close(self) -> None:
        """Close."""
        self.is_closed = True

    abort = close

    def pause_reading(self) -> None:
        """No more `data_received`."""
        assert not self.is_paused
        self.is_paused = True
        self.pauses += 1

    def resume_reading(self) -> None:
        """More of it."""
        assert self.is_paused
        self.is_paused = False

    def get_extra_info(self, name: str) -> tuple[str, int] | None:
        """The address of the peer."""
        return ("192.0.2.7", 40_000) if name == "peername" else None
