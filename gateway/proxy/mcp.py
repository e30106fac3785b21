"""Rules of a route to an MCP server: who may call from a browser, and which tools a token may call.

Tools are checked by the body, whatever the revision of the protocol: a server of an older one does
not look at the header fields, so that these could name one tool and the body another. What is not
read, since it is too large, does not pass.
"""

from __future__ import annotations

import asyncio
import fnmatch
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from gateway.downstream.body_reader import WholeBody
from gateway.downstream.request import Request
from gateway.downstream.stream import ClientStream
from gateway.http.errors import ContentTooLargeError, MethodNotAllowedError, ProblemError
from gateway.oauth.access import CachedToken
from gateway.oauth.errors import InsufficientScopeError, MissingTokenError
from gateway.proxy.cors import Cors
from gateway.proxy.direct_response import DirectResponse
from gateway.proxy.mcp_message import (
    TOOLS_CALL,
    McpRequestError,
    Message,
    MessageFields,
    check_agreement,
    read_fields,
    read_messages,
)

METHODS = ("DELETE", "GET", "POST")
"""Those of the protocol's transport over HTTP; a preflight was responded to before."""
UNKNOWN_TOOL = "_unknown"
"""Label of calls of tools that the configuration does not name."""
BODY_TIMEOUT_S = 60.0
SMALL_BYTES = 64 * 1024


class McpOriginError(ProblemError):
    """A page of an origin that is not listed calls, perhaps by a name that it has pointed at this
    host (DNS rebinding)."""

    status = 403


class ToolDeniedError(ProblemError):
    """The tool is none that the configuration lets through, with whatever scopes."""

    status = 403


@dataclass(frozen=True, slots=True)
class ToolRule:
    """The scopes of the tools that a name, or a pattern with `*`, covers."""

    name: str
    scopes: frozenset[str]


class ToolRules:
    """Finds the rule of a tool, whatever the order of the configuration: that of its exact name,
    else of the pattern with the most characters beside `*`."""

    def __init__(self, tools: Mapping[str, Collection[str]]) -> None:
        rules = [ToolRule(name, frozenset(scopes)) for name, scopes in tools.items()]
        self._exact = {rule.name: rule for rule in rules if "*" not in rule.name}
        patterns = sorted(
            (rule for rule in rules if "*" in rule.name),
            key=lambda rule: (-len(rule.name.replace("*", "")), rule.name),
        )
        self._patterns = [(_compile(rule.name), rule) for rule in patterns]

    def find(self, tool: str) -> ToolRule | None:
        """The rule of a tool; None where there is none."""
        if rule := self._exact.get(tool):
            return rule
        return next((rule for pattern, rule in self._patterns if pattern.fullmatch(tool)), None)


class McpFilter:
    """Checks the head of a request, before its token is looked at."""

    name = "mcp"

    def __init__(
        self, origins: Collection[Cors], versions: Collection[str], *, has_tools: bool
    ) -> None:
        self._origins = origins
        self._versions = frozenset(versions)
        self._has_tools = has_tools

    def check(self, request: Request) -> DirectResponse | None:
        for origin in request.header_values(b"origin"):
            if not any(listed.allows(origin.decode("latin-1")) for listed in self._origins):
                raise McpOriginError("mcp_origin", "Pages of this origin may not call.")
        version = read_fields(request).version
        if self._versions and version is not None and version not in self._versions:
            known = ", ".join(sorted(self._versions))
            raise McpRequestError("mcp_version", f"Unsupported protocol version (known: {known}).")
        if request.method not in METHODS:
            allow = ", ".join(METHODS)
            raise MethodNotAllowedError(
                "method_not_allowed", f"This path takes {allow}.", (("Allow", allow),)
            )
        if self._has_tools and request.is_websocket:
            raise McpRequestError("mcp_upgrade", "Tools can't be called by WebSocket here.")
        if request.method != "POST" and request.head.has_body:
            raise McpRequestError("mcp_body", "Messages are sent by POST.")
        return None


