"""Client metadata as options of a command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gateway.cli.output import CommandError, near_file
from gateway.suggestions import did_you_mean


def add_metadata_arguments(parser: argparse.ArgumentParser) -> None:
    """Make the options known."""
    parser.add_argument(
        "--grant-type",
        metavar="GRANT",
        action="append",
        help="a grant it may use; repeatable (default: client_credentials)",
    )
    parser.add_argument(
        "--audience",
        metavar="URI",
        action="append",
        help="a resource it may get tokens for; repeatable (default: all there are)",
    )
    parser.add_argument(
        "--auth-method",
        metavar="METHOD",
        help="client authentication method: client_secret_basic, client_secret_post, "
        "private_key_jwt, tls_client_auth, self_signed_tls_client_auth, workload, none "
        "(default: a secret, in any way)",
    )
    parser.add_argument(
        "--redirect-uri",
        metavar="URI",
        action="append",
        help="where users are sent back to it; repeatable",
    )
    parser.add_argument(
        "--skip-consent",
        action=argparse.BooleanOptionalAction,
        help="do not ask users whether they allow it",
    )
    parser.add_argument(
        "--token-format", choices=("opaque", "jwt"), help="format of its access tokens"
    )
    parser.add_argument("--jwks", metavar="FILE", help="file with its public keys, a JWK set")
    parser.add_argument("--jwks-uri", metavar="URL", help="where it publishes them")
    parser.add_argument(
        "--metadata",
        metavar="FILE",
        help="file with other members of its registration (RFC 7591), JSON",
    )


def metadata_members(options: argparse.Namespace) -> dict[str, Any]:
    """The members that the options name. Raises `CommandError`."""
    from gateway.oauth.client_metadata import REGISTRABLE

    members: dict[str, Any] = {}
    if options.metadata:
        members = _read_object(options.metadata)
        if unknown := sorted(members.keys() - set(REGISTRABLE)):
            hint = did_you_mean(unknown[0], REGISTRABLE)
            raise CommandError(
                f"{options.metadata}: unknown members: {', '.join(unknown)} (known: "
                f"{', '.join(REGISTRABLE)}){hint}"
            )
    given = {
        "grant_types": options.grant_type,
        "audiences": options.audience,
        "token_endpoint_auth_method": options.auth_method,
        "redirect_uris": options.redirect_uri,
        "skip_consent": options.skip_consent,
        "access_token_format": options.token_format,
        "jwks": _read_object(options.jwks) if options.jwks else None,
        "jwks_uri": options.jwks_uri,
    }
    return members | {name: value for name, value in given.items() if value is not None}


def _read_object(path: str) -> dict[str, Any]:
    import msgspec

    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=dict[str, Any])
    except OSError as error:
        hint = near_file(Path(path))
        raise CommandError(f"{path} can't be read: {error.strerror}{hint}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise CommandError(f"{path} is not a JSON object") from None
