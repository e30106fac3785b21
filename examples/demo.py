"""`make run`: the gateway of `config/demo.yaml` and a small upstream, each a real process."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from aiohttp import web

UPSTREAM_PORT = 9001
START_TIMEOUT_S = 15.0
GUIDE = """
The gateway is ready. In another terminal:

1. Register a client. Its secret is shown only in this answer.

{create}

2. Get a token. It lives one hour.

{token}

3. Call the protected upstream with it, and then without it.

{call}

Metrics: http://127.0.0.1:9090/metrics   Ctrl-C stops everything.
"""
CREATE = (
    "curl -i -X POST http://127.0.0.1:8080/createClient"
    " -H 'Authorization: Bearer {registration_token}'"
    " -H 'client_id: shop' -H 'client_secret: shop-secret' -H 'client_name: The shop'"
)
ISSUE = (
    "TOKEN=$(curl -s http://127.0.0.1:8080/token -u shop:shop-secret"
    " -d grant_type=client_credentials | tee /dev/stderr | cut -d '\"' -f 4)"
)
CALL = 'curl -i http://127.0.0.1:8080/api/orders -H "Authorization: Bearer $TOKEN"'


def main() -> int:
    """Run the demo until it is stopped; returns the exit status."""
    parser = argparse.ArgumentParser(description="Run the demo: a gateway and an upstream.")
    parser.add_argument("--config", type=Path, default=Path("config/demo.yaml"))
    parser.add_argument("--upstream", action="store_true", help="run only the upstream")
    options = parser.parse_args()
    if options.upstream:
        web.run_app(make_upstream(), host="127.0.0.1", port=UPSTREAM_PORT, print=None)
        return 0
    if not options.config.exists():
        print(f"{options.config} is not here; run this in the project's folder", file=sys.stderr)
        return 1
    return _run(options.config)


def make_upstream() -> web.Application:
    """An upstream that answers every request with what it got."""

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


def _run(config: Path) -> int:
    python = [sys.executable, "-m"]
    children = [
        subprocess.Popen([*python, "examples.demo", "--upstream"]),  # noqa: S603
        subprocess.Popen([*python, "gateway", "run", "-c", str(config)]),  # noqa: S603
    ]

    # Ctrl-C reaches the children by the terminal; a SIGTERM has to be passed on.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if _wait_until_ready(children):
            token = os.environ.get("REGISTRATION_TOKEN", "demo-registration-token")
            create = CREATE.format(registration_token=token)
            print(GUIDE.format(create=create, token=ISSUE, call=CALL), flush=True)
            return max(child.wait() for child in reversed(children))
        print("the demo did not start; is something on port 8080, 9001 or 9090?", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(children)


def _interrupt(number: int, frame: object) -> None:
    """End as by Ctrl-C. Children can't be waited for here: the wait that this interrupts holds
    their lock."""
    raise KeyboardInterrupt


def _wait_until_ready(children: list[subprocess.Popen[bytes]]) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    urls = ["http://127.0.0.1:9090/readyz", f"http://127.0.0.1:{UPSTREAM_PORT}/"]
    while time.monotonic() < deadline and all(child.poll() is None for child in children):
        try:
            while urls:
                with urlopen(urls[0], timeout=1):  # noqa: S310 # nosec B310 - our own
                    urls.pop(0)
        except (URLError, OSError):
            time.sleep(0.1)
            continue
        return all(child.poll() is None for child in children)
    return False


def _stop(children: list[subprocess.Popen[bytes]]) -> None:
    for child in reversed(children):
        child.terminate()
    for child in children:
        child.wait()


if __name__ == "__main__":
    sys.exit(main())
