"""Traffic of every kind, so that every series exists."""

from __future__ import annotations

import threading
from collections import Counter

import httpx
from support.deadlines import scaled
from support.processes.gateway import GatewayProcess


class Traffic(threading.Thread):
    """Asks one thing after the other, again and again, until it is told to stop."""

    def __init__(self, gateway: GatewayProcess) -> None:
        super().__init__(daemon=True)
        self._gateway = gateway
        self._ended = threading.Event()
        self._failure: Exception | None = None
        self.responded: Counter[tuple[str, int]] = Counter()
        """Answers by what was asked and status."""

    def run(self) -> None:
        """Until `stop`."""
        try:
            with httpx.Client(base_url=self._gateway.url) as client:
                while not self._ended.is_set():
                    self._round(client)
                    self._ended.wait(0.02)
        except Exception as error:
            self._failure = error

    def stop(self) -> Counter[tuple[str, int]]:
        """End it; returns what was answered."""
        self._ended.set()
        self.join(timeout=scaled())
        assert not self.is_alive()
        assert self._failure is None, repr(self._failure)
        return self.responded

    def _round(self, client: httpx.Client) -> None:
        def fetch(what: str, method: str, path: str, token: str = "", **options: object) -> str:
            if token:
                options["headers"] = {"Authorization": f"Bearer {token}"}
            response = client.request(method, path, **options)  # type: ignore[arg-type]
            self.responded[what, response.status_code] += 1
            return response.text

        def issue(client_id: str, secret: str) -> httpx.Response:
            form = {"grant_type": "client_credentials"}
            response = client.post("/token", data=form, auth=(client_id, secret))
            self.responded["token", response.status_code] += 1
            return response

        token: str = issue("shop", "shop-secret").json()["access_token"]
        for _ in range(4):
            fetch("api", "GET", "/api/x", token)
        fetch("api", "POST", "/api/x", token, content=b"x" * 1000)
        fetch("api", "GET", "/api/x")
        fetch("api", "GET", "/api/x", "unknown")
        fetch("public", "GET", "/public/x")
        fetch("public", "GET", "/public/broken")
        fetch("write", "GET", "/api/write", token)
        fetch("dead", "GET", "/dead", token)
        fetch("limited", "GET", "/limited", token)
        fetch("none", "GET", "/nowhere")
        fetch("revoke", "POST", "/revoke", data={"token": token}, auth=("shop", "shop-secret"))
        # More often than the limit on failures allows.
        issue("nobody", "wrong")
