"""What httpx does in tests where it is not told otherwise."""

from __future__ import annotations

import functools

from httpx._config import DEFAULT_TIMEOUT_CONFIG
from httpx._transports import default
from support.deadlines import scaled

MAKE_CONTEXT = "create_ssl_context"


def set_httpx_defaults() -> None:
    """Wait as long as everything else does, instead of five seconds; read the certificates that are
    trusted by default once, instead of in each `httpx.get` (35 ms of CPU)."""
    for phase in ("connect", "read", "write", "pool"):
        setattr(DEFAULT_TIMEOUT_CONFIG, phase, scaled())
    make_context = getattr(default, MAKE_CONTEXT)
    shared = functools.cache(make_context)

    def context(verify: object = True, cert: object = None, trust_env: bool = True) -> object:
        if verify is True and cert is None:
            return shared()
        return make_context(verify, cert, trust_env)

    setattr(default, MAKE_CONTEXT, context)
