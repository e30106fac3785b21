"""A FastAPI service that checks tokens itself, in the store of the gateway that issues them.

    gateway init
    python -m uvicorn --factory examples.fastapi_app:create_app --port 8081
    gateway client create shop
    gateway token issue shop

`docs/tutorials/fastapi-in-process.md` builds it step by step.
"""

# Without `from __future__ import annotations`: FastAPI could not look up `bearer` in them.
from typing import Annotated

from fastapi import FastAPI, Security, WebSocket

from gateway.asgi import EmbeddedGateway, Identity, lifespan
from gateway.asgi.fastapi import BearerSecurity


def create_app(gateway: EmbeddedGateway | None = None) -> FastAPI:
    """Make the service; tests give it a `gateway.testing.TemporaryGateway`."""
    gateway = gateway or EmbeddedGateway("gateway.yaml")
    bearer = BearerSecurity(gateway)
    app = FastAPI(title="Orders", lifespan=lifespan(gateway))
    orders = ["coffee"]

    @app.get("/orders")
    async def list_orders(caller: Annotated[Identity, Security(bearer)]) -> dict[str, object]:
        return {"orders": orders, "client": caller.client_id}

    @app.post("/orders", status_code=201)
    async def create_order(
        item: str, caller: Annotated[Identity, Security(bearer, scopes=["write"])]
    ) -> dict[str, str]:
        orders.append(item)
        return {"item": item, "client": caller.client_id}

    @app.websocket("/news")
    async def news(websocket: WebSocket, caller: Annotated[Identity, Security(bearer)]) -> None:
        await websocket.accept()
        await websocket.send_json({"orders": len(orders), "client": caller.client_id})
        await websocket.close()

    return app
