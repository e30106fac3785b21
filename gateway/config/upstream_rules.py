"""Check that the settings of an upstream fit each other, and what is installed."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.problems import Path
from gateway.config.upstreams import UpstreamConfig, WeightedTarget
from gateway.http.h2 import HOW_TO_INSTALL, is_available

Finding = tuple[Path, str]


def check_upstream(where: Path, upstream: UpstreamConfig) -> Iterator[Finding]:
    """Check the protocol of an upstream, and its health checks."""
    if upstream.protocol == "http2" and not is_available():
        yield (
            (*where, "protocol"),
            f"http2 needs the extra `http2`, which is not installed: {HOW_TO_INSTALL}",
        )
    check = upstream.health_check
    if check is None:
        return
    if check.path is None and check.grpc is None:
        yield (*where, "health_check", "path"), "is required, or grpc"
    elif check.path is not None and check.grpc is not None:
        yield (*where, "health_check", "grpc"), "has no effect beside path, expected one of them"
    elif check.grpc is not None and not _may_speak_http2(upstream):
        yield (*where, "health_check", "grpc"), "needs HTTP/2, expected `protocol: http2`"


def _may_speak_http2(upstream: UpstreamConfig) -> bool:
    if upstream.protocol == "auto":
        urls = (one.url if isinstance(one, WeightedTarget) else one for one in upstream.targets)
        return is_available() and all(url.lower().startswith("https:") for url in urls)
    return upstream.protocol == "http2"
