"""A small MCP server for demonstrations, by the official SDK: it knows the weather.

`python -m examples.mcp_server` listens on 127.0.0.1:9001, or on $UPSTREAM_PORT. It needs the
package `mcp`, which is among those for development.
"""

from __future__ import annotations

import os
import sys

from mcp.server.mcpserver import Context, MCPServer
from starlette.requests import Request

HOST = "127.0.0.1"
PORT = 9001


def make_server() -> MCPServer:
    """Make a server with two tools."""
    server = MCPServer("weather")

    @server.tool()
    def get_weather(city: str, ctx: Context) -> str:
        """Read the weather of a city."""
        request = ctx.request_context.request
        assert isinstance(request, Request)
        user = request.headers.get("x-token-subject") or "stranger"
        return f"It rains in {city}, {user}."

    @server.tool()
    def admin_reset() -> str:
        """Forget all stations."""
        return "All stations are forgotten."

    return server


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    port = int(os.environ.get("UPSTREAM_PORT") or PORT)
    print(f"MCP server listens on http://{HOST}:{port}/mcp", file=sys.stderr, flush=True)
    make_server().run("streamable-http", host=HOST, port=port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
