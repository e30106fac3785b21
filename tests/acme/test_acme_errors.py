"""Each exception class of the ACME libraries becomes an `AcmeError` with a reason."""

from __future__ import annotations

import datetime
import inspect
from typing import Any, get_args

import acme.errors
import josepy.errors
import pytest
import requests
from acme import messages

from gateway.acme.errors import REASONS, AcmeError, Reason, library_errors, translate
from gateway.metrics.acme import FAILURES

EXPECTED: dict[str, tuple[Reason, tuple[Any, ...]]] = {
    "acme.errors.Error": ("protocol", ()),
    "acme.errors.DependencyError": ("protocol", ()),
    "acme.errors.SchemaValidationError": ("protocol", ()),
    "acme.errors.ClientError": ("unreachable", ()),
    "acme.errors.UnexpectedUpdate": ("protocol", ()),
    "acme.errors.NonceError": ("protocol", ()),
    "acme.errors.BadNonce": ("protocol", ("nonce", ValueError())),
    "acme.errors.MissingNonce": ("protocol", (requests.Response(),)),
    "acme.errors.PollError": ("unreachable", (set(), {})),
    "acme.errors.ValidationError": ("challenge", ([],)),
    "acme.errors.TimeoutError": ("timeout", ()),
    "acme.errors.IssuanceError": ("rejected", (messages.Error.from_json({"detail": "no"}),)),
    "acme.errors.ConflictError": ("rejected", ("https://ca.example/acct/1",)),
    "acme.errors.WildcardUnsupportedError": ("protocol", ()),
    "acme.errors.ARIError": ("unreachable", ("x", datetime.datetime(2026, 1, 1))),
    "josepy.errors.Error": ("protocol", ()),
    "josepy.errors.DeserializationError": ("protocol", ()),
    "josepy.errors.SerializationError": ("protocol", ()),
    "josepy.errors.UnrecognizedTypeError": ("protocol", ("x", {})),
}


def classes_of_the_libraries() -> dict[str, type[Exception]]:
    return {
        f"{module.__name__}.{name}": kind
        for module in (acme.errors, josepy.errors)
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == module.__name__
    }


def test_all_classes_are_known() -> None:
    assert set(classes_of_the_libraries()) == set(EXPECTED)
    assert set(get_args(Reason)) == set(REASONS) == set(FAILURES)


@pytest.mark.parametrize("name", EXPECTED)
def test_class_has_a_reason(name: str) -> None:
    reason, arguments = EXPECTED[name]
    request = requests.Request("GET", "https://ca.example").prepare()
    for argument in arguments:
        if isinstance(argument, requests.Response):
            argument.request = request
    error = classes_of_the_libraries()[name](*arguments)
    assert isinstance(error, library_errors())
    translated = translate(error, retry_after_s=7)
    assert translated.reason == reason
    assert "\n" not in str(translated)


@pytest.mark.parametrize(
    ("error", "reason", "text"),
    [
        (messages.Error.with_code("rateLimited", detail="too\nmany"), "rate_limited", "too many"),
        (messages.Error.with_code("serverInternal"), "unreachable", "serverInternal"),
        (messages.Error.with_code("caa", detail="no"), "rejected", "the CA reports caa: no"),
        (messages.Error.with_code("accountDoesNotExist"), "rejected", "accountDoesNotExist"),
        (messages.Error.from_json({"type": "about:blank", "title": "odd"}), "rejected", "odd"),
        (requests.ConnectionError("refused"), "unreachable", "refused"),
        (requests.exceptions.JSONDecodeError("no JSON", "", 0), "unreachable", "no JSON"),
        (KeyError("newNonce"), "protocol", "newNonce"),
        (ValueError("no key"), "protocol", "no key"),
        (OSError("no such file"), "unreachable", "no such file"),
    ],
)
def test_error_of_the_ca_or_the_network_has_a_reason(
    error: Exception, reason: str, text: str
) -> None:
    assert isinstance(error, library_errors())
    translated = translate(error, retry_after_s=7)
    assert (translated.reason, translated.retry_after_s) == (reason, 7)
    assert text in str(translated)


def test_response_of_the_ca_is_named_by_its_status() -> None:
    response = requests.Response()
    response.status_code = 502
    assert str(translate(acme.errors.ClientError(response))) == "the CA responds with status 502"


def test_own_error_is_no_error_of_a_library() -> None:
    assert not isinstance(AcmeError("timeout", "x"), library_errors())
