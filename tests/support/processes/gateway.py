"""A gateway as people run it: a process of its own, told what to do by signals."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from support.deadlines import scaled, wait_until
from support.running_gateway import REGISTRATION_TOKEN, make_config

from examples.ports import free_port


class GatewayProcess:
    """A running `gateway run`."""

    def __init__(
        self, directory: Path, upstream_url: str, *, is_own_issuer: bool = False, **sections: Any
    ) -> None:
        """With `is_own_issuer`, the issuer is the URL that the process is reached at. It stops
        without a delay, if `shutdown` does not say otherwise."""
        self.port, self.admin_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        if is_own_issuer:
            sections["provider"] = {"issuer": self.url} | sections.get("provider", {})
        self.admin_url = f"http://127.0.0.1:{self.admin_port}"
        self.directory = directory
        self.config = directory / "gateway.yaml"
        listen = {"port": self.port, **sections.pop("listen", {})}
        shutdown = {"delay": 0, **sections.pop("shutdown", {})}
        self.config.write_text(
            make_config(
                directory,
                upstream_url,
                listen=listen,
                admin={"port": self.admin_port},
                shutdown=shutdown,
                **sections,
            )
        )

    def start(
        self,
        stdout: int = subprocess.DEVNULL,
        *,
        command: Sequence[str] = (sys.executable, "-m", "gateway"),
        wait_for: str = "/readyz",
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start, and wait until it is ready."""
        with (self.directory / "stderr.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "run", "-c", str(self.config)],
                stderr=log,
                stdout=stdout,
                pass_fds=pass_fds,
            )

        def is_ready() -> bool:
            assert self.process.poll() is None, self.errors()
            try:
                return httpx.get(f"{self.admin_url}{wait_for}").status_code == 200
            except httpx.TransportError:
                return False

        try:
            wait_until(is_ready, what=self.errors)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal, and wait for the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=scaled(40))

    def errors(self) -> str:
        """What it wrote to standard error."""
        return (self.directory / "stderr.log").read_text()

    def wait_for_line(self, text: str, *, count: int = 1) -> None:
        """Wait until it has logged a text so many times: a line may come after what it reports has
        an effect."""
        wait_until(lambda: self.errors().count(text) >= count, what=self.errors)
        assert count == 1 or self.errors().count(text) == count

    def create_client(
        self,
        client_id: str = "shop",
        secret: str = "shop-secret",
        *,
        registration_token: str = REGISTRATION_TOKEN,
    ) -> None:
        """Register a client."""
        response = httpx.post(
            f"{self.url}/createClient",
            headers={
                "Authorization": f"Bearer {registration_token}",
                "client_id": client_id,
                "client_secret": secret,
            },
        )
        assert response.status_code == 201, response.text

    def get_token(self, client_id: str = "shop", secret: str = "shop-secret") -> str:
        """An access token."""
        response = httpx.post(
            f"{self.url}/token",
            data={"grant_type": "client_credentials"},
            auth=(client_id, secret),
        )
        assert response.status_code == 200, response.text
        token: str = response.json()["access_token"]
        return token


@contextmanager
def gateway_process(
    directory: Path, upstream_url: str, **sections: Any
) -> Iterator[GatewayProcess]:
    """A started gateway process."""
    gateway = GatewayProcess(directory, upstream_url, **sections)
    gateway.start()
    try:
        yield gateway
    finally:
        gateway.stop()
