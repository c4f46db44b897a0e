"""Who may still be scored when a run ends, whose data it used, and until when its results may be kept.

A table is opened when a run begins; hours later, when scores are written, the withdrawal list and the opt-out list
are read again. Who came onto one of them meanwhile gets no score (C04, C16). That person's row did take part, so the
model is flagged like one of before. A partner cannot take a row out of what the bank gets without saying which: of who
withdraws there while a run is under way, or later, it tells the bank by a notice (`deploy.notices`).
"""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmkt.config.policy import PolicyConfig
from fedmkt.contract.agreement import Contract
from fedmkt.crypto.prg import Random
from fedmkt.errors import AuditError
from fedmkt.party.events import Event
from fedmkt.party.filters import salted
from fedmkt.party.journal import write_atomically
from fedmkt.party.run_people import NEVER, JointRows, Left, number_of, write_people
from fedmkt.party.table import Table, read_opt_out

EXPIRES: Final = "expires.json"
"""Beside results: the run, when it ended, until when results and records are kept."""


@dataclass(frozen=True)
class Retention:
    """Days after the end of a run: results at most, records and logs of programs at least."""

    result_days: int
    record_days: int
    transport_days: int


def retention_of(contract: Contract, policy: PolicyConfig) -> Retention:
    """Return what holds for a contract at a party: both its terms of governance, if any, and the policy.

    What is allowed ends with the earlier of the two: results are made of everybody's data, so the shortest time of any
    dataset is among them. What is demanded ends with the later: records, and logs of programs.
    """
    terms = contract.governance
    if terms is None:
        return Retention(policy.result_days, policy.record_days, policy.transport_days)
    kept = terms.retention
    return Retention(
        min(policy.result_days, kept.result_days, *(d.retention_days for d in terms.datasets)),
        max(policy.record_days, kept.record_days),
        max(policy.transport_days, kept.transport_days),
    )


@dataclass(frozen=True)
class Expiry:
    """What lies beside results: on the days from which results are deleted, and records may be."""

    run: str
    ended: date
    expires: date
    records: date


def write_expiry(path: Path, run: str, ended: date, kept: Retention) -> None:
    """Write until when the results of a run may be kept."""
    days = {"expires": kept.result_days, "records": kept.record_days}
    until = {name: (ended + timedelta(days=count)).isoformat() for name, count in days.items()}
    write_atomically(path, json.dumps({"run": run, "ended": ended.isoformat(), **until}).encode())


def read_expiry(path: Path) -> Expiry:
    """Read it; AuditError if it is not as it was written."""
    try:
        facts = json.loads(path.read_bytes())
        times = (date.fromisoformat(facts[name]) for name in ("ended", "expires", "records"))
        return Expiry(str(facts["run"]), *times)
    except (ValueError, KeyError, TypeError):
        raise AuditError(f"{path}: not as a run wrote it") from None


@dataclass(frozen=True)
class Release:
    """What a party needs at the end of a run beside its table. random, clock : of the run."""

    random: Random
    clock: Callable[[], datetime]
    policy: PolicyConfig

    def alone(self, table: Table) -> AbstractContextManager[object]:
        """Let nobody withdraw from the last look at the list until results are written: who did would be in neither."""
        asked = table.schema.filters if table.schema is not None else None
        if asked is None or asked.withdrawn is None:
            return nullcontext()
        return asked.withdrawn.alone()

    def left(self, table: Table) -> tuple[NDArray[np.bool_], list[Event]]:
        """Tell which rows of a table left since it was opened; besides, what to log: counts."""
        rows = np.zeros(len(table.ids), np.bool_)
        asked = table.schema.filters if table.schema is not None else None
        if table.schema is None or asked is None:
            return rows, []
        spelled, events = (table.ids, *table.more_ids), list[Event]()
        reasons = []
        if asked.withdrawn is not None:
            reasons.append(("consent.withdrawn", asked.withdrawn.flags(table.schema.keys, spelled)))
        if asked.opt_out is not None:
            reasons.append(("optout.applied", read_opt_out(asked.opt_out, table.schema).names(spelled)))
        for name, found in reasons:
            events.append((name, {"at": "release", "dropped": int((found & ~rows).sum())}))
            rows |= found
        return rows, salted(events, self.random)

    def keep_people(
        self,
        folder: Path,
        table: Table,
        trained: NDArray[np.int64],
        scored: NDArray[np.int64],
        gone: NDArray[np.bool_],
        joint: JointRows,
    ) -> None:
        """Write whose rows a run used; gone : who of the table left while it was under way is noted at once."""
        if table.schema is not None:
            day = number_of(self.clock().date())
            left = Left(*(np.where(gone[rows], day, NEVER) for rows in (trained, scored)))
            ids = (table.ids, *table.more_ids)
            write_people(folder, self.random(32), table.schema.keys, ids, trained, scored, left, joint)
