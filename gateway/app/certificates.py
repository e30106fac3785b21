"""When the certificates that are in use end."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from gateway.config import Config


def certificate_expiries(config: Config) -> dict[str, float]:
    """The end of each certificate of our own, Unix seconds, by the key that names it.

    Of a chain, the end of what ends first. Raises `OSError` for a file that can't be read, and
    leaves out what is no certificate: whoever uses it says so.
    """
    files = {f"upstreams.{name}": one.tls.cert for name, one in config.upstreams.items() if one.tls}
    if config.listen.tls is not None:
        files["listen"] = config.listen.tls.cert
    found = {name: _end_of(Path(file)) for name, file in files.items() if file is not None}
    return {name: end for name, end in found.items() if end is not None}


def _end_of(file: Path) -> float | None:
    try:
        chain = x509.load_pem_x509_certificates(file.read_bytes())
    except ValueError:
        return None
    return min(one.not_valid_after_utc.timestamp() for one in chain)
