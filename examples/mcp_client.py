"""A small MCP client for demonstrations, by the official SDK: its user signs in, it calls a tool.

`python -m examples.mcp_client http://127.0.0.1:8080/mcp get_weather city=Bern` prints an address to
open in a browser, as often as it needs a further permission. It needs the package `mcp`, which is
among those for development.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)
from mcp_types import TextContent
from pydantic import AnyUrl

from examples.ports import free_port

TIMEOUT_S = 300.0
PAGE = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 25\r\nConnection: close\r\n\r\nYou can close this page.\n"
)


class Memory:
    """Keeps tokens and registration for one run."""

    def __init__(self) -> None:
        self._tokens: OAuthToken | None = None
        self._client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        """Return the tokens."""
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep the tokens."""
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Return the registration."""
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep the registration."""
        self._client = client_info


class Callback:
    """Receives the browser on a loopback port."""

    def __init__(self) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}/callback"
        self._came: asyncio.Queue[str] = asyncio.Queue()

    async def start(self) -> asyncio.Server:
        """Listen."""
        return await asyncio.start_server(self._receive, "127.0.0.1", self._port)

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = (await reader.readline()).decode("ascii").split(" ")[1]
        while (await reader.readline()).strip():
            pass
        writer.write(PAGE)
        await writer.drain()
        writer.close()
        await self._came.put(target)

    async def open_browser(self, url: str) -> None:
        """Ask the user to open the page that asks for their consent."""
        print(f"Open in a browser: {url}", flush=True)

    async def wait(self) -> AuthorizationCodeResult:
        """Wait until the browser comes back."""
        target = await asyncio.wait_for(self._came.get(), TIMEOUT_S)
        given = parse_qs(urlsplit(target).query)
        one = {name: values[0] for name, values in given.items()}
        return AuthorizationCodeResult(
            code=one.get("code", ""), state=one.get("state"), iss=one.get("iss")
        )


async def call(url: str, tool: str, arguments: dict[str, str]) -> str:
    """Call a tool, and return the text of its result."""
    callback = Callback()
    auth = OAuthClientProvider(
        url,
        OAuthClientMetadata(client_name="Example client", redirect_uris=[AnyUrl(callback.url)]),
        Memory(),
        callback.open_browser,
        callback.wait,
    )
    async with (
        await callback.start(),
        httpx2.AsyncClient(auth=auth, timeout=TIMEOUT_S) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        names = [tool.name for tool in (await client.list_tools()).tools]
        print("tools: " + ", ".join(sorted(names)), flush=True)
        result = await client.call_tool(tool, dict(arguments))
    texts = [one.text for one in result.content if isinstance(one, TextContent)]
    return "\n".join(texts)


def main() -> int:
    """Call the tool that the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m examples.mcp_client")
    parser.add_argument("url", help="the MCP server, such as http://127.0.0.1:8080/mcp")
    parser.add_argument("tool", help="the tool to call")
    parser.add_argument("arguments", nargs="*", help="NAME=VALUE")
    given = parser.parse_args()
    arguments = dict(one.split("=", 1) for one in given.arguments)
    print(asyncio.run(call(given.url, given.tool, arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
