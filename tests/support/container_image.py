"""The image that the Dockerfile makes, built without Docker, and a container of it.

The base images are made by debootstrap, since registries can't be reached from everywhere:
Debian's Python in place of that of `python:3.11-slim-bookworm`, with pip beside it as there. What
is built is kept in the user's cache directory: a base until its packages change, an image until a
file changes that goes into it.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.deadlines import wait_until
from support.deploy_tools import ROOT
from support.processes.gateway import GatewayProcess

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bearer-gateway-tests"
SUITE = "bookworm"
BASES = {
    "runtime": ("python3", "ca-certificates"),
    "build": ("python3", "ca-certificates", "python3-venv", "python3-dev", "gcc", "libc6-dev"),
}
"""Packages of the base images: what the gateway runs on, and what compiles it."""
PIP_OPTIONS = frozenset(
    {"index-url", "extra-index-url", "find-links", "trusted-host", "cert", "default-timeout"}
)
"""Of pip's configuration here, what its runs in the build need to know."""
UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
MOUNTS = """
set -e
root=$1 config=$2 data=$3; shift 3
mount --bind "$root" "$root"
mount --bind "$config" "$root/etc/gateway"
mount -o remount,bind,ro "$root/etc/gateway"
mount --bind "$data" "$root/var/lib/gateway"
mount -t tmpfs tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -o remount,bind,ro "$root"
exec "$@"
"""
"""As a runtime does with `--read-only`: only the data and /tmp can be written."""


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: its file system, its configuration, and what it adds to its base."""

    root: Path
    config: dict[str, Any]
    added: tuple[str, ...]
    """Paths below `root` that its own layers have."""

    def command(self, *arguments: str) -> list[str]:
        """A command that runs in the image as its user, with its environment and nothing else."""
        inside = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', self.config["WorkingDir"], *arguments]
        user = f"--userspec={self.config['User']}"
        chroot = [shutil.which("chroot") or "chroot", user, str(self.root)]
        return ["env", "-i", *self.config["Env"], *chroot, *inside]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What a command in the image prints."""
        return subprocess.run(self.command(*arguments), capture_output=True, text=True)


class ImageProcess(GatewayProcess):
    """A container of the image, in the network of the host; its process is `unshare`, around it."""

    def __init__(self, image: Image, directory: Path, upstream_url: str) -> None:
        super().__init__(
            directory,
            upstream_url,
            store="sqlite:////var/lib/gateway/gateway.db",
            access_log={"path": "/var/lib/gateway/access.log"},
            shutdown={"delay": 0},
        )
        self._image = image
        self.data = directory / "data"
        self.data.mkdir()
        uid, _, gid = image.config["User"].partition(":")
        os.chown(self.data, int(uid), int(gid))
        mounted = directory / "config"
        mounted.mkdir()
        shutil.copy(self.config, mounted / "gateway.yaml")
        (mounted / "gateway.yaml").chmod(0o444)
        self.config = Path("/etc/gateway/gateway.yaml")
        made = (str(image.root), str(mounted), str(self.data))
        self._around = (*UNSHARE, "sh", "-c", MOUNTS, "sh", *made)

    def run(self) -> None:
        """Start, and wait until it is ready."""
        self.start(command=(*self._around, *self._image.command(*self._image.config["Entrypoint"])))

    def begin(self) -> psutil.Process:
        """Start, and wait until the first process has forked the gateway, of which little runs."""
        entry = [*self._image.config["Entrypoint"], *self._image.config["Cmd"]]
        with (self.directory / "stderr.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*self._around, *self._image.command(*entry)], stderr=log
            )

        def is_made() -> bool:
            return any(  # before it is Python, it is the shell that mounts
                Path(first.cmdline()[0]).name.startswith("python") and first.children()
                for first in psutil.Process(self.process.pid).children()
            )

        wait_until(is_made, what=self.errors)
        return self.first()

    def first(self) -> psutil.Process:
        """The first process of the container."""
        (first,) = psutil.Process(self.process.pid).children()
        return first


def built_image() -> Image:
    """The image of the checkout, built if it is not in the cache; skips where that can't be."""
    _need_tools()
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = CACHE / f"image-{_digest()}"
        if not made.exists():
            for old in CACHE.glob("image-*"):
                shutil.rmtree(old)
            with tempfile.TemporaryDirectory(dir=CACHE) as directory:
                _build(Path(directory) / "image")
                (Path(directory) / "image").rename(made)
    document = json.loads((made / "inspect.json").read_text())
    added = (made / "added").read_text().splitlines()
    return Image(made / "root", document["Docker"]["config"], tuple(added))


