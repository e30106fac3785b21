"""The bearer token of a request (RFC 6750 section 2.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.oauth.errors import MalformedTokenError, MissingTokenError

# RFC 6750 section 2.1: the scheme, at least one space, b68token.
_BEARER = re.compile(rb"bearer +([A-Za-z0-9\-._~+/]+=*)", re.IGNORECASE)
_BEARER_SCHEME = re.compile(rb"bearer(?: |$)", re.IGNORECASE)


def read_bearer(authorization: Sequence[bytes]) -> str:
    """The token in the values of the Authorization header fields.

    Raises `MissingTokenError` where there is none (also for another scheme), and
    `MalformedTokenError` for more than one header or a token that can't be one.
    """
    if not authorization:
        raise MissingTokenError
    if len(authorization) > 1:
        # Picking either one would let two readers of the same request disagree.
        raise MalformedTokenError("More than one Authorization header.")
    value = authorization[0]
    if match := _BEARER.fullmatch(value):
        return match[1].decode("ascii")
    if _BEARER_SCHEME.match(value):
        raise MalformedTokenError("The bearer token is malformed.")
    raise MissingTokenError
