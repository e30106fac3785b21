"""A gateway with the files of a container, as `deploy/` puts them into a pod."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from support.cluster_secrets import config_maps, documented_secrets, made_by_chart
from support.deploy_tools import Object, container, pod_of, the
from support.kubelet import Mounts
from support.processes.gateway import GatewayProcess

from examples.ports import free_port

Settings = dict[str, Any]
Change = Callable[[Settings], object]


class ContainerProcess(GatewayProcess):
    """`gateway run` of a rendered Deployment, its volumes mounted below `directory`.

    Ports are others, and addresses loopback; the rest is as it would be in a cluster, but for
    `change` and for `secrets`.
    """

    def __init__(
        self,
        directory: Path,
        found: list[Object],
        *,
        change: Change = lambda settings: None,
        secrets: dict[str, dict[str, str]] | None = None,
    ) -> None:
        pod = pod_of(the(found, "Deployment"))
        self.mounts = Mounts(
            directory / "root",
            pod,
            container(pod, "gateway"),
            config_maps=config_maps(found),
            secrets=secrets or documented_secrets() | made_by_chart(found),
        )
        self.port, self.admin_port = free_port(), free_port()
        self.directory = directory
        self.config = self.mounts.path("/etc/gateway/gateway.yaml")
        self.admin_url = f"http://127.0.0.1:{self.admin_port}"
        self.settings: Settings = yaml.safe_load(self.config.read_text())
        scheme = "https" if "tls" in self.settings["listen"] else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.settings["listen"] |= {"port": self.port, "host": "127.0.0.1"}
        self.settings["admin"] |= {"port": self.admin_port, "host": "127.0.0.1"}
        self.configure(change)

    def configure(self, change: Change) -> None:
        """Change the ConfigMap, and let the kubelet swap it in."""
        change(self.settings)
        self.mounts.volumes["config"].update({"gateway.yaml": yaml.safe_dump(self.settings)})
