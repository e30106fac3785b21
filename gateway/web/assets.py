"""Static files of the pages, by a name that changes with what is in them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

Headers = tuple[tuple[str, str], ...]

MAX_PICTURE_BYTES = 256 * 1024
PICTURES = {
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}
_SANDBOX = ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
"""For files of others: an SVG that is opened by itself runs no script."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A static file."""

    name: str
    """As it appears in URLs: with a digest of the content, so that it can be cached for ever."""
    body: bytes = field(repr=False)
    content_type: str
    is_foreign: bool = False
    """Whether it is no file of ours."""

    @property
    def headers(self) -> Headers:
        """The header fields of a response with this file."""
        return (
            ("Content-Type", self.content_type),
            ("Cache-Control", "public, max-age=31536000, immutable"),
            ("X-Content-Type-Options", "nosniff"),
            *((_SANDBOX,) if self.is_foreign else ()),
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


def load_picture(path: Path) -> Asset:
    """A picture of the operator's. Raises `OSError` for one that can't be used."""
    content_type = PICTURES.get(path.suffix.lower())
    if content_type is None:
        raise OSError(f"{path}: expected a file whose name ends in {', '.join(PICTURES)}")
    body = path.read_bytes()
    if len(body) > MAX_PICTURE_BYTES:
        raise OSError(f"{path} has {len(body)} bytes, expected {MAX_PICTURE_BYTES} at most")
    digest = hashlib.sha256(body).hexdigest()[:12]
    return Asset(f"logo.{digest}{path.suffix.lower()}", body, content_type, is_foreign=True)


def _load(package: str, name: str, ending: str, content_type: str) -> Asset:
    body = (files(package) / "static" / f"{name}.{ending}").read_bytes()
    digest = hashlib.sha256(body).hexdigest()[:12]
    return Asset(f"{name}.{digest}.{ending}", body, content_type)
