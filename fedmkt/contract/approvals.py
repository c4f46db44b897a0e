"""Who approved a contract, who denied it and who revoked it: signed statements that lie beside the contract; pure.

A statement counts if it names this contract by its digest and is signed with the key that the contract has for
whoever it says it is from; any other is as if it were absent. Of one person the latest statement counts, and of two
of the same time the denial; one that is dated after the contract's end counts for nothing, or nobody could deny later.
A statement that nobody hands over cannot be missed: what was denied must be shown.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeVar, get_args

from pydantic import ValidationError

from fedmkt.audit import statements
from fedmkt.audit.statements import Statement
from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest, zulu
from fedmkt.contract.governance import Approver, ApproverRole
from fedmkt.contract.words import Name, Terms, Text, Time
from fedmkt.crypto.dsse import Envelope, Public
from fedmkt.errors import PolicyRefused

SUBJECT = "contract"
"""Under which name a statement gives the digest of the contract."""
Decision = Literal["approval", "denial"]


class _Approval(Terms):
    approver: Name
    party: Name
    role: ApproverRole
    time: Time
    reason: Text | None = None


class _Revocation(Terms):
    signer: Name
    time: Time
    reason: Text


@dataclass(frozen=True)
class Decided:
    """What a person decided about a contract, with a valid signature; `reason` : of a denial."""

    approver: Approver
    decision: Decision
    time: datetime
    reason: str = ""


@dataclass(frozen=True)
class Revoked:
    """Which signer ended a contract before its date, when and why."""

    signer: str
    time: datetime
    reason: str


@dataclass(frozen=True)
class Count:
    """How many of a party's approvers approved, of how many that it has, and how many must have.

    lacking : what is missing in words; empty if the party has approved.
    """

    party: str
    approved: tuple[str, ...]
    approvers: int
    needed: int
    lacking: str


def approval(contract: Contract, approver: Approver, now: datetime) -> Statement:
    """Write the statement by which a person approves."""
    return _statement("approval", contract, _decision(approver, now))


def denial(contract: Contract, approver: Approver, now: datetime, reason: str) -> Statement:
    """Write the statement by which a person denies."""
    return _statement("denial", contract, _decision(approver, now) | {"reason": reason})


def revocation(contract: Contract, signer: str, now: datetime, reason: str) -> Statement:
    """Write the statement by which a signer ends a contract before its date."""
    said = {"signer": signer, "time": _moment(now), "reason": reason}
    return _statement("revocation", contract, said)


def find_approver(contract: Contract, name: str, party: str | None = None) -> Approver:
    """Find an approver by name, and by party where two have one of that name; ValueError if there is none."""
    terms = contract.governance
    all_of_them = () if terms is None else terms.approvers
    found = [a for a in all_of_them if a.name == name and party in (None, a.party)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{a.name} ({a.role} of {a.party})" for a in all_of_them) or "none"
    said = "several approvers are" if found else "no approver is"
    raise ValueError(f"{said} called {name!r}; the contract has: {known}")


def decisions(contract: Contract, envelopes: Iterable[Envelope]) -> tuple[Decided, ...]:
    """List the last decision of each approver who made one, in the contract's order."""
    terms = contract.governance
    if terms is None:
        return ()
    last: dict[str, Decided] = {}
    for found in _decided(contract, terms.approvers, envelopes):
        before = last.get(found.approver.key)
        if before is None or _rank(found) > _rank(before):
            last[found.approver.key] = found
    return tuple(last[a.key] for a in terms.approvers if a.key in last)


def approved(contract: Contract, envelopes: Iterable[Envelope]) -> dict[str, tuple[str, ...]]:
    """List by party the names of its approvers who approved; every party of the contract is there."""
    found = [d.approver for d in decisions(contract, envelopes) if d.decision == "approval"]
    return {party.name: tuple(a.name for a in found if a.party == party.name) for party in contract.parties}


def counts(contract: Contract, envelopes: Iterable[Envelope]) -> tuple[Count, ...]:
    """Count approvals by party: enough people, and among them each role."""
    terms = contract.governance
    if terms is None:
        return ()
    names = approved(contract, envelopes)
    return tuple(
        _count(party, names[party], [a for a in terms.approvers if a.party == party], terms.needed)
        for party in names
    )