def _need_tools() -> None:
    missing = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"there is no {' and no '.join(missing)}: apt-get install buildah debootstrap")
    if os.geteuid() != 0 or subprocess.run([*UNSHARE, "true"], capture_output=True).returncode:
        pytest.skip("needs to be root, with the right to mount and to make a PID namespace")


def _digest() -> str:
    """Of all that goes into the image."""
    digest = hashlib.sha256(repr(BASES).encode())
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name in ("Dockerfile", *(line[1:] for line in ignored if line.startswith("!"))):
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _build(directory: Path) -> None:
    """Build by the Dockerfile, and unpack what results: `root`, `inspect.json`, `added`."""
    directory.mkdir()
    for name in BASES:
        _make_base(name)
    pip_conf = directory / "pip.conf"
    mounts = _pip_settings(pip_conf)
    options = ["--isolation", "chroot", "--network", "host", "--format", "docker", "--quiet"]
    bases = [f"--build-arg={key}={_tag(name)}" for key, name in
             (("PYTHON", "runtime"), ("BUILD", "build"))]  # fmt: skip
    volumes = [f"--volume={path}:{inside}:ro" for path, inside in mounts]
    _buildah("bud", *options, *bases, *volumes, "--tag", _tag("built"), str(ROOT))
    (directory / "inspect.json").write_text(_buildah("inspect", "--type", "image", _tag("built")))
    with _mounted(_tag("runtime")) as base, _mounted(_tag("built")) as root:
        subprocess.run(["cp", "-a", root, directory / "root"], check=True)
        (directory / "added").write_text("\n".join(sorted(_paths(root) - _paths(base))))
    _buildah("rmi", _tag("built"))


def _make_base(name: str) -> None:
    if _buildah("images", "--quiet", "--filter", f"reference={_tag(name)}"):
        return
    with tempfile.TemporaryDirectory(dir=CACHE) as made:
        include = f"--include={','.join(BASES[name])}"
        command = ["debootstrap", "--variant=minbase", include, SUITE, made]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"debootstrap can't make a base image: {done.stdout[-500:]}")
        (python,) = Path(made, "usr/lib").glob("python3.*")
        (python / "EXTERNALLY-MANAGED").unlink()  # the official image has none
        if name == "runtime":
            packages = Path(made, "usr/local/lib", python.name, "dist-packages")
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(packages)]
            subprocess.run([*pip, "pip", "setuptools", "wheel"], check=True, capture_output=True)
            shutil.rmtree(packages / "bin")
        container = _buildah("from", "scratch")
        _buildah("add", "--quiet", container, made, "/")
        _buildah("commit", "--quiet", "--format", "docker", "--rm", container, _tag(name))


def _pip_settings(file: Path) -> list[tuple[str, str]]:
    """Write pip's settings for the build; returns what they need of this machine, and its place."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    settings = {}
    for line in listing.stdout.splitlines():
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    settings = {name: value for name, value in settings.items() if name in PIP_OPTIONS}
    lines = (f"{name} = {' '.join(value.split())}\n" for name, value in settings.items())
    file.write_text("[global]\n" + "".join(lines))
    mounts = {(str(file), "/etc/pip.conf")}
    for name, value in settings.items():
        for word in value.split():
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                # The files of an index lie beside its pages.
                path = path.parent if name.endswith("index-url") else path
                mounts.add((str(path), str(path)))
    return sorted(mounts)


def _tag(name: str) -> str:
    packages = hashlib.sha256(repr((SUITE, BASES.get(name))).encode()).hexdigest()[:8]
    return f"localhost/bearer-gateway-{name}:{packages}"


@contextmanager
def _mounted(image: str) -> Iterator[Path]:
    container = _buildah("from", image)
    try:
        yield Path(_buildah("mount", container))
    finally:
        _buildah("rm", container)


def _paths(root: Path) -> set[str]:
    return {
        str(Path(directory, name).relative_to(root))
        for directory, _, names in os.walk(root)
        for name in names
    }


def _buildah(*arguments: str) -> str:
    """What buildah prints; its images are in the cache, apart from those of the user."""
    store = ["--root", str(CACHE / "storage"), "--runroot", str(CACHE / "run")]
    done = subprocess.run(["buildah", *store, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"buildah {arguments}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()
