"""The metadata that an authorization server publishes: where its keys and endpoints are.

OpenID Connect Discovery 1.0 section 4, RFC 8414 section 3.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

FetchJson = Callable[[str], Awaitable[object]]
"""Gets a JSON document. Raises `FetchError`."""


class FetchError(Exception):
    """A document cannot be fetched, or is not what it should be."""


class NoDocumentError(FetchError):
    """The server responds, but not with the document."""


async def discover(fetch: FetchJson, issuer: str) -> Mapping[str, Any]:
    """Return the metadata of an issuer: of OpenID Connect or, where there is none, of RFC 8414.

    Raises `FetchError`.
    """
    problems: list[str] = []
    for url in metadata_urls(issuer):
        try:
            found = await fetch(url)
        except NoDocumentError as error:
            problems.append(f"{url}: {error}")
            continue
        except FetchError as error:
            raise FetchError(f"{url}: {error}") from None
        if isinstance(found, dict) and found.get("issuer") == issuer:
            return found
        # RFC 8414 section 3.3: one of another issuer must not be used.
        problems.append(f"{url}: the document is not that of this issuer")
    raise FetchError("; ".join(problems))


def metadata_urls(issuer: str) -> tuple[str, str]:
    """Return where the metadata may be."""
    bare = issuer.rstrip("/")
    parts = urlsplit(bare)
    return (
        f"{bare}/.well-known/openid-configuration",
        f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{parts.path}",
    )


def read_endpoint(metadata: Mapping[str, Any], name: str) -> str:
    """Return a URL of the metadata, which must be as safe as the issuer. Raises `FetchError`."""
    url = metadata.get(name)
    schemes = {"https"} if str(metadata["issuer"]).startswith("https:") else {"http", "https"}
    try:
        if isinstance(url, str) and url.isascii() and urlsplit(url).scheme in schemes:
            return url
    except ValueError:
        pass
    raise FetchError(f"{name} is missing, or not as safe as the issuer")
