"""Reads the messages of the Model Context Protocol: JSON-RPC 2.0, and the header fields that repeat
parts of it.

A message must mean the same to every reader. What some take another way is rejected: a member that
is there twice, a name in another case (Go's decoder ignores it), NaN, other encodings than UTF-8.

modelcontextprotocol.io, revisions 2024-11-05 to 2026-07-28: Streamable HTTP, section "Request
Metadata".
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from gateway.http.errors import ProblemError
from gateway.proxy.conditions import Fields

FIRST_WITH_HEADERS = "2026-07-28"
"""The first revision whose requests repeat method and name in header fields."""
UNSTATED_VERSION = "2025-03-26"
"""The revision of a request that names none."""
MAX_BATCH = 100
VERSION_MEMBER = "io.modelcontextprotocol/protocolVersion"
NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""Methods whose requests repeat the name of something: the member of `params` that has it."""
TOOLS_CALL = "tools/call"
_VERSION = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_METHOD = re.compile(r"[!-~]{1,200}")
_PLAIN = re.compile(r"[ -~]*")
_ENCODED = re.compile(r"=\?base64\?([A-Za-z0-9+/=]*)\?=")
_MEMBERS = frozenset({"method", "params", "id", "jsonrpc"})
_PARAMETERS = frozenset({"name", "uri", "_meta"})


class McpRequestError(ProblemError):
    """A request is no message, is ambiguous, or has a header field that says something else than
    its body."""

    status = 400


class Message(NamedTuple):
    """One message of a body."""

    method: str
    """Empty for a response of the client."""
    name: str | None
    """What it is about, where its method is in `NAMED_BY`."""
    version: str | None
    """The revision that it names itself."""


class MessageFields(NamedTuple):
    """The header fields that repeat parts of a message; None where one is missing."""

    version: str | None
    method: str | None
    name: str | None

    @property
    def are_needed(self) -> bool:
        """Whether the revision asks for them."""
        return self.version is not None and self.version >= FIRST_WITH_HEADERS


def read_fields(request: Fields) -> MessageFields:
    """Read the header fields. Raises `McpRequestError` for one that is malformed or repeated."""
    version = _one(request, "MCP-Protocol-Version")
    if version is not None and not _VERSION.fullmatch(version):
        raise McpRequestError("mcp_version", "MCP-Protocol-Version is not a revision's date.")
    method = _one(request, "Mcp-Method")
    if method is not None and not _METHOD.fullmatch(method):
        raise McpRequestError("mcp_header", "Mcp-Method is malformed.")
    name = _one(request, "Mcp-Name")
    return MessageFields(version, method, None if name is None else decode_name(name))


def decode_name(value: str) -> str:
    """Decode a value of Mcp-Name: visible ASCII, or `=?base64?...?=`. Raises `McpRequestError`."""
    if not value.startswith("=?base64?"):
        if not _PLAIN.fullmatch(value):
            raise McpRequestError("mcp_header", "Mcp-Name must be ASCII, or encoded as =?base64?.")
        return value
    found = _ENCODED.fullmatch(value)
    try:
        if found is None:
            raise ValueError
        return base64.b64decode(found[1], validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise McpRequestError("mcp_header", "Mcp-Name is not base64 of UTF-8.") from None


def read_messages(body: bytes) -> list[Message]:
    """Read a message, or a batch of them. Raises `McpRequestError`."""
    try:
        # Not the bytes: those may be in another encoding, which few readers look for.
        decoded = json.loads(
            body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_reject_constant
        )
    except (ValueError, RecursionError):
        raise McpRequestError("mcp_body", "The body is not a JSON-RPC message.") from None
    if not isinstance(decoded, list):
        return [_read_message(decoded)]
    if not 0 < len(decoded) <= MAX_BATCH:
        raise McpRequestError("mcp_body", f"A batch has 1 to {MAX_BATCH} messages.")
    return [_read_message(one) for one in decoded]


def check_agreement(fields: MessageFields, messages: list[Message]) -> None:
    """Check that header fields say what the body says. Raises `McpRequestError`."""
    for message in messages:
        if message.version is not None and message.version != (fields.version or message.version):
            raise _mismatch("MCP-Protocol-Version")
    if len(messages) > 1:
        if fields.method is not None or fields.name is not None or fields.are_needed:
            raise McpRequestError("mcp_mismatch", "The header fields can't be those of a batch.")
        return
    message = messages[0]
    if fields.method is not None and fields.method != message.method:
        raise _mismatch("Mcp-Method")
    if fields.name is not None and fields.name != message.name:
        raise _mismatch("Mcp-Name")
    if fields.are_needed and message.method:
        for name, given, said in (
            ("Mcp-Method", fields.method, message.method),
            ("Mcp-Name", fields.name, message.name),
        ):
            if given is None and said is not None:
                raise McpRequestError("mcp_header", f"{name} is missing.")


def _mismatch(name: str) -> McpRequestError:
    return McpRequestError("mcp_mismatch", f"{name} says something else than the body.")


def _read_message(decoded: Any) -> Message:
    if not isinstance(decoded, dict):
        raise McpRequestError("mcp_body", "The body is not a JSON-RPC message.")
    _check_names(decoded, _MEMBERS)
    if "method" not in decoded:
        return Message("", None, None)
    method, params = decoded["method"], decoded.get("params")
    if not isinstance(method, str):
        raise McpRequestError("mcp_body", "The method is not text.")
    if params is None:
        params = {}
    member = NAMED_BY.get(method)
    if not isinstance(params, dict):
        if member is not None:
            raise McpRequestError("mcp_body", f"The parameters of {method} are no object.")
        return Message(method, None, None)
    _check_names(params, _PARAMETERS)
    name = params.get(member) if member is not None else None
    if member is not None and not isinstance(name, str):
        raise McpRequestError("mcp_body", f"{method} has no {member}.")
    meta = params.get("_meta")
    version = meta.get(VERSION_MEMBER) if isinstance(meta, dict) else None
    return Message(method, name, version if isinstance(version, str) else None)


def _check_names(decoded: dict[str, Any], known: frozenset[str]) -> None:
    for name in decoded:
        if name not in known and name.casefold() in known:
            raise McpRequestError("mcp_body", "A member has a name in another case.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    decoded = dict(pairs)
    if len(decoded) != len(pairs):
        raise ValueError("a member is repeated")
    return decoded


def _reject_constant(name: str) -> Iterator[str]:
    raise ValueError(f"{name} is not JSON")


def _one(request: Fields, name: str) -> str | None:
    values = request.header_values(name.lower().encode("ascii"))
    if not values:
        return None
    if len(values) > 1:
        reason = "mcp_version" if name == "MCP-Protocol-Version" else "mcp_header"
        raise McpRequestError(reason, f"{name} is repeated.")
    return values[0].decode("latin-1").strip(" \t")
