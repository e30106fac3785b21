"""Errors of the start, by the key of the configuration that they are about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.app.build.checks import describe_bind_error
from gateway.config.problems import Path, format_key


class StartError(OSError):
    """The gateway can't start because of a value of its configuration."""

    def __init__(self, place: Path, reason: str) -> None:
        super().__init__(f"{format_key(place)}: {reason}")
        self.place = place
        self.reason = reason


@contextmanager
def blaming(*place: str) -> Iterator[None]:
    """Raise `StartError` for a value in place of an `OSError`."""
    try:
        yield
    except StartError:
        raise
    except OSError as error:
        raise StartError(place, str(error.strerror or error)) from error


@contextmanager
def blaming_address(section: str) -> Iterator[None]:
    """Raise `StartError` for the host or port of a section in place of an `OSError`."""
    try:
        yield
    except OSError as error:
        raise StartError(*describe_bind_error(section, error)) from error
