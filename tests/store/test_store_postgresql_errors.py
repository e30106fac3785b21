"""Whatever asyncpg raises is an error of the store, with a reason that helps and no value."""

from __future__ import annotations

import inspect

import asyncpg
import pytest
from asyncpg import exceptions

from gateway.oauth.models import (
    StoreDataError,
    StoreRejectedError,
    StoreUnavailableError,
    UnstorableValueError,
)
from gateway.store.postgresql.errors import as_store_error

SECRET = "a-secret-value"
CLASSES = sorted(
    {
        one
        for one in vars(exceptions).values()
        if inspect.isclass(one)
        and issubclass(one, Exception)
        and not issubclass(one, Warning)
        and one.__module__.startswith("asyncpg")
    },
    key=lambda one: one.__name__,
)


def make(kind: type[Exception]) -> Exception:
    return kind(f"text with {SECRET}")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_each_exception_of_the_library_is_an_error_of_the_store(kind: type[Exception]) -> None:
    error = as_store_error(make(kind))
    assert isinstance(error, StoreUnavailableError)
    state = getattr(kind, "sqlstate", None) or ""
    names_only = ("08", "28", "3D", "3F", "42501", "53", "55", "57", "58", "25006", "42P01")
    assert (SECRET in str(error)) == state.startswith(names_only)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (asyncpg.ReadOnlySQLTransactionError, StoreRejectedError),
        (asyncpg.DiskFullError, StoreRejectedError),
        (asyncpg.InsufficientPrivilegeError, StoreRejectedError),
        (asyncpg.UndefinedTableError, StoreRejectedError),
        (asyncpg.TooManyConnectionsError, StoreUnavailableError),
        (asyncpg.CannotConnectNowError, StoreUnavailableError),
        (asyncpg.AdminShutdownError, StoreUnavailableError),
        (asyncpg.DeadlockDetectedError, StoreUnavailableError),
        (asyncpg.InvalidPasswordError, StoreUnavailableError),
        (asyncpg.DataCorruptedError, StoreDataError),
        (asyncpg.CharacterNotInRepertoireError, UnstorableValueError),
        (asyncpg.InterfaceError, StoreUnavailableError),
        (ConnectionResetError, StoreUnavailableError),
        (TimeoutError, StoreUnavailableError),
    ],
)
def test_outage_and_rejection_are_distinguished(
    kind: type[Exception], expected: type[StoreUnavailableError]
) -> None:
    assert type(as_store_error(make(kind))) is expected


def test_defect_of_ours_is_none_of_the_library() -> None:
    assert as_store_error(KeyError("x")) is None
