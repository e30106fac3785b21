"""What a route makes of the answers to its requests, whoever made them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.proxy.fields import without_fields
from gateway.proxy.problems import Headers
from gateway.proxy.response_head import ResponseHead

if TYPE_CHECKING:
    from gateway.proxy.head_changes import FieldChanges
    from gateway.proxy.request import ClientRequest


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """What is to be done to the answers of a route, compiled."""

    changes: FieldChanges


class AnswerFilter:
    """The plan, for one request."""

    def __init__(self, request: ClientRequest, plan: AnswerPlan) -> None:
        self._request = request
        self._plan = plan

    def fields(self, fields: Headers) -> Headers:
        """The fields of an answer of the gateway's own."""
        changes = self._plan.changes
        kept = [one for one in fields if one[0].lower().encode() not in changes.removed]
        return (*kept, *changes.values(self._request))

    def head(self, head: ResponseHead) -> ResponseHead:
        """The head of an answer of the upstream's. It is not changed itself: the same bytes
        are known by the same head."""
        changes = self._plan.changes
        status_line, *lines = head.lines.splitlines(keepends=True)
        lines = without_fields(lines, changes.removed)
        lines += (
            f"{name}: {value}\r\n".encode("ascii") for name, value in changes.values(self._request)
        )
        return head.with_lines(b"".join((status_line, *lines)))
