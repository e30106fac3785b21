"""The composition root: the one place that knows the configuration and everything else."""

from gateway.app.provider import open_authorization_server
from gateway.app.run import run

__all__ = ["open_authorization_server", "run"]
