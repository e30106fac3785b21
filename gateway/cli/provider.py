"""The provider of a configuration, opened for one command beside a running gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from gateway.app.provider import open_authorization_server
from gateway.config import load_config
from gateway.oauth.server import AuthorizationServer

Result = TypeVar("Result")


def with_provider(path: Path, work: Callable[[AuthorizationServer], Awaitable[Result]]) -> Result:
    """Do `work` with the provider of the configuration at `path`.

    Raises `ConfigError`, `StoreError` and what `work` raises.
    """

    async def run() -> Result:
        async with open_authorization_server(load_config(path)) as server:
            return await work(server)

    return asyncio.run(run())
