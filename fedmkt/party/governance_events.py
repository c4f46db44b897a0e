"""What a party's log says about how its contract came to be: proposed or amended, approved or denied by whom.

The statements themselves stand in the log, as they were signed: an auditor needs no other file to check them.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from fedmkt.audit.records import Json
from fedmkt.contract.agreement import Contract
from fedmkt.contract.approvals import decisions
from fedmkt.contract.canonical import zulu
from fedmkt.crypto.dsse import Envelope, to_json
from fedmkt.party.events import Event
from fedmkt.party.journal import write_atomically

SUFFIX = ".dsse.json"
"""How the file of an envelope ends."""


def drafted_events(contract: Contract) -> Iterator[Event]:
    """Say which version this is and of what; nothing of a contract without terms of governance."""
    terms = contract.governance
    if terms is None:
        return
    if terms.amends is None:
        yield "contract.proposed", {"revision": terms.revision, "created": zulu(contract.created)}
    else:
        yield "contract.amended", {"revision": terms.revision, "amends": terms.amends}


def declared_events(contract: Contract) -> Iterator[Event]:
    """Say for what and by which right, which assessments are attached, and who was asked to approve."""
    terms = contract.governance
    if terms is None:
        return
    bases: dict[str, Json] = {d.party: [*d.basis, *d.sensitive_basis] for d in terms.datasets}
    yield "purpose.declared", {"purpose": contract.purpose, "use": terms.use, "basis": bases}
    for event, found in (("pia.attached", terms.impact), ("assessment.attached", terms.transfer)):
        if found is not None:
            body: dict[str, Json] = {"sha256": found.sha256, "purpose": found.purpose}
            yield event, body | {"parties": list(found.parties), "expires": zulu(found.expires)}
    asked: list[Json] = [f"{a.party}/{a.name}: {a.role}" for a in terms.approvers]
    yield "approval.requested", {"needed": terms.approvals, "approvers": asked}


def governance_events(contract: Contract, envelopes: Iterable[Envelope]) -> list[Event]:
    """Say who approved and who denied; statements that count for nothing are left out."""
    events: list[Event] = []
    for envelope in envelopes:
        for found in decisions(contract, [envelope]):
            text = to_json(envelope)
            event = "approval.granted" if found.decision == "approval" else "approval.denied"
            body = {
                "approver": found.approver.name,
                "party": found.approver.party,
                "role": found.approver.role,
                "time": zulu(found.time),
                "sha256": hashlib.sha256(text).hexdigest(),
                "envelope": text.decode().rstrip("\n"),
            }
            events.append((event, body))
    return events


def kept_path(folder: Path, envelope: Envelope) -> Path:
    """Return where a copy of an envelope lies: named by its digest, so that none replaces another."""
    return folder / f"{hashlib.sha256(to_json(envelope)).hexdigest()[:32]}{SUFFIX}"


def keep_statements(folder: Path, envelopes: Iterable[Envelope]) -> None:
    """Copy envelopes into a folder."""
    for envelope in envelopes:
        path = kept_path(folder, envelope)
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, to_json(envelope), mode=0o644)
