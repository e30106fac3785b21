"""Reasons of rejections in words: what an event means, and what to do about it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

SECTIONS = {
    "parsing": "The request can't be parsed",
    "routing": "Routing",
    "tokens": "Tokens",
    "limits": "Limits",
    "upstreams": "Upstreams",
    "provider": "The provider's endpoints",
    "sign_in": "Sign-in and consent",
    "external_authorization": "External authorization",
    "admin": "Admin API and console",
    "connections": "Connections",
}
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


@dataclass(frozen=True, slots=True)
class Reason:
    """One code, or several that mean the same."""

    codes: tuple[str, ...]
    status: str
    cause: str
    remedy: str

    @property
    def summary(self) -> str:
        """The first sentence of the cause."""
        return re.split(r"(?<=\.) (?=[A-Z`])", self.cause, maxsplit=1)[0]


@cache
def sections() -> tuple[tuple[str, tuple[Reason, ...]], ...]:
    """All of them, by the part of the gateway that they belong to."""
    text = (files("gateway.admin.console") / "reasons.toml").read_text("utf-8")
    return tuple(
        (
            SECTIONS[name],
            tuple(
                Reason(
                    tuple(one["codes"]),
                    _plain(one["status"]),
                    _plain(one["cause"]),
                    _plain(one.get("remedy", "")),
                )
                for one in entries
            ),
        )
        for name, entries in tomllib.loads(text).items()
    )


@cache
def _by_code() -> dict[str, Reason]:
    return {code: one for _, reasons in sections() for one in reasons for code in one.codes}


def explain_reason(code: str) -> Reason | None:
    """Look a code up."""
    return _by_code().get(code)


def _plain(text: str) -> str:
    """Markdown without its marks."""
    return _LINK.sub(r"\1", text).replace("`", "")
