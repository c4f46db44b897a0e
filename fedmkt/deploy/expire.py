"""What an organisation deletes when its time is over, what it keeps, and why: `fedmkt expire`.

Each run says beside its results until when they may be kept (`party.release`). On that day models, shares, scores in
every file beside them, cards and the run's set of people go, its key overwritten first; checkpoints of a run that was
never finished go when they were not touched for as long. Dealer seeds that were sealed for an auditor go with them, or
as soon as the auditor's statement that all was right lies beside them, `log/deals/RUN.dsse.json`. Records (contract,
log; at the coordinator its folder of each run) stay for their own time, three years by default, then the whole folder
of the contract goes; before that, of a log that goes on, the first runs' records (`party.retention`), of which the
hashes stay. What the programs wrote is of all contracts together: it stays as long as the policy and each contract that
is here ask for.

Nothing of a contract goes while a run of it is open here: its lock is held meanwhile. A link is never followed.

Deleting a file does not reach backups, snapshots of the file system, copies that people made, or what a disk keeps of
blocks that it no longer uses. Where that matters the disk must be encrypted and backups have a retention of their own.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

from fedmkt.audit.acts import Actor
from fedmkt.audit.records import Json
from fedmkt.config.policy import PolicyConfig
from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder, policy_of, read_identity
from fedmkt.deploy.prune import Pruned, logged_contracts, prune_one
from fedmkt.deploy.runs import all_runs
from fedmkt.errors import AuditError, ConfigError, PolicyRefused
from fedmkt.party.acts_log import ActsLog
from fedmkt.party.audit_log import LOG
from fedmkt.party.deal_records import FOLDER
from fedmkt.party.journal import write_atomically
from fedmkt.party.release import EXPIRES, read_expiry, retention_of
from fedmkt.party.retention import due_records, view_of
from fedmkt.party.run_people import KEY, erase_key
from fedmkt.party.store import Store
from fedmkt.report.deals import read_statement
from fedmkt.report.folder import CONTRACT, read_contract

Kind = Literal["results", "overlap", "checkpoints", "dealer seeds", "records", "program logs"]
ASIDE = ".expired"
"""What is being deleted ends so: after a crash in between the next time goes on with it."""
KEPT_FOR_GOOD = (
    ("withdrawal list", "it keeps people out; keyed digests, no ids"),
    ("ledgers and budgets", "a budget that is forgotten protects nobody; no ids"),
    ("acts.jsonl", "who did what; no customers in it"),
    ("signed contracts, registry", "who agreed to what, and who was admitted"),
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
    """What was, or would be, deleted, and what stays with the day on which it goes.

    records : of logs that go on, how many records went. in_use : contracts that were left alone, a run of them is open.
    """

    gone: tuple[Item, ...]
    kept: tuple[Item, ...]
    records: tuple[Pruned, ...]
    in_use: tuple[str, ...]
    dry_run: bool

    @property
    def count(self) -> int:
        """How many things went, or would go."""
        return len(self.gone) + len(self.records)

    def lines(self) -> list[str]:
        """Say it in plain words."""
        verb = "would delete" if self.dry_run else "deleted"
        lines = [f"{verb} {item.line()}" for item in self.gone]
        lines += [f"{verb} {p.records:,} records: log of {p.contract}; hashes stay" for p in self.records]
        lines = lines or ["nothing is over"]
        lines += [f"left alone, a run of it is open: {name}" for name in self.in_use]
        lines += [f"kept {item.line()}" for item in self.kept]
        lines += [f"kept {what}: {why}" for what, why in KEPT_FOR_GOOD]
        return [*lines, "not reached: backups, snapshots, copies elsewhere"]


def expire(
    folder: PartyFolder | CoordinatorFolder,
    actor: Actor,
    dry_run: bool = False,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Expired:
    """Delete what is over and log it, or say what would be deleted; what stays is named too.

    AuditError, when everything else was done, where something could not be deleted or a log was changed.
    """
    policy, now = policy_of(folder), clock()
    gone, kept = _over(items(folder, policy), now.date())
    log, problems = ActsLog(folder.state, clock), list[AuditError]()
    done, pruned, in_use = list[Item](), list[Pruned](), set[str]()
    for place in contracts_of(folder):
        with _alone(folder, place) as is_free:
            in_use |= set() if is_free else {place.name}
    for place in logged_contracts(folder):
        if place.name in in_use or any(item.paths[0] == place for item in gone):
            continue
        with _collecting(problems):
            days = policy.record_days
            due = due_records(place / "log", read_contract(place), days, now).records
            if due and not dry_run:
                body: dict[str, Json] = {"kind": "log", "records": due, "what": place.name}
                log.say(actor, "retention.expired", body)
                due = prune_one(place, read_identity(folder.identity), days, clock).records
                log.say(actor, "erasure.executed", body)
            pruned += [Pruned(place.name, due)] * bool(due)
    for item in gone:
        place = next(
            (p for p in item.paths[0].parents if p.parent == folder.state / "contracts"), item.paths[0]
        )
        with _collecting(problems), _alone(folder, place) as is_free:
            if not is_free:
                in_use.add(place.name)
            elif dry_run:
                done.append(item)
            else:
                _delete_logged(item, log, actor)
                done.append(item)
    if problems:
        raise problems[0]
    return Expired(tuple(done), tuple(kept), tuple(pruned), tuple(sorted(in_use)), dry_run)


def _over(found: Iterable[Item], today: date) -> tuple[list[Item], list[Item]]:
    """Divide into what is over and what stays; records never go before what was made under them."""
    gone, kept = list[Item](), list[Item]()
    for item in found:
        (gone if item.until <= today else kept).append(item)
    early = {
        item.paths[0]
        for item in gone
        if item.kind == "records" and any(item.paths[0] in other.paths[0].parents for other in kept)
    }
    kept += [item for item in gone if item.paths[0] in early]
    return [item for item in gone if item.paths[0] not in early], kept


@contextlib.contextmanager
def _collecting(problems: list[AuditError]) -> Iterator[None]:
    """Go on with the next thing where one could not be deleted: it must not keep the others here."""
    try:
        yield
    except (AuditError, ConfigError) as error:
        problems.append(AuditError(str(error), error.hint))
    except OSError as error:
        problems.append(AuditError(f"{error.filename}: {error.strerror}", "everything else was done"))


@contextlib.contextmanager
def _alone(folder: PartyFolder | CoordinatorFolder, place: Path) -> Iterator[bool]:
    """Hold what a run of a contract holds, so that none begins meanwhile; False where one is open.

    place : the contract's folder; anything else is nobody's.
    """
    if not (place / CONTRACT).exists():
        yield True
        return
    store = Store(folder.state / "store")
    try:
        store.hold(digest(read_contract(place)).hex())
    except PolicyRefused:
        yield False
        return
    log = place / "log" / LOG
    file = os.open(log, os.O_RDONLY) if log.exists() else -1
    try:
        # A party that is open and has not begun has its log open, and not yet the lock.
        if file >= 0:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        store.release()
        if file >= 0:
            os.close(file)


def _delete_logged(item: Item, log: ActsLog, actor: Actor) -> None:
    body: dict[str, Json] = {
        "kind": item.kind,
        "run": item.run,
        "until": item.until.isoformat(),
        "what": item.what,
    }
    log.say(actor, "retention.expired", body)
    files, size = _delete(item)
    log.say(actor, "erasure.executed", {**body, "bytes": size, "files": files})


def contracts_of(folder: PartyFolder | CoordinatorFolder) -> list[Path]:
    """List the folders of contracts."""
    return sorted(path.parent for path in folder.state.glob(f"contracts/*/{CONTRACT}"))


def items(folder: PartyFolder | CoordinatorFolder, policy: PolicyConfig) -> Iterator[Item]:
    """List everything that has a time."""
    for place in sorted((folder.state / "contracts").glob(f"*{ASIDE}")):
        yield Item("records", place.name.removesuffix(ASIDE), "", date.min, (place,))
    for place in contracts_of(folder):
        if not place.name.endswith(ASIDE):
            yield from _of_contract(place, policy)
    if isinstance(folder, CoordinatorFolder):
        yield from _of_runs(folder.runs, policy)
    asked = [retention_of(read_contract(place), policy).transport_days for place in contracts_of(folder)]
    days = timedelta(days=max([policy.transport_days, *asked]))
    for path in sorted(folder.logs.glob("*")) if folder.logs.is_dir() else ():
        if path.is_file() or path.is_symlink():
            yield Item("program logs", path.name, "", _day(path) + days, (path,))


def _of_runs(runs: Path, policy: PolicyConfig) -> Iterator[Item]:
    """List the coordinator's folders of runs: receipts, status and log, which are records."""
    for left in sorted(runs.glob(f"*{ASIDE}")):
        yield Item("records", left.name.removesuffix(ASIDE), "", date.min, (left,))
    for run in all_runs(runs):
        contract = run.signed().contract
        # As long as the contract goes on, so may the run.
        ended = max(datetime.fromtimestamp(run.status().updated, UTC), contract.expires).date()
        until = ended + timedelta(days=retention_of(contract, policy).record_days)
        yield Item("records", f"run {run.name}", "", until, (run.root,))


