"""TLS contexts from files: of the data plane, and of connections to upstreams.

A context that trusts the system's CAs takes 40 ms to make and holds 0.5 MB. It is made where a
target needs one only, once for all upstreams whose settings and files are equal, and by none
who runs an event loop. One that offers HTTP/1.1 alone, beside one that offers both, is made when
the first connection needs it: `DeferredContext`.

Also here: when certificates expire.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Lock

from gateway.config import Config
from gateway.config.model import ListenTls
from gateway.config.upstreams import UpstreamConfig, UpstreamTls, WeightedTarget
from gateway.downstream.tls_challenges import ACME_TLS
from gateway.downstream.tls_object import DirectSSLObject
from gateway.http.h2 import is_available
from gateway.oauth.library_errors import certificate_errors

HTTP1 = ("http/1.1",)
BOTH = ("h2", "http/1.1")
TLS_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class TlsError(OSError):
    """A certificate or key can't be used. The text names the file and says why."""


def listen_tls(config: Config, *, http2: bool = False) -> ssl.SSLContext | None:
    """Make the TLS context of the data plane; None for plain HTTP. `http2`: offer HTTP/2, too.
    Raises `TlsError`."""
    tls = config.listen.tls
    if tls is None:
        return None
    context = _server_context(tls, http2=http2)
    if tls.cert:
        _load_own_certificate(context, tls.cert, tls.key)
    return context


def certificate_context(config: Config, pem: str, *, http2: bool) -> ssl.SSLContext:
    """Make the TLS context of the data plane with another certificate than its own: a chain and
    its key, PEM. Raises `TlsError`."""
    tls = config.listen.tls
    assert tls is not None
    context = _server_context(tls, http2=http2)
    _load_pem(context, pem)
    return context


