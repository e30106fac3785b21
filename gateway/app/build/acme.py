"""From the configuration to what certificates are to be got for."""

from __future__ import annotations

from gateway.acme.settings import AcmeSettings, ExternalAccountKey
from gateway.config import Config


def acme_settings(config: Config) -> AcmeSettings | None:
    """Return what to get certificates for; None where ACME is not configured."""
    acme = config.listen.tls.acme if config.listen.tls is not None else None
    if acme is None:
        return None
    external = None
    if acme.external_account is not None:
        account = acme.external_account
        external = ExternalAccountKey(account.key_id, account.mac_key.get_secret_value())
    return AcmeSettings(
        tuple(acme.domains),
        acme.directory_url,
        acme.challenge,
        acme.email,
        acme.directory_ca,
        external,
        acme.profile,
    )
