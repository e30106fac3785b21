"""Stands for a Kubernetes cluster in demonstrations: gives service account tokens to pods, and
publishes the keys that sign them.

`python -m examples.cluster_issuer pods/orders=shop:orders --audience http://127.0.0.1:8080`
listens on 127.0.0.1:9002 and keeps `pods/orders/token` fresh, as the kubelet does with a projected
volume: the token names service account, pod and node, and is replaced when four fifths of its life
have passed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import RSAKey

HOST = "127.0.0.1"
PORT = 9002
REPLACED_AFTER = 0.8


class Cluster:
    """Signs service account tokens."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer
        self._key = RSAKey.generate_key(2048, auto_kid=True)

    def metadata(self) -> dict[str, Any]:
        """Describe the issuer, as `/.well-known/openid-configuration` of a cluster does."""
        return {
            "issuer": self._issuer,
            "jwks_uri": f"{self._issuer}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def keys(self) -> dict[str, Any]:
        """Return the public keys."""
        public = {**self._key.as_dict(private=False), "use": "sig", "alg": "RS256"}
        return {"keys": [public]}

    def issue(self, namespace: str, account: str, *, audience: str, life_s: int) -> str:
        """Make the token of a pod, in the form that Kubernetes gives it."""
        now = int(time.time())
        claims = {
            "aud": [audience],
            "exp": now + life_s,
            "iat": now,
            "iss": self._issuer,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": {
                "namespace": namespace,
                "node": {"name": "worker-1", "uid": str(uuid.uuid4())},
                "pod": {"name": f"{account}-6d4b75cb6d-hwm2k", "uid": str(uuid.uuid4())},
                "serviceaccount": {"name": account, "uid": str(uuid.uuid4())},
                "warnafter": now + life_s * 4 // 5,
            },
            "nbf": now,
            "sub": f"system:serviceaccount:{namespace}:{account}",
        }
        return jwt.encode({"alg": "RS256", "kid": self._key.kid}, claims, self._key)


def make_application(cluster: Cluster) -> web.Application:
    """Make what publishes the keys."""

    async def metadata(request: web.Request) -> web.Response:
        return web.json_response(cluster.metadata())

    async def keys(request: web.Request) -> web.Response:
        return web.json_response(cluster.keys())

    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", metadata)
    app.router.add_get("/openid/v1/jwks", keys)
    return app


def write(path: Path, token: str) -> None:
    """Replace a token, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(token)
    new.chmod(0o600)
    os.replace(new, path)


async def serve(options: argparse.Namespace) -> None:
    """Publish keys and keep tokens fresh until cancelled."""
    cluster = Cluster(f"http://{HOST}:{options.port}")
    runner = web.AppRunner(make_application(cluster))
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, options.port).start()
        while True:
            for directory, namespace, account in options.pods:
                token = cluster.issue(
                    namespace, account, audience=options.audience, life_s=options.life
                )
                write(directory / "token", token)
                print(f"{directory}/token: {namespace}/{account}", file=sys.stderr, flush=True)
            print(f"cluster listens on http://{HOST}:{options.port}", file=sys.stderr, flush=True)
            await asyncio.sleep(options.life * REPLACED_AFTER)
    finally:
        await runner.cleanup()


def read_pod(text: str) -> tuple[Path, str, str]:
    """Read DIRECTORY=NAMESPACE:ACCOUNT. Raises `ValueError`."""
    directory, _, subject = text.partition("=")
    namespace, colon, account = subject.partition(":")
    if not (directory and namespace and colon and account):
        raise ValueError(text)
    return Path(directory), namespace, account


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m examples.cluster_issuer")
    parser.add_argument("pods", metavar="DIRECTORY=NAMESPACE:ACCOUNT", nargs="+", type=read_pod)
    parser.add_argument("--audience", required=True, help="the audience of the tokens")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--life", type=int, default=3600, help="seconds that a token is good for")
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(parser.parse_args()))
    except OSError as error:
        print(f"the cluster did not start: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