def check_approved(contract: Contract, envelopes: Iterable[Envelope], party: str | None = None) -> None:
    """Refuse, and say what is missing, unless every party has approved, or the one that is named.

    A contract without terms of governance needs no approval, and neither does a rehearsal.
    """
    if contract.rehearsal:
        return
    lacking = [c.lacking for c in counts(contract, envelopes) if c.lacking and party in (None, c.party)]
    if lacking:
        raise PolicyRefused(
            f"C18 approvals: {'; '.join(lacking)}", "fedmkt contract approve, by people of different roles"
        )


def check_not_revoked(contract: Contract, envelopes: Iterable[Envelope]) -> None:
    """Refuse a contract that a signer revoked."""
    for found in revocations(contract, envelopes):
        raise PolicyRefused(
            f"rule revoked: {found.signer} ended the contract on {found.time:%Y-%m-%d}: {found.reason}",
            "draft a new contract; this one runs nowhere any more",
        )


def revocations(contract: Contract, envelopes: Iterable[Envelope]) -> tuple[Revoked, ...]:
    """List the valid revocations, earliest first."""
    keys = {s.name: Public(bytes.fromhex(s.key)) for s in contract.signers}
    found = set()
    for statement, names in _read(contract, envelopes, keys):
        said = _parse(_Revocation, statement) if statement.kind == "revocation" else None
        if said is not None and said.signer in names:
            found.add(Revoked(said.signer, said.time, said.reason))
    return tuple(sorted(found, key=lambda r: (r.time, r.signer)))


def _statement(kind: statements.Kind, contract: Contract, predicate: dict[str, str]) -> Statement:
    return Statement(kind, {SUBJECT: digest(contract).hex()}, predicate)


def _decision(approver: Approver, now: datetime) -> dict[str, str]:
    return {
        "approver": approver.name, "party": approver.party, "role": approver.role, "time": _moment(now)
    }  # fmt: skip


def _moment(now: datetime) -> str:
    return zulu(now.astimezone(UTC).replace(microsecond=0))


def _read(
    contract: Contract, envelopes: Iterable[Envelope], keys: dict[str, Public]
) -> Iterator[tuple[Statement, tuple[str, ...]]]:
    """Read those that one of these keys signed and that name this contract and nothing else."""
    subject = {SUBJECT: digest(contract).hex()}
    for envelope in envelopes:
        try:
            statement, names = statements.read(envelope, keys)
        except ValueError:
            continue
        if statement.subject == subject:
            yield statement, names


def _decided(
    contract: Contract, approvers: Sequence[Approver], envelopes: Iterable[Envelope]
) -> Iterator[Decided]:
    keys = {f"{a.party}/{a.name}": Public(bytes.fromhex(a.key)) for a in approvers}
    for statement, names in _read(contract, envelopes, keys):
        said = _parse(_Approval, statement) if statement.kind in get_args(Decision) else None
        if said is None or f"{said.party}/{said.approver}" not in names or said.time >= contract.expires:
            continue
        for approver in approvers:
            if (approver.party, approver.name, approver.role) == (said.party, said.approver, said.role):
                decision: Decision = "approval" if statement.kind == "approval" else "denial"
                yield Decided(approver, decision, said.time, said.reason or "")


T = TypeVar("T", bound=Terms)


def _parse(model: type[T], statement: Statement) -> T | None:
    try:
        return model.model_validate_json(json.dumps(statement.predicate))
    except ValidationError:
        return None


def _rank(found: Decided) -> tuple[datetime, bool]:
    return found.time, found.decision == "denial"


def _count(party: str, names: tuple[str, ...], own: Sequence[Approver], needed: int) -> Count:
    roles = {a.role for a in own if a.name in names}
    lacking = ""
    if len(names) < needed:
        lacking = f"{party}: {len(names)} of {needed} approvals"
    elif len(roles) < len(get_args(ApproverRole)):
        absent = ", ".join(sorted(set(get_args(ApproverRole)) - roles))
        lacking = f"{party}: nobody approved as {absent}"
    return Count(party, names, len(own), needed, lacking)
