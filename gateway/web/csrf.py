"""Form tokens (CSRF protection): no other site can make a browser send one of our forms.

A token is an HMAC over a secret that only this browser and we know, the value of its
cookie, and over what the form is for. Nothing has to be kept, and every process that has
the key can check it.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable

Mac = Callable[[bytes], bytes]
"""A code that only who has the key can make. The key is the same in all processes."""

FIELD = "form_token"
"""The name of the hidden field."""


class FormTokens:
    """Makes and checks the tokens."""

    def __init__(self, mac: Mac) -> None:
        self._mac = mac

    def make(self, cookie: str, purpose: str) -> str:
        """The token for a form of this purpose, for the browser that has this cookie."""
        # Lengths first, so that no two pairs make one message.
        message = f"form token\0{len(cookie)}\0{cookie}\0{purpose}".encode("utf-8", "surrogatepass")
        return base64.urlsafe_b64encode(self._mac(message)).rstrip(b"=").decode()

    def is_valid(self, token: str | None, cookie: str | None, purpose: str) -> bool:
        """Whether a form that came with this cookie was made for it."""
        if not token or not cookie:
            return False
        return hmac.compare_digest(
            token.encode("utf-8", "surrogatepass"), self.make(cookie, purpose).encode()
        )
