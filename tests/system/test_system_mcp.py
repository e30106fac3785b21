"""The official Python SDK of MCP, client and server, with config/mcp.yaml between."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import httpx2
import pytest
from mcp.client.auth import OAuthClientProvider
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)
from pydantic import AnyUrl
from support.clients.npm_clients import NODE, install_npm_clients
from support.clients.person import allow_with
from support.deadlines import scaled
from support.processes.gateway import GatewayProcess
from support.processes.mcp import mcp_gateway, mcp_server
from support.servers.document_server import document_server
from support.tiers import slow

pytestmark = [
    slow("SDK"),
    pytest.mark.system,
]

REDIRECT = "http://127.0.0.1:51005/callback"


@pytest.fixture(scope="module")
def server_port() -> Iterator[int]:
    """Of examples/mcp_server.py, as a process."""
    with mcp_server() as port:
        yield port


@pytest.fixture(scope="module")
def gateway(server_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway in front of it, with the user `alice`."""
    with mcp_gateway(tmp_path_factory.mktemp("gateway"), server_port) as running:
        yield running


@dataclass
class Kept:
    """What a client keeps between two starts."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


@dataclass
class Agent:
    """An application that uses the SDK, and its user's browser."""

    gateway: GatewayProcess
    document: str | None = None
    """URL of its metadata document."""
    kept: Kept = field(default_factory=Kept)
    asked: list[dict[str, list[str]]] = field(default_factory=list)
    """The authorization requests."""
    came_back: str = ""

    def __post_init__(self) -> None:
        self.browser = httpx.Client()
        self.auth = OAuthClientProvider(
            f"{self.gateway.url}/mcp",
            OAuthClientMetadata(client_name="Test agent", redirect_uris=[AnyUrl(REDIRECT)]),
            self.kept,
            self.open_browser,
            self.wait_for_callback,
            client_metadata_url=self.document,
        )

    async def open_browser(self, url: str) -> None:
        self.asked.append(parse_qs(urlsplit(url).query))
        self.came_back = await asyncio.to_thread(allow_with, self.browser, url)

    async def wait_for_callback(self) -> AuthorizationCodeResult:
        given = {name: one for name, (one,) in parse_qs(urlsplit(self.came_back).query).items()}
        return AuthorizationCodeResult(**given)

    @asynccontextmanager
    async def connected(self, mode: str = "auto") -> AsyncIterator[Client]:
        """A session with the server."""
        with self.browser:
            async with httpx2.AsyncClient(auth=self.auth, timeout=scaled()) as http:
                transport = streamable_http_client(f"{self.gateway.url}/mcp", http_client=http)
                async with Client(transport, mode=mode) as client:
                    yield client


def text_of(result: Any) -> str:
    """What a tool returned."""
    assert not result.is_error, result
    text: str = result.content[0].text
    return text


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_official_client_registers_signs_in_calls_steps_up_and_refreshes(
    gateway: GatewayProcess, mode: str
) -> None:
    agent = Agent(gateway)
    async with agent.connected(mode) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == {
            "get_weather", "admin_reset",
        }  # fmt: skip
        assert agent.asked[0]["scope"] == ["mcp"], "what every request needs, and no more"
        assert agent.asked[0]["resource"] == [f"{gateway.url}/mcp"]
        result = await client.call_tool("get_weather", {"city": "Bern"})
        assert text_of(result) == "It rains in Bern, alice."
        assert set(agent.asked[1]["scope"][0].split()) == {"mcp", "weather:read"}
        assert text_of(await client.call_tool("admin_reset")) == "All stations are forgotten."
        assert set(agent.asked[2]["scope"][0].split()) == {"mcp", "weather:read", "admin"}
        assert agent.kept.tokens is not None
        before = agent.kept.tokens
        agent.auth.context.token_expiry_time = 1.0
        assert text_of(await client.call_tool("admin_reset"))
        assert agent.kept.tokens.refresh_token != before.refresh_token
        assert len(agent.asked) == 3, "the user is not asked again"
    assert agent.kept.client is not None
    assert agent.kept.client.token_endpoint_auth_method == "none"


async def test_official_client_is_known_by_its_document(
    server_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with document_server(tmp_path) as site:
        document = site.publish("/agent.json", redirect_uris=[REDIRECT])
        monkeypatch.setenv("SSL_CERT_FILE", str(site.ca))
        documents = {"enabled": True, "networks": ["127.0.0.0/8", "::1/128"]}

        def start() -> Any:
            return mcp_gateway(
                tmp_path, server_port, client_id_metadata_documents=documents,
                registration={"mode": "off", "scopes": ["mcp", "weather:read"]},
            )  # fmt: skip

        with start() as gateway:
            monkeypatch.delenv("SSL_CERT_FILE")
            agent = Agent(gateway, document)
            async with agent.connected() as client:
                result = await client.call_tool("get_weather", {"city": "Bern"})
                assert text_of(result) == "It rains in Bern, alice."
            assert agent.asked[0]["client_id"] == [document]
            assert site.requests == ["/agent.json"]


async def test_tool_that_is_not_listed_is_denied_to_the_official_client(
    gateway: GatewayProcess,
) -> None:
    agent = Agent(gateway)
    async with agent.connected("legacy") as client:
        await client.list_tools()
        with pytest.raises(Exception, match=r".*"):
            await client.call_tool("drop_everything")
    assert len(agent.asked) == 1, "no scope would help"


@slow("npm")
def test_official_client_in_typescript_does_the_same(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    node = install_npm_clients(tmp_path)
    shutil.copy(NODE / "mcp-sdk.mjs", node / "mcp-sdk.mjs")
    process = subprocess.Popen(
        ["node", "mcp-sdk.mjs"],
        cwd=node, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "SERVER": f"{gateway.url}/mcp"},
    )  # fmt: skip
    asked: list[str] = []
    with process, httpx.Client() as browser:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if not line.startswith("http"):
                break
            asked.append(parse_qs(urlsplit(line.strip()).query)["scope"][0])
            process.stdin.write(allow_with(browser, line.strip()) + "\n")
            process.stdin.flush()
        _, errors = process.communicate(timeout=scaled(60))
    assert (process.returncode, line) == (0, "all is well\n"), errors
    assert [set(scope.split()) for scope in asked] == [
        {"mcp"}, {"mcp", "weather:read"}, {"mcp", "weather:read", "admin"},
    ]  # fmt: skip
