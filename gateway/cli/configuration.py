"""`gateway run`, `check`, `schema` and `routes`: what a configuration is good for."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from gateway.cli.needs import NOT_FOR_ROUTES
from gateway.cli.output import count, print_json, print_table

if TYPE_CHECKING:
    from gateway.config import LoadedConfig


def add_commands(
    commands: Any, with_config: argparse.ArgumentParser, with_json: argparse.ArgumentParser
) -> None:
    """Make the commands known."""
    parser = commands.add_parser("run", parents=[with_config], help="run the gateway")
    parser.set_defaults(command=_run)
    parser = commands.add_parser("check", parents=[with_config], help="check a configuration")
    parser.set_defaults(command=_check)
    parser = commands.add_parser("schema", help="print the JSON Schema of the configuration")
    parser.set_defaults(command=_print_schema)
    parser = commands.add_parser(
        "routes", parents=[with_config, with_json], help="list the routes in order of precedence"
    )
    parser.set_defaults(command=_print_routes)


def _run(options: argparse.Namespace) -> int:
    # First of all: what follows imports for most of a second.
    from gateway.app.process import leave, prepare_process

    prepare_process()
    from gateway.app.run import run

    return leave(run(_load_usable(options)))


def _load_usable(options: argparse.Namespace) -> LoadedConfig:
    """Raises `ConfigError` also for what a configuration names and a gateway could not use."""
    from gateway.app.build.listeners import find_unusable_files
    from gateway.config import ConfigError, load

    loaded = load(options.config)
    if problems := find_unusable_files(loaded):
        raise ConfigError(problems)
    return loaded


def _check(options: argparse.Namespace) -> int:
    from gateway.app.build.listeners import http2_settings
    from gateway.config.advice import find_warnings

    loaded = _load_usable(options)
    config = loaded.config
    for place, message in find_warnings(config):
        print(loaded.problem(place, f"warning: {message}"), file=sys.stderr)
    routes = count(len(config.routes), "route")
    upstreams = count(len(config.upstreams), "upstream")
    http2 = "on" if http2_settings(config) else "off"
    print(f"{options.config}: ok ({routes}, {upstreams}); HTTP/2: {http2}")
    return 0


def _print_schema(options: argparse.Namespace) -> int:
    from gateway.config import json_schema

    print_json(json_schema())
    return 0


def _print_routes(options: argparse.Namespace) -> int:
    from gateway.app.build.routes import list_routes
    from gateway.config import load_config

    rows = list_routes(load_config(options.config, leave_out=NOT_FOR_ROUTES))
    if options.json:
        print_json(rows)
        return 0
    header = ("HOST", "PATH", "METHODS", "ROUTE", "AUTH", "SCOPES", "CLIENTS", "UPSTREAM")
    print_table(
        header,
        [
            (
                row["host"] or "*",
                row["path"] + ("" if row["exact"] else " ..."),
                ",".join(row["methods"]) or "*",
                row["name"],
                row["auth"],
                " ".join(row["scopes"]) or "-",
                " ".join(row["clients"]) or "-",
                (row["upstream"] or "-")
                + (f"  if {', '.join(row['conditions'])}" if row["conditions"] else ""),
            )
            for row in rows
        ],
    )
    return 0
