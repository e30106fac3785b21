"""One provider in several processes: keys, tokens and proofs are the same in all of them."""

from __future__ import annotations

import contextlib
import itertools
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from prometheus_client.parser import text_string_to_metric_families
from support.deadlines import scaled
from support.jose_values import ASSERTION_TYPE, jwks, make_assertion, make_key, make_proof
from support.processes.gateway import GatewayProcess, gateway_process
from support.processes.redis import RedisServer
from support.running_gateway import ADMIN_TOKEN
from support.servers.raw_upstream import RawUpstream, thread_upstream

pytestmark = pytest.mark.system

WORKERS = 2
CONNECTIONS = 32
"""So many that none of the workers is left out, unless by a chance of one in 2**31."""
KEY = make_key()
TLS = ssl.create_default_context()
"""Not used, but made anew for each of hundreds of requests otherwise."""
ISSUER = "http://gateway.test"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    with thread_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    upstream: RawUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """Two workers that sign their tokens."""
    with start_gateway(tmp_path_factory.mktemp("gateway"), upstream, workers=WORKERS) as running:
        create_client(running)
        yield running


@contextlib.contextmanager
def start_gateway(
    directory: Path, upstream: RawUpstream, **sections: Any
) -> Iterator[GatewayProcess]:
    provider = {"token_format": "jwt", "seal_key": "x" * 32}
    sections = {"provider": provider} | sections
    with gateway_process(directory, upstream.url, **sections) as running:
        yield running
    assert "Traceback" not in running.errors()


def create_client(gateway: GatewayProcess) -> None:
    """One with a secret, and one that signs."""
    signer = {"client_id": "signer", "token_endpoint_auth_method": "private_key_jwt"}
    for members in (
        {"client_id": "shop", "client_secret": "secret"},
        {**signer, "jwks": jwks(KEY)},
    ):
        httpx.post(
            f"{gateway.admin_url}/api/v1/clients",
            json=members,
            headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
            timeout=scaled(),
        ).raise_for_status()


def request_token(gateway: GatewayProcess, *, proof: str = "") -> httpx.Response:
    """On a connection of its own, so by any of the workers."""
    return httpx.post(
        f"{gateway.url}/token",
        data={"grant_type": "client_credentials"},
        auth=("shop", "secret"),
        headers={"DPoP": proof} if proof else {},
        timeout=scaled(),
        verify=TLS,
    )


def request_token_by_assertion(gateway: GatewayProcess, assertion: str) -> httpx.Response:
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion,
    }
    return httpx.post(f"{gateway.url}/token", data=form, timeout=scaled(), verify=TLS)


def statuses(gateway: GatewayProcess, headers: dict[str, str]) -> list[int]:
    """What as many connections are answered as reach all workers; that they do is looked at."""
    before = served(gateway)
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(httpx.Client(timeout=scaled(), verify=TLS))
            for _ in range(CONNECTIONS)
        ]
        found = [
            client.get(f"{gateway.url}/api/x", headers=headers).status_code for client in clients
        ]
        after = served(gateway)
    assert all(after[worker] > before.get(worker, 0) for worker in after), "one was left out"
    return found


def served(gateway: GatewayProcess) -> dict[str, float]:
    """Connections of each worker; of a gateway without workers, none."""
    text = httpx.get(f"{gateway.admin_url}/metrics", timeout=scaled()).text
    return {
        sample.labels["worker"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "gateway_worker_connections"
    }


def proof_for(method: str, path: str, **more: Any) -> str:
    return make_proof(
        KEY, method, f"{ISSUER}{path}", time.time(), jti=f"proof-{next(_numbers)}", **more
    )


def test_workers_sign_with_one_key_that_all_of_them_publish(gateway: GatewayProcess) -> None:
    tokens = [request_token(gateway).json()["access_token"] for _ in range(CONNECTIONS)]
    published = [
        httpx.get(f"{gateway.url}/jwks.json", verify=TLS).json() for _ in range(CONNECTIONS)
    ]
    assert all(one == published[0] for one in published)
    keys = KeySet.import_key_set(published[0])
    decoded = [jwt.decode(token, keys, algorithms=["ES256"]) for token in tokens]
    assert {one.header["typ"] for one in decoded} == {"at+jwt"}
    assert len({one.header["kid"] for one in decoded}) == 1
    for token in tokens[:3]:
        assert set(statuses(gateway, {"Authorization": f"Bearer {token}"})) == {200}


def test_proof_at_the_token_endpoint_is_good_once_at_all_workers(gateway: GatewayProcess) -> None:
    proof = proof_for("POST", "/token")
    responses = [request_token(gateway, proof=proof) for _ in range(CONNECTIONS)]
    refused = [response for response in responses if response.status_code != 200]
    assert len(refused) == CONNECTIONS - 1
    assert {response.json()["error"] for response in refused} == {"invalid_dpop_proof"}


def test_proof_on_a_route_is_good_once_at_each_worker_and_no_more(gateway: GatewayProcess) -> None:
    issued = request_token(gateway, proof=proof_for("POST", "/token")).json()
    token = issued["access_token"]
    assert issued["token_type"] == "DPoP"
    proof = proof_for("GET", "/api/x", token=token)
    found = statuses(gateway, {"Authorization": f"DPoP {token}", "DPoP": proof})
    assert found.count(200) == WORKERS, "this is the bound that docs/reference/oauth.md tells of"
    assert found.count(401) == CONNECTIONS - WORKERS
    again = statuses(gateway, {"Authorization": f"DPoP {token}", "DPoP": proof})
    assert set(again) == {401}
    other = proof_for("GET", "/api/y", token=token)
    assert set(statuses(gateway, {"Authorization": f"DPoP {token}", "DPoP": other})) == {401}


def test_assertion_is_good_once_at_all_workers(gateway: GatewayProcess) -> None:
    assertion = make_assertion(KEY, "signer", ISSUER, time.time(), jti="once")
    responses = [request_token_by_assertion(gateway, assertion) for _ in range(5)]
    assert sorted(response.status_code for response in responses) == [200, 401, 401, 401, 401]


def test_gateways_on_one_redis_are_one_provider(
    upstream: RawUpstream, tmp_path: Path, redis_server: RedisServer
) -> None:
    with contextlib.ExitStack() as stack:
        fleet = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            fleet.append(
                stack.enter_context(
                    start_gateway(tmp_path / name, upstream, store=redis_server.url)
                )
            )
        one, two = fleet
        create_client(one)
        keys = httpx.get(f"{one.url}/jwks.json").json()
        assert httpx.get(f"{two.url}/jwks.json").json() == keys
        for signing, using in ((one, two), (two, one)):
            token = request_token(signing).json()["access_token"]
            jwt.decode(token, KeySet.import_key_set(keys), algorithms=["ES256"])
            for gateway in (using, signing):
                headers = {"Authorization": f"Bearer {token}"}
                assert httpx.get(f"{gateway.url}/api/x", headers=headers).status_code == 200
        assertion = make_assertion(KEY, "signer", ISSUER, time.time(), jti="fleet")
        assert request_token_by_assertion(one, assertion).status_code == 200
        for gateway in (two, one):
            assert (
                request_token_by_assertion(gateway, assertion).json()["error"] == "invalid_client"
            )
        proof = proof_for("POST", "/token")
        assert request_token(two, proof=proof).status_code == 200
        assert request_token(one, proof=proof).json()["error"] == "invalid_dpop_proof"
        other = make_assertion(KEY, "signer", ISSUER, time.time(), jti="another")
        assert request_token_by_assertion(two, other).status_code == 200
