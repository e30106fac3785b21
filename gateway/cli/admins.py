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
from gateway.cli.provider import command_line_user
from gateway.cli.values import duration, utf8_text

if TYPE_CHECKING:
    from gateway.admin.accounts import Accounts
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

    delete = admin.add_parser("delete", parents=parents, help="remove an admin user")
    _add_name(delete)
    delete.set_defaults(command=_delete)

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
    revoke = tokens.add_parser("revoke", aliases=["delete"], parents=parents, help="revoke a token")
    _add_name(revoke)
    revoke.set_defaults(command=_revoke_token)


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=utf8_text, help="its name")


def _with_accounts(
    options: argparse.Namespace,
    work: Callable[[Accounts], Awaitable[Result]],
    action: str = "",
    *,
    makes_store: bool = False,
) -> Result:
    """Do `work`, and write `action` down."""
    import asyncio

    from gateway.app.build.accounts import open_store_accounts
    from gateway.config import load_config
    from gateway.oauth.accounts import AccountError

    config = load_config(options.config, leave_out=NOT_FOR_STORE)

    async def run() -> Result:
        async with open_store_accounts(config, must_exist=not makes_store) as accounts:
            result = await work(accounts)
            if action:
                await accounts.audit.note(command_line_user(), "", action, options.name)
            return result

    try:
        return asyncio.run(run())
    except AccountError as error:
        raise CommandError(str(error)) from None


def _add(options: argparse.Namespace) -> int:
    password = read_password(options)
    user = _with_accounts(
        options,
        lambda accounts: accounts.users.add(options.name, password, options.role),
        "admin.add",
        makes_store=True,
    )
    return _print_user(user, options)


def _password(options: argparse.Namespace) -> int:
    return _print_user(_set_password(options), options)


def _set_password(options: argparse.Namespace) -> AdminUser:
    password = read_password(options)
    return _with_accounts(
        options,
        lambda accounts: accounts.users.set_password(options.name, password),
        "admin.password",
    )


def _role(options: argparse.Namespace) -> int:
    return _print_user(_set_role(options), options)


def _set_role(options: argparse.Namespace) -> AdminUser:
    return _with_accounts(
        options,
        lambda accounts: accounts.users.set_role(options.name, options.role),
        "admin.role",
    )


def _update(options: argparse.Namespace) -> int:
    if not (options.role or options.password_file):
        raise CommandError("nothing to change: give --role or --password-file")
    if options.role:
        user = _set_role(options)
    if options.password_file:
        user = _set_password(options)
    return _print_user(user, options)


def _delete(options: argparse.Namespace) -> int:
    _with_accounts(options, lambda accounts: accounts.users.delete(options.name), "admin.delete")
    if options.json:
        print_json({"name": options.name})
    else:
        print(f"deleted {options.name}, whose sessions have ended")
    return 0


def _list(options: argparse.Namespace) -> int:
    users = _with_accounts(options, lambda accounts: accounts.users.list_users(limit=MAX_USERS))
    if options.json:
        print_json([_describe_user(user) for user in users])
    else:
        rows = [(user.name, user.role, _time(user.created_at)) for user in users]
        print_table(("NAME", "ROLE", "CREATED"), rows)
    return 0


def _show(options: argparse.Namespace) -> int:
    user = _with_accounts(options, lambda accounts: accounts.users.get(options.name))
    if user is None:
        raise CommandError(f"there is no admin user {options.name!r}")
    if options.json:
        print_json(_describe_user(user))
    else:
        print_record({"name": user.name, "role": user.role, "created": _time(user.created_at)})
    return 0


def _create_token(options: argparse.Namespace) -> int:
    value, token = _with_accounts(
        options,
        lambda accounts: accounts.tokens.create(options.name, options.role, ttl_s=options.expires),
        "admin.token.create",
        makes_store=True,
    )
    record = {**_describe_token(token), "token": value}
    if options.json:
        print_json(record)
    else:
        times = {"created_at": token.created_at, "expires_at": token.expires_at}
        print_record({**record, **{name: _time(at) for name, at in times.items()}})
        print("\nThe token is shown only this once.")
    return 0


def _list_tokens(options: argparse.Namespace) -> int:
    tokens = _with_accounts(options, lambda accounts: accounts.tokens.list())
    if options.json:
        print_json([_describe_token(token) for token in tokens])
    else:
        rows = [(token.name, token.role, _time(token.expires_at)) for token in tokens]
        print_table(("NAME", "ROLE", "EXPIRES"), rows)
    return 0


def _show_token(options: argparse.Namespace) -> int:
    for token in _with_accounts(options, lambda accounts: accounts.tokens.list()):
        if token.name == options.name:
            if options.json:
                print_json(_describe_token(token))
            else:
                times = {"created": _time(token.created_at), "expires": _time(token.expires_at)}
                print_record({"name": token.name, "role": token.role, **times})
            return 0
    raise CommandError(f"there is no token {options.name!r}")


def _revoke_token(options: argparse.Namespace) -> int:
    _with_accounts(
        options, lambda accounts: accounts.tokens.revoke(options.name), "admin.token.revoke"
    )
    if options.json:
        print_json({"name": options.name})
    else:
        print(f"revoked {options.name}")
    return 0


def _print_user(user: AdminUser, options: argparse.Namespace) -> int:
    if options.json:
        print_json(_describe_user(user))
    else:
        print(f"{user.name}: {user.role}")
    return 0


def _describe_user(user: AdminUser) -> dict[str, object]:
    return {"name": user.name, "role": user.role, "created_at": int(user.created_at)}


def _describe_token(token: ApiToken) -> dict[str, object]:
    return {
        "name": token.name,
        "role": token.role,
        "created_at": int(token.created_at),
        "expires_at": int(token.expires_at or 0),
    }


def _time(at: float | None) -> str:
    return "never" if at is None else format_time(at)
