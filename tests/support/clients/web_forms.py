"""Forms as a browser without script reads and sends them."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Form:
    """A form on a page."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)
    """What would be sent if it were sent as it is; buttons are not in it."""
    buttons: list[tuple[str, str]] = field(default_factory=list)


class Page(HTMLParser):
    """A page: its forms, links, ids, labels, and what describes what."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.forms: list[Form] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.labels: set[str] = set()
        self.described_by: dict[str, list[str]] = {}
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(html)

    @property
    def form(self) -> Form:
        """The only form."""
        (form,) = self.forms
        return form

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what is of interest."""
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.attributes += [(tag, name) for name in given]
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "form":
            self.forms.append(Form(given["action"]))
        elif tag == "a":
            self.links.append(given["href"])
        elif tag == "label":
            self.labels.add(given["for"])
        elif tag == "input":
            self.forms[-1].fields[given["name"]] = given.get("value", "")
            self.described_by[given["name"]] = given.get("aria-describedby", "").split()
        elif tag == "button" and "name" in given:
            self.forms[-1].buttons.append((given["name"], given["value"]))
