"""What a participant remembers of a contract, whatever it is handed later, and whatever its clock says by then.

A contract that is over does not come back: not by a clock that was put back, not by leaving out the next time a
revocation or a denial that was heard before, and not beside the version of it that took its place. The memory is the
participant's own: others are told nothing, and what it never heard it cannot remember.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmkt.contract.agreement import Contract
from fedmkt.contract.approvals import decisions, revocations
from fedmkt.contract.canonical import digest
from fedmkt.crypto import dsse
from fedmkt.crypto.dsse import Envelope
from fedmkt.errors import ConfigError
from fedmkt.party.governance_events import SUFFIX
from fedmkt.party.store import Store


@dataclass(frozen=True)
class Past:
    """What there was before. expired : its end was seen; replaced_by : digest of the version that ran since, or ""."""

    expired: bool = False
    replaced_by: str = ""


UNKNOWN = Past()
"""Of a contract that was never seen."""


def past_of(store: Store, contract: Contract) -> Past:
    """Recall what this participant saw of a contract."""
    said = json.loads(store.get(_replaced_key(digest(contract).hex()), b"{}"))
    replaced = str(said["by"]) if said.get("keys") == _keys(contract) else ""
    return Past(_expired_key(contract) in store, replaced)


def note_expired(store: Store, contract: Contract) -> None:
    """Remember for good that a contract's end was seen."""
    store.put(_expired_key(contract), b"seen")


def note_replaced(store: Store, contract: Contract) -> None:
    """Remember that a run was opened under this contract: the one that it amends, of the same signers, is over."""
    terms = contract.governance
    if terms is not None and terms.amends is not None:
        # With other signers it would end a contract of theirs: only the same keys replace what they agreed on.
        said = {"by": digest(contract).hex(), "keys": _keys(contract)}
        store.put(_replaced_key(terms.amends), json.dumps(said).encode())


def objections(contract: Contract, statements: Iterable[Envelope]) -> list[Envelope]:
    """Pick the valid statements that speak against a contract: revocations and denials."""
    return [
        s
        for s in statements
        if revocations(contract, [s]) or any(d.decision == "denial" for d in decisions(contract, [s]))
    ]


def counting(contract: Contract, statements: Iterable[Envelope]) -> list[Envelope]:
    """Pick the statements that count for anything."""
    return [s for s in statements if revocations(contract, [s]) or decisions(contract, [s])]


def unheard(folder: Path, envelopes: Iterable[Envelope]) -> list[Envelope]:
    """Leave out what was heard before, in whatever envelope: keyid and further signatures are signed by nobody."""
    known, found = {kept.payload for kept in kept_statements(folder)}, list[Envelope]()
    for envelope in envelopes:
        if envelope.payload not in known:
            known.add(envelope.payload)
            found.append(envelope)
    return found


def kept_statements(folder: Path) -> Sequence[Envelope]:
    """Read what was heard before; ConfigError names a file that is no statement any more."""
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else ():
        try:
            found.append(dsse.from_json(path.read_bytes()))
        except (OSError, ValueError):
            text = f"{path}: changed since it was kept, or not to be read"
            raise ConfigError(text, "restore it from a backup, or as its sender has it") from None
    return found


def _keys(contract: Contract) -> list[str]:
    return sorted(signer.key for signer in contract.signers)


def _expired_key(contract: Contract) -> str:
    return f"expired/{digest(contract).hex()}"


def _replaced_key(number: str) -> str:
    return f"replaced/{number}"
