"""Audit the deals of a run: was every message of its dealer the one that it had to be? For the contract's auditor.

It needs contract and logs of all signers as `fedmkt audit collect` puts them side by side, with what the parties kept
beside their logs (`party.deal_records`). What it finds stands in a statement with the auditor's signature:
`deals/RUN.dsse.json` in the same folder. What a dealer can do and what is shown: docs/deals.md.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmkt.audit import statements
from fedmkt.audit.disclosures import SEALED
from fedmkt.audit.log_view import LogView
from fedmkt.audit.records import Json, Record
from fedmkt.audit.statements import Statement
from fedmkt.audit.verify import VerifyError, verify_run
from fedmkt.contract.agreement import AuditorTerms, Contract
from fedmkt.contract.canonical import digest
from fedmkt.crypto import dsse
from fedmkt.crypto.dsse import Public
from fedmkt.crypto.seal import Envelope, Prekey
from fedmkt.crypto.sign import Identity
from fedmkt.errors import AuditError, ConfigError, PeerError
from fedmkt.party.deal_records import (
    MARK,
    closes_of,
    drop_seeds,
    read_receipts,
    receipts_file,
    seed_file,
    written,
)
from fedmkt.party.journal import write_atomically
from fedmkt.protocol import deals, wire
from fedmkt.protocol.core import Name, data_parties, dealer
from fedmkt.protocol.deals import Dealt
from fedmkt.protocol.pipeline import SCRIPTS
from fedmkt.protocol.turns import Receipt
from fedmkt.report.audit_tools import read_views
from fedmkt.report.folder import LOG_FILES, RunFiles, find_files

Slot = tuple[int, int, str]
"""Epoch, call and reader of a message of the dealer."""


@dataclass(frozen=True)
class Line:
    """What a log says of one message: the digest of its envelope and its mark, "" where it has none."""

    envelope: str
    mark: str


@dataclass(frozen=True)
class LoggedDeals:
    """What all logs say of one run's deals. ids : of epochs; commitments : by epoch, of whom, said by whom.

    closed : epochs in which a party with data logged the run's end.
    """

    ids: Mapping[int, frozenset[str]]
    commitments: Mapping[tuple[int, str], Mapping[str, str]]
    sent: Mapping[Slot, Line]
    received: Mapping[Slot, Line]
    closed: frozenset[int]


@dataclass(frozen=True)
class Compared:
    """One run that was audited. wrong : the first message that is not the right one, "" if all are.

    messages, size : compared before that, and their plain bytes; lost : logged as sent, and given up with an epoch.
    """

    run: str
    epochs: int
    messages: int
    size: int
    lost: int
    wrong: str
    statement: Path

    def lines(self) -> list[str]:
        """Say it in plain words."""
        found = f"run {self.run[:16]}: {self.messages:,} messages of the dealer compared, {self.size:,} bytes"
        lines = [f"{found}, {self.epochs} epoch{'s' if self.epochs > 1 else ''}"]
        if self.lost:
            lines.append(f"  {self.lost:,} more were given up with a broken epoch: nothing rests on them")
        return [*lines, f"  WRONG: {self.wrong}" if self.wrong else "  all as they had to be"]


def audit_deals(
    folder: Path, auditor: Identity, only: str = "", delete: bool = False
) -> tuple[Compared, ...]:
    """Audit every run of a folder that a party closed, whoever else did, and write a signed statement about each.

    only : the run that is meant, or its first digits. delete : the sealed seeds of runs that are right. AuditError
    where logs do not verify or, when all other runs were audited, something is missing or forged; a wrong deal is in
    what is returned.
    """
    files = find_files(folder)
    terms = _auditor(files.contract, auditor)
    if files.owner:
        raise ConfigError(f"{folder}: the log of {files.owner} alone", "fedmkt audit collect OUT FOLDER...")
    try:
        runs = verify_run(files.root).runs
    except VerifyError as error:
        raise AuditError(str(error), "nothing in this folder can be relied on") from None
    meant = [r.run for r in runs if r.run.startswith(only)]
    views = read_views(folder).logs
    # By what parties closed, not by the outcome: the dealer has a part in that, and results may be out all the same.
    closed = [run for run in meant if _closed(files, logged_deals(views, run, files.contract), run)]
    if not closed:
        raise ConfigError(f"{folder}: no such run that came to its end", "only finished runs are audited")
    done, problems = list[Compared](), list[AuditError]()
    for run in closed:
        try:
            done.append(_audit(files, open_run(files, views, run, auditor), terms, auditor))
        except AuditError as error:
            problems.append(error)
            continue
        if delete and not done[-1].wrong:
            for log in files.logs.values():
                drop_seeds(log, run)
    if problems:
        raise problems[0]
    return tuple(done)


def _closed(files: RunFiles, logged: LoggedDeals, run: str) -> set[int]:
    """Return the epochs in which a party was asked to close a run: each of them may have written results."""
    return {*logged.closed}.union(*(closes_of(log, run) for log in files.logs.values()))


@dataclass(frozen=True)
class OpenedRun:
    """What an auditor has of one run. receipts : by the epoch that closed it; seeds : opened, by epoch."""

    contract: Contract
    run: str
    receipts: Mapping[int, Sequence[Receipt]]
    seeds: Mapping[int, deals.Seeds]
    logged: LoggedDeals

    def again(self, look: deals.Look = deals.unseen) -> Iterator[Dealt]:
        """Deal again all that led to a close, each message once; look : is shown each message."""
        script, run, seen = SCRIPTS[self.contract.task], bytes.fromhex(self.run), set[Dealt]()
        for receipts in self.receipts.values():
            for dealt in deals.deal_again(script, self.contract, run, receipts, self.seeds, look):
                if dealt not in seen:
                    seen.add(dealt)
                    yield dealt


def open_run(files: RunFiles, views: Sequence[LogView], run: str, auditor: Identity) -> OpenedRun:
    """Open what the parties kept of one run; AuditError where it is missing or contradicts itself."""
    logged, key = logged_deals(views, run, files.contract), deals.unsealing_key(auditor)
    receipts = {epoch: _receipts(files, run, epoch) for epoch in sorted(_closed(files, logged, run))}
    epochs = {receipt.epoch for of in receipts.values() for receipt in of}
    return OpenedRun(files.contract, run, receipts, _seeds(files, run, logged, epochs, key), logged)


def _auditor(contract: Contract, identity: Identity) -> AuditorTerms:
    terms = contract.auditor
    if terms is None:
        raise ConfigError("the contract names no auditor: nobody kept what an audit of the deals needs")
    given = (identity.public.hex(), deals.unsealing_key(identity).public.hex())
    if given != (terms.key, terms.seal_key):
        raise ConfigError(f"not the key of {terms.name}, the auditor of the contract")
    return terms


def logged_deals(views: Iterable[LogView], run: str, contract: Contract) -> LoggedDeals:
    """Read off the logs what they say of a run's deals."""
    source, closed = dealer(contract), set[int]()
    ids: dict[int, set[str]] = {}
    commitments: dict[tuple[int, str], dict[str, str]] = {}
    sent, received = dict[Slot, Line](), dict[Slot, Line]()
    for view in views:
        for record, epoch in zip(view.records, view.epochs(), strict=True):
            body = record.body
            if record.run != run:
                continue
            if record.type == "run.completed" and view.party != source:
                closed.add(epoch)
            elif record.type == "epoch.started":
                ids.setdefault(epoch, set()).add(str(body["id"]))
            elif record.type == SEALED and isinstance(said := body["commitments"], dict):
                for party, text in said.items():
                    commitments.setdefault((epoch, party), {})[view.party] = str(text)
            elif record.type == "message.sent" and view.party == source:
                sent[epoch, _index(record), str(body["to"])] = _line(body)
            elif record.type == "message.received" and body["from"] == source:
                received[epoch, _index(record), view.party] = _line(body)
    by_epoch = {e: frozenset(found) for e, found in ids.items()}
    return LoggedDeals(by_epoch, commitments, sent, received, frozenset(closed))


