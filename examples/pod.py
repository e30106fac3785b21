"""A pod that calls another one through the gateway, without a secret.

`python -m examples.pod pods/orders/token http://127.0.0.1:8080 /payments` reads the token that its
platform gave it, exchanges it for an access token by the JWT bearer grant (RFC 7523 section 2.1),
and calls. It needs the standard library only.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
RENEW_BEFORE_S = 30.0
TIMEOUT_S = 10.0


class AccessTokens:
    """Gets access tokens, and keeps one until shortly before it expires."""

    def __init__(self, token_file: Path, gateway: str) -> None:
        self._token_file = token_file
        self._gateway = gateway
        self._token = ""
        self._ends_at = 0.0

    def get(self) -> str:
        """Return a token that is good for a while. Raises `OSError`."""
        if time.monotonic() >= self._ends_at - RENEW_BEFORE_S:
            # Read each time: the kubelet replaces it.
            assertion = self._token_file.read_text().strip()
            form = urlencode({"grant_type": JWT_BEARER, "assertion": assertion}).encode()
            response = send(f"{self._gateway}/token", form)
            self._token = response["access_token"]
            self._ends_at = time.monotonic() + response["expires_in"]
        return self._token


def send(url: str, form: bytes | None = None, headers: Mapping[str, str] = {}) -> Any:
    """Send a request for JSON. Raises `OSError` with what the response says."""
    request = Request(url, form, dict(headers))  # noqa: S310 - the caller's own URL
    try:
        with urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            return json.load(response)
    except HTTPError as error:
        raise OSError(f"{error.code} {error.read().decode(errors='replace')}") from None


def main() -> int:
    """Call once; returns the exit status."""
    token_file, gateway, path = sys.argv[1:]
    tokens = AccessTokens(Path(token_file), gateway)
    try:
        headers = {"Authorization": f"Bearer {tokens.get()}"}
        response = send(f"{gateway}{path}", headers=headers)
    except OSError as error:
        print(f"pod: {error}", file=sys.stderr)
        return 1
    seen = {name.lower(): value for name, value in response["headers"].items()}
    print(f"{response['message']} It was called by {seen['x-client-id']}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
