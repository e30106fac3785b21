"""A pod without secrets: the tokens that the kubelet projects into it, and replaces."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from joserfc.jwk import Key
from support.deadlines import until
from support.deploy_tools import kustomize
from support.jose_values import make_certificate, make_key
from support.kubelet import Volume
from support.platforms import CLUSTER, service_account_token
from support.processes.container import ContainerProcess, Settings
from support.servers.issuer import Issuer, issuer
from support.servers.raw_upstream import RawUpstream
from support.tiers import slow

from gateway.oauth.policy import JWT_BEARER

pytestmark = [slow("pods"), pytest.mark.system]

AUDIENCE = "https://app.example.com"
RULE = {
    "issuer": "cluster", "subject": "system:serviceaccount:shop:orders", "client_id": "orders",
    "scopes": ["orders"],
}  # fmt: skip


@asynccontextmanager
async def cluster(directory: Path, key: Key) -> AsyncIterator[tuple[Issuer, str]]:
    """An API server that publishes the keys of service accounts, and the CA of its certificate."""
    ca = make_certificate(directory, "ca", is_ca=True)
    own = make_certificate(directory, "localhost", issuer=ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.cert, own.key)
    async with issuer(key, tls=context) as running:
        yield running, str(ca.cert)


async def test_projected_tokens_are_replaced_and_no_request_notices(tmp_path: Path) -> None:
    """Those of the callers, which a new key signs, and that of the gateway for the API server."""
    old, new = make_key("RS256"), make_key("RS256")

    def token_of_a_pod(key: Key, number: int) -> str:
        return service_account_token(key, AUDIENCE, time.time(), jti=f"token-{number}")

    own = Volume(tmp_path / "cluster", {"token": "first of the gateway"})
    caller = Volume(tmp_path / "caller", {"token": token_of_a_pod(old, 1)})
    async with cluster(tmp_path, old) as (api_server, ca), RawUpstream() as app:
        api_server.token = "first of the gateway"

        def change(settings: Settings) -> None:
            settings["provider"] |= {"issuer": AUDIENCE, "scopes": ["orders"]}
            settings["jwt_issuers"] = [
                {"name": "cluster", "issuer": CLUSTER, "audience": [AUDIENCE], "ca": ca,
                 "jwks_uri": api_server.jwks_uri.replace("127.0.0.1", "localhost"),
                 "token_file": str(own.path / "token"), "access_tokens": False}
            ]  # fmt: skip
            settings["workloads"] = [RULE]
            settings["upstreams"]["app"] = {"targets": [app.url]}

        gateway = ContainerProcess(tmp_path, kustomize("k8s/overlays/sidecar"), change=change)

        async def get_token(client: httpx.AsyncClient) -> httpx.Response:
            assertion = (caller.path / "token").read_text()
            form = {"grant_type": JWT_BEARER, "assertion": assertion}
            return await client.post(f"{gateway.url}/token", data=form)

        async def call(client: httpx.AsyncClient, token: str) -> int:
            headers = {"Authorization": f"Bearer {token}"}
            return (await client.get(f"{gateway.url}/orders", headers=headers)).status_code

        await asyncio.to_thread(gateway.start)
        try:
            async with httpx.AsyncClient() as client:
                first = await get_token(client)
                assert first.status_code == 200, first.text
                assert await call(client, first.json()["access_token"]) == 200
                assert (await get_token(client)).status_code == 200, "good until it is replaced"

                # The kubelet replaces both, and the API server begins to sign with another key.
                own.update({"token": "second of the gateway"})
                caller.update({"token": token_of_a_pod(new, 2)})
                api_server.token = "second of the gateway"
                api_server.keys.append(new)
                second: list[httpx.Response] = []

                async def is_accepted() -> bool:
                    second.append(await get_token(client))
                    return second[-1].status_code == 200

                await until(is_accepted)
                assert await call(client, second[-1].json()["access_token"]) == 200
                assert await call(client, first.json()["access_token"]) == 200
                assert api_server.authorizations[-1] == "Bearer second of the gateway"
        finally:
            assert await asyncio.to_thread(gateway.stop) == 0
        log = (tmp_path / "stderr.log").read_text()
        assert "of the gateway" not in log