class McpRules:
    """Checks what a request calls, once its token is known."""

    def __init__(
        self,
        route: str,
        tools: ToolRules | None,
        *,
        max_body_bytes: int,
        counts: dict[tuple[str, str, str], int],
    ) -> None:
        """`tools` is None where all may be called. `counts` are calls by route, tool as the
        configuration names it, and result."""
        self._route = route
        self._tools = tools
        self._max_body_bytes = max_body_bytes
        self._counts = counts

    async def inspect(
        self,
        request: Request,
        stream: ClientStream,
        token: CachedToken | None,
        scopes: frozenset[str],
    ) -> bytes:
        """Read the body and check it; returns it. `scopes` are those of the route.

        Raises `McpRequestError`, `ContentTooLargeError`, `ToolDeniedError` and `BearerError`.
        """
        head = request.head
        if head.length > self._max_body_bytes:
            raise _too_large()
        body = b""
        if head.has_body:
            reader = WholeBody(stream, self._max_body_bytes)
            body = await reader.read(timeout_s=BODY_TIMEOUT_S)
        if len(body) > SMALL_BYTES:
            # Others are served meanwhile.
            messages = await asyncio.to_thread(read_messages, body)
        else:
            messages = read_messages(body)
        check_agreement(read_fields(request), messages)
        self._authorize(messages, token, scopes)
        return body

    def needs_body(self, request: Request) -> bool:
        """Whether the body has to be read: not where no rule depends on what is called."""
        if request.method != "POST":
            return False
        fields = read_fields(request)
        return self._tools is not None or fields.method is not None or fields.name is not None

    def check_fields(
        self, request: Request, token: CachedToken | None, scopes: frozenset[str]
    ) -> None:
        """Check by the header fields alone, for an authorization check, which has no body.

        Raises `McpRequestError`, `ToolDeniedError` and `BearerError`.
        """
        fields = read_fields(request)
        if self._tools is None or request.method != "POST":
            return
        if not fields.are_needed or fields.method is None:
            raise ToolDeniedError(
                "mcp_tool", "Without its body, only requests that name their method are checked."
            )
        _check_named(fields)
        self._authorize([Message(fields.method, fields.name, None)], token, scopes)

    def _authorize(
        self, messages: list[Message], token: CachedToken | None, scopes: frozenset[str]
    ) -> None:
        if self._tools is None:
            return
        called = [message.name for message in messages if message.method == TOOLS_CALL]
        rules = [(self._tools.find(name), name) for name in called if name is not None]
        needed: frozenset[str] = frozenset()
        for rule, name in rules:
            if rule is None:
                self._count(UNKNOWN_TOOL, "denied")
                raise ToolDeniedError("mcp_tool", f"The tool {name[:100]!r} can't be called here.")
            needed |= rule.scopes
        held = frozenset() if token is None else token.scopes
        result = "allowed" if needed <= held else "scope"
        for rule, _ in rules:
            if rule is not None:
                self._count(rule.name, result)
        if result == "scope":
            if token is not None:
                raise InsufficientScopeError(scopes | needed)
            missing = MissingTokenError()
            missing.scope = " ".join(sorted(scopes | needed))
            raise missing

    def _count(self, tool: str, result: str) -> None:
        key = self._route, tool, result
        self._counts[key] = self._counts.get(key, 0) + 1


def _check_named(fields: MessageFields) -> None:
    if fields.method == TOOLS_CALL and fields.name is None:
        raise McpRequestError("mcp_header", "Mcp-Name is missing.")


def _too_large() -> ContentTooLargeError:
    return ContentTooLargeError("body_too_large", "The message is too large to be checked.")


def _compile(name: str) -> re.Pattern[str]:
    literal = name.replace("[", "[[]").replace("?", "[?]")
    return re.compile(fnmatch.translate(literal))