def _of_contract(place: Path, policy: PolicyConfig) -> Iterator[Item]:
    contract = read_contract(place)
    terms, last = retention_of(contract, policy), _day(place / "contract.toml")
    for model in sorted(path for path in place.glob("model*") if path.is_dir()):
        item = _of_results(model, place.name, contract, policy)
        last = max(last, item.until - timedelta(days=terms.result_days)) if item.until > date.min else last
        yield item
    if (place / "overlap.json").exists() or (place / EXPIRES).exists():
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
    if (left := place / f"journal{ASIDE}").exists():
        yield Item("checkpoints", place.name, "", date.min, (left,))
    for seed in sorted((place / "log" / FOLDER).glob("*.seed*")):  # with what a crash left half written
        run = seed.name.rpartition("-")[0]
        days = 0 if _is_settled(seed, run, contract) else terms.result_days
        until = _day(seed) + timedelta(days=days)
        yield Item("dealer seeds", place.name, run, until, (seed,))
    logged = _last_logged(place / "log")
    ended = max([last, *([logged, contract.expires.date()] if logged is not None else [])])
    yield Item("records", place.name, "", ended + timedelta(days=terms.record_days), (place,))


def _last_logged(folder: Path) -> date | None:
    """Return the day of a log's last record, that records were removed not being one; None without a log."""
    if not (folder / LOG).exists():
        return None
    times = [record.time for record in view_of(folder).records if record.type != "retention.expired"]
    return datetime.fromisoformat(max(times)).date() if times else date.min


