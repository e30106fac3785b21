"""Users: accounts, sessions, consents, and the tokens issued in their name.

All of it is records of the store, so it holds for every process on it.
"""

from gateway.oauth.users.directory import User, UserDirectory, UserSession, UserSessions

__all__ = ["User", "UserDirectory", "UserSession", "UserSessions"]
