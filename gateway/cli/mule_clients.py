"""The static client list of a Mule OAuth2 Provider configuration, read from XML or JSON.

Mule 4 writes `<oauth2-provider:client>` with lists such as `<client-scopes><client-scope
value="A"/>`, Mule 3 with `<scopes><scope>A</scope>`; both are understood, wherever in the
file they are. JSON uses the same names: `{"clients": [{"clientId": ..., "clientScopes":
[...]}]}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import yaml
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from gateway.cli.output import CommandError, near_file

NAMESPACE = "http://www.mulesoft.org/schema/mule/oauth2-provider"
GRANTS = {
    "AUTHORIZATION_CODE": "authorization_code",
    "REFRESH_TOKEN": "refresh_token",
    "CLIENT_CREDENTIALS": "client_credentials",
}
"""Mule's names of grants, and RFC 6749's. `TOKEN` (implicit) and `PASSWORD` have no successor."""

_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}|#\[.*\]|!\[.*\]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class MuleClient:
    """A client as Mule knows it."""

    client_id: str
    secret: str | None = field(default=None, repr=False)
    name: str | None = None
    description: str | None = None
    principal: str | None = None
    is_confidential: bool = False
    redirect_uris: tuple[str, ...] = ()
    grants: tuple[str, ...] = ()
    """In Mule's words."""
    scopes: tuple[str, ...] | None = None
    """None where the provider's default scopes are meant."""


def read_clients(path: Path, properties: Mapping[str, str]) -> list[MuleClient]:
    """The clients in a file; `${NAME}` is looked up in `properties`.

    Raises `CommandError`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        hint = near_file(path)
        raise CommandError(f"{path} can't be read: {error.strerror}{hint}") from None
    if content.lstrip()[:1] in {b"{", b"["}:
        raw = _read_json(path, content)
    else:
        raw = _read_xml(path, content)
    if not raw:
        raise CommandError(f"{path} holds no clients")
    return [_make_client(path, members, properties) for members in raw]


def read_properties(path: Path) -> dict[str, str]:
    """The properties in a `.properties` or YAML file, YAML's nested names joined by dots.

    Raises `CommandError`.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix in {".yaml", ".yml"}:
            return dict(_flatten("", yaml.safe_load(text) or {}))
    except OSError as error:
        hint = near_file(path)
        raise CommandError(f"{path} can't be read: {error.strerror}{hint}") from None
    except (UnicodeDecodeError, yaml.YAMLError):
        raise CommandError(f"{path} is not a file of properties") from None
    lines = (line.strip() for line in text.splitlines())
    pairs = (
        re.split(r"\s*[=:]\s*|\s+", line, maxsplit=1) for line in lines if line[:1] not in "#!"
    )
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _flatten(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _flatten(f"{prefix}{key}.", inner)]
    return [(prefix.removesuffix("."), str(value))]


def _read_json(path: Path, content: bytes) -> list[dict[str, Any]]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise CommandError(f"{path} is not JSON") from None
    clients = document.get("clients") if isinstance(document, dict) else document
    if not isinstance(clients, list) or not all(isinstance(one, dict) for one in clients):
        raise CommandError(f'{path}: expected {{"clients": [{{"clientId": ...}}]}}')
    return clients


def _read_xml(path: Path, content: bytes) -> list[dict[str, Any]]:
    try:
        root: Element = fromstring(content, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError):
        raise CommandError(f"{path} is not XML without a document type") from None
    return [_read_element(element) for element in root.iter(f"{{{NAMESPACE}}}client")]


def _read_element(element: Element) -> dict[str, Any]:
    members: dict[str, Any] = dict(element.attrib)
    for group in element:
        # `client-redirect-uris` of Mule 4, `redirect-uris` of Mule 3.
        name = group.tag.removeprefix(f"{{{NAMESPACE}}}").removeprefix("client-")
        values = [item.get("value") or (item.text or "").strip() for item in group]
        head, *rest = name.split("-")
        members[head + "".join(map(str.capitalize, rest))] = [value for value in values if value]
    return members


def _make_client(
    path: Path, members: Mapping[str, Any], properties: Mapping[str, str]
) -> MuleClient:
    client_id = _text(path, members, "clientId", properties)
    if not client_id:
        raise CommandError(f"{path}: a client has no clientId")

    def text(name: str) -> str | None:
        return _text(path, members, name, properties)

    def values(name: str) -> tuple[str, ...] | None:
        longer = f"client{name[0].upper()}{name[1:]}"
        given = members.get(longer, members.get(name))
        if given is None:
            return None
        listed = given.split(",") if isinstance(given, str) else given
        if not isinstance(listed, Sequence):
            raise CommandError(f"{path}: {name} of {client_id!r} is not a list")
        return tuple(_fill(path, str(value).strip(), properties) for value in listed)

    return MuleClient(
        client_id=client_id,
        secret=text("secret"),
        name=text("clientName"),
        description=text("description"),
        principal=text("principal"),
        is_confidential=text("type") == "CONFIDENTIAL",
        redirect_uris=values("redirectUris") or (),
        grants=values("authorizedGrantTypes") or (),
        scopes=values("scopes"),
    )


def _text(
    path: Path, members: Mapping[str, Any], name: str, properties: Mapping[str, str]
) -> str | None:
    value = members.get(name)
    return _fill(path, value, properties) if isinstance(value, str) and value else None


def _fill(path: Path, value: str, properties: Mapping[str, str]) -> str:
    """The value with its `${NAME}` filled in, `${secure::NAME}` too."""

    def look_up(match: re.Match[str]) -> str:
        name = (match[1] or "").removeprefix("secure::")
        found = properties.get(name)
        if found is None or _PLACEHOLDER.search(found):
            # The name only: what stands elsewhere may be a secret.
            raise CommandError(
                f"{path}: {match[0] if match[1] else 'an expression'} is known to Mule alone: "
                "give its value in a file named by --properties"
            )
        return found

    return _PLACEHOLDER.sub(look_up, value)
