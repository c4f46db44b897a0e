"""Verify an organisation's acts: the chain by itself, and against what its runs' logs saw of it."""

from pathlib import Path

from fedmkt.audit.acts import Chain, anchors
from fedmkt.audit.records import read_leaf
from fedmkt.errors import AuditError
from fedmkt.party.acts_log import read_acts
from fedmkt.party.audit_log import LOG

ANCHOR = "policy.loaded"
"""The record of a run's log that says how many acts there were, and the last one's hash."""


def verify_acts(root: Path) -> Chain | None:
    """Verify the acts in an organisation's folder; None where there are none and no log saw any.

    AuditError says which line does not follow, or which log saw others. The counter-signatures of the others stand
    under the logs, so acts before the last run cannot be exchanged without them.
    """
    chain = read_acts(root / "state")
    seen = 0
    for path in sorted((root / "state" / "contracts").glob(f"*/log/{LOG}")):
        for count, head in _anchors(path):
            chain.check_anchor(count, head, f"{path.parent.parent.name}/log")
            seen += 1
    return chain if chain.acts or seen else None


def _anchors(path: Path) -> list[tuple[int, str]]:
    mark, bodies = f'"{ANCHOR}"'.encode(), []
    for line in path.read_bytes().split(b"\n"):
        if mark in line:
            try:
                record = read_leaf(line)
            except ValueError:
                raise AuditError(f"{path}: a record was changed") from None
            if record.type == ANCHOR:
                bodies.append(record.body)
    return anchors(bodies)
