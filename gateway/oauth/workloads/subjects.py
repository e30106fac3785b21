"""Patterns of subjects: `system:serviceaccount:shop:*`, `repo:org/name:ref:refs/heads/main`.

A subject is compared as a whole and by its exact characters. `*` stands for one or more characters
other than `:` and `/`, so that it never reaches into the next part; `**`, after a `:` or `/` at the
end, for all that follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from gateway.patterns import Pattern, PatternError, compile_pattern

MAX_SUBJECT_CHARS = 2048
"""As long as a SPIFFE ID may be."""
MAX_PATTERN_CHARS = 512
_PART = r"[^:/\x00-\x20\x7f]+"
_REST = r"[^\x00-\x20\x7f]+"
_WILD = re.compile(r"\*+")
_SPIFFE_ID = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/[A-Za-z0-9._-]+)+)")


class SubjectPatternError(ValueError):
    """A text is no pattern of subjects; the message says why."""


@dataclass(frozen=True, slots=True)
class SubjectPattern:
    """A pattern that was checked."""

    text: str

    @property
    def is_literal(self) -> bool:
        """Whether it names exactly one subject."""
        return "*" not in self.text

    def matches(self, subject: str) -> bool:
        """Whether a subject fits. One with `spiffe:` must be a SPIFFE ID in canonical form."""
        if not subject or len(subject) > MAX_SUBJECT_CHARS:
            return False
        if subject.lower().startswith("spiffe:") and trust_domain_of(subject) is None:
            return False
        return _compile(self.text).fullmatch(subject) is not None


def check_subject_pattern(text: str) -> str:
    """Return a pattern that can be used. Raises `SubjectPatternError`."""
    if not text or len(text) > MAX_PATTERN_CHARS or re.search(r"[\x00-\x20\x7f]", text):
        raise SubjectPatternError(
            "expected the subject of tokens, without blanks, such as system:serviceaccount:shop:*"
        )
    for wild in _WILD.finditer(text):
        if len(wild[0]) == 1:
            continue
        is_last_part = wild.end() == len(text) and text[: wild.start()].endswith((":", "/"))
        if len(wild[0]) > 2 or not is_last_part:
            raise SubjectPatternError(
                "has `**` in the middle of a part: expected it at the end, after `:` or `/`"
            )
    if not re.search(r"[^*:/]", text):
        raise SubjectPatternError("matches every subject: name the part that is yours")
    if text.lower().startswith("spiffe:") and not _is_spiffe_pattern(text):
        raise SubjectPatternError(
            "expected a SPIFFE ID such as spiffe://shop.example/ns/shop/sa/*, its trust domain in "
            "lower case and without `*`"
        )
    try:
        _compile(text)
    except PatternError:
        raise SubjectPatternError("has too many `*`") from None
    return text


def trust_domain_of(subject: str) -> str | None:
    """The trust domain of a SPIFFE ID with a path (SPIFFE ID section 2); None for what is none."""
    found = _SPIFFE_ID.fullmatch(subject) if len(subject) <= MAX_SUBJECT_CHARS else None
    if found is None or {".", ".."} & set(found[2].split("/")):
        return None
    return found[1]


def _is_spiffe_pattern(text: str) -> bool:
    sample = re.sub(r"\*+", "x", text)
    domain = text.removeprefix("spiffe://").partition("/")[0]
    return "*" not in domain and trust_domain_of(sample) is not None


@cache
def _compile(text: str) -> Pattern:
    parts = re.split(r"(\*+)", text)
    expressions = {"*": _PART, "**": _REST}
    return compile_pattern("".join(expressions.get(part) or re.escape(part) for part in parts))
