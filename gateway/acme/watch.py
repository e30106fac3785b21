"""Has a process serve the certificates and challenges in the store, as they change."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from gateway.acme.certificates import Certificate
from gateway.acme.errors import AcmeError
from gateway.acme.settings import AcmeSettings
from gateway.acme.state import AcmeState, Challenge
from gateway.metrics.acme import AcmeMetrics

WATCH_S = 1.0
"""How often a process looks for changes: less than half of `issuer.SETTLE_S`."""
READ_AGAIN_S = 60.0
"""How often it reads everything, whether it seems to have changed or not."""

_log = logging.getLogger(__name__)


class AcmeWatch:
    """Certificates and challenges as the store has them. Call `look` every `WATCH_S`."""

    def __init__(
        self,
        state: AcmeState,
        settings: AcmeSettings,
        metrics: AcmeMetrics,
        *,
        on_certificates: Callable[[Mapping[str, Certificate]], Awaitable[None]],
        on_challenges: Callable[[Sequence[Challenge]], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_certificates` gets those of all names that have one, by name."""
        self._state = state
        self._settings = settings
        self._metrics = metrics
        self._on_certificates = on_certificates
        self._on_challenges = on_challenges
        self._clock = clock
        self._revision = -1
        self._read_at = 0.0
        self._failed: set[str] = set()
        self.certificates: Mapping[str, Certificate] = {}
        self._challenges: Sequence[Challenge] = ()

    def reconfigure(self, settings: AcmeSettings) -> None:
        """Look for certificates by other settings from the next time on."""
        self._settings = settings
        self._revision = -1

    async def look(self) -> None:
        """Read what has changed. Raises `StoreUnavailableError`; what is known stays."""
        revision = await self._state.revision()
        if revision == self._revision and self._clock() - self._read_at < READ_AGAIN_S:
            return
        challenges = await self._state.challenges(
            lambda domain, error: self._report(f"the challenge of {domain}", error)
        )
        for challenge in challenges:
            self._failed.discard(f"the challenge of {challenge.domain}")
        if challenges != self._challenges:
            await self._on_challenges(challenges)
            self._challenges = challenges
        certificates = await self._read_certificates()
        if certificates != self.certificates:
            await self._on_certificates(certificates)
            self.certificates = certificates
        self._revision, self._read_at = revision, self._clock()

    def _report(self, what: str, error: AcmeError) -> None:
        self._metrics.failures[error.reason] += 1
        if what not in self._failed:
            self._failed.add(what)
            _log.error("cannot load %s from the store: %s", what, error)

    async def _read_certificates(self) -> dict[str, Certificate]:
        settings = self._settings
        found: dict[str, Certificate] = {}
        for domain in settings.domains:
            try:
                certificate = await self._state.certificate(settings.directory_id, domain)
            except AcmeError as error:
                self._report(f"the certificate of {domain}", error)
                certificate = None
            else:
                self._failed.discard(f"the certificate of {domain}")
            # The one before, maybe of another CA, serves until there is a new one.
            certificate = certificate or self.certificates.get(domain)
            if certificate is not None:
                found[domain] = certificate
        return found
