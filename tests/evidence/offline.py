"""A run of three signers played into their logs, under terms with four approvers; no protocol is computed."""

from collections.abc import Sequence
from pathlib import Path

from fedmkt.contract.agreement import AuditorTerms, Contract
from fedmkt.contract.files import from_toml
from fedmkt.contract.governance import GovernanceTerms
from fedmkt.contract.signatures import SignedContract, sign
from fedmkt.crypto.dsse import Envelope
from fedmkt.party.governance_events import drafted_events, governance_events, keep_statements
from fedmkt.privacy.disclosure import RangeBit
from tests.audit.conftest import (
    IDENTITIES,
    NAMES,
    START,
    Events,
    cosign_all,
    files_of,
    make_contract,
    open_logs,
    play,
)
from tests.contract.agreed import governance

SEALED = {"sha256": "5e" * 32, "bytes": 9, "index": 3}
BEGUN = [("run.started", {"epoch": 1}), ("epoch.started", {"epoch": 1})]
EVENTS: Events = {
    "bank": [
        *BEGUN,
        ("value.revealed", {"index": 3, "step": "fit.check", **RangeBit(to="all").record()}),
        ("message.sent", {"to": "shop", "step": "fit.check", **SEALED}),
        ("run.completed", {"index": 9}),
    ],
    "coordinator": [*BEGUN, ("run.completed", {"index": 9})],
    "shop": [*BEGUN, ("message.received", {"from": "bank", **SEALED}), ("run.completed", {"index": 9})],
}


def terms(**changes: object) -> GovernanceTerms:
    """Return terms of governance for these signers."""
    return governance(locations=dict.fromkeys(NAMES, "CN"), **changes)  # type: ignore[no-any-return, no-untyped-call]


def play_run(
    folder: Path,
    given: Sequence[Envelope] = (),
    beside: Sequence[Envelope] = (),
    agreed: GovernanceTerms | None = None,
    auditor: AuditorTerms | None = None,
) -> Path:
    """Play a run. given : statements that every party took into its log; beside : ones that only lie there."""
    folder.mkdir()
    signed = make_contract(agreed or terms())
    if auditor is not None:
        signed = _with_auditor(signed.contract, auditor)
    logs = open_logs(folder, signed, lambda: START)
    opened = ("contract.signed", {"signers": list(NAMES), "purpose": "cards"})
    opening = [*drafted_events(signed.contract), opened, *governance_events(signed.contract, given)]
    play(logs, "", {name: opening for name in NAMES})
    play(logs, "run1", EVENTS)
    cosign_all(logs)
    files_of(folder, logs)
    keep_statements(folder / "approvals", [*given, *beside])
    return folder


def contract_of(folder: Path) -> Contract:
    """Read the contract of a run."""
    return from_toml((folder / "contract.toml").read_text(), "").contract


def _with_auditor(contract: Contract, auditor: AuditorTerms) -> SignedContract:
    values = contract.model_dump() | {
        "auditor": auditor.model_dump(),
        "disclosures": (*contract.disclosures, "DealerSeeds"),
    }
    audited = Contract.model_validate(values)
    return SignedContract(
        contract=audited, signatures={name: sign(audited, name, key) for name, key in IDENTITIES.items()}
    )
