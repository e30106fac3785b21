"""Builds the wheel, with the hot path compiled to C by mypyc, and the codec by Cython.

The compiled modules are the same Python, typed strictly, some twice as fast. The codec
(`gateway/codec`) reads what is common in heads; the rest is left to those modules. Without a C
compiler, or with GATEWAY_PURE=1, the wheel holds Python alone. An editable install never
compiles: what is edited must be what runs.
"""

import os
import sys

from setuptools import Extension, setup

HOT_PATH = [
    "gateway/oauth/access.py",
    "gateway/oauth/bearer.py",
    "gateway/oauth/endpoints/paths.py",
    "gateway/oauth/token_cache.py",
    "gateway/proxy/attempts.py",
    "gateway/proxy/decisions.py",
    "gateway/http/h1_body.py",
    "gateway/downstream/h1.py",
    "gateway/downstream/connections.py",
    "gateway/downstream/stream.py",
    "gateway/downstream/turns.py",
    "gateway/http/grpc.py",
    "gateway/upstream/h1.py",
    "gateway/upstream/h1_head.py",
    "gateway/upstream/h2.py",
    "gateway/upstream/h2_fields.py",
    "gateway/upstream/h2_intake.py",
    "gateway/upstream/h2_limits.py",
    "gateway/upstream/h2_negotiation.py",
    "gateway/upstream/h2_pool.py",
    "gateway/upstream/h2_stream.py",
    "gateway/http/deadline.py",
    "gateway/proxy/exchange.py",
    "gateway/http/fields.py",
    "gateway/http/h2.py",
    "gateway/http/h2_budget.py",
    "gateway/http/h2_fields.py",
    "gateway/http/h2_engine.py",
    "gateway/http/h2_pieces.py",
    "gateway/metrics/requests.py",
    "gateway/proxy/context.py",
    "gateway/proxy/mirror.py",
    "gateway/proxy/pipeline.py",
    "gateway/proxy/stages.py",
    "gateway/proxy/upstream_head.py",
    "gateway/proxy/request_log.py",
    "gateway/http/errors.py",
    "gateway/downstream/h1_head.py",
    "gateway/downstream/h1_response.py",
    "gateway/downstream/h2.py",
    "gateway/downstream/h2_head.py",
    "gateway/downstream/h2_deadline.py",
    "gateway/downstream/h2_intake.py",
    "gateway/downstream/h2_limits.py",
    "gateway/downstream/h2_stream.py",
    "gateway/downstream/request.py",
    "gateway/http/request_head.py",
    "gateway/http/response_head.py",
    "gateway/proxy/router.py",
    "gateway/http/target.py",
    "gateway/proxy/tracing.py",
    "gateway/proxy/tunnel.py",
    "gateway/upstream/balancing.py",
    "gateway/upstream/circuit_breaker.py",
    "gateway/upstream/endpoint.py",
    "gateway/upstream/outlier_detection.py",
    "gateway/upstream/pool.py",
    "gateway/upstream/retry_policy.py",
    "gateway/upstream/stream.py",
    "gateway/upstream/target.py",
    "gateway/upstream/upstream.py",
    "gateway/downstream/body_reader.py",
    "gateway/rate_limit.py",
]

extensions = []
if "bdist_wheel" in sys.argv and not os.environ.get("GATEWAY_PURE"):
    from mypyc.build import mypycify

    # The project's own configuration of mypy needs all dependencies at hand; a build does not.
    options = ["--config-file=", "--ignore-missing-imports", "--explicit-package-bases"]
    extensions = mypycify([*options, *HOT_PATH], opt_level="3")
    for extension in extensions:
        # One library holds all modules: what they call of each other is looked up in no table.
        extension.extra_compile_args += ["-fvisibility=hidden", "-fno-plt"]
    from Cython.Build import cythonize

    codec = Extension(
        "gateway.codec.native",
        ["gateway/codec/native.pyx"],
        include_dirs=["gateway/codec"],
        depends=["gateway/codec/scan.h", "gateway/codec/sha256.h"],
        extra_compile_args=["-O3"],
    )
    extensions += cythonize([codec], build_dir="build/cython")
    for extension in extensions:
        extension.optional = True

setup(ext_modules=extensions)
