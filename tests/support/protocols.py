"""Suites that run over HTTP/1.1 and over HTTP/2.

In a module with `pytestmark = both_protocols`, each test that starts a gateway runs twice: once as
it is, and once with `H2Front` between it and the gateway. With `both_upstream_protocols`, it is
`H2Back` between the gateway and its `RawUpstream`s; with `each_protocol`, either of them, and with
`all_protocols` also both at once. What speaks HTTP/2 to the upstream is in the slow tier; so is, of
a test with several cases, all but the first of them over HTTP/2 of clients.
Those marked `only_http1` are about the framing, or the connections, of HTTP/1.1 on the client's
side, `only_http1_upstream` on the other; of HTTP/2, tests of their own are in `tests/http2`.
"""

from __future__ import annotations

import itertools

import pytest
from support.tiers import slow

PROTOCOLS = ("http/1.1", "h2")
PAIRS = {
    "all_protocols": list(itertools.product(PROTOCOLS, PROTOCOLS)),
    "each_protocol": [PROTOCOLS[:1] * 2, PROTOCOLS[::-1], PROTOCOLS],
    "both_protocols": [(client, PROTOCOLS[0]) for client in PROTOCOLS],
    "both_upstream_protocols": [(PROTOCOLS[0], upstream) for upstream in PROTOCOLS],
}
"""Of client and upstream, by marker."""
both_protocols = pytest.mark.both_protocols
both_upstream_protocols = pytest.mark.both_upstream_protocols
each_protocol = pytest.mark.each_protocol
all_protocols = pytest.mark.all_protocols
only_http1 = pytest.mark.only_http1
only_http1_upstream = pytest.mark.only_http1_upstream


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have a test run over each protocol, if it is one of those."""
    test = metafunc.definition
    if "client_protocol" not in metafunc.fixturenames:
        return
    sides = [marker for marker in PAIRS if test.get_closest_marker(marker)]
    pairs = PAIRS[sides[0]] if sides else []
    for side, marker in enumerate(("only_http1", "only_http1_upstream")):
        if test.get_closest_marker(marker):
            pairs = [pair for pair in pairs if pair[side] == PROTOCOLS[0]]
    if len(pairs) > 1:
        ids = [f"{client}-to-{upstream}" if upstream != PROTOCOLS[0] else client
               for client, upstream in pairs]  # fmt: skip
        names = ("client_protocol", "upstream_protocol")
        values = [
            pytest.param(*pair, marks=slow("protocols") if pair[1] != PROTOCOLS[0] else ())
            for pair in pairs
        ]
        metafunc.parametrize(names, values, ids=ids, indirect=True)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Leave the first case over HTTP/2 of each test to the fast tier."""
    call = getattr(item, "callspec", None)
    if call is None or call.params.get("client_protocol") != "h2":
        return
    others = call.indices.keys() - {"client_protocol", "upstream_protocol"}
    if any(call.indices[name] for name in others) and not item.get_closest_marker("slow"):
        item.add_marker(slow("protocols"))
