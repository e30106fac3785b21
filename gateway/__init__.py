"""An API gateway for machine-to-machine traffic that is its own OAuth 2.0 provider."""

__version__ = "0.2.0"
