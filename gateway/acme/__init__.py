"""Certificates by ACME (RFC 8555), kept in the store and shared by all processes on it.

settings      what to get certificates for, and from which CA
state         account, certificates, challenges and the lock, in the store; private keys sealed
certificates  keys, requests, checks of what the CA issued, challenge certificates (RFC 8737)
client        one CA, by certbot's library: blocking, for a thread
errors        what that library raises, by reason
schedule      when to renew and when to try again
issuer        one at a time over all processes: gets and renews certificates
watch         in each process that serves: certificates and challenges, as they change
"""

from importlib.util import find_spec

HOW_TO_INSTALL = "pip install 'acme>=5.1' 'josepy>=2.2'"


def is_available() -> bool:
    """Whether the packages of the extra `acme` are installed."""
    return find_spec("acme") is not None and find_spec("josepy") is not None
