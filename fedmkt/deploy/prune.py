"""Remove from an organisation's own logs what their contracts keep no longer: `fedmkt audit prune`."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedmkt.audit.checkpoint import log_origin
from fedmkt.contract.canonical import digest
from fedmkt.contract.signatures import second_keys
from fedmkt.crypto.sign import Identity
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder, read_identity
from fedmkt.errors import AuditError
from fedmkt.party.audit_log import LOG, AuditLog
from fedmkt.party.retention import expire_records
from fedmkt.report.folder import read_signed


@dataclass(frozen=True)
class Pruned:
    """How many records of the log of one contract were removed; `contract` : the name of its folder."""

    contract: str
    records: int


def prune(
    folder: PartyFolder | CoordinatorFolder, least_days: int, clock: Callable[[], datetime]
) -> list[Pruned]:
    """Prune the log of each contract; those whose contract does not agree on it stay whole.

    least_days : that the own policy keeps records, whatever a contract says. AuditError if a log was changed, or is in
    use by a run.
    """
    identity = read_identity(folder.identity)
    return [prune_one(place, identity, least_days, clock) for place in logged_contracts(folder)]


def logged_contracts(folder: PartyFolder | CoordinatorFolder) -> list[Path]:
    """List the folders of contracts that have a log."""
    return sorted(path.parent.parent for path in folder.state.glob(f"contracts/*/log/{LOG}"))


def prune_one(place: Path, identity: Identity, least_days: int, clock: Callable[[], datetime]) -> Pruned:
    """Prune the log of one contract, as `prune` does."""
    signed = read_signed(place)
    contract = signed.contract
    name = next((s.name for s in contract.signers if s.key == identity.public.hex()), None)
    if name is None:
        raise AuditError(f"{place}: none of its signers has the key of this folder")
    agreed, second = digest(contract), second_keys(signed)
    log = AuditLog(place / "log", log_origin(agreed, name), identity, clock, "", name, agreed, second)
    try:
        return Pruned(place.name, expire_records(log, place / "log", contract, least_days, clock()))
    finally:
        log.release()
