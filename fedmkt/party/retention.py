"""Remove from a party's own log what its contract keeps no longer."""

from datetime import datetime
from pathlib import Path

from fedmkt.audit.log_view import read_view
from fedmkt.audit.retention import expired_below
from fedmkt.contract.agreement import Contract
from fedmkt.party.audit_log import CHECKPOINT, LOG, PRUNED, AuditLog


def expire_records(log: AuditLog, folder: Path, contract: Contract, now: datetime) -> int:
    """Prune the log that is open in `folder`; returns how many records went.

    Nothing goes where the contract does not agree on how long records are kept (`governance.retention.record_days`).
    AuditError if another process has the log open.
    """
    if contract.governance is None:
        return 0
    files = {
        name: (folder / name).read_bytes() for name in (LOG, CHECKPOINT, PRUNED) if (folder / name).exists()
    }
    view = read_view(files, str(folder))
    days = contract.governance.retention.record_days
    below = expired_below(view.records, view.signed, days, now)
    if below <= view.pruned:
        return 0
    log.prune(below, days)
    return below - view.pruned
