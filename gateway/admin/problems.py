"""Errors of the admin listener: problem details (RFC 9457), whatever went wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import NotRequired, TypedDict

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.http.errors import PROBLEM_TYPES
from gateway.oauth.errors import OAuthError
from gateway.oauth.models import StoreUnavailableError

_log = logging.getLogger(__name__)


class ApiError(Exception):
    """A request that can't be done."""

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str,
        headers: dict[str, str] | None = None,
        *,
        members: Mapping[str, object] | None = None,
    ) -> None:
        """`members` are further ones of the problem details (RFC 9457 section 3.2)."""
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.headers = headers or {}
        self.members = members or {}


@web.middleware
async def render_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into problem details, and keep responses out of caches and frames."""
    try:
        response = await handler(request)
    except ApiError as error:
        response = _render(error.status, error.reason, error.detail, error.headers, error.members)
    except OAuthError as error:
        members = {"member": error.member} if error.member else {}
        response = _render(
            error.status, error.reason, error.description, dict(error.headers), members
        )
    except StoreUnavailableError as error:
        headers = {"Retry-After": str(error.retry_after_s)}
        response = _render(503, "store_unavailable", "The store does not respond.", headers)
    except web.HTTPException as error:
        allow = error.headers.get("Allow")
        headers = {"Allow": allow} if allow else {}
        reason = error.reason.lower().replace(" ", "_")
        response = _render(error.status, reason, error.reason, headers)
    except Exception:
        # The path as it was sent: a decoded one may hold line breaks.
        _log.exception("%s %s failed", request.method, request.rel_url.raw_path)
        response = _render(500, "internal", "Internal error.", {})
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["Server"] = "gateway"  # not the versions that are behind it
    return response


class Problem(TypedDict):
    """Problem details; `reason` says in one word what is wrong, and `member` in which member of
    the body, where it is one."""

    type: str
    title: str
    status: int
    detail: str
    reason: str
    member: NotRequired[str]


def _render(
    status: int,
    reason: str,
    detail: str,
    headers: dict[str, str],
    members: Mapping[str, object] = MappingProxyType({}),
) -> web.Response:
    problem: Problem = {
        "type": f"{PROBLEM_TYPES}{reason}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "reason": reason,
    }
    return web.json_response(
        msgspec.to_builtins({**problem, **members}),
        status=status,
        headers=headers,
        content_type="application/problem+json",
    )
