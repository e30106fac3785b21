"""Cookies that hold secrets: how they are named, set and read (RFC 6265bis)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

SameSite = Literal["Strict", "Lax"]

# What such a cookie can hold, as we write it: base64url. Anything else is not from us.
_VALUE = re.compile(r"[A-Za-z0-9_-]{1,512}")


@dataclass(frozen=True, slots=True)
class SecretCookie:
    """A cookie for this host alone that no script can read.

    Where it is secure, it is called `__Host-NAME`: no other host, and no plain connection, can
    have set it.
    """

    base_name: str
    is_secure: bool
    """Whether the page is reached by https."""
    same_site: SameSite = "Lax"
    """`Lax` where the browser must bring it along when another site sends it here."""

    @property
    def name(self) -> str:
        """As browsers see it."""
        return f"__Host-{self.base_name}" if self.is_secure else self.base_name

    def set(self, value: str, *, max_age_s: float | None = None) -> tuple[str, str]:
        """The header field that sets it: for `max_age_s`, or until the browser ends."""
        if not _VALUE.fullmatch(value):
            raise ValueError("a secret cookie holds 1 to 512 characters of base64url")
        lifetime = "" if max_age_s is None else f"; Max-Age={int(max_age_s)}"
        return self._field(value, lifetime)

    def clear(self) -> tuple[str, str]:
        """The header field that removes it."""
        return self._field("", "; Max-Age=0")

    def read(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Its value in the header fields of a request; None where it is absent, malformed, or
        there more than once."""
        name, found = self.name.encode(), set[bytes]()
        for field, value in headers:
            if field.lower() == b"cookie":
                for pair in value.split(b";"):
                    key, _, given = pair.strip().partition(b"=")
                    if key == name:
                        found.add(given)
        if len(found) != 1:
            return None
        text = found.pop().decode("latin-1")
        return text if _VALUE.fullmatch(text) else None

    def _field(self, value: str, lifetime: str) -> tuple[str, str]:
        secure = "; Secure" if self.is_secure else ""
        attributes = f"; Path=/{lifetime}; HttpOnly{secure}; SameSite={self.same_site}"
        return "Set-Cookie", f"{self.name}={value}{attributes}"
