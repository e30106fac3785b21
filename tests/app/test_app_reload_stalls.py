"""Requests go on while a configuration is loaded: what takes long is done off the event loop.

What is measured is the CPU time of the thread that runs the loop, not the time that passes: it is
the same on a machine that is busy with other things.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.config_file import edit, route
from support.jose_values import make_certificate
from support.running_gateway import make_config

from gateway.app.build.tls import UpstreamContexts
from gateway.app.explain import explain
from gateway.app.gateway import Gateway
from gateway.config import load, parse_config

UPSTREAMS = 50
LONGEST_STALL_S = 0.05


class LoopMeter:
    """Measures how much CPU time the thread of the loop spends in one go."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._is_over = False

    async def __aenter__(self) -> LoopMeter:
        self._task = asyncio.ensure_future(self._measure())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._is_over = True
        await self._task  # what ran last is measured, too

    async def _measure(self) -> None:
        while not self._is_over:
            before = time.thread_time()
            await asyncio.sleep(0)
            self.longest_s = max(self.longest_s, time.thread_time() - before)


def upstreams(scheme: str, ca: str, connect: str) -> dict[str, Any]:
    one: dict[str, Any] = {"timeouts": {"connect": connect}}
    if ca:
        one["tls"] = {"ca": ca}
    return {
        f"u{at}": {"targets": [f"{scheme}://127.0.0.1:{20000 + at}"], **one}
        for at in range(UPSTREAMS)
    }


@pytest.mark.parametrize("kind", ["http", "https", "https-ca"])
async def test_reload_of_many_upstreams_does_not_hold_up_the_event_loop(
    tmp_path: Path, kind: str
) -> None:
    ca = str(make_certificate(tmp_path, "ca", is_ca=True).cert) if kind == "https-ca" else ""
    scheme = kind.partition("-")[0]
    path = tmp_path / "gateway.yaml"
    path.write_text(
        make_config(tmp_path, reload={"watch": False}, upstreams=upstreams(scheme, ca, "1s"))
    )
    loaded = load(path)
    gateway = Gateway(loaded.config, loaded=loaded)
    await gateway.start()
    try:
        edit(path, lambda config: config["upstreams"].update(upstreams(scheme, ca, "2s")))
        assert gateway.reloader is not None
        async with LoopMeter() as meter:
            reload = await gateway.reloader.reload("signal")
        assert (reload.result, len(reload.changes)) == ("ok", UPSTREAMS)
        assert meter.longest_s < LONGEST_STALL_S
    finally:
        await gateway.stop()


async def test_reload_of_many_routes_does_not_hold_up_the_event_loop(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(
        make_config(
            tmp_path,
            reload={"watch": False},
            upstreams=upstreams("http", "", "1s"),
            routes=[route(f"r{at}", f"u{at % UPSTREAMS}") for at in range(800)],
        )
    )
    loaded = load(path)
    gateway = Gateway(loaded.config, loaded=loaded)
    await gateway.start()
    try:

        def change(config: dict[str, Any]) -> None:
            for one in config["routes"]:
                one["match"]["methods"] = ["GET"]

        edit(path, change)
        assert gateway.reloader is not None
        async with LoopMeter() as meter:
            reload = await gateway.reloader.reload("signal")
        assert (reload.result, len(reload.changes)) == ("ok", 800)
        assert meter.longest_s < LONGEST_STALL_S
    finally:
        await gateway.stop()


def make_upstreams(text: str) -> dict[str, Any]:
    lines = f"upstreams: {{{text}}}\nprovider: {{registration: {{mode: 'off'}}}}"
    return parse_config(lines, file="g.yaml").upstreams


def test_context_is_made_for_tls_only_and_shared_by_upstreams_that_trust_the_same(
    tmp_path: Path,
) -> None:
    ca = make_certificate(tmp_path, "ca", is_ca=True).cert
    other = make_certificate(tmp_path, "other", is_ca=True).cert
    configured = make_upstreams(
        f"plain: {{targets: ['http://a', 'unix:///s']}},"
        f"a: {{targets: ['https://a'], tls: {{ca: {ca}}}}},"
        f"b: {{targets: [{{url: 'HTTPS://b'}}], tls: {{ca: {ca}, server_name: other}}}},"
        f"other: {{targets: ['https://a'], tls: {{ca: {other}}}}},"
        f"lax: {{targets: ['https://a'], tls: {{ca: {ca}, verify: false}}}},"
        f"system: {{targets: ['http://a', 'https://a']}}"
    )
    contexts = UpstreamContexts()
    made = {name: contexts.of(settings) for name, settings in configured.items()}
    assert made["plain"] is None
    assert made["a"] is made["b"]
    distinct = {id(made[name]) for name in ("a", "other", "lax", "system")}
    assert len(distinct) == 4
    assert made["a"] is not None
    assert made["a"].verify_mode is ssl.CERT_REQUIRED

    # The next configuration takes over what is the same, and sees what is in the files by then.
    ca.write_bytes(other.read_bytes())
    following = UpstreamContexts(contexts)
    assert following.of(configured["system"]) is made["system"]
    assert following.of(configured["a"]) is not made["a"]
    assert len(following.made) == 2, "what is used no more is let go of"


async def test_contexts_are_made_by_another_thread_than_the_loops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers: list[int] = []
    make = ssl.create_default_context

    def noted(*arguments: Any, **settings: Any) -> ssl.SSLContext:
        makers.append(threading.get_ident())
        return make(*arguments, **settings)

    monkeypatch.setattr(ssl, "create_default_context", noted)
    gateway = Gateway(
        parse_config(make_config(tmp_path, upstreams=upstreams("https", "", "1s")), file="g.yaml")
    )
    await gateway.start()
    await gateway.stop()
    assert len(makers) == 1
    assert threading.get_ident() not in makers


async def test_explaining_makes_no_context(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **settings: Any) -> ssl.SSLContext:
        raise AssertionError("nothing is sent, so nobody need be trusted")

    monkeypatch.setattr(ssl, "create_default_context", fail)
    config = parse_config(
        "upstreams: {main: {targets: ['https://a', 'http://b'], tls: {ca: none.pem}}}\n"
        "routes: [{name: all, match: {path: /}, upstream: main, auth: none}]\n"
        "provider: {registration: {mode: 'off'}}",
        file="g.yaml",
    )
    assert explain(config, "GET", "/")["result"] == {"answered_by": "upstream"}
