"""Conditions of a route beside host, path and method.

A condition narrows: a request that does not fulfil it goes to the next route of the same
path, or nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from gateway.patterns import Pattern


class Fields(Protocol):
    """The request as conditions see it."""

    def header_values(self, name: bytes) -> Sequence[bytes]:
        """The values of a header field, in order; `name` is lower-case."""

    def query_values(self, name: str) -> Sequence[str]:
        """The values of a parameter of the query, percent-decoded, in order. Raises
        `BadRequestError` where it has too many parameters to look at."""


class Condition(Protocol):
    """One thing that a request must fulfil."""

    def holds(self, path: str, request: Fields) -> bool:
        """Whether it does. `path` is the reading of the target's path that is asked about."""

    def __str__(self) -> str:
        """Describe the condition for display."""


class Value(NamedTuple):
    """A condition on a value: present, equal to a text, or matching a pattern."""

    exact: str | None = None
    pattern: Pattern | None = None
    is_absent: bool = False
    """Whether there must be none."""

    def fits(self, values: Sequence[str]) -> bool:
        """Whether the values of a name are so. One that is repeated is ambiguous: it is
        there, but is never equal to a text nor like a pattern."""
        if self.is_absent:
            return not values
        if self.exact is None and self.pattern is None:
            return bool(values)
        if len(values) != 1:
            return False
        if self.exact is not None:
            return values[0] == self.exact
        assert self.pattern is not None
        return self.pattern.fullmatch(values[0]) is not None

    def __str__(self) -> str:
        if self.is_absent:
            return "absent"
        if self.exact is not None:
            return f"= {self.exact!r}"
        return f"like {self.pattern.pattern!r}" if self.pattern else "present"


class PathCondition:
    """The whole canonical path is like a pattern."""

    def __init__(self, pattern: Pattern) -> None:
        self._pattern = pattern

    def holds(self, path: str, request: Fields) -> bool:
        return self._pattern.fullmatch(path) is not None

    def __str__(self) -> str:
        return f"path like {self._pattern.pattern!r}"


class HeaderCondition:
    """A header field has a value."""

    def __init__(self, name: str, value: Value) -> None:
        self._name = name
        self._key = name.lower().encode("ascii")
        self._value = value

    def holds(self, path: str, request: Fields) -> bool:
        values = request.header_values(self._key)
        return self._value.fits([value.decode("latin-1") for value in values])

    def __str__(self) -> str:
        return f"header {self._name} {self._value}"


class QueryCondition:
    """A parameter of the query, percent-decoded, has a value."""

    def __init__(self, name: str, value: Value) -> None:
        self._name = name
        self._value = value

    def holds(self, path: str, request: Fields) -> bool:
        return self._value.fits(request.query_values(self._name))

    def __str__(self) -> str:
        return f"query {self._name} {self._value}"
