"""The route that authorised a request is the one that its forwarded bytes lead to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.http.errors import BadRequestError, MethodNotAllowedError, NoRouteError
from gateway.http.target import is_canonical_path, parse_target
from gateway.metrics import Histogram, RouteMetrics
from gateway.patterns import compile_pattern
from gateway.proxy.conditions import Condition, PathCondition
from gateway.proxy.header_rules import Rewrite
from gateway.proxy.router import Route, Router
from gateway.upstream.upstream import Upstream

NOWHERE = Upstream("u", (), durations=Histogram())
SEGMENTS = st.sampled_from(["a", "b", "ab", "a.b", "c"])
PATHS = st.lists(SEGMENTS, max_size=3).map(lambda segments: "/" + "/".join(segments))
PATTERNS = st.sampled_from(["/.*", "/a.*", "/[ab]/[^/]*", "/a/b", ".*b"])
METHODS = st.sampled_from(["GET", "POST"])
SHAPES = st.tuples(
    PATHS, st.booleans(), st.sets(METHODS), st.none() | PATTERNS, st.sampled_from(["", "h.example"])
)
PIECES = st.sampled_from(
    [
        "/",
        "//",
        "a",
        "b",
        "c",
        "ab",
        ".",
        "..",
        "%61",
        "%2e",
        "%2E",
        "%2f",
        ";",
        ";x",
        "%3b",
        "?",
        "%5c",
    ]
)
TARGETS = st.lists(PIECES, max_size=10).map(lambda pieces: "/" + "".join(pieces))


def make_route(number: int, shape: tuple[str, bool, set[str], str | None, str]) -> Route:
    path, exact, methods, pattern, host = shape
    conditions: tuple[Condition, ...] = ()
    if pattern is not None:
        conditions = (PathCondition(compile_pattern(pattern)),)
    return Route(
        f"r{number}", path, NOWHERE, RouteMetrics(),
        exact=exact, methods=tuple(methods), conditions=conditions, hosts=(host,) if host else (),
    )  # fmt: skip


def is_below(path: str, prefix: str) -> bool:
    return f"{path}/".startswith(prefix.rstrip("/") + "/")


def strict_reading(
    shapes: list[tuple[str, bool, set[str], str | None, str]], path: str, method: str
) -> set[int]:
    """The routes that may take a path, by the rule in the documents, without any table."""
    for host in ("h.example", ""):
        fitting = [
            (number, shape)
            for number, shape in enumerate(shapes)
            if shape[4] == host
            and (path == shape[0] or (not shape[1] and is_below(path, shape[0])))
        ]  # fmt: skip
        if fitting:
            best = max((shape[1], len(shape[0])) for _, shape in fitting)
            best_shapes = [one for one in fitting if (one[1][1], len(one[1][0])) == best]
            named = [one for one in best_shapes if method in one[1][2]]
            unnamed = [one for one in best_shapes if not one[1][2]]
            for group in (named, unnamed):
                whole = [
                    one for one in group
                    if one[1][3] is None or compile_pattern(one[1][3]).fullmatch(path)
                ]  # fmt: skip
                if whole:
                    return {number for number, _ in whole}
            return set()
    return set()


@given(st.lists(SHAPES, min_size=1, max_size=6), TARGETS, METHODS)
def test_route_that_authorised_is_the_one_that_the_forwarded_bytes_lead_to(
    shapes: list[tuple[str, bool, set[str], str | None, str]], raw: str, method: str
) -> None:
    router = Router(make_route(number, shape) for number, shape in enumerate(shapes))
    try:
        target = parse_target(raw)
        route = router.match("h.example", target, method)
    except (BadRequestError, NoRouteError, MethodNotAllowedError):
        return
    # What is forwarded reads the same again, and leads to the same route.
    assert parse_target(f"{target.path}{target.query}") == target
    number = int(route.name[1:])
    assert number in strict_reading(shapes, target.path, method)
    # For those, too, who drop `;parameters`.
    dropped = "/".join(segment.partition(";")[0] for segment in target.path.split("/"))
    assert number in strict_reading(shapes, dropped, method)


@given(
    TARGETS, PATHS, PATHS, st.sampled_from(["a", "/", "b/", "%", "", "(.)"]),
    st.sampled_from(["", "/", "..", r"\0\0", "?", "%2e", ";", "x"]),
)  # fmt: skip
def test_what_is_rewritten_is_canonical_or_refused(
    raw: str, strip: str, add: str, pattern: str, substitution: str
) -> None:
    try:
        target = parse_target(raw)
        path = target.path
        prefix = strip if path == strip or path.startswith(strip.rstrip("/") + "/") else ""
        rewrite = Rewrite(
            prefix.rstrip("/"), add.rstrip("/"), compile_pattern(pattern), substitution
        )
        rewritten = rewrite.path(path)
    except BadRequestError:
        return
    passes = target.has_escaped_slash
    assert is_canonical_path(rewritten, may_have_escaped_slash=passes)
    unchanged = Rewrite(prefix.rstrip("/"), add.rstrip("/")).path(path)
    assert is_canonical_path(unchanged, may_have_escaped_slash=passes)
