"""`gateway user ...`: manages the users who sign in, directly in the store."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gateway.cli.output import (
    CommandError,
    count,
    format_time,
    print_json,
    print_record,
    print_table,
)
from gateway.cli.passwords import add_password_arguments, read_password
from gateway.cli.provider import with_provider, with_users
from gateway.cli.values import add_limit_argument, page_size, utf8_text

if TYPE_CHECKING:
    from gateway.admin.account_actions import UserActions
    from gateway.admin.accounts import Actor
    from gateway.oauth.server import AuthorizationServer
    from gateway.oauth.users import User


def add_commands(
    commands: Any, with_config: argparse.ArgumentParser, with_json: argparse.ArgumentParser
) -> None:
    """Make the commands known."""
    parser = commands.add_parser("user", help="manage the users who sign in")
    user = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    parents = [with_config, with_json]

    add = user.add_parser(
        "create", aliases=["add"], parents=parents, help="add a user, who signs in by a password"
    )
    _add_username(add)
    add.add_argument("--name", metavar="NAME", default="", help="display name")
    add_password_arguments(add)
    add.set_defaults(command=_add)

    listing = user.add_parser("list", parents=parents, help="list the users")
    add_limit_argument(listing)
    listing.set_defaults(command=_list)

    show = user.add_parser("show", parents=parents, help="show a user")
    _add_username(show)
    show.set_defaults(command=_show)

    update = user.add_parser(
        "update", parents=parents, help="change the display name or the password of a user"
    )
    _add_username(update)
    update.add_argument("--name", metavar="NAME", help="display name")
    _add_password_change(update)
    update.set_defaults(command=_update)

    password = user.add_parser(
        "password",
        parents=parents,
        help="give a user a new password, which revokes all sessions, but no tokens",
    )
    _add_username(password)
    _add_password_change(password)
    password.set_defaults(command=_set_password)

    for verb, command, text in (
        ("disable", _disable, "keep a user from signing in, ending sessions and tokens"),
        ("enable", _enable, "let a user sign in again"),
        ("delete", _delete, "delete a user, ending sessions, consents and tokens"),
    ):
        sub = user.add_parser(verb, parents=parents, help=text)
        _add_username(sub)
        sub.set_defaults(command=command)


def _add_username(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "username", metavar="USERNAME", type=utf8_text, help="what the user signs in with"
    )


def _add_password_change(parser: argparse.ArgumentParser) -> None:
    add_password_arguments(parser)
    parser.add_argument(
        "--revoke-tokens",
        action="store_true",
        help="with a new password, revoke the access and refresh tokens that clients have in the "
        "user's name, too",
    )


def _add(options: argparse.Namespace) -> int:
    password = read_password(options)
    user = with_users(
        options.config,
        lambda users, actor: users.create(actor, options.username, password, name=options.name),
        makes_store=True,
    )
    return _print_user(user, options)


def _set_password(options: argparse.Namespace) -> int:
    password = read_password(options)
    user = with_users(
        options.config,
        lambda users, actor: users.set_password(
            actor, options.username, password, revoke_tokens=options.revoke_tokens
        ),
    )
    return _print_user(user, options)


def _update(options: argparse.Namespace) -> int:
    if options.name is None and not options.password_file:
        raise CommandError("nothing to change: give --name or --password-file")
    password = read_password(options) if options.password_file else None

    async def update(users: UserActions, actor: Actor) -> User:
        if options.name is not None:
            await users.rename(actor, options.username, options.name)
        if password is not None:
            await users.set_password(
                actor, options.username, password, revoke_tokens=options.revoke_tokens
            )
        return await users.find(options.username)

    return _print_user(with_users(options.config, update), options)


def _disable(options: argparse.Namespace) -> int:
    revoked = with_users(
        options.config, lambda users, actor: users.disable(actor, options.username)
    )
    return _print_revoked("disabled", revoked, options)


def _enable(options: argparse.Namespace) -> int:
    user = with_users(options.config, lambda users, actor: users.enable(actor, options.username))
    return _print_user(user, options)


def _show(options: argparse.Namespace) -> int:
    user = with_users(options.config, lambda users, _: users.find(options.username))
    return _print_user(user, options)


def _list(options: argparse.Namespace) -> int:
    async def read_all(server: AuthorizationServer) -> list[User]:
        users: list[User] = []
        while size := page_size(options, len(users)):
            after = users[-1].username if users else options.after
            users += (page := await server.users.list_users(after=after, limit=size))
            if not page:
                break
        return users

    users = with_provider(options.config, read_all)
    if options.json:
        print_json([_record(user) for user in users])
    else:
        rows = [
            (
                user.username,
                user.name or "-",
                user.source if user.disabled_at is None else f"{user.source}, disabled",
                format_time(user.created_at),
            )
            for user in users
        ]
        print_table(("USERNAME", "NAME", "SOURCE", "CREATED"), rows)
    return 0


def _delete(options: argparse.Namespace) -> int:
    revoked = with_users(options.config, lambda users, actor: users.delete(actor, options.username))
    return _print_revoked("deleted", revoked, options)


def _print_revoked(done: str, revoked: int, options: argparse.Namespace) -> int:
    if options.json:
        print_json({"username": options.username, "tokens_revoked": revoked})
    else:
        print(f"{done} {options.username}, {count(revoked, 'live token')} revoked")
    return 0


def _print_user(user: User, options: argparse.Namespace) -> int:
    record = _record(user)
    if options.json:
        print_json(record)
    else:
        times = {
            name: format_time(at)
            for name, at in record.items()
            if name.endswith("_at") and isinstance(at, int)
        }
        print_record({**record, "name": record["name"] or "-", **times})
    return 0


def _record(user: User) -> dict[str, object]:
    from gateway.admin.descriptions import describe_user

    return {**describe_user(user)}
