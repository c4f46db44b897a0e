"""`fedmkt accounts`: who may do what in an organisation's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmkt.cli import console
from fedmkt.cli.asking import confirm
from fedmkt.cli.roles import current_actor, new_password
from fedmkt.errors import ConfigError, PolicyRefused

if TYPE_CHECKING:
    from fedmkt.audit import records
    from fedmkt.deploy.accounts import Accounts

accounts = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Say who may do what in an organisation's folder: operator, analyst, approver, auditor.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The account's name.", show_default=False)]
Folder = Annotated[Path, typer.Option("--dir", metavar="DIR", help="The organisation's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print the same facts as one JSON object.")]


@accounts.command("add")
def add_command(
    name: Name,
    role: Annotated[
        list[str],
        typer.Option(
            "--role",
            metavar="ROLE",
            show_default=False,
            help="operator, analyst, approver or auditor; operator and analyst may be one person.",
        ),
    ],
    os_user: Annotated[
        str | None,
        typer.Option(
            "--os-user",
            metavar="USER",
            show_default=False,
            help="Known by this user of the machine, instead of by a password.",
        ),
    ] = None,
    folder: Folder = Path("."),
    as_json: Json = False,
) -> None:
    """Add an account; from the first one on, commands in this folder ask who runs them."""
    place = _organisation(folder)
    password = None if os_user is not None else new_password()
    made = _accounts(place).add(name, role, password, os_user)
    _say(place, "account.added", name, list(made.roles))
    _tell(f"{name}: {', '.join(made.roles)}", vars(made), as_json)


@accounts.command("password")
def password_command(name: Name, folder: Folder = Path("."), as_json: Json = False) -> None:
    """Change a password: one's own, or as an operator anybody's."""
    place, actor = _organisation(folder), current_actor()
    if actor.id != name and "operator" not in actor.roles:
        raise PolicyRefused(f"roles: the password of {name} is changed by {name} or an operator")
    _accounts(place).set_password(name, new_password())
    _say(place, "account.changed", name, [])
    _tell(f"{name}: the password was changed", {"name": name, "changed": True}, as_json)


@accounts.command("remove")
def remove_command(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    folder: Folder = Path("."),
    as_json: Json = False,
) -> None:
    """Remove an account; the last operator stays."""
    place = _organisation(folder)
    confirm(f"remove {name}?", yes)
    _accounts(place).remove(name)
    _say(place, "account.removed", name, [])
    _tell(f"{name}: removed", {"name": name, "removed": True}, as_json)


@accounts.command("list")
def list_command(folder: Folder = Path("."), as_json: Json = False) -> None:
    """List the accounts and their roles."""
    store = _accounts(_organisation(folder))
    found = store.all() if store.exist else ()
    if as_json:
        console.say_json({"accounts": [vars(account) for account in found]})
        return
    rows = [
        [a.name, ", ".join(a.roles), "password" if a.has_password else f"user {a.os_user}"] for a in found
    ]
    if rows:
        console.stdout_console().print(console.plain_table(["account", "roles", "known by"], rows))
    else:
        console.say_lines(["no accounts: whoever can use this folder can do everything"])


def _tell(line: str, facts: Mapping[str, object], as_json: bool) -> None:
    if as_json:
        console.say_json(facts)
    else:
        console.say_lines([line])


def _organisation(folder: Path) -> Path:
    if not any((folder / name).exists() for name in ("party.toml", "coordinator.toml")):
        raise ConfigError(f"{folder}: no organisation's folder: no party.toml or coordinator.toml")
    return folder


def _accounts(folder: Path) -> "Accounts":
    from fedmkt.deploy.accounts import Accounts

    return Accounts(folder / "keys")


def _say(folder: Path, act: str, name: str, roles: list[str]) -> None:
    from datetime import UTC, datetime

    from fedmkt.party.acts_log import ActsLog

    mark = _accounts(folder).mark(name)
    body: dict[str, records.Json] = {"account": name, **({"roles": [*roles]} if roles else {})}
    body |= {"mark": mark} if mark else {}
    ActsLog(folder / "state", lambda: datetime.now(UTC)).say(current_actor(), act, body)
