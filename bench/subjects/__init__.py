"""The subjects, in the order in which the report names them."""

from __future__ import annotations

from bench.subjects import aiohttp, caddy, envoy, gateway, haproxy, nginx
from bench.subjects.subject import Settings, Site, Subject, Tool

__all__ = ["GATEWAY", "REFERENCE", "SUBJECTS", "Settings", "Site", "Subject", "Tool"]

GATEWAY = gateway.GATEWAY
REFERENCE = nginx.AUTH_CACHED
"""What the gateway is held against, and what is measured twice to see the machine's noise."""
SUBJECTS = (
    gateway.GATEWAY,
    gateway.GATEWAY_NO_LOG,
    gateway.DECISIONS,
    nginx.AUTH_CACHED,
    nginx.AUTH_CACHED_LOGGED,
    nginx.LUA,
    nginx.AUTH,
    nginx.ASKING,
    nginx.PLAIN,
    envoy.JWT,
    envoy.EXT_AUTHZ,
    haproxy.PLAIN,
    caddy.PLAIN,
    caddy.FORWARD_AUTH,
    aiohttp.PLAIN,
    aiohttp.HANDLER,
)