def _index(record: Record) -> int:
    index = record.body["index"]
    if not isinstance(index, int):
        raise AuditError(f"record {record.seq} of {record.party} has no call")
    return index


def _line(body: Mapping[str, Json]) -> Line:
    return Line(str(body["sha256"]), str(body.get(MARK, "")))


def _receipts(files: RunFiles, run: str, epoch: int) -> list[Receipt]:
    """Read the receipts that led to a close, of the first party that kept what all signed."""
    why = ""
    for party in data_parties(files.contract):
        path = receipts_file(files.logs[party], run, epoch)
        if not path.is_file():
            continue
        try:
            receipts = read_receipts(path.read_bytes())
            deals.check_receipts(SCRIPTS[files.contract.task], files.contract, bytes.fromhex(run), receipts)
            return receipts
        except (PeerError, ValueError) as error:
            why = f"those of {party}: {error}"
    what = f"no party kept the receipts of epoch {epoch}" + (f" as all signed them: {why}" if why else "")
    raise AuditError(f"run {run[:16]}: {what}", "collect the folders of the parties, with deals/ in them")


def _seeds(
    files: RunFiles, run: str, logged: LoggedDeals, epochs: Iterable[int], key: Prekey
) -> dict[int, dict[Name, bytes]]:
    """Open the seeds of all epochs; each must be the one to which its party and the dealer are committed."""
    seeds: dict[int, dict[Name, bytes]] = {}
    for epoch in sorted(set(epochs)):
        if len(logged.ids.get(epoch, ())) != 1:
            raise AuditError(f"run {run[:16]}: the logs do not agree on epoch {epoch}")
        (epoch_id,) = logged.ids[epoch]
        for party in data_parties(files.contract):
            seed = _seed(files, run, epoch, bytes.fromhex(epoch_id), party, key)
            right, said = deals.commitment(seed).hex(), logged.commitments.get((epoch, party), {})
            for who in (dealer(files.contract), party):
                if who not in said:
                    raise AuditError(
                        f"run {run[:16]}, epoch {epoch}: the log of {who} has no commitment to the seed of {party}"
                    )
                if said[who] != right:
                    raise AuditError(
                        f"run {run[:16]}, epoch {epoch}: the log of {who} commits to another seed of {party} "
                        f"than the one that {party} sealed"
                    )
            seeds.setdefault(epoch, {})[party] = seed
    return seeds