def challenge_context(pem: str) -> ssl.SSLContext:
    """Make the TLS context of a handshake that validates a tls-alpn-01 challenge."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols([ACME_TLS])
    _load_pem(context, pem)
    return context


def _load_pem(context: ssl.SSLContext, pem: str) -> None:
    """Load a chain and its key. OpenSSL takes them from a file only: one in memory, where there is
    such a thing, else one that no other user can read."""
    with (
        tempfile.NamedTemporaryFile()
        if not hasattr(os, "memfd_create")
        else open(os.memfd_create("certificate"), "w+b") as file
    ):
        file.write(pem.encode("ascii"))
        file.flush()
        name = file.name if isinstance(file.name, str) else f"/proc/self/fd/{file.fileno()}"
        try:
            context.load_cert_chain(name)
        except OSError as error:
            raise TlsError(f"the certificate can't be used: {error}") from None


def _server_context(tls: ListenTls, *, http2: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = DirectSSLObject
    context.minimum_version = TLS_VERSIONS[tls.min_version]
    if tls.ciphers:
        try:
            context.set_ciphers(tls.ciphers)
        except ssl.SSLError:
            raise TlsError(f"ciphers: OpenSSL knows none of {tls.ciphers!r}") from None
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    if tls.client_ca:
        _load_authorities(context, tls.client_ca)
        is_required = tls.client_auth == "required"
        context.verify_mode = ssl.CERT_REQUIRED if is_required else ssl.CERT_OPTIONAL
        # A self-signed certificate that is in the file itself is its own CA (RFC 8705 2.2).
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


@dataclass(frozen=True, slots=True)
class _Key:
    """The settings that two upstreams must share to use one context."""

    verify: bool
    files: tuple[str | None, ...]
    contents: tuple[object, ...]
    alpn: tuple[str, ...]


def offered_protocols(settings: UpstreamConfig) -> tuple[str, ...]:
    """Return what a handshake with an upstream offers (ALPN)."""
    if settings.protocol == "http2":
        return ("h2",)
    return BOTH if settings.protocol == "auto" and is_available() else HTTP1


class DeferredContext:
    """A context that is made when it is first asked for: by a thread of its own, since that takes
    its time. Raises `TlsError` then, and tries again the next time."""

    def __init__(self, make: Callable[[], ssl.SSLContext]) -> None:
        self._make = make
        self._lock = Lock()
        self._made: ssl.SSLContext | None = None

    def __call__(self) -> ssl.SSLContext:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made


class UpstreamContexts:
    """The TLS contexts towards the upstreams of one configuration."""

    def __init__(self, before: UpstreamContexts | None = None) -> None:
        """Contexts of `before` are reused where settings and files are the same."""
        self._before: Mapping[_Key, ssl.SSLContext] = {} if before is None else before.made
        self._deferred_before: Mapping[_Key, DeferredContext] = (
            {} if before is None else before.deferred
        )
        self.made: dict[_Key, ssl.SSLContext] = {}
        self.deferred: dict[_Key, DeferredContext] = {}
        self._seen: dict[str | None, object] = {}

    def of(self, settings: UpstreamConfig) -> ssl.SSLContext | None:
        """The context of an upstream, which offers what its `protocol` says; None where no target
        speaks TLS. Raises `TlsError`."""
        tls = _tls_of(settings)
        if tls is None:
            return None
        alpn = offered_protocols(settings)
        key = self._key(tls, alpn)
        context = self.made.get(key) or self._before.get(key) or _make_context(tls, alpn)
        self.made[key] = context
        return context

    def http1_of(self, settings: UpstreamConfig) -> DeferredContext | None:
        """The context for connections that must be of HTTP/1.1; None where that of the upstream
        offers nothing else."""
        tls = _tls_of(settings)
        if tls is None or offered_protocols(settings) != BOTH:
            return None
        key = self._key(tls, HTTP1)
        deferred = self.deferred.get(key) or self._deferred_before.get(key)
        if deferred is None:
            deferred = DeferredContext(partial(_make_context, tls, HTTP1))
        self.deferred[key] = deferred
        return deferred

    def _key(self, tls: UpstreamTls, alpn: tuple[str, ...]) -> _Key:
        files = (tls.ca, tls.cert, tls.key)
        return _Key(tls.verify, files, tuple(map(self._signature, files)), alpn)

    def _signature(self, file: str | None) -> object:
        """Return the contents of a file; without one, the CAs that the system trusts."""
        if file not in self._seen:
            self._seen[file] = _read_signature(file)
        return self._seen[file]


def _tls_of(settings: UpstreamConfig) -> UpstreamTls | None:
    if settings.tls is None and not any(map(_is_https, settings.targets)):
        return None
    return settings.tls or UpstreamTls()


def _is_https(target: str | WeightedTarget) -> bool:
    url = target if isinstance(target, str) else target.url
    return url.lower().startswith("https:")


def _read_signature(file: str | None) -> object:
    paths = ssl.get_default_verify_paths()
    try:
        if file is not None:
            return sha256(Path(file).read_bytes()).digest()
        return tuple(os.stat(path).st_mtime_ns for path in (paths.cafile, paths.capath) if path)
    except OSError:
        return None


def _make_context(tls: UpstreamTls, alpn: tuple[str, ...]) -> ssl.SSLContext:
    if not tls.verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        try:
            context = ssl.create_default_context(cafile=tls.ca)
        except OSError as error:
            raise TlsError(f"{tls.ca}: {_why(error, 'certificates')}") from None
    context.set_alpn_protocols(list(alpn))
    if tls.cert:
        _load_own_certificate(context, tls.cert, tls.key)
    return context


def private_context(ca: str) -> ssl.SSLContext:
    """Make a context for connections to servers whose certificates are of the authorities in a
    file. Raises `TlsError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load_authorities(context, ca)
    return context


def _load_authorities(context: ssl.SSLContext, file: str) -> None:
    try:
        context.load_verify_locations(file)
    except OSError as error:
        raise TlsError(f"{file}: {_why(error, 'certificates')}") from None


def _load_own_certificate(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    def refuse_password() -> str:
        # OpenSSL would ask for it at the terminal, and everything would stand still.
        raise TlsError(
            f"{key or cert}: the key has a passphrase, expected one without "
            "(openssl pkey -in KEY -out PLAIN_KEY)"
        )

    for file in (cert, key):
        if file is not None:
            try:
                Path(file).read_bytes()
            except OSError as error:
                raise TlsError(f"{file} can't be read: {error.strerror}") from None
    try:
        context.load_cert_chain(cert, key, password=refuse_password)
    except TlsError:
        raise
    except OSError as error:
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError(f"{key or cert}: not the key of the certificate in {cert}") from None
        files = cert if key is None else f"{cert}, {key}"
        raise TlsError(f"{files}: {_why(error, 'certificates and keys')}") from None


def _why(error: OSError, expected: str) -> str:
    if isinstance(error, ssl.SSLError):
        return f"expected {expected} in PEM ({error.reason or 'nothing found'})"
    return f"can't be read: {error.strerror or error}"


def certificate_expiries(config: Config) -> dict[str, float]:
    """The end of each certificate of our own, Unix seconds, by the key that names it.

    Of a chain, the end of what ends first. Raises `OSError` for a file that can't be read, and
    leaves out what is no certificate: its user reports that.
    """
    files = {f"upstreams.{name}": one.tls.cert for name, one in config.upstreams.items() if one.tls}
    if config.listen.tls is not None and config.listen.tls.cert:
        files["listen"] = config.listen.tls.cert
    found = {name: _end_of(Path(file)) for name, file in files.items() if file is not None}
    return {name: end for name, end in found.items() if end is not None}


def _end_of(file: Path) -> float | None:
    from cryptography import x509

    try:
        chain = x509.load_pem_x509_certificates(file.read_bytes())
        return min(one.not_valid_after_utc.timestamp() for one in chain)
    except certificate_errors():
        return None
