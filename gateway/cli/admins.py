"""`gateway admin ...`: who may sign in at the console, and the tokens of the admin API."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.cli.needs import NOT_FOR_STORE
from gateway.cli.output import (
    CommandError,
    format_time,
    print_json,
    print_record,
    print_table,
)
from gateway.cli.passwords import add_password_arguments, read_password
from gateway.cli.provider import command_line_actor
from gateway.cli.values import duration, utf8_text

if TYPE_CHECKING:
    from gateway.admin.account_actions import AdminAccountActions
    from gateway.admin.accounts import Actor
    from gateway.admin.accounts.tokens import ApiToken
    from gateway.admin.accounts.users import AdminUser

Result = TypeVar("Result")
ROLES = ("viewer", "operator")
MAX_USERS = 1000


def add_commands(
    commands: Any, with_config: argparse.ArgumentParser, with_json: argparse.ArgumentParser
) -> None:
    """Make the commands known."""
    parser = commands.add_parser("admin", help="manage admin users, and tokens of the admin API")
    admin = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    parents = [with_config, with_json]

    add = admin.add_parser("create", aliases=["add"], parents=parents, help="add an admin user")
    _add_name(add)
    add.add_argument("--role", choices=ROLES, default="operator", help="default: operator")
    add_password_arguments(add)
    add.set_defaults(command=_add)

    listing = admin.add_parser("list", parents=parents, help="list the admin users")
    listing.set_defaults(command=_list)

    show = admin.add_parser("show", parents=parents, help="show an admin user")
    _add_name(show)
    show.set_defaults(command=_show)

    update = admin.add_parser(
        "update", parents=parents, help="change the role or the password of an admin user"
    )
    _add_name(update)
    update.add_argument("--role", choices=ROLES, help="what it may do: look, or change things, too")
    add_password_arguments(update)
    update.set_defaults(command=_update)

    password = admin.add_parser(
        "password",
        parents=parents,
        help="give an admin user a new password, which ends all sessions",
    )
    _add_name(password)
    add_password_arguments(password)
    password.set_defaults(command=_password)

    role = admin.add_parser("role", parents=parents, help="change what an admin user may do")
    _add_name(role)
    role.add_argument("role", choices=ROLES, help="what it may do: look, or change things, too")
    role.set_defaults(command=_role)

    for verb, command, text in (
        ("disable", _set_enabled, "keep an admin user from signing in, ending all sessions"),
        ("enable", _set_enabled, "let an admin user sign in again"),
        ("delete", _delete, "remove an admin user"),
    ):
        sub = admin.add_parser(verb, parents=parents, help=text)
        _add_name(sub)
        sub.set_defaults(command=command, is_enabled=verb == "enable")

    token = admin.add_parser("token", help="manage tokens of the admin API")
    tokens = token.add_subparsers(title="commands", required=True, metavar="COMMAND")
    create = tokens.add_parser("create", parents=parents, help="create a token and show it once")
    _add_name(create)
    create.add_argument("--role", choices=ROLES, default="viewer", help="default: viewer")
    create.add_argument(
        "--expires", metavar="DURATION", type=duration, default=90 * 86400.0,
        help="lifetime (default: 90d)",
    )  # fmt: skip
    create.set_defaults(command=_create_token)
    token_list = tokens.add_parser("list", parents=parents, help="list the tokens")
    token_list.set_defaults(command=_list_tokens)
    token_show = tokens.add_parser("show", parents=parents, help="show a token, without its value")
    _add_name(token_show)
    token_show.set_defaults(command=_show_token)
    for names, command, text in (
        (("rotate",), _rotate_token, "give a token another value and show it once"),
        (("disable",), _set_token_enabled, "have a token rejected until it is enabled"),
        (("enable",), _set_token_enabled, "have a token accepted again"),
        (("revoke", "delete"), _revoke_token, "revoke a token"),
    ):
        sub = tokens.add_parser(names[0], aliases=names[1:], parents=parents, help=text)
        _add_name(sub)
        sub.set_defaults(command=command, is_enabled=names[0] == "enable")


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=utf8_text, help="its name")


def _with_accounts(
    options: argparse.Namespace,
    work: Callable[[AdminAccountActions, Actor], Awaitable[Result]],
    *,
    makes_store: bool = False,
) -> Result:
    """Do `work`, as the user of the command line."""
    import asyncio

    from gateway.admin.account_actions import AdminAccountActions
    from gateway.app.build.accounts import open_store_accounts
    from gateway.config import load_config

    config = load_config(options.config, leave_out=NOT_FOR_STORE)

    async def run() -> Result:
        async with open_store_accounts(config, must_exist=not makes_store) as accounts:
            actions = AdminAccountActions(accounts, keeps_operator=False)
            return await work(actions, command_line_actor())

    return asyncio.run(run())


def _add(options: argparse.Namespace) -> int:
    password = read_password(options)
    user = _with_accounts(
        options,
        lambda actions, actor: actions.create_user(actor, options.name, password, options.role),
        makes_store=True,
    )
    return _print_user(user, options)


def _password(options: argparse.Namespace) -> int:
    return _print_user(_set_password(options), options)


def _set_password(options: argparse.Namespace) -> AdminUser:
    password = read_password(options)
    return _with_accounts(
        options, lambda actions, actor: actions.set_password(actor, options.name, password)
    )


def _role(options: argparse.Namespace) -> int:
    return _print_user(_set_role(options), options)


def _set_role(options: argparse.Namespace) -> AdminUser:
    return _with_accounts(
        options, lambda actions, actor: actions.set_role(actor, options.name, options.role)
    )


def _update(options: argparse.Namespace) -> int:
    if not (options.role or options.password_file):
        raise CommandError("nothing to change: give --role or --password-file")
    if options.role:
        user = _set_role(options)
    if options.password_file:
        user = _set_password(options)
    return _print_user(user, options)


def _set_enabled(options: argparse.Namespace) -> int:
    def change(actions: AdminAccountActions, actor: Actor) -> Awaitable[AdminUser]:
        one = actions.enable_user if options.is_enabled else actions.disable_user
        return one(actor, options.name)

    return _print_user(_with_accounts(options, change), options)


def _delete(options: argparse.Namespace) -> int:
    _with_accounts(options, lambda actions, actor: actions.delete_user(actor, options.name))
    return _print_done(options, f"deleted {options.name}, whose sessions have ended")


def _list(options: argparse.Namespace) -> int:
    users = _with_accounts(
        options, lambda actions, _: actions.accounts.users.list_users(limit=MAX_USERS)
    )
    if options.json:
        print_json([_describe(user) for user in users])
    else:
        rows = [(user.name, _role_of(user), _time(user.created_at)) for user in users]
        print_table(("NAME", "ROLE", "CREATED"), rows)
    return 0


def _show(options: argparse.Namespace) -> int:
    user = _with_accounts(options, lambda actions, _: actions.accounts.users.find(options.name))
    return _print_account(user, {"created": _time(user.created_at)}, options)


def _create_token(options: argparse.Namespace) -> int:
    made = _with_accounts(
        options,
        lambda actions, actor: actions.create_token(
            actor, options.name, options.role, ttl_s=options.expires
        ),
        makes_store=True,
    )
    return _print_once(*made, options)


def _rotate_token(options: argparse.Namespace) -> int:
    made = _with_accounts(options, lambda actions, actor: actions.rotate_token(actor, options.name))
    return _print_once(*made, options)


def _print_once(value: str, token: ApiToken, options: argparse.Namespace) -> int:
    record: dict[str, object] = {**_describe(token), "token": value}
    if options.json:
        print_json(record)
    else:
        times = {"created_at": token.created_at, "expires_at": token.expires_at}
        print_record({**record, **{name: _time(at) for name, at in times.items()}})
        print("\nThe token is shown only this once.")
    return 0


def _list_tokens(options: argparse.Namespace) -> int:
    tokens = _with_accounts(options, lambda actions, _: actions.accounts.tokens.list())
    if options.json:
        print_json([_describe(token) for token in tokens])
    else:
        rows = [(token.name, _role_of(token), _time(token.expires_at)) for token in tokens]
        print_table(("NAME", "ROLE", "EXPIRES"), rows)
    return 0


def _show_token(options: argparse.Namespace) -> int:
    token = _with_accounts(options, lambda actions, _: actions.accounts.tokens.get(options.name))
    return _print_token(token, options)


def _set_token_enabled(options: argparse.Namespace) -> int:
    def change(actions: AdminAccountActions, actor: Actor) -> Awaitable[ApiToken]:
        one = actions.enable_token if options.is_enabled else actions.disable_token
        return one(actor, options.name)

    return _print_token(_with_accounts(options, change), options)


def _revoke_token(options: argparse.Namespace) -> int:
    _with_accounts(options, lambda actions, actor: actions.revoke_token(actor, options.name))
    return _print_done(options, f"revoked {options.name}")


def _print_done(options: argparse.Namespace, text: str) -> int:
    if options.json:
        print_json({"name": options.name})
    else:
        print(text)
    return 0


def _print_user(user: AdminUser, options: argparse.Namespace) -> int:
    if options.json:
        print_json(_describe(user))
    else:
        print(f"{user.name}: {_role_of(user)}")
    return 0


def _print_token(token: ApiToken, options: argparse.Namespace) -> int:
    times = {"created": _time(token.created_at), "expires": _time(token.expires_at)}
    return _print_account(token, times, options)


def _print_account(
    account: AdminUser | ApiToken, times: dict[str, str], options: argparse.Namespace
) -> int:
    if options.json:
        print_json(_describe(account))
    else:
        print_record({"name": account.name, "role": _role_of(account), **times})
    return 0


def _describe(account: AdminUser | ApiToken) -> dict[str, object]:
    """Describe an admin user or a token, as the admin API does."""
    from gateway.admin.accounts.tokens import ApiToken
    from gateway.admin.descriptions import describe_admin, describe_admin_token

    if isinstance(account, ApiToken):
        return {**describe_admin_token(account)}
    return {**describe_admin(account)}


def _role_of(account: AdminUser | ApiToken) -> str:
    return account.role if account.disabled_at is None else f"{account.role}, disabled"


def _time(at: float | None) -> str:
    return "never" if at is None else format_time(at)
