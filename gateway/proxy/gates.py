"""What a request must pass before its token is looked at.

A route has the gates that its configuration asks for, in the order that `docs/routing.md`
tells; most have none.
"""

from __future__ import annotations

from typing import Protocol

from gateway.proxy.answer_filter import AnswerFilter, AnswerPlan
from gateway.proxy.own_answers import OwnAnswer
from gateway.proxy.request import ClientRequest


class Gate(Protocol):
    """One of them."""

    def check(self, request: ClientRequest) -> OwnAnswer | None:
        """None lets the request go on; an answer ends it. Raises `ProblemError`, to refuse."""


class AnswerGate:
    """Lets all pass, and sees to it that their answers, refusals too, are as the route wants."""

    def __init__(self, plan: AnswerPlan) -> None:
        self._plan = plan

    def check(self, request: ClientRequest) -> OwnAnswer | None:
        """See `Gate`."""
        request.answer_filter = AnswerFilter(request, self._plan)
        return None
