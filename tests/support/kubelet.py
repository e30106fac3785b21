"""Mounts ConfigMaps and Secrets as the kubelet does.

A volume is a directory in which each key is a link to `..data/KEY`, and `..data` a link to a
directory with the data. A change makes a new such directory and swaps the one link
(kubernetes/pkg/volume/util/atomic_writer.go).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from support.deploy_tools import Object
from support.jose_values import make_certificate


class Volume:
    """A mounted ConfigMap or Secret."""

    def __init__(self, path: Path, data: Mapping[str, str]) -> None:
        path.mkdir(parents=True)
        self.path = path
        self._generation = 0
        self.update(data)

    def update(self, data: Mapping[str, str]) -> None:
        """Swap the data for another, all keys at once."""
        self._generation += 1
        fresh = self.path / f"..2026_{self._generation}"
        fresh.mkdir()
        for key, value in data.items():
            (fresh / key).write_text(value)
        swap, current = self.path / "..data_tmp", self.path / "..data"
        old = os.readlink(current) if current.is_symlink() else None
        swap.symlink_to(fresh.name)
        swap.rename(current)
        for key in data:
            if not (self.path / key).is_symlink():
                (self.path / key).symlink_to(Path("..data", key))
        for link in self.path.iterdir():
            if not link.name.startswith("..") and link.name not in data:
                link.unlink()
        if old is not None:
            shutil.rmtree(self.path / old)


class Mounts:
    """The file system of a container, as far as volumes make it, below a directory."""

    def __init__(
        self,
        root: Path,
        pod: Object,
        container: Object,
        *,
        config_maps: Mapping[str, Mapping[str, str]],
        secrets: Mapping[str, Mapping[str, str]],
    ) -> None:
        """Fails where the pod mounts what is not among `config_maps` and `secrets`."""
        self.root = root
        self.volumes: dict[str, Volume] = {}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for mount in container["volumeMounts"]:
            assert "subPath" not in mount, "a subPath is never updated"
            volume, path = volumes[mount["name"]], root / mount["mountPath"].lstrip("/")
            if "configMap" in volume:
                data = config_maps[volume["configMap"]["name"]]
                self.volumes[mount["name"]] = Volume(path, self._moved_data(data))
            elif "secret" in volume:
                data = secrets[volume["secret"]["secretName"]]
                self.volumes[mount["name"]] = Volume(path, self._moved_data(data))
            elif "projected" in volume:
                self.volumes[mount["name"]] = Volume(path, self._projected(volume))
            else:
                path.mkdir(parents=True)

    def _projected(self, volume: Object) -> dict[str, str]:
        """Tokens of the pod's account, and the CA of the cluster, which each namespace has."""
        data: dict[str, str] = {}
        for source in volume["projected"]["sources"]:
            if "serviceAccountToken" in source:
                data[source["serviceAccountToken"]["path"]] = "a.service.account-token"
            else:
                assert source["configMap"]["name"] == "kube-root-ca.crt"
                (item,) = source["configMap"]["items"]
                made = self.root.parent / f"{self.root.name}-cluster"
                made.mkdir(exist_ok=True)
                ca = make_certificate(made, "cluster", is_ca=True)
                data[item["path"]] = ca.cert.read_text()
        return data

    def path(self, inside: str) -> Path:
        """Where a path of the container is."""
        return self.root / inside.lstrip("/")

    def moved(self, text: str) -> str:
        """A text with the paths of mounts replaced by where they are."""
        for path in ("/etc/gateway", "/run/secrets", "/var/lib/gateway"):
            text = text.replace(path, str(self.path(path)))
        return text

    def _moved_data(self, data: Mapping[str, str]) -> dict[str, str]:
        return {key: self.moved(value) for key, value in data.items()}
