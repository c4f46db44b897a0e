"""Remove from a party's own log what its contract keeps no longer."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedmkt.audit.log_view import LogView, read_view
from fedmkt.audit.retention import expired_below
from fedmkt.contract.agreement import Contract
from fedmkt.party.audit_log import CHECKPOINT, LOG, PRUNED, AuditLog


@dataclass(frozen=True)
class Due:
    """Which first records of a log may go: those below a number; `records` of them are still there."""

    below: int
    records: int


def view_of(folder: Path) -> LogView:
    """Read the log in `folder` as its files have it; AuditError if that is no log."""
    files = {
        name: (folder / name).read_bytes() for name in (LOG, CHECKPOINT, PRUNED) if (folder / name).exists()
    }
    return read_view(files, str(folder))


def due_records(folder: Path, contract: Contract, least_days: int, now: datetime) -> Due:
    """Say which records of the log in `folder` are kept no longer.

    Nothing goes where the contract does not agree on how long records are kept (`governance.retention.record_days`),
    and nothing that is younger than `least_days`, which the party's policy asks for.
    """
    if contract.governance is None:
        return Due(0, 0)
    view = view_of(folder)
    below = expired_below(view.records, view.signed, _days(contract, least_days), now)
    return Due(below, max(0, below - view.pruned))


def expire_records(log: AuditLog, folder: Path, contract: Contract, least_days: int, now: datetime) -> int:
    """Prune the log that is open in `folder` of what is due; returns how many records went.

    AuditError if another process has the log open.
    """
    due = due_records(folder, contract, least_days, now)
    if due.records:
        log.prune(due.below, _days(contract, least_days))
    return due.records


def _days(contract: Contract, least_days: int) -> int:
    agreed = 0 if contract.governance is None else contract.governance.retention.record_days
    return max(agreed, least_days)
