"""Who approved a contract, for an auditor: the signed statements beside the logs, and what the logs say of them.

A log holds each statement whole, so nothing here rests on the files: they are the same statements, for a reader of
another program, and one that is changed, missing or added later is found.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedmkt.audit.records import Record
from fedmkt.contract.agreement import Contract
from fedmkt.contract.approvals import Count, Revoked, counts, decisions, revocations
from fedmkt.crypto import dsse
from fedmkt.crypto.dsse import Envelope
from fedmkt.errors import AuditError, ConfigError
from fedmkt.party.governance_events import SUFFIX, governance_events, kept_path
from fedmkt.report.folder import RunFiles, read_plain
from fedmkt.report.logs import logs_of

APPROVALS = "approvals"
LARGEST = 4 << 10
"""Bytes of a statement."""
DECIDED = ("approval.granted", "approval.denied")


@dataclass(frozen=True)
class Approvals:
    """What was found. counts : by what the logs said before the last run began.

    statements : files that count; unlogged : those of them that no log has; idle : files that count for nothing.
    """

    counts: tuple[Count, ...]
    revoked: tuple[Revoked, ...]
    statements: int
    unlogged: int
    idle: int

    def lines(self) -> list[str]:
        """Say it in plain words."""
        lines = [f"approvals: {c.party} {len(c.approved)} of {c.needed}" for c in self.counts]
        lines += [f"  LACKING before the last run began: {c.lacking}" for c in self.counts if c.lacking]
        lines.append(f"  {self.statements} signed statements beside the logs verify")
        if self.unlogged:
            lines.append(f"  NOT IN ANY LOG: {self.unlogged} of them, put there by somebody else")
        if self.idle:
            lines.append(f"  {self.idle} files that nobody of this contract signed")
        return [*lines, *(f"  REVOKED by {r.signer} on {r.time:%Y-%m-%d}: {r.reason}" for r in self.revoked)]


def statement_paths(files: RunFiles) -> list[Path]:
    """List the files of signed statements beside a contract."""
    folder = files.root / APPROVALS
    return sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []


def check_approvals(files: RunFiles) -> Approvals | None:
    """Verify statements and what logs say of them; None where the contract has no terms of governance.

    AuditError names the file that is not the one that its name says, or the record that says something else.
    """
    contract = files.contract
    if contract.governance is None:
        return None
    logs = logs_of(files).records
    said = {name: list(_said(contract, name, records)) for name, records in logs.items()}
    logged = {_sha256(e): e for found in said.values() for _, e in found}
    beside = [_read(path) for path in statement_paths(files)]
    valid = [e for e in beside if decisions(contract, [e]) or revocations(contract, [e])]
    if missing := set(logged) - {_sha256(e) for e in beside} if beside else set():
        raise AuditError(
            f"{files.root / APPROVALS}: without the statement {min(missing)[:16]}, which a log has"
        )
    before = [e for name, found in said.items() for seq, e in found if seq < _last_start(logs[name])]
    is_whole = all(
        records[0].seq == 0 for records in logs.values()
    )  # nothing expired that may have named one
    unlogged = sum(is_whole and _sha256(e) not in logged and bool(decisions(contract, [e])) for e in valid)
    return Approvals(
        counts(contract, before),
        revocations(contract, beside),
        len(valid),
        unlogged,
        len(beside) - len(valid),
    )


def _said(contract: Contract, name: str, records: tuple[Record, ...]) -> Iterator[tuple[int, Envelope]]:
    """Read the decisions that a log has; AuditError if one is not what its record says."""
    for record in records:
        if record.type not in DECIDED:
            continue
        where, body = f"log of {name}: record {record.seq}", record.body
        try:
            envelope = dsse.from_json(str(body.get("envelope")).encode() + b"\n")
        except ValueError as error:
            raise AuditError(f"{where}: {error}") from None
        if governance_events(contract, [envelope]) != [(record.type, dict(body))]:
            raise AuditError(f"{where}: the signed statement does not say what the record does")
        yield record.seq, envelope


def _last_start(records: tuple[Record, ...]) -> int:
    """Return the number of the last record that begins a run; all count where none was begun."""
    return max((r.seq for r in records if r.type == "run.started"), default=1 << 62)


def _read(path: Path) -> Envelope:
    try:
        data = read_plain(path, LARGEST)
        envelope = dsse.from_json(data)
    except ConfigError as error:
        raise AuditError(str(error)) from None
    except ValueError as error:
        raise AuditError(f"{path}: {error}") from None
    if kept_path(path.parent, envelope) != path or dsse.to_json(envelope) != data:
        raise AuditError(f"{path}: not the statement that its name says")
    return envelope


def _sha256(envelope: Envelope) -> str:
    return hashlib.sha256(dsse.to_json(envelope)).hexdigest()
