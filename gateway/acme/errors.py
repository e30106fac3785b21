"""Gives each failure of an ACME client its reason: for metrics, logs, and when to try again.

The one place that knows what the libraries raise. `acme.errors.Error` and `josepy.errors.Error`
have no common base; requests' exceptions are `OSError`s.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

from gateway.oauth.library_errors import certificate_errors

Reason = Literal[
    "unreachable", "rate_limited", "challenge", "rejected", "timeout", "protocol", "certificate",
    "sealed", "internal",
]  # fmt: skip
REASONS: tuple[Reason, ...] = (
    "unreachable",  # no response of the CA, or one that says it is unwell
    "rate_limited",
    "challenge",  # the CA could not validate a challenge
    "rejected",  # the CA refuses the account, the order or the name
    "timeout",  # an order was not completed in time
    "protocol",  # what the CA sent can't be used
    "certificate",  # what it issued can't be used
    "sealed",  # the records were sealed with another key
    "internal",
)

Errors = tuple[type[Exception], ...]


class AcmeError(Exception):
    """An attempt failed. The text says why, for the operator."""

    def __init__(
        self, reason: Reason, text: str, *, retry_after_s: float = 0.0, code: str = ""
    ) -> None:
        super().__init__(text)
        self.reason = reason
        self.code = code
        """Of the CA's error document (RFC 8555 section 6.7)."""
        self.retry_after_s = retry_after_s
        """What the CA asks for; 0 if nothing."""


@cache
def library_errors() -> Errors:
    """Return what the libraries raise: acme, josepy, requests and cryptography."""
    import acme.errors
    import josepy.errors
    import requests

    return (
        acme.errors.Error,
        josepy.errors.Error,
        requests.RequestException,
        OSError,
        *certificate_errors(),
    )


def translate(error: Exception, *, retry_after_s: float = 0.0) -> AcmeError:
    """Return the error of a library as ours."""
    import acme.errors
    import acme.messages
    import requests

    reason: Reason
    if isinstance(error, acme.messages.Error):
        return _translate_problem(error, retry_after_s)
    if isinstance(error, acme.errors.ValidationError):
        return AcmeError("challenge", _describe_validation(error))
    if isinstance(error, acme.errors.IssuanceError):
        return _translate_problem(error.error, retry_after_s)
    if isinstance(error, acme.errors.TimeoutError):
        reason, text = "timeout", "the CA did not complete the order in time"
    elif isinstance(error, acme.errors.ConflictError):
        reason, text = "rejected", "the CA reports a conflict (409)"
    elif isinstance(error, acme.errors.ARIError):
        reason, text = "unreachable", "the CA's renewal information can't be read"
    elif isinstance(error, acme.errors.ClientError) and not isinstance(
        error, acme.errors.NonceError | acme.errors.UnexpectedUpdate
    ):
        reason, text = "unreachable", _describe_response(error)
    elif isinstance(error, requests.RequestException | OSError):
        reason, text = "unreachable", f"no response of the CA: {_innermost(error)}"
    else:
        reason = "protocol"
        text = f"what the CA sent can't be used: {type(error).__name__}: {_one_line(error)}"
    return AcmeError(reason, text, retry_after_s=retry_after_s)


_BY_CODE: dict[str, Reason] = {
    "rateLimited": "rate_limited",
    "serverInternal": "unreachable",
    "badNonce": "protocol",
    "connection": "challenge",
    "dns": "challenge",
    "dnssec": "challenge",
    "incorrectResponse": "challenge",
    "tls": "challenge",
    "unknownHost": "challenge",
}


def _translate_problem(problem: object, retry_after_s: float) -> AcmeError:
    """An error document of RFC 8555 section 6.7."""
    code = getattr(problem, "code", None) or ""
    detail = getattr(problem, "detail", None) or getattr(problem, "title", None) or "no detail"
    text = f"the CA reports {code or 'an error'}: {_one_line(detail)}"
    reason = _BY_CODE.get(code, "rejected")
    return AcmeError(reason, text, retry_after_s=retry_after_s, code=code)


def _describe_validation(error: Exception) -> str:
    found = []
    for authorization in getattr(error, "failed_authzrs", ()):
        for challenge in authorization.body.challenges:
            if challenge.error is not None:
                found.append(f"{challenge.chall.typ}: {_one_line(challenge.error.detail)}")
    return f"the CA could not validate the challenge ({'; '.join(found) or 'no reason given'})"


def _describe_response(error: Exception) -> str:
    argument = error.args[0] if error.args else ""
    response = argument[0] if isinstance(argument, tuple) else argument
    status = getattr(response, "status_code", None)
    if status is None:
        return f"the response of the CA can't be used: {_one_line(error)}"
    return f"the CA responds with status {status}"


def _innermost(error: BaseException) -> str:
    """Return the text of what a connection failed of, without the object that it failed in."""
    seen: BaseException = error
    for _ in range(10):
        reason = getattr(seen, "reason", None) or (seen.args[0] if seen.args else None)
        inner = reason if isinstance(reason, BaseException) else seen.__cause__
        if inner is None:
            break
        seen = inner
    return _one_line(seen).rpartition("object at 0x")[2].partition(">: ")[2] or _one_line(seen)


def _one_line(value: object) -> str:
    return " ".join(str(value).split())[:300]
