"""Who may sign in at the console in tests."""

from __future__ import annotations

from typing import Literal

from gateway.app.build.accounts import open_store_accounts
from gateway.config import parse_config

NAME, PASSWORD = "alice", "correct horse battery staple"


async def add_admin(
    text: str, *, name: str = NAME, role: Literal["viewer", "operator"] = "operator"
) -> None:
    """Let somebody sign in at the gateway of the configuration `text`."""
    async with open_store_accounts(parse_config(text, file="test.yaml")) as accounts:
        await accounts.users.add(name, PASSWORD, role)
