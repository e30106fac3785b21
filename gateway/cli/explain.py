"""`gateway explain`: what would become of a request."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from gateway.cli.needs import NOT_FOR_ROUTES
from gateway.cli.output import print_json
from gateway.cli.values import ip_address

if TYPE_CHECKING:
    from gateway.app.explain import Explanation
    from gateway.config import Config

EXIT_FORWARDED, EXIT_REFUSED, EXIT_BAD_INPUT = 0, 1, 2
FIRST_ERROR = 400


def add_command(
    commands: Any, with_config: argparse.ArgumentParser, with_json: argparse.ArgumentParser
) -> None:
    """Make the command known."""
    parser = commands.add_parser(
        "explain",
        parents=[with_config, with_json],
        help="explain how a request would be routed",
        description="Explain which route a request takes and why, what the route requires, and the "
        "request that its upstream would receive. Nothing is sent. Exit status: 0 if the request "
        "would succeed or be forwarded, given a token where one is needed; 1 if it would be "
        "rejected; 2 for an invalid request. With --subject: which entry of `workloads` fits a "
        "subject; 1 if none does.",
    )
    parser.add_argument(
        "method", metavar="METHOD", nargs="?", help="method of the request, such as GET"
    )
    parser.add_argument("url", metavar="URL", nargs="?", help="URL, or a path")
    parser.add_argument(
        "-H", dest="headers", metavar="'Name: value'", action="append", default=[],
        help="a header field; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--source",
        metavar="ADDRESS",
        type=ip_address,
        default="127.0.0.1",
        help="source IP address",
    )
    parser.add_argument(
        "--subject", metavar="SUBJECT",
        help="in place of a request: the subject of a workload, to explain which client it is",
    )  # fmt: skip
    parser.add_argument(
        "--issuer", metavar="NAME", help="name of the issuer of the workload (default: any)"
    )
    parser.add_argument(
        "--claims", metavar="JSON",
        help="claims of the token, as a JSON object; - reads them from standard input",
    )  # fmt: skip
    parser.set_defaults(command=_explain)


def _explain(options: argparse.Namespace) -> int:
    import asyncio

    from gateway.app.explain import ExplainError, explain
    from gateway.config import load_config

    config = load_config(options.config, leave_out=NOT_FOR_ROUTES)
    if options.subject is not None and options.method is None:
        return _explain_workload(config, options)
    if options.method is None or options.url is None or options.subject is not None:
        given = " and ".join(filter(None, (options.method, options.url))) or "nothing"
        also = ", and --subject" if options.subject is not None else ""
        print(f"gateway: expected METHOD and URL, or --subject, not {given}{also}", file=sys.stderr)
        return EXIT_BAD_INPUT
    if options.issuer is not None:
        print("gateway: --issuer goes with --subject", file=sys.stderr)
        return EXIT_BAD_INPUT
    headers = []
    for line in options.headers:
        name, mark, value = line.partition(":")
        if not mark:
            print(f"gateway: {line!r} is no header field: expected 'Name: value'", file=sys.stderr)
            return EXIT_BAD_INPUT
        headers.append((name.strip(), value.strip()))

    async def fetch() -> Explanation:
        return explain(
            config, options.method, options.url, headers, source=options.source, claims=claims
        )

    try:
        claims = _read_claims(options.claims)
        explanation = asyncio.run(fetch())
    except ExplainError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    if options.json:
        print_json(explanation)
    else:
        for line in _lines(explanation):
            print(line)
    return EXIT_REFUSED if explanation["result"].get("status", 0) >= FIRST_ERROR else EXIT_FORWARDED


def _explain_workload(config: Config, options: argparse.Namespace) -> int:
    from gateway.app.explain_workloads import explain_workload

    explanation = explain_workload(config, options.subject, options.issuer)
    if options.json:
        print_json(explanation)
    else:
        for line in _workload_lines(explanation):
            print(line)
    return EXIT_FORWARDED if explanation["client_id"] else EXIT_REFUSED


def _workload_lines(explanation: Explanation) -> list[str]:
    from gateway.units import format_duration

    lines = [f"workload  {explanation['workload'] or '-'}"]
    if explanation["client_id"]:
        scopes = explanation["scopes"]
        shown = "those of the registered client" if scopes is None else " ".join(scopes)
        lines += [
            f"client    {explanation['client_id']}",
            f"scopes    {shown or '-'}",
            f"audience  {' '.join(explanation['audiences']) or 'as for other clients'}",
            f"lifetime  {format_duration(explanation['token_ttl'])}",
            f"proof     {explanation['proof']}",
            *(f"claim     {one}" for one in explanation["claims"]),
        ]
    for at, other in enumerate(explanation["others"]):
        lines.append(f"{'' if at else 'not':10}{other['name']}: {other['why_not']}")
    return lines


def _read_claims(text: str | None) -> dict[str, Any] | None:
    import msgspec

    from gateway.app.explain import ExplainError

    if text is None:
        return None
    try:
        return msgspec.json.decode(sys.stdin.read() if text == "-" else text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError):
        raise ExplainError(f"--claims {text!r} is no JSON object") from None


def _lines(explanation: Explanation) -> list[str]:
    from gateway.units import format_duration

    route, result = explanation["route"], explanation["result"]
    lines = [f"route     {route['name'] if route else '-'}"]
    if "auth" in explanation:
        lines.append(f"auth      {_describe_auth(explanation['auth'])}")
        rules = explanation["auth"].get("claims", ())
        lines += (f"claim     {_describe_claim(row)}" for row in rules)
    if explanation.get("gates"):
        lines.append(f"filters   {', '.join(explanation['gates'])}")
    lines.append(f"response  {_describe_result(result)}")
    for upstream in explanation.get("upstreams", ()):
        targets = ", ".join(map(_target, upstream["targets"]))
        lines.append(f"upstream  {upstream['name']} ({upstream['share']:.0%}): {targets}")
        timeouts = ", ".join(
            f"{key} {format_duration(value) if value else 'off'}"
            for key, value in upstream["timeouts"].items()
        )
        lines.append(f"          {timeouts}")
    if mirror := explanation.get("mirror"):
        lines.append(f"mirror    {mirror['upstream']} ({mirror['percent']:g}%)")
    for key, value in explanation.get("limits", {}).items():
        if value is not None:
            lines.append(f"limit     {key} {value}")
    for at, line in enumerate(explanation.get("forwarded_head", ())):
        lines.append(f"{'' if at else 'forwarded':10}{line}")
    for at, other in enumerate(explanation["others"]):
        lines.append(f"{'' if at else 'not':10}{other['name']}: {other['why_not']}")
    return lines


def _target(target: object) -> str:
    return str(target["url"]) if isinstance(target, dict) else str(target)


def _describe_auth(auth: Explanation) -> str:
    requested = [f"{key} {' '.join(auth[key])}" for key in ("scopes", "clients") if auth.get(key)]
    if auth.get("any_scopes"):
        requested.insert(0, f"one of the scopes {' '.join(auth['any_scopes'])}")
    if auth.get("credentials", ["bearer"]) != ["bearer"]:
        requested.insert(0, " or ".join(auth["credentials"]))
    return ", ".join([auth["mode"], *requested])


def _describe_claim(row: Explanation) -> str:
    wanted = [f"{kind} of {' '.join(row[kind])}" for kind in ("any", "all") if row[kind]]
    text = f"{row['claim']}: {', '.join(wanted)}"
    if "holds" not in row:
        return text
    return f"{text}; {'holds' if row['holds'] else 'fails'}: {' '.join(row['has']) or 'none'}"


def _describe_result(result: Explanation) -> str:
    text = f"by {result['answered_by']}"
    if "status" in result:
        text += f": {result['status']} {result['reason']}"
    for name, value in result.get("headers", ()):
        text += f", {name}: {value}"
    return text
