"""How the path and the host of a request change on their way.

The path that was matched and authorised is canonical, and so is what is made of it: a
rewrite can't bring in a dot segment, a query or a second reading.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.http.errors import BadRequestError
from gateway.http.target import is_canonical_path
from gateway.patterns import Pattern


@dataclass(frozen=True, slots=True)
class Rewrite:
    """The steps in their order: cut the front off, put another in front, replace parts."""

    strip_prefix: str = ""
    add_prefix: str = ""
    pattern: Pattern | None = None
    substitution: str = ""

    def path(self, path: str) -> str:
        """What becomes of a canonical path. Raises `BadRequestError` where a pattern makes
        something of it that is no canonical path."""
        # The rest of a canonical path after a whole segment is empty or starts with its
        # only slash, so it is canonical again, also behind whole segments.
        rest = path[len(self.strip_prefix) :] if self.strip_prefix else path
        path = f"{self.add_prefix}{rest}" or "/"
        if self.pattern is not None:
            path = self.pattern.sub(self.substitution, path)
            if not is_canonical_path(path):
                raise BadRequestError("rewrite", "The rewritten path is not a valid path.")
        return path
