"""Check that the parts of a route fit each other, and the upstreams."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib.util import find_spec

from gateway.config.claims import ClaimValues
from gateway.config.problems import Path
from gateway.config.routes import HeaderMatch, Match, QueryMatch, RequestHeaders, RouteConfig
from gateway.patterns import PatternError, check_substitution, compile_pattern
from gateway.templates import IN_REQUEST_HEADERS, claim_paths, parse_template

Finding = tuple[Path, str]

_CANONICAL_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9_.~!$&'()*+,=:@-]+)+")

FRAMING = frozenset(
    {
        "connection", "content-length", "content-encoding", "expect", "keep-alive",
        "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""Header fields of one connection, or of the framing of the body."""
OWN_IN_REQUESTS = frozenset(
    {
        "x-client-id", "x-client-name", "x-token-scopes", "x-token-subject", "x-forwarded-for",
        "x-forwarded-proto", "x-forwarded-host", "forwarded", "via", "x-request-id",
        "traceparent", "tracestate",
    }
)  # fmt: skip
OWN_IN_RESPONSES = frozenset({"x-request-id"})
BODILESS = frozenset({204, 205, 304})


def suggest(name: str, known: Collection[str]) -> str:
    """A hint at the name that may have been meant."""
    nearest = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {nearest[0]!r}?" if nearest else ""


def match_key(match: Match) -> tuple[object, ...]:
    """Return what two routes must differ in, beside host and method."""
    headers = (
        ("header", one.name.lower(), one.exact, one.regex, one.present) for one in match.headers
    )
    query = (("query", one.name, one.exact, one.regex, one.present) for one in match.query)
    return match.path, match.exact, match.regex, frozenset((*headers, *query))


def check_destination(
    where: Path, route: RouteConfig, upstreams: Collection[str], *, is_optional: bool
) -> Iterator[Finding]:
    """A route leads to exactly one thing; to none only if it `is_optional`."""
    given = [key for key in ("upstream", "split", "redirect", "respond") if getattr(route, key)]
    if not given and not is_optional:
        yield (
            (*where, "upstream"),
            "is required, or one of split, redirect, respond, unless the gateway only decides "
            "(`authz`)",
        )
    for key in given[1:]:
        yield (*where, key), f"can't be given together with {given[0]}"
    if route.upstream is not None and route.upstream not in upstreams:
        hint = suggest(route.upstream, upstreams)
        yield (*where, "upstream"), f"there is no upstream {route.upstream!r}{hint}"
    yield from _check_split(where, route, upstreams)
    respond = route.respond
    if respond is not None and respond.status in BODILESS and respond.body:
        yield (*where, "respond", "body"), f"a {respond.status} has no body (RFC 9110 15)"
    if respond is not None:
        for name in _refused(respond.headers, FRAMING | OWN_IN_RESPONSES):
            yield (*where, "respond", "headers", name), _refusal()


def _check_split(where: Path, route: RouteConfig, upstreams: Collection[str]) -> Iterator[Finding]:
    names = [share.upstream for share in route.split]
    for at, name in enumerate(names):
        if name not in upstreams:
            hint = suggest(name, upstreams)
            yield (*where, "split", at, "upstream"), f"there is no upstream {name!r}{hint}"
        if name in names[:at]:
            yield (*where, "split", at, "upstream"), "has a share already"
    if names and not any(share.weight for share in route.split):
        yield (*where, "split"), "expected one weight above 0 at least"
    if route.split_by != "random" and not names:
        yield (*where, "split_by"), "has no effect without split"
    mirror = route.mirror
    if mirror is not None and mirror.upstream not in upstreams:
        hint = suggest(mirror.upstream, upstreams)
        yield (*where, "mirror", "upstream"), f"there is no upstream {mirror.upstream!r}{hint}"
    if mirror is not None and (route.redirect or route.respond):
        yield (*where, "mirror"), "has no effect where the gateway responds itself"


def check_request_filters(where: Path, route: RouteConfig) -> Iterator[Finding]:
    """Check the settings of the request filters."""
    compress = route.compress
    if compress is not None and "br" in compress.encodings and find_spec("brotli") is None:
        yield (
            (*where, "compress", "encodings", compress.encodings.index("br")),
            "needs a package that is not installed: pip install brotli",
        )
    cors = route.cors
    if cors is None:
        return
    if not cors.origins and not cors.origin_regexes:
        yield (*where, "cors", "origins"), "is required, or origin_regexes"
    if cors.credentials and "*" in cors.origins:
        # Any page could act on behalf of its visitor.
        yield (*where, "cors", "credentials"), "can't be true with the origin `*`: name origins"


def check_rights(where: Path, route: RouteConfig, known: Collection[str]) -> Iterator[Finding]:
    """Check the scopes and claims that a route asks for; `known` are the scopes there are."""
    is_list = isinstance(route.scopes, list)
    for key, scopes in (("all", route.all_scopes), ("any", route.any_scopes)):
        for at, scope in enumerate(scopes):
            if scope not in known:
                place = (*where, "scopes", at) if is_list else (*where, "scopes", key, at)
                hint = suggest(scope, known)
                yield place, f"scope {scope!r} is not one of provider.scopes{hint}"
    if not is_list and not route.all_scopes and not route.any_scopes:
        yield (*where, "scopes"), "expected a list, or any or all with scopes in it"
    for name, values in route.claims.items():
        if isinstance(values, ClaimValues) and not values.any and not values.all:
            yield (*where, "claims", name), "expected values, or any or all with values in it"


