"""The life of a run's contract as statements and logs show it: drafted, approved, signed, run, revoked, expired.

A statement counts by the rules of `contract.approvals`: it names this contract by its digest, and its key is that of
whoever it says it is from. Any other is shown as one that does not count.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedmkt.audit.records import Record
from fedmkt.contract.agreement import Contract
from fedmkt.contract.approvals import Count, counts, decisions, revocations
from fedmkt.contract.canonical import zulu
from fedmkt.crypto import dsse
from fedmkt.crypto.dsse import Envelope
from fedmkt.errors import AuditError
from fedmkt.evidence.document import Words
from fedmkt.report.approvals import APPROVALS, LARGEST, statement_paths
from fedmkt.report.folder import RunFiles, read_plain


@dataclass(frozen=True)
class Said:
    """A signed statement. kind : approval, denial or revocation, "" of one that does not count; places : files, or log and number.

    by : the person or signer whose key signed it; time : as it says itself.
    """

    kind: str
    by: str
    time: str
    reason: str
    places: tuple[str, ...]


@dataclass(frozen=True)
class Moment:
    """One event of a contract's life. time : UTC text; what : in words; where : the file or log that says it."""

    time: str
    what: str
    where: str


@dataclass(frozen=True)
class Statements:
    """All signed statements about a contract, and how many of each party's people approved it."""

    said: tuple[Said, ...]
    counts: tuple[Count, ...]


def read_statements(files: RunFiles, logs: Mapping[str, Sequence[Record]]) -> Statements:
    """Read the statements that lie beside a contract or stand in logs; AuditError for a file that holds none."""
    places: dict[Envelope, list[str]] = {}
    for path in statement_paths(files):
        try:
            data = read_plain(path, LARGEST)
            places.setdefault(dsse.from_json(data), []).append(f"{APPROVALS}/{file_name(data)}")
        except ValueError as error:
            raise AuditError(f"{path}: {error}") from None
    for name, records in logs.items():
        for record in records:
            text = record.body.get("envelope")
            if record.type.startswith("approval.") and isinstance(text, str):
                place = f"{name} {record.seq}"
                try:
                    places.setdefault(dsse.from_json(text.encode()), []).append(place)
                except ValueError as error:
                    raise AuditError(f"log of {name}: record {record.seq}: {error}") from None
    said = [_said(files.contract, envelope, tuple(found)) for envelope, found in places.items()]
    ordered = sorted(said, key=lambda s: (s.time, s.by, s.kind, s.places))
    return Statements(tuple(ordered), counts(files.contract, places))


def _said(contract: Contract, envelope: Envelope, places: tuple[str, ...]) -> Said:
    for found in decisions(contract, [envelope]):
        person = found.approver
        who = f"{person.name} ({person.party}, {person.role})"
        return Said(found.decision, who, zulu(found.time), found.reason, places)
    for revoked in revocations(contract, [envelope]):
        return Said("revocation", revoked.signer, zulu(revoked.time), revoked.reason, places)
    return Said("", "", "", "", places)


def file_name(statement: bytes) -> str:
    """Name a statement's file by its digest, as runs do: what somebody else named it is not passed on."""
    return f"{hashlib.sha256(statement).hexdigest()[:32]}.dsse.json"


def where(place: str, say: Words) -> str:
    """Say where a statement stands: a file of the pack, or a record of a log."""
    if place.startswith(f"{APPROVALS}/"):
        return f"run/{place}"
    name, _, number = place.partition(" ")
    return say(f"log of {name}, record {number}", f"{name} 的日志，第 {number} 号")


def kinds(say: Words) -> Mapping[str, str]:
    """Give the words for kinds of statements."""
    return {
        "approval": say("approved", "批准"),
        "denial": say("denied", "否决"),
        "revocation": say("revoked", "撤销"),
        "": say("does not count", "不计入"),
    }


def lacking(count: Count, say: Words) -> str:
    """Say what a party's approvals lack; empty if nothing."""
    if not count.lacking or say.language == "en":
        return count.lacking
    if len(count.approved) < count.needed:
        return f"已批准 {len(count.approved)} 人，需 {count.needed} 人"
    return "缺少某一角色（数据所有者或合规）的批准"


def life(
    contract: Contract,
    statements: Statements,
    logs: Mapping[str, Sequence[Record]],
    run: str,
    outcome: str,
    say: Words,
) -> tuple[Moment, ...]:
    """List what happened to a contract, the earliest first. outcome : how the run ended, in words."""
    terms = contract.governance
    drafted = say("drafted", "起草")
    if terms is not None:
        drafted += say(f", revision {terms.revision}", f"，版本 {terms.revision}")
        if terms.amends is not None:
            drafted += say(f", amends {terms.amends}", f"，取代 {terms.amends}")
    in_contract = "run/contract.toml"
    found = [
        Moment(zulu(contract.created), drafted, in_contract),
        Moment(zulu(contract.expires), say("ends by its own terms", "按约定到期"), in_contract),
    ]
    for said in statements.said:
        if said.kind:
            what = f"{kinds(say)[said.kind]}{say(': ', '：')}{said.by}"
            what += f"{say(': ', '：')}{said.reason}" if said.reason else ""
            found.append(Moment(said.time, what, where(said.places[0], say)))
    found += _logged(logs, run, outcome, say)
    return tuple(sorted(found, key=lambda m: m.time))


def _logged(logs: Mapping[str, Sequence[Record]], run: str, outcome: str, say: Words) -> Iterator[Moment]:
    """Say what logs say: that the contract was put into them, that the run began and ended, what went with time."""
    signed = _first(logs, "contract.signed")
    if signed:
        names = say(", ", "、").join(r.party for r in signed)
        what = say(f"signed by all; put into the logs of {names}", f"各方均已签署，载入 {names} 的日志")
        yield Moment(_seconds(min(r.time for r in signed)), what, _event("contract.signed", say))
    begun = [r.time for r in _first(logs, "run.started", run)]
    if begun:
        yield Moment(
            _seconds(min(begun)),
            say(f"run {run[:16]} began", f"运行 {run[:16]} 开始"),
            _event("run.started", say),
        )
    ends = [
        r for of in logs.values() for r in of if r.run == run and r.type in ("run.completed", "run.aborted")
    ]
    if ends:
        last = max(ends, key=lambda r: r.time)
        yield Moment(
            _seconds(last.time),
            say(f"run {run[:16]}: {outcome}", f"运行 {run[:16]}：{outcome}"),
            _event(last.type, say),
        )
    for records in logs.values():
        for r in records:
            if r.type in ("contract.expired", "contract.revoked"):
                ended = say("ended", "终止") if r.type == "contract.revoked" else say("expired", "到期")
                yield Moment(
                    _seconds(r.time), f"{ended}{say(', by the log of ', '，见日志：')}{r.party}", r.type
                )
            if r.type == "retention.expired":
                what = say(
                    f"{r.party} removed its records below {r.body.get('below')}: their time was over",
                    f"{r.party} 的第 {r.body.get('below')} 号之前的记录保存期满，已删除",
                )
                yield Moment(_seconds(r.time), what, _event(r.type, say))


def _event(name: str, say: Words) -> str:
    return say("logs: ", "日志：") + name


def _first(logs: Mapping[str, Iterable[Record]], event: str, run: str = "") -> list[Record]:
    found = (next((r for r in of if r.type == event and r.run in ("", run)), None) for of in logs.values())
    return [r for r in found if r is not None]


def _seconds(time: str) -> str:
    return f"{time[:19]}Z"
