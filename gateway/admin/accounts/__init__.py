"""Admin users, their sessions, API tokens, and the audit log.

All of it is kept as records in the store, so every gateway on that store knows the same
users. Passwords are kept as argon2id hashes, sessions and tokens as SHA-256 digests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gateway.admin.accounts.audit import AuditLog
from gateway.admin.accounts.tokens import ApiTokens
from gateway.admin.accounts.users import AdminUsers
from gateway.oauth.credentials import SecretHasher
from gateway.oauth.errors import OAuthError
from gateway.oauth.models import Clock, RecordStore
from gateway.oauth.sign_in_limits import SignInLimits

__all__ = ["Accounts", "Actor", "RoleError", "open_accounts", "require_operator"]

MAX_FAILURES = 5
"""Sign-ins of one name from one network, after which it is rejected for a while."""
FAILURE_WINDOW_S = 600.0


@dataclass(frozen=True, slots=True)
class Actor:
    """The user or token behind an action, as the audit log shows it."""

    name: str
    """`alice`, `token ci`, `admin.token`, `command line (root)`."""
    role: Literal["viewer", "operator"]
    address: str
    """Where the request came from; empty for the command line."""

    @property
    def is_operator(self) -> bool:
        """Whether it may change things."""
        return self.role == "operator"


class RoleError(OAuthError):
    """A viewer tried to change something."""

    status = 403
    error = "role"
    default_description = "A viewer may look, but not change anything."


def require_operator(actor: Actor) -> None:
    """Raise `RoleError` for a viewer."""
    if not actor.is_operator:
        raise RoleError


@dataclass(frozen=True, slots=True)
class Accounts:
    """Everything about who may do what."""

    users: AdminUsers
    tokens: ApiTokens
    audit: AuditLog
    sign_ins: SignInLimits
    """Of admin users, at the console."""


def open_accounts(
    store: RecordStore,
    hasher: SecretHasher,
    wall_clock: Clock,
    *,
    idle_s: float,
    session_s: float,
    retention_s: float,
) -> Accounts:
    """The accounts in a store. A session ends `idle_s` after its last request and `session_s`
    after its first; an entry of the audit log is kept for `retention_s`."""
    return Accounts(
        users=AdminUsers(store, hasher, idle_s=idle_s, session_s=session_s, wall_clock=wall_clock),
        tokens=ApiTokens(store, wall_clock=wall_clock),
        audit=AuditLog(store, retention_s=retention_s, wall_clock=wall_clock),
        sign_ins=SignInLimits(
            store, "admin", lambda: (MAX_FAILURES, FAILURE_WINDOW_S), wall_clock=wall_clock
        ),
    )
