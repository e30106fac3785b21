"""TLS towards PostgreSQL: what each `sslmode` demands, as libpq names them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.jose_values import make_certificate
from support.processes.postgresql import PostgresServer
from support.stores.postgresql import make_store
from support.tiers import slow

from gateway.oauth.models import StoreUnavailableError

pytestmark = slow("PostgreSQL")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a server, and of somebody else."""
    directory = tmp_path_factory.mktemp("certificates")
    for name in ("server", "other"):
        make_certificate(directory, name)
    return directory


@pytest.fixture(scope="module")
def server(
    certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PostgresServer]:
    own = PostgresServer(tmp_path_factory.mktemp("postgresql"))
    yield own.create(certificate=make_certificate(certificates, "server")).start()
    own.stop()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("sslmode=disable", "no pg_hba.conf entry"),
        ("sslmode=prefer", ""),
        ("sslmode=require", ""),
        ("sslmode=verify-full&sslrootcert={}/server.crt", ""),
        ("sslmode=verify-ca&sslrootcert={}/server.crt", ""),
        ("sslmode=verify-full&sslrootcert={}/other.crt", "certificate verify failed"),
        ("sslmode=verify-ca&sslrootcert={}/other.crt", "certificate verify failed"),
        ("sslmode=verify-full", "certificate verify failed"),
    ],
)
async def test_server_is_verified_as_far_as_sslmode_says(
    server: PostgresServer, certificates: Path, options: str, problem: str
) -> None:
    store = make_store(f"{server.url}?{options.format(certificates)}")
    if problem:
        with pytest.raises(StoreUnavailableError, match=problem):
            await store.ping()
    else:
        await store.ping()
        used = await store._calls.value(
            "ping", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        )
        assert used is True
    await store.close()


async def test_name_is_verified_by_verify_full_alone(
    server: PostgresServer, certificates: Path
) -> None:
    ca = f"sslrootcert={certificates}/server.crt"
    # Where it listens, too, and which its certificate does not name.
    elsewhere = server.url.replace("127.0.0.1", "127.0.0.2")
    store = make_store(f"{elsewhere}?sslmode=verify-full&{ca}")
    with pytest.raises(StoreUnavailableError, match="certificate verify failed"):
        await store.ping()
    await store.close()
    store = make_store(f"{elsewhere}?sslmode=verify-ca&{ca}")
    await store.ping()
    await store.close()
