"""Proofs that single records stand in a log: what an auditor hands on for one event, without the rest of the log.

One text by C2SP tlog-proof for each record (`fedmkt.audit.proof`), which `fedmkt.audit.verify_proof` checks with the
contract alone. A record after the signed head has no proof, and neither has one that was removed when its time was
over; what is left of a log from which records were removed is proven like any other.
"""

from collections.abc import Mapping
from typing import Final

from fedmkt.audit.log_view import LogView
from fedmkt.audit.proof import prove
from fedmkt.errors import AuditError
from fedmkt.report.audit_tools import read_views
from fedmkt.report.folder import RunFiles

PROVED: Final = (
    "contract.signed",
    "approval.granted",
    "approval.denied",
    "value.revealed",
    "scores.released",
    "model.exported",
    "run.completed",
    "run.aborted",
)


def proofs(files: RunFiles, run: str) -> Mapping[str, bytes]:
    """Prove the records of a run that matter most, by the name of their file: contract, disclosures, results, the end.

    AuditError for a log that is not the one below its signed head.
    """
    found = {}
    for log in read_views(files.root).logs:
        signed = log.signed
        for record in log.records:
            if record.seq < signed and record.type in PROVED and record.run in ("", run):
                name = f"{log.party}-{record.seq:06}-{record.type}.tlog-proof"
                found[name] = _prove(log, record.seq)
    return found


def _prove(log: LogView, index: int) -> bytes:
    try:
        return bytes(prove(log.leaf(index), index, log.tree, log.note))
    except ValueError as error:
        raise AuditError(f"log of {log.party}: record {index}: {error}") from None
