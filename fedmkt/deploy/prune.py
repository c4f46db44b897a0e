"""Remove from an organisation's own logs what their contracts keep no longer: `fedmkt audit prune`."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from fedmkt.audit.checkpoint import log_origin
from fedmkt.contract.canonical import digest
from fedmkt.contract.signatures import second_keys
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


def prune(folder: PartyFolder | CoordinatorFolder, clock: Callable[[], datetime]) -> list[Pruned]:
    """Prune the log of each contract; those whose contract does not agree on it stay whole.

    AuditError if a log was changed, or is in use by a run.
    """
    identity, done = read_identity(folder.identity), list[Pruned]()
    for place in sorted(path.parent.parent for path in folder.state.glob(f"contracts/*/log/{LOG}")):
        signed = read_signed(place)
        contract, second = signed.contract, second_keys(signed)
        name = next((s.name for s in contract.signers if s.key == identity.public.hex()), None)
        if name is None:
            raise AuditError(f"{place}: none of its signers has the key of this folder")
        agreed = digest(contract)
        log = AuditLog(place / "log", log_origin(agreed, name), identity, clock, "", name, agreed, second)
        try:
            done.append(Pruned(place.name, expire_records(log, place / "log", contract, clock())))
        finally:
            log.release()
    return done
