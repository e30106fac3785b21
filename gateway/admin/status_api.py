"""The admin API of the gateway itself: status, history, log level and reloads."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Protocol, TypedDict

import msgspec

from gateway.admin.accounts.audit import AuditLog, Entry
from gateway.admin.explain import explain_request
from gateway.admin.operations import Call, operation
from gateway.admin.problems import ApiError
from gateway.admin.status import (
    GatewayStatus,
    Overview,
    Reloads,
    UpstreamDescription,
    describe_now,
    describe_upstreams,
)
from gateway.history.events import Event
from gateway.reloads import Change, Reload

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
PageLimit = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class LogLevel(Protocol):
    """The level of all processes of this gateway."""

    def get(self) -> str:
        """One of `Level`."""

    def set(self, level: str) -> None:
        """Take effect at once, until the next start."""


class EventsQuery(msgspec.Struct):
    """How many events, and since when (Unix time)."""

    limit: PageLimit = 100
    since: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class AuditQuery(EventsQuery):
    """A page of the audit log, of entries that contain `q`."""

    after: str = ""
    q: str = ""


class RequestToExplain(msgspec.Struct):
    """A request that is not sent."""

    method: str | None = None
    url: str | None = None
    headers: dict[str, str] = {}
    source: str | None = None
    claims: dict[str, Any] | None = None


class LogLevelSetting(msgspec.Struct):
    """How much is logged."""

    level: Level


class Routes(TypedDict):
    """The routes as the router prefers them."""

    routes: list[dict[str, Any]]


class Upstreams(TypedDict):
    """The upstreams with their endpoints."""

    upstreams: list[UpstreamDescription]


class EventList(TypedDict):
    """Events, newest first."""

    events: list[Event]


class AuditPage(TypedDict):
    """Entries of the audit log, newest first."""

    entries: list[Entry]
    next: str | None


class ReloadDescription(TypedDict):
    """An attempt to load the configuration."""

    time: str
    trigger: str
    result: Literal["ok", "error"]
    duration_ms: float
    config_hash: str
    problems: list[str]
    changes: list[Change]


class ReloadList(TypedDict):
    """The last attempts, newest first."""

    reloads: list[ReloadDescription]


class Setting(TypedDict):
    """A key of the configuration in effect; a secret is `***`."""

    key: str
    value: str


class Configuration(TypedDict):
    """The configuration in effect, defaults included."""

    settings: list[Setting]


class StatusApi:
    """The operations on the gateway as a whole."""

    def __init__(self, gateway_status: GatewayStatus, level: LogLevel, audit: AuditLog) -> None:
        self._gateway_status = gateway_status
        self._level = level
        self._audit = audit

    @operation("GET", "/api/v1/overview")
    async def show_overview(self, call: Call) -> Overview:
        """Show rates, shares and quantiles of the last minute."""
        return describe_now(self._gateway_status)

    @operation("GET", "/api/v1/routes")
    async def list_routes(self, call: Call) -> Routes:
        """List the routes."""
        return {"routes": [dict(row) for row in self._gateway_status.routes()]}

    @operation("GET", "/api/v1/upstreams")
    async def list_upstreams(self, call: Call) -> Upstreams:
        """List upstreams and their targets."""
        return {"upstreams": describe_upstreams(self._gateway_status.upstream_states())}

    @operation("POST", "/api/v1/explain", fails=(404,), is_safe=True)
    async def explain(self, call: Call, body: RequestToExplain) -> dict[str, Any]:
        """Explain how a request would be handled."""
        if self._gateway_status.explain is None:
            raise ApiError(404, "not_found", "This gateway was not started from a file.")
        return await explain_request(
            self._gateway_status.explain,
            body.method or "GET",
            body.url or "/",
            list(body.headers.items()),
            body.source or "",
            claims=body.claims,
        )

    @operation("GET", "/api/v1/events")
    async def list_events(self, call: Call, query: EventsQuery) -> EventList:
        """List what was out of the ordinary lately."""
        return {"events": self._gateway_status.events(since=query.since)[: query.limit]}

    @operation("GET", "/api/v1/audit")
    async def list_audit(self, call: Call, query: AuditQuery) -> AuditPage:
        """List changes, newest first."""
        page, more = await self._audit.search(
            text=query.q, since=query.since, after=query.after, limit=query.limit
        )
        return {"entries": list(page), "next": more or None}

    @operation("GET", "/api/v1/log-level")
    async def show_log_level(self, call: Call) -> LogLevelSetting:
        """Show how much is logged."""
        return msgspec.convert({"level": self._level.get()}, LogLevelSetting)

    @operation("PUT", "/api/v1/log-level")
    async def set_log_level(self, call: Call, body: LogLevelSetting) -> LogLevelSetting:
        """Log more or less."""
        self._level.set(body.level)
        await self._note(call, "log_level.set", body.level)
        return body

    @operation("GET", "/api/v1/config", fails=(409,))
    async def show_configuration(self, call: Call) -> Configuration:
        """Show the configuration in effect, secrets masked."""
        settings = self._reloads().configuration()
        return {"settings": [{"key": key, "value": value} for key, value in settings]}

    @operation("POST", "/api/v1/reload", fails=(409, 422))
    async def reload(self, call: Call) -> ReloadDescription:
        """Reload the configuration."""
        reload = await self._reloads().reload("api")
        described = describe_reload(reload)
        await self._note(call, "config.reload", reload.result)
        if reload.result != "ok":
            raise ApiError(
                422,
                "config",
                "The configuration is invalid; the previous one stays active.",
                members=described,
            )
        return described

    @operation("GET", "/api/v1/reloads", fails=(409,))
    async def list_reloads(self, call: Call) -> ReloadList:
        """List the last reloads of the configuration, newest first."""
        return {"reloads": [*map(describe_reload, self._reloads().recent())]}

    def _reloads(self) -> Reloads:
        if self._gateway_status.reloads is None:
            raise ApiError(409, "no_file", "This gateway was not started from a file.")
        return self._gateway_status.reloads

    async def _note(self, call: Call, action: str, detail: str) -> None:
        await self._audit.note(call.actor.name, call.actor.address, action, "", detail)


def describe_reload(reload: Reload) -> ReloadDescription:
    """Describe an attempt to reload."""
    return {
        "time": datetime.fromtimestamp(reload.at, UTC).isoformat(timespec="milliseconds"),
        "trigger": reload.trigger,
        "result": reload.result,
        "duration_ms": round(reload.duration_s * 1000, 1),
        "config_hash": reload.config_hash,
        "problems": list(reload.problems),
        "changes": list(reload.changes),
    }
