"""Builds the wheel, with the hot path compiled to C by mypyc.

The compiled modules are the same Python, typed strictly, some twice as fast. Without a C
compiler, or with GATEWAY_PURE=1, the wheel holds them as they are. An editable install
never compiles: what is edited must be what runs.
"""

import os
import sys

from setuptools import setup

HOT_PATH = [
    "gateway/oauth/access.py",
    "gateway/oauth/validator.py",
    "gateway/proxy/attempts.py",
    "gateway/proxy/authz.py",
    "gateway/proxy/body.py",
    "gateway/proxy/client.py",
    "gateway/proxy/client_server.py",
    "gateway/proxy/client_side.py",
    "gateway/proxy/connection.py",
    "gateway/proxy/deadline.py",
    "gateway/proxy/exchange.py",
    "gateway/proxy/fields.py",
    "gateway/proxy/hedging.py",
    "gateway/proxy/listener.py",
    "gateway/proxy/outbound.py",
    "gateway/proxy/outcome.py",
    "gateway/proxy/problems.py",
    "gateway/proxy/refusal.py",
    "gateway/proxy/request.py",
    "gateway/proxy/request_head.py",
    "gateway/proxy/response_head.py",
    "gateway/proxy/router.py",
    "gateway/proxy/streamed_answer.py",
    "gateway/proxy/target.py",
    "gateway/proxy/tracing.py",
    "gateway/proxy/tunnel.py",
    "gateway/proxy/upstreams/balancing.py",
    "gateway/proxy/upstreams/breaker.py",
    "gateway/proxy/upstreams/endpoint.py",
    "gateway/proxy/upstreams/outliers.py",
    "gateway/proxy/upstreams/retries.py",
    "gateway/proxy/upstreams/slow_start.py",
    "gateway/proxy/upstreams/target.py",
    "gateway/proxy/upstreams/upstream.py",
    "gateway/proxy/waiting.py",
    "gateway/rate_limit.py",
]

extensions = []
if "bdist_wheel" in sys.argv and not os.environ.get("GATEWAY_PURE"):
    from mypyc.build import mypycify

    # The project's own configuration of mypy needs all dependencies at hand; a build does not.
    options = ["--config-file=", "--ignore-missing-imports", "--explicit-package-bases"]
    extensions = mypycify([*options, *HOT_PATH], opt_level="3")
    for extension in extensions:
        extension.optional = True

setup(ext_modules=extensions)
