"""The bearer token of a request (RFC 6750 section 2.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gateway.oauth.errors import MalformedTokenError, MissingTokenError

# RFC 6750 section 2.1: the scheme, at least one space, b68token.
_BEARER = re.compile(rb"bearer +([A-Za-z0-9\-._~+/]+=*)", re.IGNORECASE)
# Followed by no character of a token (RFC 9110 section 5.6.2), and so the scheme: with a tab, a
# colon or a no-break space for the space, it was meant to be one with a token.
_SCHEME = re.compile(rb"(?:bearer|dpop)(?![!#$%&'*+.^_`|~0-9A-Za-z-])", re.IGNORECASE)
_DPOP = re.compile(rb"dpop +[A-Za-z0-9\-._~+/]+=*", re.IGNORECASE)


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
    if _SCHEME.match(value) and not _DPOP.fullmatch(value):
        raise MalformedTokenError("The token is malformed.")
    raise MissingTokenError
