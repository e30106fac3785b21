"""List the exceptions of joserfc and cryptography for keys, tokens and certificates they can't use.

The one place that knows their exceptions: of cryptography, none derives from another, nor from
`ValueError`. Imported with the first use of a library, which takes its time.
"""

from __future__ import annotations

from functools import cache

Errors = tuple[type[Exception], ...]

_MISUSE: Errors = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError,
    NotImplementedError,
)  # fmt: skip
"""What both stumble over where a value is not what they expect."""


@cache
def cryptography_errors() -> Errors:
    """Return what the primitives raise for keys, signatures and sealed values."""
    from cryptography import exceptions

    return (
        exceptions.UnsupportedAlgorithm,
        exceptions.InvalidKey,
        exceptions.InvalidSignature,
        exceptions.InvalidTag,
        exceptions.InternalError,
        exceptions.AlreadyFinalized,
        exceptions.AlreadyUpdated,
        exceptions.NotYetFinalized,
        *_MISUSE,
    )


@cache
def certificate_errors() -> Errors:
    """Return what reading a certificate raises, and looking for a name in it."""
    from cryptography import x509

    return (
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.ExtensionNotFound,
        x509.AttributeNotFound,
        x509.UnsupportedGeneralNameType,
        *cryptography_errors(),
    )


@cache
def jose_errors() -> Errors:
    """Return what reading, verifying and importing keys of JOSE raise."""
    from joserfc.errors import JoseError, SecurityWarning

    return JoseError, SecurityWarning, *cryptography_errors()
