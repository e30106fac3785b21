"""From a route of the configuration to the parts that it is compiled to."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.config.routes import HeaderMatch, QueryMatch, RequestHeaders, ResponseHeaders, Route
from gateway.patterns import compile_pattern
from gateway.proxy.answer_filter import AnswerPlan
from gateway.proxy.conditions import (
    Condition,
    HeaderCondition,
    PathCondition,
    QueryCondition,
    Value,
)
from gateway.proxy.gates import AnswerGate, Gate
from gateway.proxy.head_changes import NO_CHANGES, FieldChanges, HeadChanges
from gateway.proxy.own_answers import FixedResponse, Redirect, Responder
from gateway.proxy.rewrite import Rewrite
from gateway.templates import (
    IN_REDIRECTS,
    IN_REQUEST_HEADERS,
    IN_RESPONSE_HEADERS,
    Template,
    parse_template,
)

PLAIN_TEXT = "text/plain; charset=utf-8"


def build_conditions(route: Route) -> tuple[Condition, ...]:
    """What the route asks for beside host, path and method."""
    match = route.match
    conditions: list[Condition] = []
    if match.regex is not None:
        conditions.append(PathCondition(compile_pattern(match.regex)))
    conditions += (HeaderCondition(one.name, _value(one)) for one in match.headers)
    conditions += (QueryCondition(one.name, _value(one)) for one in match.query)
    return tuple(conditions)


def describe_conditions(route: Route) -> list[str]:
    """The same, for people."""
    return [str(condition) for condition in build_conditions(route)]


def _value(asked: HeaderMatch | QueryMatch) -> Value:
    return Value(
        exact=asked.exact,
        pattern=None if asked.regex is None else compile_pattern(asked.regex),
        is_absent=not asked.present,
    )


def build_gates(route: Route) -> tuple[Gate, ...]:
    """What is asked before a token is looked at, in this order."""
    gates: list[Gate] = []
    if route.response_headers is not None:
        gates.append(AnswerGate(AnswerPlan(_field_changes(route.response_headers))))
    return tuple(gates)


def build_changes(route: Route) -> HeadChanges | None:
    """How request heads change; None where they don't."""
    host = route.rewrite.host
    named = b"" if host in {"preserve", "upstream"} else host.encode("ascii")
    rewrite, headers = build_rewrite(route), route.request_headers
    if rewrite is None and host == "preserve" and headers is None:
        return None
    return HeadChanges(
        rewrite=rewrite,
        host=named,
        uses_target_host=host == "upstream",
        fields=NO_CHANGES if headers is None else _field_changes(headers),
    )


def build_rewrite(route: Route) -> Rewrite | None:
    """How the path changes; None where it does not."""
    rewrite = route.rewrite
    if rewrite.strip_prefix is None and rewrite.add_prefix is None and rewrite.regex is None:
        return None
    return Rewrite(
        strip_prefix=rewrite.strip_prefix or "",
        add_prefix=rewrite.add_prefix or "",
        pattern=None if rewrite.regex is None else compile_pattern(rewrite.regex.pattern),
        substitution="" if rewrite.regex is None else rewrite.regex.substitution,
    )


def build_responder(route: Route) -> Responder | None:
    """Who answers in place of an upstream, if anybody."""
    if route.redirect is not None:
        to = parse_template(route.redirect.to, IN_REDIRECTS)
        return Redirect(route.redirect.status, to, build_rewrite(route))
    respond = route.respond
    if respond is None:
        return None
    body = respond.body.encode()
    headers = dict(respond.headers)
    if body and "content-type" not in {name.lower() for name in headers}:
        headers = {"Content-Type": PLAIN_TEXT} | headers
    return FixedResponse(respond.status, body, _templates(headers, IN_RESPONSE_HEADERS))


def _field_changes(changes: RequestHeaders | ResponseHeaders) -> FieldChanges:
    is_request = isinstance(changes, RequestHeaders)
    allowed = IN_REQUEST_HEADERS if is_request else IN_RESPONSE_HEADERS
    return FieldChanges(
        removed=frozenset(name.lower().encode() for name in (*changes.remove, *changes.set)),
        fields=(*_templates(changes.set, allowed), *_templates(changes.add, allowed)),
    )


def _templates(
    fields: Mapping[str, str], allowed: frozenset[str]
) -> tuple[tuple[str, Template], ...]:
    return tuple((name, parse_template(value, allowed)) for name, value in fields.items())
