"""`gateway client limit`: give a client a rate limit of its own."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gateway.cli.output import print_json, print_record
from gateway.cli.provider import with_client
from gateway.cli.values import duration, positive, utf8_text

if TYPE_CHECKING:
    from gateway.rate_limit import RateLimit


def add_command(client: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Make the command known below `gateway client`."""
    limit = client.add_parser(
        "limit",
        parents=parents,
        help="give a client a rate limit of its own",
        description="Give a client a rate limit of its own, in place of the `rate_limit` that all "
        "clients have. Those of routes hold besides.",
    )
    limit.add_argument("client_id", metavar="ID", type=utf8_text, help="client id")
    which = limit.add_mutually_exclusive_group(required=True)
    which.add_argument("--requests", metavar="N", type=positive, help="requests in the time")
    which.add_argument("--none", action="store_true", help="back to the limit of all clients")
    limit.add_argument(
        "--per", metavar="TIME", type=duration, default=1.0, help="time (default: 1s)"
    )
    limit.add_argument(
        "--burst", metavar="N", type=positive, help="requests at once (default: as --requests)"
    )
    limit.set_defaults(command=_limit)


def _limit(options: argparse.Namespace) -> int:
    from gateway.admin.descriptions import describe_limit
    from gateway.rate_limit import RateLimit

    limit = None
    if not options.none:
        limit = RateLimit(options.requests, options.per, options.burst or options.requests)
    client = with_client(
        options.config,
        options.client_id,
        lambda server: server.limit_client(options.client_id, limit),
        action="client.rate_limit",
    )
    own = client.rate_limit
    if options.json:
        shown = None if own is None else describe_limit(own)
        print_json({"client_id": client.client_id, "rate_limit": shown})
    else:
        print_record({"client_id": client.client_id, "rate_limit": limit_text(own)})
    return 0


def limit_text(limit: RateLimit | None) -> str:
    """A limit in words."""
    from gateway.units import format_duration

    if limit is None:
        return "none of its own"
    return f"{limit.requests} in {format_duration(limit.per_s)}, {limit.burst} at once"
