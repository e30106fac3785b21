"""From the clients that a configuration declares to the values that the provider takes."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import SecretStr

from gateway.app.build.derive import rate_limit
from gateway.app.build.provider import provider_policy
from gateway.config import Config, ConfigProblem, LoadedConfig
from gateway.config.clients import ClientConfig
from gateway.config.problems import Path
from gateway.oauth.client_metadata import REGISTRABLE, ClientMetadata, read_metadata
from gateway.oauth.clients import check_client_id, check_registration, check_secret
from gateway.oauth.declared_clients import DeclaredClient, DeclaredSecret
from gateway.oauth.errors import OAuthError
from gateway.oauth.policy import ProviderPolicy

_SECRETS = (
    ("secret", "secret_hash"),
    ("previous_secret", "previous_secret_hash"),
)


def declared_clients(config: Config) -> tuple[DeclaredClient, ...] | None:
    """The clients that a configuration declares; None where it declares none, and leaves those of
    the store alone."""
    if "clients" not in config.model_fields_set:
        return None
    return tuple(
        _declared(client_id, client, config) for client_id, client in config.clients.items()
    )


def _declared(client_id: str, client: ClientConfig, config: Config) -> DeclaredClient:
    scopes = config.provider.scopes if client.scopes is None else client.scopes
    return DeclaredClient(
        client_id,
        client.client_name or client_id,
        tuple(scopes),
        _metadata(client),
        _secret(client.secret, client.secret_hash),
        _secret(client.previous_secret, client.previous_secret_hash),
        rate_limit(client.rate_limit),
    )


def _metadata(client: ClientConfig) -> ClientMetadata:
    members = client.model_dump(include=set(REGISTRABLE), exclude_defaults=True)
    has_secret = client.secret is not None or client.secret_hash is not None
    has_keys = client.jwks is not None or client.jwks_uri is not None
    if has_keys and not has_secret:
        members.setdefault("token_endpoint_auth_method", "private_key_jwt")
    return read_metadata(members)


def _secret(secret: SecretStr | None, secret_hash: SecretStr | None) -> DeclaredSecret | None:
    if secret is not None:
        return DeclaredSecret(secret.get_secret_value())
    if secret_hash is not None:
        return DeclaredSecret(None, secret_hash.get_secret_value())
    return None


def find_wrong_clients(loaded: LoadedConfig) -> list[ConfigProblem]:
    """Find declared clients that could not be registered."""
    config = loaded.config
    if not config.clients:
        return []
    policy = provider_policy(config)
    return [
        loaded.problem(("clients", client_id, *place), message)
        for client_id, client in config.clients.items()
        for place, message in _problems(client_id, client, config, policy)
    ]


def _problems(
    client_id: str, client: ClientConfig, config: Config, policy: ProviderPolicy
) -> Iterator[tuple[Path, str]]:
    for clear, hashed in _SECRETS:
        if getattr(client, clear) is not None and getattr(client, hashed) is not None:
            yield (hashed,), f"can't stand beside {clear}: give one of them"
    for scope in client.scopes or ():
        if scope not in config.provider.scopes:
            yield ("scopes",), f"scope {scope!r} is not one of provider.scopes"
            return
    try:
        check_client_id(client_id)
        declared = _declared(client_id, client, config)
        check_registration(
            declared.client_name, declared.scopes, declared.metadata, policy, is_trusted=True
        )
        for secret in (client.secret, client.previous_secret):
            if secret is not None:
                check_secret(secret.get_secret_value())
    except OAuthError as error:
        yield (), error.description
        return
    if declared.metadata.uses_secret and declared.secret is None:
        yield (
            (),
            "needs secret, secret_hash, jwks or jwks_uri, or another token_endpoint_auth_method",
        )
    elif not declared.metadata.uses_secret:
        for key in ("secret", "secret_hash", "previous_secret", "previous_secret_hash"):
            if getattr(client, key) is not None:
                method = declared.metadata.token_endpoint_auth_method
                yield (key,), f"has no effect with token_endpoint_auth_method {method}"
