"""The paths of the provider, and other spellings of them, which no upstream may get.

A request to `/token/` or `/Token` is meant for the provider and carries a secret; what is below
the authorization endpoint looks to users as if it were one of its pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product

START_CHARS = 3


class ProviderPaths:
    """The paths that belong to the provider, on every host."""

    def __init__(
        self,
        served: Iterable[str],
        *,
        authorize_path: str = "",
        is_below: Callable[[str], bool] = lambda path: False,
    ) -> None:
        """`authorize_path` is that of the authorization endpoint, where it is there; `is_below`
        knows the paths that are served beside `served`."""
        self._is_below = is_below
        self.served = frozenset(served)
        """Those that are served."""
        self._folded = frozenset(map(str.lower, self.served))
        self._pages = f"{authorize_path.lower()}/" if authorize_path else ""
        self.start_chars = min((START_CHARS, *map(len, self.served)))
        self.starts = frozenset(
            "".join(variant)
            for path in self._folded
            for variant in product(*((c, c.upper()) for c in path[: self.start_chars]))
        )
        """The first `start_chars` of every path that is served or misspelled: of nearly all
        requests, these alone are looked at."""

    def serves(self, path: str) -> bool:
        """Whether a canonical path is served."""
        return path in self.served or self._is_below(path)

    def is_misspelled(self, path: str) -> bool:
        """Whether a canonical path that is not served is another spelling of one that is, or below
        the authorization endpoint."""
        if path[: self.start_chars] not in self.starts:
            return False
        folded = path.lower()
        if ";" in folded:  # a parameter, which some frameworks cut off
            folded = "/".join(segment.partition(";")[0] for segment in folded.split("/"))
        if self._pages and folded.startswith(self._pages):
            return True
        return (folded.rstrip("/") or "/") in self._folded
