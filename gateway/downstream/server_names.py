"""Chooses the certificate of a handshake by the name that the client sends (SNI, RFC 6066)."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Hashable, Mapping


class ServerNames:
    """TLS contexts by name, behind the one that a listener begins each handshake with."""

    def __init__(self, base: ssl.SSLContext, *, has_certificate: bool) -> None:
        """`base` serves clients that name none of the others, if it has a certificate itself."""
        self._has_certificate = has_certificate
        self._made: dict[Hashable, ssl.SSLContext] = {}
        self._contexts: Mapping[str, ssl.SSLContext] = {}
        base.sni_callback = self._choose

    def prepare(
        self, certificates: Mapping[str, Hashable], make: Callable[[str], ssl.SSLContext]
    ) -> dict[str, ssl.SSLContext]:
        """Return a context for each name: `make` is called for those whose certificate is another
        one than before. Takes its time; what it returns is for `use`."""
        return {
            name: self._made.get(certificate) or make(name)
            for name, certificate in certificates.items()
        }

    def use(
        self, certificates: Mapping[str, Hashable], contexts: Mapping[str, ssl.SSLContext]
    ) -> None:
        """Choose among these from the next handshake on; the first is that of other names."""
        self._made = {certificates[name]: context for name, context in contexts.items()}
        self._contexts = contexts

    def _choose(
        self, handshake: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext
    ) -> int | None:
        chosen = self._contexts.get((name or "").lower())
        if chosen is None and not self._has_certificate:
            chosen = next(iter(self._contexts.values()), None)
            if chosen is None:
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        if chosen is not None:
            handshake.context = chosen
        return None
