"""Suites that run over HTTP/1.1 and over HTTP/2.

In a module with `pytestmark = both_protocols`, each test that starts a gateway runs twice: once as
it is, and once with `H2Front` between it and the gateway. Those marked `only_http1` are about the
framing, or the connections, of HTTP/1.1, of which HTTP/2 has its own tests in `tests/http2`.
"""

from __future__ import annotations

import pytest

PROTOCOLS = ("http/1.1", "h2")
both_protocols = pytest.mark.both_protocols
only_http1 = pytest.mark.only_http1


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have a test run over each protocol, if it is one of those."""
    test = metafunc.definition
    if "client_protocol" not in metafunc.fixturenames or test.get_closest_marker("only_http1"):
        return
    if test.get_closest_marker("both_protocols"):
        metafunc.parametrize("client_protocol", PROTOCOLS, indirect=True)
