"""Peers of HTTP/2 that others have written, each a process: nghttpd and nginx as upstreams, and
nginx in front of the gateway, which calls it by `grpc_pass`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from http2.test_h2_grpc import sections, serving
from support.deadlines import scaled, until
from support.jose_values import Certificate, make_certificate
from support.running_gateway import RunningGateway, StartGateway

from examples.ports import free_port

NGINX = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{}}
http {{
  access_log off; client_body_temp_path {directory}/body;
  server {{
    listen 127.0.0.1:{port} {options}; root {directory}; keepalive_requests 3;
    {more}
    add_header X-Protocol $server_protocol always;
  }}
}}
"""


@contextmanager
def running(*command: str) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def peer(
    name: str,
    directory: Path,
    certificate: Certificate | None = None,
    *,
    options: str = "http2",
    more: str = "",
) -> Iterator[str]:
    """A server of the files of a directory, with TLS where it has a certificate. `options` are
    those of nginx's `listen`, `more` is more of its server's configuration."""
    program = shutil.which(name, path=f"{Path('/usr/sbin')}:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip(f"{name} is not installed")
    port = free_port()
    if name == "nginx":
        config = directory / "nginx.conf"
        if certificate is not None:
            options += " ssl"
            more += f"ssl_certificate {certificate.cert}; ssl_certificate_key {certificate.key};"
        config.write_text(NGINX.format(directory=directory, port=port, options=options, more=more))
        command = [program, "-c", str(config), "-e", f"{directory}/start.log"]
    else:
        command = [program, "-a", "127.0.0.1", "-d", str(directory)]
        if certificate is None:
            command += ["--no-tls", str(port)]
        else:
            command += [str(port), str(certificate.key), str(certificate.cert)]
    with running(*command):
        yield f"{'http' if certificate is None else 'https'}://127.0.0.1:{port}"


def make_files(directory: Path, sizes: tuple[int, ...]) -> tuple[Path, dict[str, bytes]]:
    """A directory of files that any user may read, and their contents by name."""
    root = directory / "files"
    (root / "public").mkdir(parents=True)
    directory.chmod(0o755)
    files = {f"f{size}": b"x" * size for size in sizes}
    for file, content in files.items():
        (root / "public" / file).write_bytes(content)
    return root, files


async def get_when_up(gateway: RunningGateway) -> tuple[int, str]:
    """Status and protocol of a response, once the upstream is up."""
    seen: list[tuple[int, str]] = []

    async def is_up() -> bool:
        async with gateway.session.get(gateway.url("/public/f1")) as response:
            seen.append((response.status, response.headers.get("X-Protocol", "")))
            return response.status == 200

    await until(is_up)
    return seen[-1]


@pytest.mark.parametrize("name", ["nghttpd", "nginx"])
async def test_files_of_all_sizes_come_whole(
    start: StartGateway, tmp_path: Path, name: str
) -> None:
    """nginx says GOAWAY after each third request: none may be lost by that."""
    root, files = make_files(tmp_path, (0, 1, 16_384, 65_535, 1_000_000))
    with peer(name, root) as url:
        gateway = await start("", upstreams={"main": {"targets": [url], "protocol": "http2"}})
        await get_when_up(gateway)
        for _ in range(3):
            for file, content in files.items():
                async with gateway.session.get(gateway.url(f"/public/{file}")) as response:
                    assert response.status == 200
                    assert await response.read() == content
        async with gateway.session.get(gateway.url("/public/none")) as response:
            assert response.status == 404


@pytest.mark.parametrize(
    ("name", "options", "protocol", "spoken"),
    [
        ("nghttpd", "", "auto", ""),
        ("nghttpd", "", "http2", ""),
        ("nginx", "http2", "auto", "HTTP/2.0"),
        ("nginx", "http2", "http1", "HTTP/1.1"),
        ("nginx", "", "auto", "HTTP/1.1"),
    ],
)
async def test_alpn_of_others_chooses_the_protocol(
    start: StartGateway, tmp_path: Path, name: str, options: str, protocol: str, spoken: str
) -> None:
    root, _ = make_files(tmp_path, (1,))
    certificate = make_certificate(tmp_path, "localhost")
    certificate.key.chmod(0o644)
    with peer(name, root, certificate, options=options) as url:
        main = {"targets": [url], "protocol": protocol, "tls": {"verify": False}}
        gateway = await start("", upstreams={"main": main})
        assert await get_when_up(gateway) == (200, spoken)


@pytest.mark.parametrize("name", ["nghttpd", "nginx"])
async def test_health_checks_of_others_succeed(
    start: StartGateway, tmp_path: Path, name: str
) -> None:
    root, _ = make_files(tmp_path, (1,))
    with peer(name, root) as url:
        check = {"path": "/public/f1", "interval": "20ms", "healthy_threshold": 1}
        main = {"targets": [url], "protocol": "http2", "health_check": check}
        gateway = await start("", upstreams={"main": main})
        assert (await get_when_up(gateway))[0] == 200
        labels = {"upstream": "main", "result": "ok"}

        async def is_checked() -> bool:
            return await gateway.metric("gateway_upstream_health_checks_total", **labels) > 2

        await until(is_checked)
        assert await gateway.metric("gateway_upstream_unhealthy", upstream="main") == 0


async def test_grpc_pass_of_nginx_calls_through_the_gateway(
    start: StartGateway, tmp_path: Path
) -> None:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    async with serving() as service:
        gateway = await start("", **sections(service))
        metadata = (("authorization", f"Bearer {await gateway.token()}"),)
        more = f"location / {{ grpc_pass grpc://127.0.0.1:{gateway.port}; }}"
        with peer("nginx", tmp_path, more=more) as url:
            async with grpc.aio.insecure_channel(url.removeprefix("http://")) as channel:
                for size in (0, 3, 3_000):
                    call = channel.unary_unary("/t.Echo/Unary")
                    body = bytes(range(256)) * size
                    sent = call(body, metadata=metadata, wait_for_ready=True, timeout=scaled())
                    assert await sent == body[::-1]
                chat = channel.stream_stream("/t.Echo/Bidi")(metadata=metadata)
                for word in (b"one", b"two"):
                    await chat.write(word)
                    assert await chat.read() == word.upper()
                await chat.done_writing()
                assert await chat.read() is grpc.aio.EOF
                with pytest.raises(grpc.aio.AioRpcError) as failure:
                    await channel.unary_unary("/t.Echo/Unary")(b"")
                assert failure.value.code() == grpc.StatusCode.UNAUTHENTICATED
