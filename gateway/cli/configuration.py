"""`gateway run`, `check`, `schema` and `routes`: what a configuration is good for."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.needs import NOT_FOR_ROUTES
from gateway.cli.output import CommandError, count, paint, print_json, print_table

if TYPE_CHECKING:
    from gateway.config import ConfigProblem, LoadedConfig


def add_commands(
    commands: Any, with_config: argparse.ArgumentParser, with_json: argparse.ArgumentParser
) -> None:
    """Make the commands known."""
    parser = commands.add_parser("run", parents=[with_config], help="run the gateway")
    parser.set_defaults(command=_run)
    parser = commands.add_parser(
        "check",
        parents=[with_config, with_json],
        help="check a configuration",
        description="Check a configuration, and what it names: files, directories, certificates "
        "and their keys, packages, addresses to listen on. Everything that is wrong is reported "
        "at once, as FILE:LINE: KEY: MESSAGE; so is, as a warning, what works and is not safe or "
        "probably not meant. Exit status: 0 if the gateway can use it, else 1.",
    )
    parser.add_argument(
        "file", metavar="FILE", nargs="?", type=Path, help="the configuration, as by -c"
    )
    parser.add_argument(
        "--online",
        action="store_true",
        help="reach the store, names of targets in DNS and issuers, too, and see whether the "
        "ports are free",
    )
    parser.set_defaults(command=_check)
    parser = commands.add_parser(
        "schema",
        help="print the JSON Schema of the configuration",
        description="Print the JSON Schema of the configuration, by which editors complete and "
        "check it. Its $id holds the version of the gateway.",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="write it into this file (default: print)"
    )
    parser.set_defaults(command=_print_schema)
    parser = commands.add_parser(
        "routes", parents=[with_config, with_json], help="list the routes in order of precedence"
    )
    parser.set_defaults(command=_print_routes)


def _run(options: argparse.Namespace) -> int:
    # First of all: what follows imports for most of a second.
    from gateway.app.init import leave_init_behind
    from gateway.app.process import leave, prepare_process

    prepare_process()
    leave_init_behind()
    from gateway.app.run import run

    return leave(run(_load_usable(options)))


def _load_usable(options: argparse.Namespace) -> LoadedConfig:
    """Raises `ConfigError` also for what a configuration names and a gateway could not use."""
    from gateway.app.build.checks import find_unusable_files
    from gateway.config import ConfigError, load

    loaded = load(options.config)
    if problems := find_unusable_files(loaded):
        raise ConfigError(problems)
    return loaded


def _check(options: argparse.Namespace) -> int:
    from gateway.app.build.listeners import http2_settings
    from gateway.config import ConfigError

    if options.file is not None:
        options.config = options.file
    try:
        loaded = _load_usable(options)
        warnings = _check_whole(loaded, online=options.online)
    except ConfigError as error:
        if not options.json:
            raise
        print_json({"file": str(options.config), "ok": False, "problems": _rows(error.problems)})
        return 1
    config = loaded.config
    counts = {"routes": len(config.routes), "upstreams": len(config.upstreams)}
    if config.clients:
        counts["clients"] = len(config.clients)
    http2 = "on" if http2_settings(config) else "off"
    if options.json:
        print_json({
            "file": str(options.config), "ok": True, "problems": [], "warnings": _rows(warnings),
            "http2": http2, **counts,
        })  # fmt: skip
        return 0
    for warning in warnings:
        shown_as = paint("warning", "yellow", sys.stderr)
        print(replace(warning, message=f"{shown_as}: {warning.message}"), file=sys.stderr)
    shown = ", ".join(count(number, name.removesuffix("s")) for name, number in counts.items())
    print(f"{options.config}: {paint('ok', 'green')} ({shown}); HTTP/2: {http2}")
    return 0


def _check_whole(loaded: LoadedConfig, *, online: bool) -> Sequence[ConfigProblem]:
    """Check what only a running gateway would find; returns warnings. Raises `ConfigError`."""
    from gateway.app.build.checks import (
        find_cautions,
        find_unbuildable,
        find_unusable_addresses,
    )
    from gateway.config import ConfigError

    problems, occupied = find_unusable_addresses(loaded)
    problems += find_unbuildable(loaded)
    if online:
        from gateway.app.build.reaching import find_unreachable

        problems += find_unreachable(loaded, occupied)
        occupied = []
    if problems:
        raise ConfigError(problems)
    return sorted([*find_cautions(loaded), *occupied])


def _rows(problems: Sequence[ConfigProblem]) -> list[dict[str, object]]:
    return [asdict(problem) for problem in problems]


def _print_schema(options: argparse.Namespace) -> int:
    from gateway.config import json_schema

    if options.output is None:
        print_json(json_schema())
        return 0
    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    try:
        options.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{options.output} can't be written: {error.strerror}") from None
    print(
        f"wrote {options.output}; as the first line of the configuration:\n\n"
        f"    # yaml-language-server: $schema={options.output}"
    )
    return 0


def _describe_auth(row: dict[str, Any]) -> str:
    credentials = row["credentials"]
    is_usual = row["auth"] == "none" or credentials == ["bearer"]
    return row["auth"] if is_usual else f"{row['auth']} ({' or '.join(credentials)})"


def _alternatives(scopes: list[str]) -> list[str]:
    return ["|".join(scopes)] if scopes else []


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
                _describe_auth(row),
                " ".join((*row["scopes"], *_alternatives(row["any_scopes"]))) or "-",
                " ".join(row["clients"]) or "-",
                (row["upstream"] or "-")
                + (f"  if {', '.join(row['conditions'])}" if row["conditions"] else ""),
            )
            for row in rows
        ],
    )
    return 0
