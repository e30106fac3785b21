"""What machine, tree and day the figures are from."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from bench.cores import Placement

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and when it was measured."""

    date: str
    """UTC."""
    commit: str
    cpu: str
    cores: int
    is_virtual: bool
    memory_gib: float
    kernel: str
    system: str
    python: str
    load_before: float
    """The load average of the minute before: above some 0.3, others were at work."""
    placement: Placement


def read_machine(placement: Placement) -> Machine:
    """This machine, now."""
    cpu = Path("/proc/cpuinfo").read_text()
    return Machine(
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=read_commit(),
        cpu=cpu_model(cpu),
        cores=os.cpu_count() or 1,
        is_virtual=" hypervisor" in cpu,
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30),
        kernel=platform.release(),
        system=platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        python=describe_python(),
        load_before=os.getloadavg()[0],
        placement=placement,
    )


def describe_python() -> str:
    """The interpreter's version, and how it says it was built: profile-guided and link-time
    optimisation make a tenth or two."""
    given = str(sysconfig.get_config_var("CONFIG_ARGS"))
    options = {"--enable-optimizations": "PGO", "--with-lto": "LTO"}
    named = [name for option, name in options.items() if option in given]
    build = " and ".join(named) if named else "neither PGO nor LTO among its configure options"
    return f"{platform.python_version()} ({platform.python_compiler()}; {build})"


def cpu_model(cpuinfo: str) -> str:
    """The processor's name in the text of /proc/cpuinfo; virtual ones often hide it."""
    named = dict.fromkeys(("model name", "cpu family", "model"), "")
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in named:
            named[key.strip()] = value.strip()
    name = named["model name"] or platform.machine()
    if named["cpu family"]:
        name += f" (family {named['cpu family']}, model {named['model']})"
    return name


def read_commit() -> str:
    """The commit of the tree, with `+` where it was changed since; empty outside of git."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*arguments: str) -> str:
    done = subprocess.run(("git", *arguments), cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
