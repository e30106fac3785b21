"""When certificates in use end, as the metrics tell it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from support.running_gateway import StartGateway

from gateway.app.build.tls import certificate_expiries
from gateway.config import parse_config
from gateway.workers.messages import MetricFamily
from gateway.workers.snapshots import add_up

EXPIRY = "gateway_certificate_expiry_timestamp_seconds"
DAY_S = 86400


def make_chain(directory: Path, name: str, *days: int) -> tuple[Path, Path]:
    """A file of certificates that end in so many days, and the key of the last of them."""
    chain, key = directory / f"{name}.crt", directory / f"{name}.key"
    text = b""
    for number in days:
        subprocess.run(
            [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                "-nodes", "-subj", "/CN=localhost", "-days", str(number),
                "-out", chain, "-keyout", key,
            ],
            check=True, capture_output=True,
        )  # fmt: skip
        text = chain.read_bytes() + text
    chain.write_bytes(text)
    return chain, key


async def test_end_of_each_certificate_in_use_is_reported(
    start: StartGateway, tmp_path: Path
) -> None:
    # A chain is as good as what ends first in it.
    listen = make_chain(tmp_path, "listen", 5, 30)
    upstream = make_chain(tmp_path, "upstream", 90)
    gateway = await start(
        "https://127.0.0.1:9",
        listen={"tls": {"cert": str(listen[0]), "key": str(listen[1])}},
        upstreams={"main": {"tls": {"cert": str(upstream[0]), "key": str(upstream[1])}}},
    )
    for certificate, days in {"listen": 5, "upstreams.main": 90}.items():
        end = await gateway.metric(EXPIRY, certificate=certificate)
        assert abs(end - time.time() - days * DAY_S) < 600


async def test_without_certificates_no_end_is_reported(start: StartGateway) -> None:
    gateway = await start("http://127.0.0.1:9")
    assert EXPIRY + "{" not in await gateway.metrics()


def test_what_is_no_certificate_has_no_end(tmp_path: Path) -> None:
    (tmp_path / "x.crt").write_text("nothing of the kind")
    tls = f"{{cert: {tmp_path}/x.crt, key: {tmp_path}/x.key}}"
    config = parse_config(
        f"listen: {{tls: {tls}}}\n"
        "provider: {registration: {mode: off}}\n"
        "upstreams: {a: {targets: ['http://127.0.0.1:9']}}\n"
        "routes: [{name: a, match: {path: /}, upstream: a}]\n",
        file="x.yaml",
    )
    assert certificate_expiries(config) == {}


def test_workers_together_report_of_the_first_end() -> None:
    def family(end: float) -> MetricFamily:
        return MetricFamily(EXPIRY, "gauge", "", [(EXPIRY, {"certificate": "listen"}, end)])

    (joined,) = add_up([[family(2000.0)], [family(1000.0)]])
    assert joined.samples == [(EXPIRY, {"certificate": "listen"}, 1000.0)]
