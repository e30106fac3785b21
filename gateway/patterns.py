"""Regular expressions of the configuration, matched in linear time.

Python's own engine backtracks: a pattern such as `(a+)+b` lets a caller who picks the
text stop the process. RE2 takes time in proportion to the text, whatever the pattern, and
refuses what it can't do so (back references, look-around).

https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

from typing import Any, Protocol

MAX_PATTERN_CHARS = 1024
MAX_MEMORY_BYTES = 1 << 20
"""What a compiled pattern may take; RE2 refuses larger ones."""


class Pattern(Protocol):
    """A compiled pattern, as far as it is used here."""

    pattern: str

    def fullmatch(self, text: str) -> Any:
        """A match of the whole text, or None."""

    def sub(self, substitution: str, text: str) -> str:
        """The text with each match replaced; `\\1` in the substitution is a group."""


class PatternError(ValueError):
    """A text is not a valid pattern; the message says why."""


def compile_pattern(text: str) -> Pattern:
    """Compile a pattern. Raises `PatternError`."""
    # Its library is loaded only where a pattern is configured.
    import re2

    if len(text) > MAX_PATTERN_CHARS:
        raise PatternError(f"expected a pattern of at most {MAX_PATTERN_CHARS} characters")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_MEMORY_BYTES
    try:
        compiled: Pattern = re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        reason = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise PatternError(
            f"expected a pattern that RE2 takes (no back references, no look-around): {reason}"
        ) from None
    return compiled


def check_substitution(pattern: Pattern, substitution: str) -> None:
    """Raises `PatternError` for a substitution that names groups the pattern does not have."""
    try:
        pattern.sub(substitution, "")
        sample = compile_pattern(f"(?:{pattern.pattern})|")
        sample.sub(substitution, "")
    except Exception:  # re2 raises its own error, IndexError and others
        raise PatternError("expected a substitution whose groups the pattern has") from None
