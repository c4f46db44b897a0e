"""What lies in a party's folder, as the console lists it: contracts with their state, runs with how far they are.

Contracts that are proposed lie in the folder itself or in its `contracts/`, as `NAME.contract.toml` with the
statements of people beside; those that were run are kept in `state/contracts/`. Whatever a page is asked for is looked
up in these lists, by digest or number: no text of an address ever becomes part of a path.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Literal

from fedmkt.audit.records import Record, read_leaf
from fedmkt.contract.agreement import Contract
from fedmkt.contract.approvals import Count, Decided, Revoked, counts, decisions, revocations
from fedmkt.contract.canonical import digest
from fedmkt.contract.files import from_toml
from fedmkt.contract.signatures import SignedContract, signature_standings
from fedmkt.crypto.dsse import Envelope
from fedmkt.deploy.contracts import read_contract
from fedmkt.deploy.folders import PartyFolder, read_text
from fedmkt.deploy.statement_files import own_revocations, statements_on
from fedmkt.deploy.take_part import read_serving, serving_file
from fedmkt.errors import AuditError, ConfigError, FedmktError
from fedmkt.party.audit_log import LOG
from fedmkt.party.contract_past import Past, kept_statements, past_of
from fedmkt.party.store import Store
from fedmkt.report.own import run_of

State = Literal[
    "revoked", "replaced", "expired", "denied", "future", "proposed", "approving", "signing", "in_force"
]
Outcome = Literal["completed", "aborted", "running", "stopped"]
MOST_FILES = 500
_EVENTS = ("run.started", "epoch.started", "step.completed", "run.completed", "run.aborted")
_LINE = re.compile(f'"type":"(?:{"|".join(map(re.escape, _EVENTS))})","v":1}}$'.encode())


class NotHere(ConfigError):
    """What an address names is in none of the lists."""


@dataclass(frozen=True)
class Entry:
    """One contract. file : what people decide on; None once only the copy that runs kept is here.

    past : what this party remembers of it, whatever it is handed later.
    """

    signed: SignedContract
    statements: tuple[Envelope, ...]
    file: Path | None
    past: Past

    @property
    def contract(self) -> Contract:
        """What is agreed."""
        return self.signed.contract

    @property
    def digest(self) -> str:
        """The contract's digest, hexadecimal: its name in addresses."""
        return digest(self.contract).hex()

    @property
    def counts(self) -> tuple[Count, ...]:
        """How many of each party's people approved."""
        return counts(self.contract, self.statements)

    @property
    def decided(self) -> tuple[Decided, ...]:
        """What each person decided last."""
        return decisions(self.contract, self.statements)

    @property
    def revoked(self) -> tuple[Revoked, ...]:
        """Who ended it before its date."""
        return revocations(self.contract, self.statements)

    @property
    def approvals(self) -> tuple[int, int]:
        """How many approvals count, of how many that are needed; an approver too many counts for nothing."""
        found = [(min(len(c.approved), c.needed), c.needed) for c in self.counts]
        return sum(n for n, _ in found), sum(m for _, m in found)

    @property
    def signatures(self) -> tuple[int, int]:
        """How many of the signers have validly signed."""
        standings = signature_standings(self.signed)
        return sum(s == "valid" for s in standings.values()), len(standings)

    def state(self, now: datetime) -> State:
        """Say how it stands; an approval that is missing counts also once all have signed, as it does for a run."""
        if self.revoked:
            return "revoked"
        if self.past.replaced_by:
            return "replaced"
        if self.past.expired or now >= self.contract.expires:
            return "expired"
        if any(d.decision == "denial" for d in self.decided):
            return "denied"
        # What was run here had its approvals, which its log holds.
        if self.file is not None and any(c.lacking for c in self.counts) and not self.contract.rehearsal:
            return "approving" if self.approvals[0] else "proposed"
        if self.signatures[0] < self.signatures[1]:
            return "signing"
        return "future" if now < self.contract.created else "in_force"

    def is_open(self, now: datetime) -> bool:
        """Tell whether people may still decide on it."""
        terms = self.contract.governance
        has_people = terms is not None and bool(terms.approvers)
        return (
            self.file is not None and has_people and self.state(now) not in ("revoked", "replaced", "expired")
        )


@dataclass(frozen=True)
class Step:
    """One step that our side has completed."""

    name: str
    time: datetime

    @property
    def stage(self) -> str:
        """The first word of its name."""
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Run:
    """One run, by our own log. outcome : completed, aborted, running now, or stopped without an end."""

    name: str
    folder: Path
    contract: str
    title: str
    began: datetime
    updated: datetime
    steps: tuple[Step, ...]
    outcome: Outcome
    is_latest: bool

    @property
    def results(self) -> Path | None:
        """The folder of its results, if there are any."""
        found = sorted(path.parent for path in self.folder.glob("model*/model.json"))
        return next((path for path in found if run_of(path) == self.name), None)

    @property
    def report(self) -> Path | None:
        """Its page, if it was written."""
        results = self.results
        if results is None and self.is_latest:
            results = self.folder
        page = None if results is None else results / "report.html"
        return page if page is not None and page.is_file() else None

    @property
    def evidence(self) -> Path | None:
        """The folder of the evidence pack beside it, whichever run that is of."""
        folder = self.folder / "evidence"
        return folder if (folder / "manifest.json").is_file() else None


