"""Try a request: what would become of it, without sending it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.admin.problems import ApiError
from gateway.admin.status import Explain

MAX_HEADERS = 50


async def explain_request(
    explain: Explain,
    method: str,
    url: str,
    headers: Sequence[tuple[str, str]],
    source: str,
    *,
    claims: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the result of `gateway explain`. Raises `ApiError` for an invalid request."""
    if len(headers) > MAX_HEADERS:
        raise ApiError(400, "headers", f"There are more than {MAX_HEADERS} header fields.")
    try:
        return await explain(method, url, headers, source or "127.0.0.1", claims)
    except ValueError as error:
        raise ApiError(400, "request", f"This is no request: {error}.") from None


def read_header_lines(text: str) -> list[tuple[str, str]]:
    """The fields in lines of `Name: value`. Raises `ApiError`."""
    fields = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, mark, value = line.partition(":")
        if not mark:
            raise ApiError(400, "headers", "Write each header field as Name: value.")
        fields.append((name.strip(), value.strip()))
    return fields
