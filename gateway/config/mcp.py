"""Settings of a route to an MCP server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field

from gateway.config.problems import Path
from gateway.config.scalars import Origin, Scope, Section, Text
from gateway.units import Size

_TOOL = re.compile(r"[!-~]{1,128}")
_VERSION = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _check_tool(name: str) -> str:
    if not _TOOL.fullmatch(name):
        raise ValueError("expected the name of a tool, `*` for any characters")
    return name


def _check_version(version: str) -> str:
    if not _VERSION.fullmatch(version):
        raise ValueError('expected a revision in quotes, such as "2026-07-28"')
    return version


ToolName = Annotated[str, AfterValidator(_check_tool)]
Version = Annotated[str, AfterValidator(_check_version)]


class McpConfig(Section):
    """A route to an MCP server: tokens must be for this route, and browsers may call from listed
    origins only."""

    origins: list[Origin] = Field(
        [],
        description=(
            "Origins whose pages may call, beside those of `cors`; others get 403, also with a "
            "token. Without `cors`, they may read the responses, too."
        ),
    )
    versions: list[Version] = Field(
        [],
        description="Values of `MCP-Protocol-Version` to accept, else 400; empty for any revision.",
    )
    tools: dict[ToolName, list[Scope]] | None = Field(
        None,
        description=(
            "Tools that may be called, `*` for any characters in a name, and the scopes that each "
            "needs beside those of the route; others get 403. Left out: all may be called."
        ),
    )
    tool_descriptions: dict[ToolName, Text] = Field(
        {},
        description="What each of `tools` does, for users that are asked for their consent.",
    )
    max_body: Size = Field(
        1048576,
        description=(
            "Largest message that is read to find out what it calls; larger ones get 413 where "
            "there are `tools`."
        ),
    )


def check_mcp(
    where: Path, mcp: McpConfig | None, *, scopes: set[str], auth: str, forwards_token: bool
) -> Iterator[tuple[Path, str]]:
    """Check that a route is fit for an MCP server."""
    if mcp is None:
        return
    place = (*where, "mcp")
    if forwards_token:
        yield (
            (*where, "forward_token"),
            "must be false with mcp: a server that gets the client's token could use it elsewhere",
        )
    for name, needed in (mcp.tools or {}).items():
        for at, scope in enumerate(needed):
            if scope not in scopes:
                yield (
                    (*place, "tools", name, at),
                    f"scope {scope!r} is not one of provider.scopes",
                )
        if needed and auth == "none":
            yield (*place, "tools", name), "has no effect with auth none, expected no scopes"
    for name in mcp.tool_descriptions:
        if name not in (mcp.tools or {}):
            yield (*place, "tool_descriptions", name), "is not one of tools"
