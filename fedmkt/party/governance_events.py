"""What a party's log says about how its contract came to be: proposed or amended, approved or denied by whom.

The statements themselves stand in the log, as they were signed: an auditor needs no other file to check them.
"""

import hashlib
from collections.abc import Iterable, Iterator

from fedmkt.contract.agreement import Contract
from fedmkt.contract.approvals import decisions
from fedmkt.contract.canonical import zulu
from fedmkt.crypto.dsse import Envelope, to_json
from fedmkt.party.events import Event


def drafted_events(contract: Contract) -> Iterator[Event]:
    """Say which version this is and of what; nothing of a contract without terms of governance."""
    terms = contract.governance
    if terms is None:
        return
    if terms.amends is None:
        yield "contract.proposed", {"revision": terms.revision, "created": zulu(contract.created)}
    else:
        yield "contract.amended", {"revision": terms.revision, "amends": terms.amends}


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
