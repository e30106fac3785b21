"""`gateway status` and `gateway reload`: ask a running gateway, by its admin listener."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.cli.output import CommandError, print_json, print_record, read_secret

TIMEOUT_S = 30.0
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def add_commands(
    commands: Any, with_config: argparse.ArgumentParser, with_json: argparse.ArgumentParser
) -> None:
    """Add the commands to the parser."""
    status = commands.add_parser(
        "status",
        parents=[with_config, with_json],
        help="show whether the running gateway is ready, and its traffic",
        description="Show whether the running gateway of a configuration is ready and, given a "
        "token of the admin API, its traffic and last reload. Exit status: 0 if it is ready, else "
        "1.",
    )
    status.set_defaults(command=_status)
    reload = commands.add_parser(
        "reload",
        parents=[with_config, with_json],
        help="have the running gateway reload its configuration",
        description="Have the running gateway reload its configuration, and show what changed. "
        "Exit status: 0 if it was applied; 1 if it was rejected, and the previous configuration "
        "stays active.",
    )
    reload.set_defaults(command=_reload)
    for parser in (status, reload):
        parser.add_argument(
            "--url", metavar="URL", help="the admin listener (default: from the configuration)"
        )
        parser.add_argument(
            "--token-file",
            metavar="FILE",
            help="file with a token of the admin API, - for standard input (default: admin.token "
            "of the configuration)",
        )


def _status(options: argparse.Namespace) -> int:
    url = _admin_url(options)
    status, readiness = _request("GET", f"{url}/readyz")
    found: dict[str, Any] = {"url": url, **readiness, "overview": None, "last_reload": None}
    if token := _token(options):
        known, overview = _request("GET", f"{url}/api/v1/overview", token)
        found["overview"] = overview if known == 200 else None
        known, reloads = _request("GET", f"{url}/api/v1/reloads", token)
        found["last_reload"] = next(iter(reloads.get("reloads", [])), None)
    if options.json:
        print_json(found)
    else:
        print_record(_describe_status(found))
    return 0 if status == 200 else 1


def _describe_status(found: dict[str, Any]) -> dict[str, object]:
    failing = [f"{name}: {state}" for name, state in found["checks"].items() if state != "ok"]
    record: dict[str, object] = {
        "admin listener": found["url"],
        "status": ", ".join([found["status"], *failing]),
    }
    if overview := found["overview"]:
        share = overview["error_share"]
        record |= {
            "requests per second": overview["requests_per_second"],
            "error share": "-" if share is None else f"{share:.2%}",
            "requests in flight": overview["inflight_requests"],
            "connections": overview["connections"],
            "workers": overview["workers"],
        }
    if last := found["last_reload"]:
        record["last reload"] = f"{last['result']} ({last['trigger']}), {last['time']}"
    return record


def _reload(options: argparse.Namespace) -> int:
    from gateway.reloads import Change

    url, token = _admin_url(options), _token(options)
    if token is None:
        raise CommandError(
            "a token of the admin API is needed: set admin.token, or give --token-file with one of "
            "`gateway admin token create --role operator`; without any, send the process SIGHUP"
        )
    status, result = _request("POST", f"{url}/api/v1/reload", token)
    if status not in {200, 422}:
        raise CommandError(f"{url}: {status} {result.get('detail', '')}".rstrip())
    if options.json:
        print_json(result)
    elif status == 200:
        print("reloaded" if result["changes"] else "reloaded, nothing has changed")
        for change in result["changes"]:
            print(f"  {Change(**change)}")
    else:
        problems = "\n".join(map(str, result.get("problems", [])))
        raise CommandError(f"rejected; the previous configuration stays active\n{problems}")
    return 0 if status == 200 else 1


def _admin_url(options: argparse.Namespace) -> str:
    """The URL of the admin listener. Raises `ConfigError` and `CommandError`."""
    if options.url:
        try:
            parts = urlsplit(options.url)
            is_url = parts.scheme == "http" and parts.hostname and (parts.port or 80)
        except ValueError:  # a port that is none
            is_url = False
        if not is_url:
            raise CommandError(
                f"{options.url!r} is no URL of an admin listener: expected http://HOST:PORT"
            )
        return str(options.url).rstrip("/")
    admin = _load_admin(options.config, without_token=True)
    if not admin.port:
        raise CommandError("admin.port is 0, so any: give --url")
    host = EVERYWHERE.get(admin.host, admin.host)
    return f"http://[{host}]:{admin.port}" if ":" in host else f"http://{host}:{admin.port}"


def _token(options: argparse.Namespace) -> str | None:
    """A token of the admin API, if one is known."""
    if options.token_file:
        return read_secret(options.token_file)
    from gateway.config import ConfigError

    try:
        token = _load_admin(options.config, without_token=False).token
    except ConfigError:
        return None
    return None if token is None else str(token.get_secret_value())


def _load_admin(path: Path, *, without_token: bool) -> Any:
    """The section `admin` of a configuration, whatever else is in it. Raises `ConfigError`."""
    from gateway.config import Config, load_config

    leave_out: list[tuple[str, ...]] = [(name,) for name in Config.model_fields if name != "admin"]
    if without_token:
        leave_out.append(("admin", "token"))
    return load_config(path, leave_out=leave_out).admin


def _request(method: str, url: str, token: str | None = None) -> tuple[int, dict[str, Any]]:
    """Send a request to the admin listener; the status and the JSON object of the response.

    Raises `CommandError`.
    """
    from http.client import HTTPConnection, HTTPException

    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=TIMEOUT_S)
    try:
        with closing(connection):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            connection.request(method, parts.path, headers=headers)
            response = connection.getresponse()
            found = json.loads(response.read())
    except OSError as error:
        raise CommandError(
            f"no gateway responds at {parts.netloc}: {error.strerror or error}"
        ) from None
    except (HTTPException, ValueError):
        raise CommandError(f"{parts.netloc} is not the admin listener of a gateway") from None
    if not isinstance(found, dict):
        raise CommandError(f"{parts.netloc} is not the admin listener of a gateway")
    return response.status, found