def _is_settled(seed: Path, run: str, contract: Contract) -> bool:
    """Tell whether the contract's auditor stated that the deals of this run were right."""
    path = seed.with_name(f"{run}.dsse.json")
    try:
        said = read_statement(path.read_bytes(), contract)
    except (OSError, ValueError):
        return False
    return (said.predicate.get("run"), said.predicate.get("outcome")) == (run, "right")


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
    for root in item.paths:
        if root.is_symlink() and item.kind != "program logs":
            raise AuditError(f"{root}: a link, which is not followed", "delete by hand what it leads to")
    files = [path for root in item.paths for path in _files_in(root)]
    size = sum(path.lstat().st_size for path in files)
    for key in [path for path in files if path.name == "journal.key" and not path.is_symlink()]:
        write_atomically(key, bytes(32))
    for key in [path for path in files if path.name == KEY and not path.is_symlink()]:
        erase_key(key.parent)
    for root in item.paths:
        if root.is_dir() and not root.is_symlink():
            # Under another name first: half deleted, it must not look like results.
            aside = root.with_name(root.name.removesuffix(ASIDE) + ASIDE)
            if aside != root and aside.exists():
                shutil.rmtree(aside)
            root.replace(aside)
            shutil.rmtree(aside)
        else:
            root.unlink(missing_ok=True)
    if any(os.path.lexists(root) for root in item.paths):
        raise AuditError(f"{item.paths[0]}: could not be deleted")
    return len(files), size


def _files_in(root: Path) -> list[Path]:
    """List the files of a folder, or the file; what a link leads to is not among them."""
    if root.is_symlink() or root.is_file():
        return [root]
    return [
        Path(place, name)
        for place, folders, names in os.walk(root)
        for name in [*names, *(f for f in folders if Path(place, f).is_symlink())]
    ]


def _day(path: Path) -> date:
    return datetime.fromtimestamp(path.lstat().st_mtime, UTC).date()
