"""Responses that the gateway makes, in place of an upstream's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gateway.http.errors import BadRequestError, Headers
from gateway.proxy.header_rules import Rewrite
from gateway.proxy.variables import Values, render
from gateway.templates import Template, Variable


class DirectResponse(NamedTuple):
    """A response, whole."""

    status: int
    reason: str
    """For the access log."""
    headers: Headers = ()
    body: bytes = b""
    closes: bool = False
    """Whether the client's connection can't be used afterwards."""
    detail: str = ""
    """What is wrong, for clients of gRPC, who get no body."""


class Responder(Protocol):
    """Responds in place of an upstream."""

    def respond(self, values: Values) -> DirectResponse:
        """The response. Raises `ProblemError`."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """Leads elsewhere (RFC 9110 section 15.4)."""

    status: int
    to: Template
    rewrite: Rewrite | None = None

    def respond(self, values: Values) -> DirectResponse:
        request = values.request
        if not request.routing_host and Variable("host") in self.to:
            raise BadRequestError("host", "The request has no Host header field to redirect to.")
        path = request.target.path
        if self.rewrite is not None:
            path = self.rewrite.path(path)
        location = render(self.to, values._replace(path=path))
        return DirectResponse(self.status, "redirect", (("Location", location),))


@dataclass(frozen=True, slots=True)
class FixedResponse:
    """Always says the same, but for the variables in its fields."""

    status: int
    body: bytes
    headers: tuple[tuple[str, Template], ...]

    def respond(self, values: Values) -> DirectResponse:
        filled = ((name, render(value, values)) for name, value in self.headers)
        headers = tuple((name, value) for name, value in filled if value)
        return DirectResponse(self.status, "fixed_response", headers, self.body)
