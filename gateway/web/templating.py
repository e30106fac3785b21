"""Pages from Jinja templates: escaped always, strict about what is missing, without script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

SHARED_TEMPLATES = "gateway.web"


def make_environment(*packages: str) -> Environment:
    """An environment that finds templates in the `templates` folder of these packages, then in
    this one's, where `base.html` is."""
    loaders = [PackageLoader(package) for package in (*packages, SHARED_TEMPLATES)]
    return Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


class Pages:
    """Renders pages. The templates are read when the first one is asked for."""

    def __init__(self, *packages: str, shared: Mapping[str, Any]) -> None:
        """`shared` are the values that every page gets; `stylesheet`, a URL, must be one."""
        self._packages = packages
        self._shared = dict(shared)
        self._environment: Environment | None = None

    def render(self, template: str, values: Mapping[str, Any]) -> bytes:
        """A page, in UTF-8."""
        if self._environment is None:
            self._environment = make_environment(*self._packages)
            self._environment.globals.update(self._shared)
        return self._environment.get_template(template).render(values).encode()
