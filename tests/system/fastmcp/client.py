"""A client by fastmcp: signs in, calls a tool that needs no more, and one that does."""

import asyncio
import os

from fastmcp import Client  # type: ignore[import-not-found]
from fastmcp.client.auth import OAuth  # type: ignore[import-not-found]


async def main() -> None:
    """Print what the tools returned, a line each."""
    client = Client(os.environ["SERVER"], auth=OAuth(client_name="fastmcp", callback_timeout=30))
    async with client:
        print(*sorted(tool.name for tool in await client.list_tools()))
        for name, arguments in (("get_weather", {"city": "Bern"}), ("admin_reset", {})):
            print((await client.call_tool(name, arguments)).content[0].text)


asyncio.run(main())
