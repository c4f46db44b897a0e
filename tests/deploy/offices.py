"""A coordinator and parties in folders of their own, with a fixed clock, for tests of provisioning."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedmkt.crypto.prg import SeededRandom
from fedmkt.crypto.sign import fingerprint
from fedmkt.deploy import admission, provision
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder, read_identity
from fedmkt.deploy.papers import Bundle, Request, read_bundle, read_request
from fedmkt.deploy.registry import Registry, read_registry

NOW = datetime(2030, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
_SEEDS = itertools.count(1)


@dataclass
class Office:
    """One folder and who works there; every act takes place one minute after the one before."""

    root: Path
    name: str
    organisation: str
    role: str = "partner"
    now: datetime = NOW
    random: SeededRandom = field(
        default_factory=lambda: SeededRandom(next(_SEEDS).to_bytes(32, "big")), repr=False
    )

    @property
    def folder(self) -> PartyFolder:
        return PartyFolder(self.root)

    @property
    def home(self) -> CoordinatorFolder:
        return CoordinatorFolder(self.root)

    @property
    def fingerprint(self) -> str:
        return fingerprint(read_identity(self.folder.identity).public)

    @property
    def registry(self) -> Registry:
        return read_registry(self.home.registry)

    def later(self, **passed: float) -> "Office":
        self.now += timedelta(**passed)
        return self

    def found(self, *hosts: str) -> "Office":
        admission.init_coordinator(
            self.home, self.name, self.organisation, hosts or ("c.example",), self.random, self.now
        )
        return self

    def request(self) -> Request:
        self.later(minutes=1)
        made = provision.init_party(
            self.folder, self.name, self.organisation, self.role, self.random, self.now
        )
        return read_request(made.request.read_bytes(), made.request.name)

    def rotation(self) -> Request:
        self.later(minutes=1)
        made = provision.rotate_party(self.folder, self.name, self.random, self.now)
        return read_request(made.request.read_bytes(), made.request.name)

    def admit(self, request: Request, **options: object) -> Bundle:
        self.now = max(self.now, request.created) + timedelta(minutes=1)
        shown = fingerprint(bytes.fromhex(request.identity))
        compared = str(options.pop("compared", shown))
        done = admission.admit(self.home, request, compared, self.random, self.now, **options)
        return read_bundle(done.bundle.read_bytes(), done.bundle.name)

    def join(self, bundle: Bundle, compared: str | None = None) -> provision.Joined:
        self.now = max(self.now, bundle.coordinator.created) + timedelta(minutes=1)
        shown = fingerprint(bytes.fromhex(bundle.coordinator.identity))
        return provision.join(self.folder, bundle, compared or shown, self.now)

    def revoke(self, name: str, **options: object) -> admission.Revoked:
        self.later(minutes=1)
        return admission.revoke(self.home, name, self.now, **options)


def coordinator(place: Path, name: str = "coordinator", organisation: str = "Independent") -> Office:
    """Found a coordinator below `place`."""
    return Office(place / name, name, organisation).found()


def bank(place: Path) -> Office:
    """Open a bank's office below `place`; it has no keys yet."""
    return Office(place / "bank", "bank", "First Bank", "bank")


def shop(place: Path) -> Office:
    """Open a shop's office below `place`; it has no keys yet."""
    return Office(place / "shop", "shop", "Shop GmbH")


class Killed(BaseException):
    """Stands for kill -9: nothing below catches it."""


@contextmanager
def killed_at(write: int, patch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Let the process die before its n-th file is put in place, leaving the half beside it."""
    import os

    real, seen = os.replace, itertools.count()
    last = 0

    def replace(old: Path, new: Path) -> None:
        nonlocal last
        last = next(seen)
        if last == write:
            raise Killed
        real(old, new)

    with patch.context() as inner:
        inner.setattr(os, "replace", replace)
        yield lambda: last


def modes(folder: Path) -> dict[str, int]:
    """List the permission bits of every file below a folder."""
    return {str(p.relative_to(folder)): p.stat().st_mode & 0o777 for p in folder.rglob("*")}


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
