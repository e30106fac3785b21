"""A browser without script that visits the console."""

from __future__ import annotations

import re
from pathlib import Path

from support.clients.console_accounts import PASSWORD, add_admin
from support.running_gateway import RunningGateway, make_config


class Visitor:
    """A browser without script, as far as forms and cookies go."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.gateway = gateway
        self.jar: dict[str, str] = {}

    async def fetch(
        self,
        method: str,
        path: str,
        form: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, str]:
        cookies = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        sent = ({"Cookie": cookies} if cookies else {}) | (headers or {})
        async with self.gateway.session.request(
            method, self.gateway.admin_url(path), data=form, headers=sent, allow_redirects=False
        ) as response:
            for morsel in response.headers.getall("Set-Cookie", []):
                name, _, value = morsel.partition(";")[0].partition("=")
                self.jar[name] = value
                if not value:
                    del self.jar[name]
            self.headers = response.headers
            return response.status, await response.text()

    async def get(self, path: str, status: int = 200) -> str:
        got, text = await self.fetch("GET", path)
        assert got == status, (got, text)
        self.token = next(iter(re.findall(r'name="form_token" value="([^"]+)"', text)), "")
        return text

    async def post(self, path: str, **fields: str) -> tuple[int, str]:
        return await self.fetch("POST", path, {"form_token": self.token, **fields})

    async def sign_in(self, name: str = "alice", password: str = PASSWORD) -> int:
        await self.get("/console/sign-in")
        status, _ = await self.post("/console/sign-in", name=name, password=password)
        return status


async def signed_in(gateway: RunningGateway, directory: Path) -> Visitor:
    """An operator who has signed in at a gateway whose files are in `directory`."""
    await add_admin(make_config(directory))
    visitor = Visitor(gateway)
    assert await visitor.sign_in() == 303
    return visitor
