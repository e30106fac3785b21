"""Upstreams: where requests are sent, which of several addresses takes one, and what is done
about those that fail. `docs/reference/upstreams.md` describes it in prose.

    upstream.py           a named group: its endpoints, and the choice between them
    target.py             what the configuration says of one target, and how it is dialled
    endpoint.py           one address of a target: its connections, and what is known of it
    pool.py               its connections, idle and new ones, given as streams
    stream.py             the seam: what exchanges know of an upstream, whatever its protocol
    h1.py                 one HTTP/1 connection  balancing.py          the ways to choose
    circuit_breaker.py    the limits             discovery.py          names become addresses
    health_checks.py      active checks          outlier_detection.py  passive ejection
    retry_policy.py       what is tried again, how often
    status.py             all of it, reported as data and as metrics
"""
