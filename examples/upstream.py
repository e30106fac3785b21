"""A small upstream for demonstrations: responds to every request with what it received.

`python -m examples.upstream` listens on 127.0.0.1:9001, or on $UPSTREAM_PORT.
"""

from __future__ import annotations

import os
import sys

from aiohttp import web

HOST = "127.0.0.1"
PORT = 9001


def make_upstream() -> web.Application:
    """Make an application that responds to every request with what it received."""

    async def echo(request: web.Request) -> web.Response:
        body = await request.text()
        return web.json_response(
            {
                "message": "Hello from the upstream.",
                "method": request.method,
                "path": request.raw_path,
                "headers": dict(request.headers),
                "body": body,
            }
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", echo)
    return app


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    port = int(os.environ.get("UPSTREAM_PORT") or PORT)

    def announce(_: str) -> None:
        print(f"upstream listens on http://{HOST}:{port}", file=sys.stderr, flush=True)

    try:
        # aiohttp calls `print` once it listens.
        web.run_app(make_upstream(), host=HOST, port=port, print=announce)
    except OSError as error:
        print(f"the upstream did not start: port {port}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