def _seed(files: RunFiles, run: str, epoch: int, epoch_id: bytes, party: Name, key: Prekey) -> bytes:
    path = seed_file(files.logs[party], run, epoch)
    try:
        sealed = wire.decode(path.read_bytes(), Envelope)
        return deals.open_seed(files.contract, bytes.fromhex(run), epoch, epoch_id, party, sealed, key)
    except OSError as error:
        raise AuditError(
            f"{path}: {error.strerror}", f"{party} has it, unless it was deleted when its time was over"
        ) from None
    except ValueError as error:
        raise AuditError(f"{path}: {error}", f"ask {party} for it again") from None


def first_wrong(dealt: Iterable[Dealt], logged: LoggedDeals, count: Callable[[Dealt], None]) -> str:
    """Compare message by message; return what is wrong with the first that is not right, "" if all are.

    count : told of each that is right.
    """
    try:
        for message in dealt:
            if wrong := _wrong(message, logged):
                return f"{message.where}: {wrong}"
            count(message)
    except deals.WrongDeal as error:
        return str(error)
    return ""


def _wrong(message: Dealt, logged: LoggedDeals) -> str:
    slot = (message.epoch, message.index, str(message.reader))
    sent, received = logged.sent.get(slot), logged.received.get(slot)
    right = Line(message.envelope.hex(), message.mark.hex())
    if sent is None or not sent.mark:
        return "the dealer's log has no mark of it"
    if sent != right:
        return "the dealer sent another message than it had to, by its own log"
    if received is None or not received.mark:
        return f"the log of {message.reader} has no mark of it"
    if received != right:
        return f"right in the dealer's log, another in that of {message.reader}: one of the two is not true"
    return ""


def _audit(files: RunFiles, opened: OpenedRun, terms: AuditorTerms, auditor: Identity) -> Compared:
    run, right = opened.run, list[Dealt]()
    try:
        wrong = first_wrong(opened.again(), opened.logged, right.append)
    except (PeerError, ValueError) as error:
        raise AuditError(f"run {run[:16]}: {error}") from None
    compared = {(m.epoch, m.index, str(m.reader)) for m in right}
    left = set() if wrong else {*opened.logged.sent, *opened.logged.received} - compared
    if unread := sorted(slot for slot in left if slot[0] in opened.receipts):
        raise AuditError(
            f"run {run[:16]}: the receipts do not lead to call {unread[0][1]} of epoch {unread[0][0]}"
        )
    size = sum(message.size for message in right)
    predicate: dict[str, Json] = {
        "run": run, "auditor": terms.name, "outcome": "wrong" if wrong else "right", "wrong": wrong,
        "messages": len(right), "bytes": size, "lost": len(left), "epochs": len(opened.seeds),
    }  # fmt: skip
    subject = {"contract": digest(opened.contract).hex()}
    for epoch, receipts in opened.receipts.items():
        subject[f"receipts-{epoch}"] = hashlib.sha256(written(receipts)).hexdigest()
    for name, log in files.logs.items():
        subject[f"log-{name}"] = hashlib.sha256((log / LOG_FILES[0]).read_bytes()).hexdigest()
    statement = statement_file(files.root, run)
    signed = statements.sign(Statement("deals", subject, predicate), auditor)
    write_atomically(statement, dsse.to_json(signed), mode=0o644)
    return Compared(run, len(opened.seeds), len(right), size, len(left), wrong, statement)


def statement_file(root: Path, run: str) -> Path:
    """Return where the auditor's statement about a run lies, beside its contract."""
    return root / "deals" / f"{run}.dsse.json"


def read_statement(data: bytes, contract: Contract) -> Statement:
    """Read an auditor's statement; ValueError unless the auditor of this contract signed it about a run under it."""
    if contract.auditor is None:
        raise ValueError("the contract names no auditor")
    keys = {contract.auditor.name: Public(bytes.fromhex(contract.auditor.key))}
    said, _ = statements.read(dsse.from_json(data), keys)
    if said.kind != "deals" or said.subject.get("contract") != digest(contract).hex():
        raise ValueError("not about the deals of a run under this contract")
    return said
