"""What every subject of the bench tells about itself."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.processes import SEARCH_PATH, BenchError, Launch, run
from bench.workloads import SMALL_BODY

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that has to be there, and how to get it."""

    executable: str
    install: str
    version: tuple[str, ...]
    """Arguments that make it print its version, on either stream."""
    needs: tuple[Path, ...] = ()
    """Files that come with it."""

    def missing(self) -> str | None:
        """Why it can't be used, or None."""
        if shutil.which(self.executable, path=SEARCH_PATH) is None:
            return f"{self.executable} is not installed; get it by: {self.install}"
        for path in self.needs:
            if not path.exists():
                return f"{path} is not there; get it by: {self.install}"
        return None

    def read_version(self) -> str:
        """The version number that it prints."""
        text = run(
            ("sh", "-c", '"$@" 2>&1', "sh", self.executable, *self.version),
            timeout_s=20,
            check=False,
        )
        found = re.search(r"\d+\.\d+[\w.+~-]*", text)
        return found[0] if found else "unknown"


@dataclass(frozen=True, slots=True)
class Site:
    """Where a subject runs: what it may use, and where it forwards to."""

    directory: Path
    port: int
    admin_port: int
    origin: str
    """Host and port."""
    auth: str
    """Host and port of the endpoint that says whether a token is good."""
    store: Path
    """The gateway's tokens."""
    grpc_origin: str = "127.0.0.1:9"
    """Host and port of a gRPC service."""
    certificate: Path = Path()
    """Directory of cert.pem, key.pem and both.pem."""
    is_tls: bool = False
    """Whether `port` is to speak TLS."""
    jwks: str = "{}"
    """For those that verify JWTs."""

    @property
    def h2_port(self) -> int:
        """For HTTP/2 by prior knowledge, of subjects that want a port of its own for it."""
        return self.port + 2

    @property
    def authz_port(self) -> int:
        """For the gateway that another proxy asks."""
        return self.port + 3

    @property
    def access_log(self) -> Path:
        """Where a subject that writes one writes it."""
        return self.directory / "access.log"

    def write_config(self, name: str, **values: object) -> Path:
        """A file of `configs/` with its `@NAME@` filled in, in the subject's directory.

        Raises `BenchError` for a name that nothing was given for.
        """
        known = {
            "DIRECTORY": self.directory,
            "PORT": self.port,
            "ADMIN_PORT": self.admin_port,
            "ORIGIN": self.origin,
            "AUTH": self.auth,
            "STORE": self.store,
            "GRPC_ORIGIN": self.grpc_origin,
            "CERTIFICATE": self.certificate,
            "H2_PORT": self.h2_port,
            "JWKS": self.jwks,
            # As root, nginx would give up its rights and with them this directory.
            "USER": "user root;" if os.geteuid() == 0 else "",
            **values,
        }

        def fill_in(match: re.Match[str]) -> str:
            if match[1] not in known:
                raise BenchError(f"{name}: nothing stands for @{match[1]}@")
            return str(known[match[1]])

        path = self.directory / name
        path.write_text(re.sub(r"@([A-Z0-9_]+)@", fill_in, (CONFIGS / name).read_text()))
        return path


@dataclass(frozen=True, slots=True)
class Settings:
    """What is on and off in a subject, in words for the report."""

    auth: str
    access_log: str = "off"
    metrics: str = "none"
    buffering: str = "streams"
    limits: str = "defaults"
    retries: str = "off"
    keep_alive: str = "both sides"
    tls: str = "off"


@dataclass(frozen=True, slots=True)
class Subject:
    """A proxy that is measured."""

    name: str
    title: str
    tool: Tool
    settings: Settings
    launch: Callable[[Site], Launch]
    """Writes what it needs into the site's directory, and tells how to start it."""
    checks_tokens: bool
    """Whether a request without a token has to be refused."""
    workloads: frozenset[str]
    """Those it takes part in."""
    takes_jwts: bool = False
    """Whether it verifies JWTs, in place of looking opaque tokens up."""
    prefix: str = ""
    """Of the paths that it is asked for."""
    body: bytes = SMALL_BODY
    """Of its response to a request for the origin's small response."""
    has_h2_port: bool = False
    """Whether HTTP/2 has a port of its own: `Site.h2_port`."""

    def read_version(self) -> str:
        """Of its program."""
        return self.tool.read_version()
