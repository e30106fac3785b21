"""`gateway client limit`: give a client a rate limit of its own."""

from __future__ import annotations

import argparse
from typing import Any

from gateway.admin import describe_limit
from gateway.cli.output import CommandError, print_json, print_record, utf8_text
from gateway.cli.provider import with_provider
from gateway.rate_limit import RateLimit
from gateway.units import format_duration, parse_duration


def add_command(client: Any, parents: list[argparse.ArgumentParser]) -> None:
    """Make the command known below `gateway client`."""
    limit = client.add_parser(
        "limit",
        parents=parents,
        help="give a client a rate limit of its own",
        description="Give a client a rate limit of its own, in place of the `rate_limit` that all "
        "clients have. Those of routes hold besides.",
    )
    limit.add_argument("client_id", metavar="ID", type=utf8_text)
    which = limit.add_mutually_exclusive_group(required=True)
    which.add_argument("--requests", metavar="N", type=_positive, help="requests in the time")
    which.add_argument("--none", action="store_true", help="back to the limit of all clients")
    limit.add_argument("--per", metavar="TIME", type=_time, default=1.0, help="time (default: 1s)")
    limit.add_argument(
        "--burst", metavar="N", type=_positive, help="requests at once (default: as --requests)"
    )
    limit.set_defaults(command=_limit)


def _limit(options: argparse.Namespace) -> int:
    limit = None
    if not options.none:
        limit = RateLimit(options.requests, options.per, options.burst or options.requests)
    client = with_provider(
        options.config,
        lambda server: server.limit_client(options.client_id, limit),
        action="client.rate_limit",
        target=options.client_id,
    )
    if client is None:
        raise CommandError(f"there is no client {options.client_id!r}")
    own = client.rate_limit
    if options.json:
        shown = None if own is None else describe_limit(own)
        print_json({"client_id": client.client_id, "rate_limit": shown})
    else:
        print_record({"client_id": client.client_id, "rate_limit": tell_limit(own)})
    return 0


def tell_limit(limit: RateLimit | None) -> str:
    """A limit in words."""
    if limit is None:
        return "none of its own"
    return f"{limit.requests} in {format_duration(limit.per_s)}, {limit.burst} at once"


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError("must be a whole number from 1")
    return number


def _time(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if seconds <= 0:
        raise argparse.ArgumentTypeError("must be longer than 0")
    return seconds