def check_changes(where: Path, route: RouteConfig) -> Iterator[Finding]:
    """Check the changes of request and response headers."""
    yield from _check_match(where, route.match)
    rewrite = route.rewrite
    prefix = rewrite.add_prefix
    if prefix is not None and not _CANONICAL_PREFIX.fullmatch(prefix):
        yield (
            (*where, "rewrite", "add_prefix"),
            "must be whole segments in canonical form, without a slash at the end",
        )
    if rewrite.location and (rewrite.regex or not (prefix or rewrite.strip_prefix)):
        yield (
            (*where, "rewrite", "location"),
            "needs strip_prefix or add_prefix, which it undoes, and no regex",
        )
    if rewrite.regex is not None:
        if not route.merge_slashes:
            yield (*where, "merge_slashes"), "false can't be used with rewrite.regex"
        try:
            check_substitution(compile_pattern(rewrite.regex.pattern), rewrite.regex.substitution)
        except PatternError as error:
            yield (*where, "rewrite", "regex", "substitution"), str(error)
    for direction, own in (
        ("request_headers", OWN_IN_REQUESTS | {"host"}),
        ("response_headers", OWN_IN_RESPONSES),
    ):
        changes = getattr(route, direction)
        if changes is None:
            continue
        if direction == "request_headers":
            yield from _check_claim_fields(where, route, changes)
        for kind in ("set", "add"):
            for name in _refused(getattr(changes, kind), FRAMING | own):
                yield (*where, direction, kind, name), _refusal()
        for at, name in enumerate(changes.remove):
            if name.lower() in FRAMING | own:
                yield (*where, direction, "remove", at), _refusal()
    yield from _check_authorization(where, route)


def _check_claim_fields(
    where: Path, route: RouteConfig, changes: RequestHeaders
) -> Iterator[Finding]:
    for kind in ("set", "add"):
        for name, value in getattr(changes, kind).items():
            if not claim_paths(parse_template(value, IN_REQUEST_HEADERS)):
                continue
            place = (*where, "request_headers", kind, name)
            if kind == "add":
                yield place, "the client could send this field, too: expected it in set"
            if route.auth == "none":
                yield place, "tokens are not looked at with auth none: there is no claim"


def check_claim_matches(routes: Mapping[int, RouteConfig]) -> Iterator[Finding]:
    """No route is chosen by a field that one fills with a claim: the client's is another one."""
    filled = {
        name.lower(): at
        for at, route in routes.items()
        if route.request_headers is not None
        for name, value in route.request_headers.set.items()
        if claim_paths(parse_template(value, IN_REQUEST_HEADERS))
    }
    for at, route in routes.items():
        for position, header in enumerate(route.match.headers):
            if (other := filled.get(header.name.lower())) is not None:
                yield (
                    ("routes", at, "match", "headers", position, "name"),
                    f"is no field to choose a route by: routes[{other}] fills it with a claim, "
                    "and what a client sends under this name is dropped",
                )


def _check_authorization(where: Path, route: RouteConfig) -> Iterator[Finding]:
    changes = route.request_headers
    if changes is None:
        return
    given = [*(("set", key) for key in changes.set), *(("add", key) for key in changes.add)]
    for kind, key in given:
        if key.lower() == "authorization" and (kind == "add" or route.forward_token):
            yield (
                (*where, "request_headers", kind, key),
                "there is one Authorization: set it, and leave forward_token out",
            )
    for at, name in enumerate(changes.remove):
        if name.lower() == "authorization":
            yield (
                (*where, "request_headers", "remove", at),
                "is not passed on anyway, unless forward_token is true",
            )


def _check_match(where: Path, match: Match) -> Iterator[Finding]:
    not_theirs = FRAMING | OWN_IN_REQUESTS | {"host", "authorization"}
    for at, header in enumerate(match.headers):
        place = (*where, "match", "headers", at)
        yield from _check_condition(place, header)
        if header.name.lower() in not_theirs:
            yield (*place, "name"), "is no field to choose a route by: it is not the client's"
    for at, parameter in enumerate(match.query):
        yield from _check_condition((*where, "match", "query", at), parameter)


def _check_condition(place: Path, requested: HeaderMatch | QueryMatch) -> Iterator[Finding]:
    given = [value for value in (requested.exact, requested.regex) if value is not None]
    if len(given) > 1 or (given and not requested.present):
        yield place, "expected one of exact, regex and present"


def _refused(names: Iterable[str], refused: frozenset[str]) -> Iterator[str]:
    return (name for name in names if name.lower() in refused)


def _refusal() -> str:
    return "is the gateway's own to write, or belongs to one connection: it can't be changed here"
