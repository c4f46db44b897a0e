"""Which role may run which command, in one table, and how a command learns who runs it.

`guard` wraps every command. Where a command's paths lie in an organisation's folder that has accounts, whoever runs it
logs in first: by their user of this machine where an account is mapped to it, or as FEDMKT_ACCOUNT with a password,
which is asked for, or read from the file that FEDMKT_PASSWORD_FILE names; it never stands in an argument or in the
environment. A command that the table does not have is refused there. What is done is written to the folder's acts
(`fedmkt.audit.acts`) before it begins and when it has ended; in a folder without accounts only what changes something,
under the name of the machine's user.
"""

import functools
import hashlib
import os
import pwd
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fedmkt.audit.acts import Actor
from fedmkt.errors import ConfigError, PolicyRefused

if TYPE_CHECKING:
    from fedmkt.audit.records import Json
    from fedmkt.deploy.accounts import Accounts
    from fedmkt.party.acts_log import ActsLog

ACCOUNT: Final = "FEDMKT_ACCOUNT"
PASSWORD_FILE: Final = "FEDMKT_PASSWORD_FILE"
NEW_PASSWORD_FILE: Final = "FEDMKT_NEW_PASSWORD_FILE"
_LARGEST_PASSWORD: Final = 4096


@dataclass(frozen=True)
class May:
    """Who may run a command; nobody in particular: it touches no organisation's folder. changes : what is there."""

    roles: frozenset[str]
    changes: bool = False

    @property
    def is_free(self) -> bool:
        """Whether nobody needs to log in."""
        return not self.roles


def _may(roles: str, changes: bool = False) -> May:
    return May(frozenset(roles.split()), changes)


_FREE = _may("")
_ALL = _may("operator analyst approver auditor")
COMMANDS: Final[Mapping[str, May]] = {
    # on this machine alone: no organisation's folder
    "demo": _FREE,
    "simulate": _FREE,
    "attack-lab": _FREE,
    "plan": _FREE,
    "overlap": _FREE,
    "doctor": _FREE,
    "bench psi": _FREE,
    # setting up and running
    "party init": _may("operator", True),
    "party join": _may("operator", True),
    "party pin": _may("operator", True),
    "party up": _may("operator", True),
    "party status": _may("operator auditor"),
    "coordinator init": _may("operator", True),
    "coordinator renew": _may("operator", True),
    "coordinator admit": _may("operator", True),
    "coordinator revoke": _may("operator", True),
    "coordinator parties": _may("operator auditor"),
    "coordinator up": _may("operator", True),
    "coordinator status": _may("operator auditor"),
    "preflight": _may("operator"),
    "run": _may("operator", True),
    "runs": _may("operator auditor"),
    "logs": _may("operator auditor"),
    "stop": _may("operator", True),
    # contracts: who drafts does not sign
    "contract new": _may("operator analyst", True),
    "contract propose": _may("operator analyst", True),
    "contract amend": _may("operator analyst", True),
    "contract renew": _may("operator analyst", True),
    "contract review": _ALL,
    "contract render": _ALL,
    "contract approver-key": _may("approver", True),
    "contract approve": _may("approver", True),
    "contract deny": _may("approver", True),
    "contract revoke": _may("operator approver", True),
    "contract show": _ALL,
    "contract sign": _may("approver", True),
    "contract merge": _may("operator", True),
    "contract verify": _ALL,
    "controls": _ALL,
    "console": _ALL,  # in which each signs in and may what they may here
    # results
    "score": _may("analyst", True),
    "report": _may("analyst", True),
    "explain": _may("analyst auditor"),
    "disclosures": _ALL,
    # customers' rights and retention
    "withdraw": _may("operator", True),
    "withdraw --list": _may("operator analyst auditor"),
    "expire": _may("operator", True),
    "expire --dry-run": _may("operator auditor"),
    "budget": _ALL,
    # accounts and evidence
    "accounts add": _may("operator", True),
    "accounts password": _ALL,
    "accounts remove": _may("operator", True),
    "accounts list": _may("operator auditor"),
    "audit verify": _may("operator auditor"),
    "audit collect": _may("operator auditor"),
    "audit show": _may("operator auditor"),
    "audit acts": _may("operator auditor"),
    "audit compare": _may("operator auditor"),
    "audit export": _may("operator auditor"),
    "audit ledger": _may("operator auditor"),
    "audit prove": _may("operator auditor"),
    "audit prune": _may("operator", True),
    "audit auditor-key": _may("auditor"),
    "audit deals": _may("auditor"),
    "evidence make": _may("operator auditor"),
    "evidence verify": _may("operator auditor"),
}
"""Every command, and those of its options that make it another one, with who may run it."""

