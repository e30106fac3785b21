"""Static files of the pages, by a name that changes with what is in them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib.resources import files

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Asset:
    """A static file."""

    name: str
    """As it appears in URLs: with a digest of the content, so that it can be cached for ever."""
    body: bytes = field(repr=False)
    content_type: str

    @property
    def headers(self) -> Headers:
        """The header fields of a response with this file."""
        return (
            ("Content-Type", self.content_type),
            ("Cache-Control", "public, max-age=31536000, immutable"),
            ("X-Content-Type-Options", "nosniff"),
        )


def load_script(package: str, name: str) -> Asset:
    """The script `static/NAME.js` of a package."""
    return _load(package, name, "js", "text/javascript; charset=utf-8")


def load_icon(package: str, name: str) -> Asset:
    """The picture `static/NAME.svg` of a package."""
    return _load(package, name, "svg", "image/svg+xml")


def load_stylesheet(package: str = "gateway.web", name: str = "style") -> Asset:
    """The style sheet `static/NAME.css` of a package."""
    return _load(package, name, "css", "text/css; charset=utf-8")


def _load(package: str, name: str, ending: str, content_type: str) -> Asset:
    body = (files(package) / "static" / f"{name}.{ending}").read_bytes()
    digest = hashlib.sha256(body).hexdigest()[:12]
    return Asset(f"{name}.{digest}.{ending}", body, content_type)
