"""Operations of the admin listener: one table from which routes and OpenAPI document are made.

A handler is a method with the decorator `operation`. Its annotations are the contract: a
parameter `body` is read from JSON and `query` from the query, as the msgspec types they are
annotated with; every other parameter but `call` is a segment of the path; what it returns is
the body of the response. So the document can't say anything but what the handlers do.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar, get_args, get_origin

import msgspec
from aiohttp import web

from gateway.admin.accounts import Actor, require_operator
from gateway.admin.problems import ApiError
from gateway.suggestions import did_you_mean

Handler = Callable[..., Awaitable[Any]]
Decorated = TypeVar("Decorated", bound=Handler)

PREFIX = "/api/v1"
"""Where callers need a token."""
JSON = "application/json"
ACTOR = web.RequestKey("actor", Actor)
"""Where a request to the API keeps its caller."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    summary: str
    status: int
    """Of a response without error."""
    fails: tuple[int, ...]
    """Statuses of errors that not every operation has."""
    is_safe: bool
    """Whether it changes nothing, so that a viewer may call it."""
    media_type: str
    name: str
    response: Any
    body: Any
    """Type of the JSON body; None where there is none."""
    query: Any

    @property
    def is_open(self) -> bool:
        """Whether it needs no token."""
        return not self.path.startswith(PREFIX)


@dataclass(slots=True)
class Call:
    """A request, as a handler gets it."""

    request: web.Request
    status: int
    """Of the response; a handler may set another one."""
    members: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The body as it came."""

    @property
    def actor(self) -> Actor:
        """The caller, in operations that need a token."""
        return self.request[ACTOR]


def operation(
    method: str,
    path: str,
    *,
    status: int = 200,
    fails: tuple[int, ...] = (),
    is_safe: bool | None = None,
    media_type: str = JSON,
) -> Callable[[Decorated], Decorated]:
    """Declare the method below an operation; its docstring is the summary. `is_safe` is by the
    HTTP method where it is not given."""

    def declare(handler: Decorated) -> Decorated:
        # Read late: annotations may name what the module defines further down.
        handler.__dict__["declared"] = lambda: Operation(
            method, path, (inspect.getdoc(handler) or "").rstrip("."), status, fails,
            method == "GET" if is_safe is None else is_safe, media_type,
            handler.__name__, *_contract(handler),
        )  # fmt: skip
        return handler

    return declare


@functools.cache
def _contract(handler: Handler) -> tuple[Any, Any, Any]:
    signature = inspect.signature(handler, eval_str=True)
    types = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return signature.return_annotation, types.get("body"), types.get("query")


def operations_of(api: object) -> Iterator[tuple[Operation, Handler]]:
    """The operations of an object with their handlers, in the order of its class."""
    for name, member in vars(type(api)).items():
        if declared := getattr(member, "declared", None):
            yield declared(), getattr(api, name)


def serve(router: web.UrlDispatcher, declared: Operation, handler: Handler) -> None:
    """Add the route of an operation."""

    async def handle(request: web.Request) -> web.StreamResponse:
        call = Call(request, declared.status)
        if not declared.is_open and not declared.is_safe:
            require_operator(call.actor)
        arguments: dict[str, Any] = dict(request.match_info)
        if declared.query is not None:
            arguments["query"] = read(dict(request.query), declared.query, strict=False)
        if declared.body is not None:
            call.members = await _read_object(request)
            _reject_unknown(call.members, declared.body)
            arguments["body"] = read(call.members, declared.body)
        result = await handler(call, **arguments)
        if isinstance(result, web.StreamResponse):
            return result
        # By way of plain values: `json` knows how to write what is not quite Unicode.
        return web.json_response(msgspec.to_builtins(result), status=call.status)

    path = any_segment(declared.path)
    router.add_route(declared.method, path, handle)
    if declared.is_open:
        router.add_route("HEAD", path, handle)


@functools.cache
def any_segment(path: str) -> str:
    """Let each variable of a path match any segment: by itself, aiohttp leaves out those with a
    brace, which the id of a client may have."""
    return re.sub(r"\{(\w+)\}", r"{\1:[^/]+}", path)


async def _read_object(request: web.Request) -> dict[str, Any]:
    """The object in a body, empty where there is none. Raises `ApiError`."""
    if not request.body_exists:
        return {}
    if request.content_type != JSON:
        raise ApiError(415, "content_type", "The body must be application/json.")
    try:
        return msgspec.json.decode(await request.read(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # `from None`: the body may hold a secret.
        raise ApiError(400, "body", "The body must be a JSON object.") from None


def _reject_unknown(members: Mapping[str, Any], model: type[Any]) -> None:
    """Raises `ApiError` for a member that the model lacks: a caller who misspells one, or believes
    in one that is not there, must not believe that it was heeded."""
    known, also = model, frozenset[str]()
    if get_origin(model) is Annotated:
        known, *metas = get_args(model)
        for meta in metas:
            also |= (meta.extra or {}).get("also", frozenset())
    names = also | {field.encode_name for field in msgspec.structs.fields(known)}
    for name in members:
        if name not in names:
            hint = did_you_mean(name, names) or f"; known: {', '.join(sorted(names))}"
            raise ApiError(400, "unknown_member", f"Unknown member {name[:64]!r}{hint}")


def read(members: Mapping[str, Any], model: type[Any], *, strict: bool = True) -> Any:
    """The members as `model`; other ones are ignored. Raises `ApiError` with the name of the
    member that is wrong as its reason."""
    try:
        return msgspec.convert(members, model, strict=strict)
    except msgspec.ValidationError as error:
        # "Expected `str`, got `int` - at `$.client_name`", "Object missing required field `token`"
        what, _, place = str(error).partition(" - at ")
        if place:
            name = place.strip("`$.").partition(".")[0].partition("[")[0]
            detail = f"{name} must be {_expected(model, name)}."
        else:
            name = what.rpartition("field ")[2].strip("`")
            detail = f"{name} is required."
        raise ApiError(400, name, detail) from None


def _expected(model: type[Any], name: str) -> str:
    """Describe the type of a member in words."""
    (schema,), known = msgspec.json.schema_components([model])
    schema = known[schema["$ref"].rpartition("/")[2]]["properties"][name]
    kinds = [
        known[kind["$ref"].rpartition("/")[2]] if "$ref" in kind else kind
        for kind in schema.get("anyOf", [schema])
        if kind.get("type") != "null"
    ]
    return " or ".join(map(_in_words, kinds))


_WORDS = {
    "string": "a string", "boolean": "true or false", "integer": "a whole number",
    "number": "a number", "array": "an array", "object": "an object",
}  # fmt: skip


def _in_words(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    words = _WORDS[schema["type"]]
    if needed := schema.get("required"):
        words += f" with {', '.join(needed)}"
    if schema.get("minLength"):
        words += " that is not empty"
    if isinstance(members := schema.get("additionalProperties"), dict):
        words += f" of {members['type']}s"
    if "exclusiveMinimum" in schema:
        words += f" above {schema['exclusiveMinimum']}"
    if "minimum" in schema:
        words += f" from {schema['minimum']}"
    if "maximum" in schema:
        words += f" to {schema['maximum']}"
    return words