_ACTOR: ContextVar[Actor | None] = ContextVar("actor", default=None)


def current_actor() -> Actor:
    """Return who runs the command under way: after a login, or the machine's user where there are no accounts."""
    return _ACTOR.get() or Actor(machine_user(), "os-user", "none")


def note_act(path: Path, act: str, body: Mapping[str, "Json"]) -> None:
    """Write what was done into the acts of the organisation whose folder a path lies in; elsewhere nothing."""
    from fedmkt.party.acts_log import ActsLog

    for root in dict.fromkeys(_roots(path)):
        ActsLog(root / "state", lambda: datetime.now(UTC)).say(current_actor(), act, body)


def note_keys(folder: Path, name: str, identity: str, made: Sequence[str]) -> None:
    """Write which keys were made for a participant; identity : the fingerprint of its identity key."""
    if keys := sorted(Path(file).name for file in made if file.endswith(".key")):
        note_act(folder, "key.created", {"identity": identity, "keys": keys, "party": name})


def note_file(run: Path, act: str, file: Path) -> None:
    """Write that a file was made of a run's results: its kind and its digest, never a content."""
    note_act(run, act, {"file": file.suffix, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()})


def machine_user() -> str:
    """Name the user of this process, by its number and not by what the environment says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def guard(command: click.Command) -> click.Command:
    """Wrap every command below this one; returns it."""
    for path, leaf in leaves(command):
        if leaf.callback is not None:
            leaf.callback = _guarded(path, leaf, leaf.callback)
    return command


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Give every command with the words that call it."""
    below: Mapping[str, click.Command] | None = getattr(command, "commands", None)
    if below is None:
        yield " ".join(path), command
        return
    for name, one in below.items():
        yield from leaves(one, (*path, name))


def _guarded(path: str, command: click.Command, act: Callable[..., object]) -> Callable[..., object]:
    paths = [p.name for p in command.params if isinstance(p.type, click.Path)]

    @functools.wraps(act)
    def run(**given: object) -> object:
        name = _named(path, command, given)
        may = COMMANDS.get(name)
        if may is not None and may.is_free:
            return act(**given)
        roots = organisations([given.get(name or "") for name in paths])
        return _in_turn(roots, name, may, lambda: act(**given))

    return run


def _named(path: str, command: click.Command, given: Mapping[str, object]) -> str:
    """Name the command, with the option that makes it another one."""
    chosen = {option for p in command.params if given.get(p.name or "") is True for option in p.opts}
    return next((name for option in sorted(chosen) if (name := f"{path} {option}") in COMMANDS), path)


def organisations(given: Iterable[object]) -> list[Path]:
    """Find the organisations' folders in which paths lie; the one that we stand in, if there is none."""
    values = [v for value in given for v in (value if isinstance(value, list | tuple) else (value,))]
    named = [Path(value) for value in values if isinstance(value, str | Path)]
    found = dict.fromkeys(root for path in named for root in _roots(path))
    return list(found) or list(dict.fromkeys(_roots(Path())))