@dataclass(frozen=True)
class Shelf:
    """The lists of one party's folder, read anew for each page; what cannot be read is in `unread`, in one line."""

    contracts: tuple[Entry, ...]
    runs: tuple[Run, ...]
    unread: tuple[str, ...]

    def contract(self, wanted: str) -> Entry:
        """Find a contract by its digest; NotHere if there is none."""
        found = next((entry for entry in self.contracts if entry.digest == wanted), None)
        if found is None:
            raise NotHere("there is no such contract here")
        return found

    def run(self, wanted: str) -> Run:
        """Find a run by its number; NotHere if there is none."""
        found = next((run for run in self.runs if run.name == wanted), None)
        if found is None:
            raise NotHere("there is no such run here")
        return found

    def before(self, entry: Entry) -> Entry | None:
        """Find the version that a contract amends, if it is here."""
        terms = entry.contract.governance
        amends = None if terms is None else terms.amends
        return next((e for e in self.contracts if e.digest == amends), None)

    def after(self, entry: Entry) -> tuple[Entry, ...]:
        """List the versions that amend a contract."""
        return tuple(
            e
            for e in self.contracts
            if e.contract.governance is not None and e.contract.governance.amends == entry.digest
        )


def read_shelf(folder: PartyFolder) -> Shelf:
    """Read contracts and runs, the newest first."""
    unread, store = list[str](), Store(folder.state / "store")
    entries = dict[str, Entry]()
    runs = list[Run]()
    for path in _files(folder):
        try:
            signed = read_contract(path)
            known = statements_on(path, signed.contract, folder.root)
            entry = Entry(signed, known, path, past_of(store, signed.contract))
            entries.setdefault(entry.digest, entry)
        except (FedmktError, OSError) as error:  # what expires meanwhile is gone
            unread.append(str(error))
    for path in sorted(folder.state.glob("contracts/*/contract.toml"))[:MOST_FILES]:
        try:
            kept = _kept(folder, path, store)
            entries.setdefault(kept.digest, kept)
            runs += _runs(folder, kept, path.parent)
        except (FedmktError, OSError) as error:
            unread.append(str(error))
    newest = sorted(entries.values(), key=lambda e: (e.contract.created, e.contract.name), reverse=True)
    return Shelf(tuple(newest), tuple(sorted(runs, key=lambda r: r.began, reverse=True)), tuple(unread))


def _files(folder: PartyFolder) -> list[Path]:
    found = [*folder.root.glob("*.contract.toml"), *folder.root.glob("contracts/*.contract.toml")]
    return sorted(found)[:MOST_FILES]


def _kept(folder: PartyFolder, path: Path, store: Store) -> Entry:
    given = (*kept_statements(path.parent / "approvals"), *own_revocations(folder))
    signed = from_toml(read_text(path), str(path))
    return Entry(signed, given, None, past_of(store, signed.contract))


def _runs(folder: PartyFolder, entry: Entry, place: Path) -> list[Run]:
    """Read the runs of one contract from our log, in the order in which they began."""
    log = place / "log" / LOG
    if not log.is_file():
        return []
    by_run = dict[str, list[Record]]()
    facts = log.stat()
    for record in _marks(log, facts.st_mtime_ns, facts.st_size):
        by_run.setdefault(record.run, []).append(record)
    serving = read_serving(serving_file(folder, entry.contract))
    is_served = serving is not None and serving.is_at_work
    latest = next(reversed(by_run), "")
    return [_run(entry, place, of, is_served, of[0].run == latest) for of in by_run.values()]


@lru_cache(maxsize=32)
def _marks(log: Path, changed: int, size: int) -> tuple[Record, ...]:
    """Read only those records that say how far runs are: most of a log are messages.

    changed, size : of the file, so that one that did not change is not read again.
    """
    found = []
    with log.open("rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.rstrip(b"\n")
            if _LINE.search(line) is None:
                continue
            try:
                record = read_leaf(line)
            except ValueError as error:
                raise AuditError(f"{log}: line {number}: {error}") from None
            if record.type in _EVENTS and record.run:
                found.append(record)
    return tuple(found)


def _run(entry: Entry, place: Path, records: list[Record], is_served: bool, is_latest: bool) -> Run:
    open_: Outcome = "running" if is_served and is_latest else "stopped"
    ends: dict[str, Outcome] = {
        "run.completed": "completed", "run.aborted": "aborted", "epoch.started": open_
    }  # fmt: skip
    outcome = next((ends[r.type] for r in reversed(records) if r.type in ends), open_)
    return Run(
        name=records[0].run,
        folder=place,
        contract=entry.digest,
        title=entry.contract.name,
        began=datetime.fromisoformat(records[0].time),
        updated=datetime.fromisoformat(records[-1].time),
        steps=tuple(
            Step(str(r.body["step"]), datetime.fromisoformat(r.time))
            for r in records
            if r.type == "step.completed"
        ),
        outcome=outcome,
        is_latest=is_latest,
    )
