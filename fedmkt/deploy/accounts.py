"""Who may do what at one organisation: local accounts with roles, in `keys/accounts.json` (mode 0600).

Passwords are kept as Argon2id hashes (RFC 9106, its second recommended choice with one lane), each with a salt of its
own. A name that is unknown costs the same work and gets the same answer as a wrong password; attempts are counted
before they are judged, for names that exist and for those that do not, and from the sixth in a row on each must wait
twice as long as the last, an hour at most.

Without the file there are no accounts: whoever can use the folder can do everything, as before (single-user mode).
Accounts divide the work of people who share one machine through the commands of fedmkt. They do not keep out somebody
who may write to the folder's files: that is what users and permissions of the operating system are for.
"""

import fcntl
import hashlib
import hmac
import json
import math
import os
import re
import secrets
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal, get_args

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from fedmkt.crypto.prg import Random
from fedmkt.errors import ConfigError, PolicyRefused
from fedmkt.party.journal import write_atomically

Role = Literal["operator", "analyst", "approver", "auditor"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
ALONE: Final = frozenset({"approver", "auditor"})
"""Roles that nobody has beside another one: whoever approves or audits does not do it to their own work."""
FREE_FAILURES: Final = 5
FIRST_WAIT: Final = timedelta(seconds=30)
LONGEST_WAIT: Final = timedelta(hours=1)
LEAST_LETTERS: Final = 12
KEPT_NAMES: Final = 1000
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")


@dataclass(frozen=True)
class Cost:
    """What one guess costs: memory in KiB, passes over it, lanes."""

    memory_kib: int = 65_536
    passes: int = 3
    lanes: int = 1


@dataclass(frozen=True)
class Account:
    """One person or service. os_user : who is known by their user of this machine and needs no password."""

    name: str
    roles: tuple[Role, ...]
    os_user: str | None
    has_password: bool


@dataclass(frozen=True, repr=False)
class _Hash:
    """A password's hash (hexadecimal), its salt, and what a guess costs."""

    salt: str
    hash: str
    cost: tuple[int, int, int]

    @staticmethod
    def of(password: str, salt: bytes, cost: Cost) -> "_Hash":
        if len(password) < LEAST_LETTERS:
            raise ConfigError(f"a password has {LEAST_LETTERS} letters at least")
        return _Hash(
            salt.hex(), _derive(password, salt, cost).hex(), (cost.memory_kib, cost.passes, cost.lanes)
        )

    def is_of(self, password: str) -> bool:
        found = _derive(password, bytes.fromhex(self.salt), Cost(*self.cost))
        return hmac.compare_digest(found, bytes.fromhex(self.hash))


@dataclass(frozen=True)
class _Entry:
    """What the file has of an account."""

    roles: tuple[Role, ...]
    os_user: str | None
    password: _Hash | None


_UNREADABLE = (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError)
"""What comes of a file that was written by hand, or by half."""


class Accounts:
    """The accounts of one organisation's folder. keys : its folder of secrets."""

    def __init__(
        self,
        keys: Path,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        cost: Cost | None = None,
        random: Random = secrets.token_bytes,
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._cost = cost or Cost()
        self._random = random

    @property
    def path(self) -> Path:
        """The file of the accounts."""
        return self._keys / "accounts.json"

    @property
    def exist(self) -> bool:
        """Whether there are accounts; if not, this is single-user mode."""
        return os.path.lexists(self.path)

    def all(self) -> tuple[Account, ...]:
        """Return all accounts by name."""
        return tuple(_shown(name, entry) for name, entry in sorted(self._read().items()))

    def find_os_user(self, user: str) -> Account | None:
        """Return the account of a user of this machine."""
        return next((a for a in self.all() if a.os_user == user), None)

    def add(
        self, name: str, roles: Sequence[str], password: str | None, os_user: str | None = None
    ) -> Account:
        """Add an account; the first one is an operator, who can add the others."""
        if not _NAME.match(name):
            raise ConfigError(
                f"account {name[:64]!r}: small letters, digits, dot, dash, underscore; 64 at most"
            )
        chosen = _check_roles(roles)
        if (password is None) == (os_user is None):
            raise ConfigError("a password or a user of this machine, one of the two")
        made = None if password is None else _Hash.of(password, self._random(16), self._cost)
        with self._alone():
            entries = self._read() if self.exist else {}
            if name in entries:
                raise ConfigError(f"account {name}: exists already", "fedmkt accounts password, or remove")
            if os_user is not None and any(e.os_user == os_user for e in entries.values()):
                raise ConfigError(f"user {os_user}: has an account already")
            if not entries and "operator" not in chosen:
                raise ConfigError("the first account is an operator's: nobody else could add the others")
            entries[name] = _Entry(chosen, os_user, made)
            self._write(entries)
        return _shown(name, entries[name])

    def set_password(self, name: str, password: str) -> None:
        """Give an account another password."""
        made = _Hash.of(password, self._random(16), self._cost)
        with self._alone():
            entries = self._read()
            if name not in entries or entries[name].password is None:
                raise ConfigError(f"account {name}: there is none with a password")
            entries[name] = replace(entries[name], password=made)
            self._write(entries)

    def remove(self, name: str) -> None:
        """Remove an account; the last operator stays."""
        with self._alone():
            entries = self._read()
            if entries.pop(name, None) is None:
                raise ConfigError(f"account {name}: there is none")
            if not any("operator" in e.roles for e in entries.values()):
                raise PolicyRefused("the last operator stays: nobody could add accounts any more")
            self._write(entries)

    def log_in(self, name: str, password: str) -> Account:
        """Return the account of a name and a password; PolicyRefused without saying which of the two is wrong."""
        entry = self._read().get(name)
        self._count_attempt(name)
        # An unknown name costs as much: the hash of nothing, at the same price.
        cost = (self._cost.memory_kib, self._cost.passes, self._cost.lanes)
        stored = entry.password if entry is not None else None
        is_right = (stored or _Hash(bytes(16).hex(), bytes(32).hex(), cost)).is_of(password)
        if entry is None or stored is None or not is_right:
            raise PolicyRefused("wrong name or password")
        self._forget_attempts(name)
        return _shown(name, entry)

    def mark(self, name: str) -> str:
        """Return a word that changes with whatever is changed about an account; "" if there is none."""
        entry = self._read().get(name)
        return "" if entry is None else hashlib.sha256(json.dumps(asdict(entry)).encode()).hexdigest()

    def knows(self, name: str) -> bool:
        """Tell whether an account has this name: a password typed in its place must not be written anywhere."""
        return name in self._read()

    def _count_attempt(self, name: str) -> None:
        """Count an attempt before it is judged; PolicyRefused while this name must wait, whether it exists or not."""
        digest, now = hashlib.sha256(name.encode()).hexdigest(), self._clock()
        with self._alone():
            attempts = self._attempts()
            count, last = attempts.pop(digest, (0, now.isoformat()))
            if count >= FREE_FAILURES:
                wait = min(FIRST_WAIT * 2 ** min(count - FREE_FAILURES, 20), LONGEST_WAIT)
                # A clock that was put back makes nobody wait longer than that.
                left = min(datetime.fromisoformat(last) + wait - now, wait)
                if left > timedelta(0):
                    seconds = math.ceil(left.total_seconds())
                    raise PolicyRefused("too many failed logins", f"try again in {seconds} seconds")
            attempts[digest] = (count + 1, now.isoformat())
            self._keep(attempts)

    def _forget_attempts(self, name: str) -> None:
        with self._alone():
            attempts = self._attempts()
            attempts.pop(hashlib.sha256(name.encode()).hexdigest(), None)
            self._keep(attempts)

    @property
    def _attempts_file(self) -> Path:
        return self._keys / "logins.json"

    def _attempts(self) -> dict[str, tuple[int, str]]:
        try:
            return {
                name: (int(n), str(at))
                for name, (n, at) in json.loads(self._attempts_file.read_bytes()).items()
            }
        except FileNotFoundError:
            return {}
        except _UNREADABLE:
            raise ConfigError(
                f"{self._attempts_file}: not as it was written", "remove it as its owner"
            ) from None

    def _keep(self, attempts: Mapping[str, tuple[int, str]]) -> None:
        # Of names of chance the latest: they do not fill the disk, nor make us forget failures of a real one.
        real = {hashlib.sha256(name.encode()).hexdigest() for name in self._read()}
        latest = set([digest for digest in attempts if digest not in real][-KEPT_NAMES:])
        kept = {digest: attempts[digest] for digest in attempts if digest in real or digest in latest}
        write_atomically(self._attempts_file, json.dumps(kept).encode())

    def _read(self) -> dict[str, _Entry]:
        try:
            # Never followed elsewhere, and refused if others may read or write it.
            with os.fdopen(os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise ConfigError(f"{self.path}: others can read or write it", f"chmod 600 {self.path}")
                entries = json.loads(file.read())
            return {name: _entry(**values) for name, values in entries.items()}
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror}") from None
        except _UNREADABLE:
            raise ConfigError(f"{self.path}: not as it was written", "restore it from a backup") from None

    def _write(self, entries: Mapping[str, _Entry]) -> None:
        values = {name: asdict(entry) for name, entry in entries.items()}
        write_atomically(self.path, json.dumps(values, indent=1).encode())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self._keys / "accounts.lock", os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _derive(password: str, salt: bytes, cost: Cost) -> bytes:
    kdf = Argon2id(
        salt=salt, length=32, iterations=cost.passes, lanes=cost.lanes, memory_cost=cost.memory_kib
    )
    return kdf.derive(unicodedata.normalize("NFKC", password).encode())


def _check_roles(roles: Sequence[str]) -> tuple[Role, ...]:
    if unknown := sorted(set(roles) - set(ROLES)):
        raise ConfigError(f"role {unknown[0]!r}: accepted: {', '.join(ROLES)}")
    chosen = tuple(role for role in ROLES if role in roles)
    if not chosen:
        raise ConfigError("an account has a role at least")
    if len(chosen) > 1 and ALONE & set(chosen):
        raise ConfigError("approver and auditor stand alone: nobody approves or audits their own work")
    return chosen


def _entry(roles: Sequence[str], os_user: str | None, password: Mapping[str, object] | None) -> _Entry:
    if password is None:
        return _Entry(_check_roles(roles), os_user, None)
    salt, found, cost = (password[name] for name in ("salt", "hash", "cost"))
    if not (isinstance(salt, str) and isinstance(found, str) and isinstance(cost, list) and len(cost) == 3):
        raise ValueError("no hash of a password")
    return _Entry(
        _check_roles(roles), os_user, _Hash(salt, found, (int(cost[0]), int(cost[1]), int(cost[2])))
    )


def _shown(name: str, entry: _Entry) -> Account:
    return Account(name, entry.roles, entry.os_user, entry.password is not None)