def _roots(path: Path) -> Iterator[Path]:
    """Give the organisation's folder in which a path lies as it is written, and the one to which its links lead."""
    for way in (path.absolute(), path.resolve()):
        for place in (way, *way.parents):
            if any((place / name).exists() for name in ("party.toml", "coordinator.toml")):
                yield place.resolve()
                break


def _in_turn(roots: list[Path], name: str, may: May | None, act: Callable[[], object]) -> object:
    """Log in at each folder, then act, with a line before and after in the acts of each."""
    from fedmkt.deploy.accounts import Accounts
    from fedmkt.party.acts_log import ActsLog

    logs = list[tuple[ActsLog, Actor]]()
    for root in roots:
        log = ActsLog(root / "state", lambda: datetime.now(UTC))
        accounts = Accounts(root / "keys")
        actor = Actor(machine_user(), "os-user", "none")
        if accounts.exist:
            actor = _log_in(accounts, log, actor, name)
            _check_role(root, log, actor, name, may)
        elif may is None or not may.changes:
            continue
        logs.append((log, actor))
    token = _ACTOR.set(logs[0][1] if logs else None)
    try:
        for log, actor in logs:
            log.say(actor, "act.begun", {"command": name})
        outcome = "interrupted"
        try:
            result = act()
            outcome = "done"
            return result
        except click.exceptions.Exit as end:
            outcome = "done" if end.exit_code == 0 else f"exit code {end.exit_code}"
            raise
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            for log, actor in logs:
                log.say(actor, "act.ended", {"command": name, "outcome": outcome})
    finally:
        _ACTOR.reset(token)


def _check_role(root: Path, log: "ActsLog", actor: Actor, name: str, may: May | None) -> None:
    if may is not None and may.roles & set(actor.roles):
        return
    log.say(actor, "act.ended", {"command": name, "outcome": "refused"})
    who = "nobody" if may is None else " or ".join(sorted(may.roles))
    raise PolicyRefused(f"roles: {name} in {root} is for {who}; {actor.id} is {', '.join(actor.roles)}")


def _log_in(accounts: "Accounts", log: "ActsLog", user: Actor, command: str) -> Actor:
    """Find out who runs a command; what is refused stands in the acts, without a name that does not exist."""
    asked, mapped = os.environ.get(ACCOUNT), accounts.find_os_user(user.id)
    if mapped is not None and asked in (None, "", mapped.name):
        return Actor(mapped.name, "account", "os-user", mapped.roles)
    if not asked:
        raise PolicyRefused(
            f"roles: this folder has accounts, and none for the user {user.id}",
            f"{ACCOUNT}=NAME says who you are",
        )
    try:
        found = accounts.log_in(asked, _password())
    except PolicyRefused as error:
        known = asked if accounts.knows(asked) else "unknown"
        log.say(user, "login.refused", {"account": known, "command": command, "why": str(error)})
        raise
    return Actor(found.name, "account", "password", found.roles)


def _password() -> str:
    path = os.environ.get(PASSWORD_FILE)
    if path:
        return read_password(Path(path))
    if not sys.stdin.isatty():
        raise ConfigError(
            "nobody is there to type a password", f"{PASSWORD_FILE}=FILE names a file of mode 0600"
        )
    return getpass("password: ")


def read_password(path: Path) -> str:
    """Read a password's file: one line, for its owner only."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigError(f"{path}: others can read it", f"chmod 600 {path}")
            return file.read(_LARGEST_PASSWORD).decode().rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8") from None


def new_password() -> str:
    """Ask for a new password twice, or read it from the file that FEDMKT_NEW_PASSWORD_FILE names."""
    path = os.environ.get(NEW_PASSWORD_FILE)
    if path:
        return read_password(Path(path))
    if not sys.stdin.isatty():
        raise ConfigError(
            "nobody is there to type a password", f"{NEW_PASSWORD_FILE}=FILE names a file of mode 0600"
        )
    first = getpass("new password: ")
    if getpass("once more: ") != first:
        raise ConfigError("the two are not the same", "nothing was changed")
    return first
