"""Upstreams: where requests are sent, which of several addresses takes one, and what is done
about those that fail. `docs/upstreams.md` tells it in prose.

    upstream.py    a named group: its endpoints, and the choice between them
    target.py      what the configuration says of one target, and how it is dialled
    endpoint.py    one address of a target: its connections, and what is known of it
    balancing.py   the ways to choose            breaker.py     the limits on an upstream
    discovery.py   names become addresses        health.py      active health checks
    outliers.py    passive ejection              retries.py     what is tried again, how often
    states.py      all of it, told as data and as metrics
"""
