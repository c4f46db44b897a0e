"""What a party deletes when its time is over, what it keeps, and why: `fedmkt expire`.

Each run says beside its results until when they may be kept (`party.release`). On that day models, shares, scores in
every file beside them, cards and the run's set of people go, its key overwritten first; checkpoints of a run that was
never finished go when they were not touched for as long. Records (contract, log) stay for their own time, three years
by default, then the whole folder of the contract goes. What the programs wrote stays half a year.

Deleting a file does not reach backups, snapshots of the file system, copies that people made, or what a disk keeps of
blocks that it no longer uses. Where that matters the disk must be encrypted and backups have a retention of their own.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

from fedmkt.audit.acts import Actor
from fedmkt.config.policy import PolicyConfig
from fedmkt.contract.agreement import Contract
from fedmkt.deploy.folders import PartyFolder, load_party_folder
from fedmkt.errors import AuditError
from fedmkt.party.acts_log import ActsLog
from fedmkt.party.journal import write_atomically
from fedmkt.party.release import EXPIRES, read_expiry, retention_of
from fedmkt.party.run_people import erase_key
from fedmkt.report.folder import read_contract

Kind = Literal["results", "overlap", "checkpoints", "records", "program logs"]
ASIDE = ".expired"
"""What is being deleted ends so: after a crash in between the next time goes on with it."""
KEPT_FOR_GOOD = (
    ("withdrawal list", "it keeps people out; keyed digests, no ids"),
    ("ledgers and budgets", "a budget that is forgotten protects nobody; no ids"),
    ("acts.jsonl", "who did what; no customers in it"),
    ("own tables and lists", "these are the organisation's own files; fedmkt only reads them"),
)
"""What `fedmkt expire` never deletes, and why."""


@dataclass(frozen=True)
class Item:
    """Something that has a time: from `until` on it goes. paths : files or whole folders."""

    kind: Kind
    what: str
    run: str
    until: date
    paths: tuple[Path, ...]

    def line(self) -> str:
        """Say it in plain words."""
        run = f", run {self.run[:16]}" if self.run else ""
        return f"{self.kind}: {self.what}{run}, kept until {self.until}"


@dataclass(frozen=True)
class Expired:
    """What was, or would be, deleted, and what stays with the day on which it goes."""

    gone: tuple[Item, ...]
    kept: tuple[Item, ...]
    dry_run: bool

    def lines(self) -> list[str]:
        """Say it in plain words."""
        verb = "would delete" if self.dry_run else "deleted"
        lines = [f"{verb} {item.line()}" for item in self.gone] or ["nothing is over"]
        lines += [f"kept {item.line()}" for item in self.kept]
        lines += [f"kept {what}: {why}" for what, why in KEPT_FOR_GOOD]
        return [*lines, "not reached: backups, snapshots, copies elsewhere"]


def expire(
    folder: PartyFolder,
    actor: Actor,
    dry_run: bool = False,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Expired:
    """Delete what is over and log it, or say what would be deleted; what stays is named too."""
    policy, today = load_party_folder(folder)[0].policy, clock().date()
    gone, kept = list[Item](), list[Item]()
    for item in items(folder, policy):
        (gone if item.until <= today else kept).append(item)
    records = {item.paths[0] for item in gone if item.kind == "records"}
    # Records never go before what was made under them.
    if early := {path for path in records if any(path in other.paths[0].parents for other in kept)}:
        kept += [item for item in gone if item.kind == "records" and item.paths[0] in early]
        gone = [item for item in gone if item.kind != "records" or item.paths[0] not in early]
    done = Expired(tuple(gone), tuple(kept), dry_run)
    if not dry_run:
        log = ActsLog(folder.state, clock)
        for item in gone:
            body = {"kind": item.kind, "run": item.run, "until": item.until.isoformat(), "what": item.what}
            log.say(actor, "retention.expired", body)
            files, size = _delete(item)
            log.say(actor, "erasure.executed", {**body, "bytes": size, "files": files})
    return done


def items(folder: PartyFolder, policy: PolicyConfig) -> Iterator[Item]:
    """List everything that has a time."""
    for place in sorted((folder.state / "contracts").glob("*")):
        if place.name.endswith(ASIDE):
            yield Item("records", place.name.removesuffix(ASIDE), "", date.min, (place,))
        elif (place / "contract.toml").exists():
            yield from _of_contract(place, policy)
    for path in sorted(folder.logs.glob("*")) if folder.logs.is_dir() else ():
        if path.is_file():
            yield Item(
                "program logs", path.name, "", _day(path) + timedelta(days=policy.transport_days), (path,)
            )


def _of_contract(place: Path, policy: PolicyConfig) -> Iterator[Item]:
    contract = read_contract(place)
    terms, last = retention_of(contract, policy), _day(place / "contract.toml")
    for model in sorted(path for path in place.glob("model*") if path.is_dir()):
        item = _of_results(model, place.name, contract, policy)
        last = max(last, item.until - timedelta(days=terms.result_days)) if item.until > date.min else last
        yield item
    if (place / "overlap.json").exists():
        found = read_expiry(place / EXPIRES) if (place / EXPIRES).exists() else None
        ended = _day(place / "overlap.json") if found is None else found.ended
        until = ended + timedelta(days=terms.result_days)
        run = "" if found is None else found.run
        yield Item("overlap", place.name, run, until, (place / "overlap.json", place / EXPIRES))
        last = max(last, ended)
    if any((place / "journal").glob("*")) or (place / "journal.key").exists():
        touched = max(_day(path) for path in [*(place / "journal").glob("*"), place])
        until = touched + timedelta(days=terms.result_days)
        yield Item("checkpoints", place.name, "", until, (place / "journal.key", place / "journal"))
        last = max(last, touched)
    logged = [_day(path) for path in (place / "log").rglob("*") if path.is_file()]
    ended = max([last, *logged, *([contract.expires.date()] if logged else [])])
    yield Item("records", place.name, "", ended + timedelta(days=terms.record_days), (place,))


def _of_results(model: Path, what: str, contract: Contract, policy: PolicyConfig) -> Item:
    days = timedelta(days=retention_of(contract, policy).result_days)
    if model.name.endswith(ASIDE):
        return Item("results", what, "", date.min, (model,))
    if (model / EXPIRES).exists():
        found = read_expiry(model / EXPIRES)
        return Item("results", what, found.run, found.expires, (model,))
    newest = max([_day(path) for path in model.iterdir()] or [_day(model)])
    return Item(
        "results", what, "", newest + days, (model,)
    )  # killed while it was written, or of an older version


def _delete(item: Item) -> tuple[int, int]:
    """Delete files and folders; returns how many files and bytes. Keys are overwritten before they go."""
    files = [
        path
        for root in item.paths
        for path in ([root] if root.is_file() else root.rglob("*"))
        if path.is_file()
    ]
    size = sum(path.stat().st_size for path in files)
    for root in item.paths:
        for key in [root] if root.name == "journal.key" and root.exists() else root.rglob("journal.key"):
            write_atomically(key, bytes(32))
        for key in root.rglob("people.key") if root.is_dir() else ():
            erase_key(key.parent)
        if root.is_dir():
            # Under another name first: half deleted, it must not look like results.
            aside = root.with_name(root.name.removesuffix(ASIDE) + ASIDE)
            root.replace(aside)
            shutil.rmtree(aside)
        else:
            root.unlink(missing_ok=True)
    if any(root.exists() for root in item.paths):
        raise AuditError(f"{item.paths[0]}: could not be deleted")
    return len(files), size


def _day(path: Path) -> date:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).date()
