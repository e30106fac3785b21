"""Turn whatever asyncpg raises into errors of the store, with their reasons.

The one place that knows the library's exceptions: those of the server (`PostgresError`, by
SQLSTATE), those of the library itself (`InterfaceError`, `InternalClientError`), and what passes
through from below (`OSError`, `TimeoutError`, `ssl.SSLError`).

A reason never repeats what the server says about values: those may be secrets. Its message is kept
for classes that speak of the server and of names only.
"""

from __future__ import annotations

from asyncpg.exceptions import (
    ClientConfigurationError,
    InterfaceError,
    InternalClientError,
    PostgresError,
    TargetServerAttributeNotMatched,
)

from gateway.oauth.models import (
    StoreDataError,
    StoreRejectedError,
    StoreUnavailableError,
    UnstorableValueError,
)

REASON_CHARS = 300
_UNSTORABLE = "PostgreSQL: a text that it can't hold"
_DAMAGED = ("XX001", "XX002")
_UNAVAILABLE = ("08", "57P", "53300", "40", "55P03", "58", "28", "3D000")
"""Connection, shutdown and recovery, too many connections, conflicts of transactions, locks, the
server's own input and output, authentication, no such database."""
_SAFE = ("08", "28", "3D", "3F", "42501", "53", "55", "57", "58", "25006", "42P01")
"""Whose messages name servers, roles, databases, schemas and tables, and no values."""
RETRIED = ("40001", "40P01")
"""A conflict with another transaction: nothing was done."""
NO_PRIMARY = ("25006", "57P01", "57P02", "57P03")
"""Reported by a server that is a standby, is shutting down or starting: others may be better."""

CONNECTION_LOST = "08"
"""The class of states of a broken connection: the library's own, or of one behind PgBouncer."""


def as_store_error(error: BaseException) -> StoreUnavailableError | None:
    """Translate an exception of a call; None where it is none of the library's.

    `StoreRejectedError` where the server responded, and rejected the operation.
    """
    match error:
        case PostgresError():
            return _explain(error, error.sqlstate or "")
        case UnicodeError():
            return UnstorableValueError(_UNSTORABLE)
        case TargetServerAttributeNotMatched():
            reason = "a standby, which takes no writes"
        case InterfaceError() | InternalClientError() | ClientConfigurationError():
            reason = type(error).__name__
        case TimeoutError():
            reason = "no response in time"
        case OSError():
            reason = _text(error)
        case _:
            return None
    return StoreUnavailableError(f"PostgreSQL: {reason}")


def sqlstate_of(error: BaseException) -> str:
    """The SQLSTATE of a server's error (PostgreSQL's appendix A); empty for another's."""
    return (error.sqlstate or "") if isinstance(error, PostgresError) else ""


def is_response(error: BaseException) -> bool:
    """Whether a server responded, if only with an error."""
    return bool(state := sqlstate_of(error)) and not state.startswith(CONNECTION_LOST)


def _explain(error: PostgresError, state: str) -> StoreUnavailableError:
    said = _text(error) if state.startswith(_SAFE) else type(error).__name__
    reason = f"PostgreSQL: {said}" + (f" ({state})" if state else "")
    if state.startswith("22"):  # "data exception"
        return UnstorableValueError(_UNSTORABLE)
    if state in _DAMAGED:
        return StoreDataError(reason)
    is_outage = not state or state.startswith(_UNAVAILABLE)
    return (StoreUnavailableError if is_outage else StoreRejectedError)(reason)


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:REASON_CHARS] or type(error).__name__
