"""Says when to renew a certificate, and when to try again after a failure.

Without renewal information of the CA (RFC 9773), a certificate is renewed when a third of its
lifetime is left, a little earlier at random, so that many are not renewed at once. The pauses after
failures keep within five failed validations an hour, which is Let's Encrypt's limit.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.acme.certificates import Certificate
from gateway.acme.errors import AcmeError

RENEW_AT = 2 / 3
"""The part of its lifetime after which a certificate is renewed."""
JITTER = 1 / 20
"""How much earlier at most, as a part of its lifetime."""
ASK_S = 6 * 3600.0
"""How often the CA is asked when to renew, where it does not say."""
LONGEST_ASK_S = 24 * 3600.0

FIRST_RETRY_S = {"unreachable": 10.0, "timeout": 60.0, "rate_limited": 3600.0, "sealed": 60.0}
"""The pause after a first failure, by its reason; it doubles with each."""
OTHER_RETRY_S = 300.0
LONGEST_RETRY_S = {"unreachable": 1800.0, "sealed": 600.0}
OTHER_LONGEST_RETRY_S = 12 * 3600.0
LONGEST_RETRY_AFTER_S = 7 * 86400.0

Chance = Callable[[], float]
"""Random numbers in [0, 1)."""


def renewal_time(certificate: Certificate, chance: Chance) -> float:
    """Return when to renew a certificate (Unix seconds), if the CA gives no time."""
    lifetime_s = certificate.not_after - certificate.not_before
    return certificate.not_before + lifetime_s * (RENEW_AT - JITTER * chance())


def retry_pause_s(error: AcmeError, failures: int, chance: Chance) -> float:
    """Return the pause after the last of several `failures` in a row, in seconds."""
    first_s = FIRST_RETRY_S.get(error.reason, OTHER_RETRY_S)
    longest_s = LONGEST_RETRY_S.get(error.reason, OTHER_LONGEST_RETRY_S)
    pause_s = min(first_s * 2.0 ** min(failures - 1, 20), longest_s) * (1 + chance() / 4)
    return max(pause_s, min(error.retry_after_s, LONGEST_RETRY_AFTER_S))
