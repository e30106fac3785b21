"""The table of operations: routes, document and errors come from the types of the handlers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from support.json_schemas import validator_of
from support.running_gateway import ADMIN_TOKEN, RunningGateway

from gateway.admin.operations import read
from gateway.admin.problems import ApiError

AUTH = {"Authorization": f"Bearer {ADMIN_TOKEN}"}


class CheckedRequest(msgspec.Struct):
    level: Literal["low", "high"]
    name: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    many: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1
    is_new: bool = False
    fields: dict[str, str] = {}


@pytest.mark.parametrize(
    ("members", "reason", "detail"),
    [
        ({}, "level", "level is required."),
        ({"level": "x"}, "level", "level must be one of high, low."),
        ({"level": "low", "name": ""}, "name", "name must be a string that is not empty."),
        ({"level": "low", "share": "1"}, "share", "share must be a number above 0 to 1."),
        ({"level": "low", "many": 10}, "many", "many must be a whole number from 1 to 9."),
        ({"level": "low", "is_new": None}, "is_new", "is_new must be true or false."),
        ({"level": "low", "fields": {"a": 1}}, "fields", "fields must be an object of strings."),
    ],
)
def test_wrong_member_is_named_with_what_it_must_be(
    members: dict[str, Any], reason: str, detail: str
) -> None:
    with pytest.raises(ApiError) as caught:
        read(members, CheckedRequest)
    assert (caught.value.status, caught.value.reason) == (400, reason)
    assert caught.value.detail == detail


@pytest.fixture
async def document(gateway: RunningGateway) -> dict[str, Any]:
    async with gateway.session.get(gateway.admin_url("/openapi.json")) as response:
        described: dict[str, Any] = await response.json()
        return described


async def test_provider_takes_exactly_the_methods_that_are_documented(
    gateway: RunningGateway, document: dict[str, Any]
) -> None:
    provided = {path: item for path, item in document["paths"].items() if "servers" in item}
    assert {"/token", "/introspect", "/revoke", "/validate", "/jwks.json"} <= provided.keys()
    for path, item in provided.items():
        async with gateway.session.request("PATCH", gateway.url(path)) as response:
            assert response.status == 405, path
            allowed = {*response.headers["Allow"].split(", ")} - {"HEAD"}
        assert allowed == {method.upper() for method in item} - {"SERVERS"}, path


async def test_responses_are_as_the_document_says(
    gateway: RunningGateway, document: dict[str, Any]
) -> None:
    await gateway.create_client("shop")
    checked = 0
    for path, item in document["paths"].items():
        if "servers" in item or "get" not in item or path == "/metrics":
            continue
        url = gateway.admin_url(path.replace("{client_id}", "shop"))
        async with gateway.session.get(url, headers=AUTH) as response:
            content = item["get"]["responses"][str(response.status)]["content"]
            body = await response.json(content_type=None)
        schema = content[response.content_type]["schema"]
        assert schema, path
        validator_of({**schema, "components": document["components"]}).validate(body)
        checked += 1
    assert checked >= 12
