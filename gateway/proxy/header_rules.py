"""Changes the head of a request on its way, where its route says so: path, host, fields.

The path that was matched and authorized is canonical, and so is what is made of it: a rewrite
can't bring in a dot segment, a query or a second reading.

None of it can touch what the gateway says itself: the configuration refuses those names,
and the gateway's lines are written afterwards.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.downstream.request import Request
from gateway.http.errors import BadRequestError
from gateway.http.fields import cgi_name
from gateway.http.target import is_canonical_path
from gateway.patterns import Pattern
from gateway.proxy.variables import Values, render
from gateway.templates import Template

_LOCATIONS = frozenset({b"location", b"content-location"})
_LOCATION = re.compile(
    # An absolute URL, or a path that is no `//host`; browsers read `\\` as `/`, and skip tabs.
    r"(?:https?://(?P<authority>[^/?#\\\t]+)(?=[/?#]|$)|(?=/(?![/\\])))"
    r"(?P<path>[^?#\\\t]*)(?P<rest>[^\\\t]*)",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class HeaderModifier:
    """Fields that go, and fields that come."""

    removed: frozenset[bytes] = frozenset()
    """Lower-case names; those of `fields` that stand in place of others are among them."""
    fields: tuple[tuple[str, Template], ...] = ()

    def remove_from(self, lines: bytes) -> bytes:
        """The lines of a client, without those that go, in any spelling."""
        if not self.removed:
            return lines
        return b"".join(
            line
            for line in lines.splitlines(keepends=True)
            if not self.removes(line.partition(b":")[0].lower())
        )

    def removes(self, name: bytes) -> bool:
        """Whether a field of a client goes; `name` is in lower case."""
        return name in self.removed or cgi_name(name) in self.removed

    def filled(self, values: Values) -> list[tuple[str, str]]:
        """The fields that come, filled in. One without a value is left out."""
        filled = ((name, render(value, values)) for name, value in self.fields)
        return [(name, value) for name, value in filled if value]


NO_CHANGES = HeaderModifier()


@dataclass(frozen=True, slots=True)
class Rewrite:
    """The steps in their order: cut the front off, put another in front, replace parts."""

    strip_prefix: str = ""
    add_prefix: str = ""
    pattern: Pattern | None = None
    substitution: str = ""

    def path(self, path: str) -> str:
        """Rewrite a canonical path. Raises `BadRequestError` where a pattern makes
        something of it that is no canonical path."""
        # The rest of a canonical path after a whole segment is empty or starts with its
        # only slash, so it is canonical again, also behind whole segments.
        rest = path[len(self.strip_prefix) :] if self.strip_prefix else path
        path = f"{self.add_prefix}{rest}" or "/"
        if self.pattern is not None:
            passes = "%2F" in path or "%5C" in path  # its route forwards them
            path = self.pattern.sub(self.substitution, path)
            if not is_canonical_path(path, may_have_escaped_slash=passes):
                raise BadRequestError("rewrite", "The rewritten path is not a valid path.")
        return path


@dataclass(frozen=True, slots=True)
class LocationRewrite:
    """Undoes a rewrite of prefixes in a response, so that what it leads to comes back here."""

    strip_prefix: str = ""
    """What was added to the path of the request."""
    add_prefix: str = ""
    """What was stripped from it."""
    authorities: frozenset[str] = frozenset()
    """What the upstream may call itself, in lower case."""

    def line(self, line: bytes, request: Request) -> bytes:
        """Rewrite a field line of a response; one that leads elsewhere stays as it is."""
        name, _, value = line.partition(b":")
        if name.lower() not in _LOCATIONS:
            return line
        path = self._path(value.strip().decode("latin-1"), request)
        return line if path is None else b"%b: %b\r\n" % (name, path.encode("latin-1"))

    def _path(self, location: str, request: Request) -> str | None:
        """Return a path, behind which the client keeps its own scheme and host."""
        found = _LOCATION.fullmatch(location)
        if found is None:
            return None
        authority, path = found["authority"], found["path"]
        if authority is not None and not self._is_ours(authority.lower(), request):
            return None
        if self.strip_prefix:
            if path != self.strip_prefix and not path.startswith(f"{self.strip_prefix}/"):
                return None
            path = path[len(self.strip_prefix) :]
        if self.add_prefix:
            path = self.add_prefix + path
        # Never `//host`, which would be another host.
        return f"/{path.lstrip('/')}{found['rest']}"

    def _is_ours(self, authority: str, request: Request) -> bool:
        if authority in self.authorities or authority == request.forwarded_host.lower():
            return True
        ours = [request.host]
        if request.peer.is_trusted:
            ours += request.head.values(b"x-forwarded-host")
        return authority.encode("latin-1") in map(bytes.lower, ours)


@dataclass(frozen=True, slots=True)
class RequestHeadModifier:
    """All changes of a request's head, compiled."""

    rewrite: Rewrite | None = None
    host: bytes = b""
    """The Host for the upstream; empty for the client's."""
    uses_target_host: bool = False
    """Whether it is the target's own."""
    fields: HeaderModifier = NO_CHANGES

    def path(self, path: str) -> str:
        """Rewrite a canonical path. Raises `BadRequestError`."""
        return path if self.rewrite is None else self.rewrite.path(path)

    def line(self, request: Request) -> bytes:
        """The request line for the upstream. Raises `BadRequestError`."""
        if self.rewrite is None:
            return request.line.onward
        target = request.target
        path = f"{self.rewrite.path(target.path)}{target.query}".encode("ascii")
        return b"%b %b HTTP/1.1\r\n" % (request.method.encode("ascii"), path)

    def host_for(self, host: bytes, target_host: bytes) -> bytes:
        """The Host for the upstream, where the client's is `host`."""
        return target_host if self.uses_target_host else self.host or host

    def lines(self, values: Values) -> bytes:
        """The client's field lines that go on, and those that come along."""
        lines = self.fields.remove_from(values.request.head.lines)
        for name, value in self.fields.filled(values):
            lines += f"{name}: {value}\r\n".encode("ascii")
        return lines
