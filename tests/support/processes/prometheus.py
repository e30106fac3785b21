"""A real Prometheus that scrapes what a test runs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from support.deadlines import scaled, wait_until
from support.deploy_tools import DEPLOY, tool

from examples.ports import free_port

SCRAPE = "250ms"


@dataclass(frozen=True)
class Sample:
    """One element of an instant vector."""

    labels: dict[str, str]
    value: float


class PrometheusServer:
    """One process, with the configuration of the composition, but faster and with other targets."""

    def __init__(self, directory: Path, target: str) -> None:
        """Scrapes `target`, HOST:PORT."""
        self.directory = directory
        self.url = f"http://127.0.0.1:{free_port()}"
        config = yaml.safe_load((DEPLOY / "compose" / "prometheus.yaml").read_text())
        config["global"] = {
            "scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE,
        }  # fmt: skip
        config["rule_files"] = [str(DEPLOY / "prometheus" / "rules.yaml")]
        (job,) = config["scrape_configs"]
        job["static_configs"] = [{"targets": [target]}]
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))

    def start(self) -> PrometheusServer:
        """Start, and wait until it answers."""
        with (self.directory / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    tool("prometheus"),
                    f"--config.file={self.directory}/prometheus.yml",
                    f"--storage.tsdb.path={self.directory}/tsdb",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                    "--enable-feature=exemplar-storage",
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(self._is_ready)
        return self

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self._log()
        try:
            return httpx.get(f"{self.url}/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def _log(self) -> str:
        return (self.directory / "prometheus.log").read_text()

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(timeout=scaled())

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of a response of its API."""
        response = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=scaled())
        assert response.status_code == 200, response.text
        return response.json()["data"]

    def query(self, expression: str) -> list[Sample]:
        """The samples of an expression, now; those without a value (NaN) left out."""
        data = self.get("query", query=expression)
        assert data["resultType"] == "vector", expression
        samples = [Sample(one["metric"], float(one["value"][1])) for one in data["result"]]
        return [sample for sample in samples if sample.value == sample.value]

    def value(self, expression: str) -> float:
        """The only sample of an expression."""
        (sample,) = self.query(expression)
        return sample.value

    def until(
        self, expression: str, condition: Callable[[list[Sample]], bool] = bool
    ) -> list[Sample]:
        """The samples of an expression, as soon as they are as wanted."""
        samples: list[Sample] = []

        def is_as_wanted() -> bool:
            samples[:] = self.query(expression)
            return condition(samples)

        wait_until(is_as_wanted, what=lambda: f"{expression} is {samples}")
        return samples
