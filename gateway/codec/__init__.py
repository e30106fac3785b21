"""Reads and writes what every request has: in C where the native codec is installed.

Each function returns exactly what its Python counterpart returns, or None: "ask the Python reader".
The codec never rejects, so each error has one place, and the Python readers stay the definition,
what tests compare it with, and all that an installation without a C compiler has.

`GATEWAY_NO_CODEC=1` in the environment switches it off.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from gateway.codec import absent

__all__ = ["IS_NATIVE", "BucketCounts", "LineLister", "RequestCodec", "ResponseCodec",
           "count_request", "digest_bearer", "is_compiled", "is_traceparent", "longest_prefix",
           "new_id", "write_access_line"]  # fmt: skip

IS_NATIVE = False
"""Whether the native codec is in use."""

if TYPE_CHECKING:
    from gateway.codec.absent import (
        BucketCounts,
        LineLister,
        RequestCodec,
        ResponseCodec,
        count_request,
        digest_bearer,
        is_traceparent,
        longest_prefix,
        new_id,
        write_access_line,
    )
else:
    _codec = absent
    if not os.environ.get("GATEWAY_NO_CODEC") and find_spec("gateway.codec.native"):
        _codec = import_module("gateway.codec.native")
        IS_NATIVE = True
    BucketCounts = _codec.BucketCounts
    LineLister = _codec.LineLister
    RequestCodec = _codec.RequestCodec
    ResponseCodec = _codec.ResponseCodec
    count_request = _codec.count_request
    digest_bearer = _codec.digest_bearer
    is_traceparent = _codec.is_traceparent
    longest_prefix = _codec.longest_prefix
    new_id = _codec.new_id
    write_access_line = _codec.write_access_line


def is_compiled() -> bool:
    """Whether mypyc compiled the modules of the request path, by one of them, which is not
    loaded."""
    spec = find_spec("gateway.rate_limit")
    return spec is not None and not str(spec.origin).endswith(".py")
