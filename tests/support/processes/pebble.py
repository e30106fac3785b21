"""Pebble, Let's Encrypt's ACME server for tests: one of a test's own, on loopback."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support.deadlines import scaled, wait_until
from support.jose_values import make_certificate

from examples.ports import free_port

HOW_TO_INSTALL = "Pebble is missing: apt-get install pebble"


class Pebble:
    """A CA that validates names by a DNS server of the test, on ports of the test."""

    def __init__(self, directory: Path, *, dns_port: int, validity_s: int = 86400) -> None:
        if shutil.which("pebble") is None:
            pytest.skip(HOW_TO_INSTALL)
        self._directory = directory
        self._dns_port = dns_port
        self.port, self.management_port = free_port(), free_port()
        self.https_port, self.http_port = free_port(), free_port()
        """Where gateways have to listen."""
        self.url = f"https://localhost:{self.port}/dir"
        self.settings: dict[str, Any] = {"certificateValidityPeriod": validity_s}
        directory.mkdir(exist_ok=True)
        self._authority = make_certificate(directory, "pebble-ca", is_ca=True)
        own = make_certificate(directory, "pebble", issuer=self._authority)
        self.ca = self._authority.cert
        self._own = own
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> Pebble:
        """Start it, with all its accounts and orders forgotten, and wait until it responds."""
        config = self._directory / "pebble.json"
        config.write_text(
            json.dumps(
                {
                    "pebble": {
                        "listenAddress": f"127.0.0.1:{self.port}",
                        "managementListenAddress": f"127.0.0.1:{self.management_port}",
                        "certificate": str(self._own.cert),
                        "privateKey": str(self._own.key),
                        "httpPort": self.http_port,
                        "tlsPort": self.https_port,
                        "ocspResponderURL": "",
                        **self.settings,
                    }
                }
            )
        )
        with (self._directory / "pebble.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["pebble", "-config", config, "-dnsserver", f"127.0.0.1:{self._dns_port}"],
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "PEBBLE_VA_NOSLEEP": "1",
                    "PEBBLE_AUTHZREUSE": "0",
                    "PEBBLE_WFE_NONCEREJECT": "0",
                    **environment,
                },
            )
        wait_until(self._responds)
        return self

    def _responds(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        try:
            self.get(self.url)
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """Stop it, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def get(self, url: str) -> bytes:
        """What is at a URL of it."""
        context = ssl.create_default_context(cafile=str(self.ca))
        with urllib.request.urlopen(url, context=context, timeout=scaled()) as response:
            body: bytes = response.read()
            return body

    def issuing_ca(self) -> bytes:
        """The root of what it issues, PEM; another one after each start."""
        return self.get(f"https://localhost:{self.management_port}/roots/0")

    def log(self) -> str:
        """What it logged."""
        return (self._directory / "pebble.log").read_text(errors="replace")
