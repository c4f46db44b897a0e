"""What a bank keeps beside its scores where its contract has terms of governance: rates by group, and reasons.

`rates.json`, how often people of each declared group are among the best tenth (C19); `reasons.npz`, for each released
row what each own column does to its score and what all the rest does (C20). Both follow from what the bank has anyway.
"""

import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.learn.calibration import deciles
from fedmkt.learn.fairness import Rate, quarters, selection_rates
from fedmkt.learn.reasons import Categories, Numbers, Reasons, find_reasons
from fedmkt.protocol.prepare import Columns, take

RATES, REASONS = "rates.json", "reasons.npz"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Notes:
    """Rates by column, and reasons for each score."""

    rates: dict[str, tuple[Rate, ...]]
    reasons: Reasons

    @property
    def explains_all(self) -> bool:
        """Tell whether every score has its reasons."""
        return bool(np.isfinite(self.reasons.own).all() and np.isfinite(self.reasons.rest).all())

    def of_rows(self, kept: NDArray[np.bool_]) -> "Notes":
        """Return the notes of some of the rows; rates stay those of all."""
        found = self.reasons
        return replace(self, reasons=replace(found, own=found.own[kept], rest=found.rest[kept]))

    def files(self) -> dict[str, bytes]:
        """Write both as files by name; no pickle."""
        told = {name: [asdict(rate) for rate in rates] for name, rates in self.rates.items()}
        facts = {"version": 1, "selected": "the best tenth of all released scores", "groups": told}
        buffer = io.BytesIO()
        found = self.reasons
        np.savez(buffer, columns=np.array(found.columns, str), own=found.own, rest=found.rest)
        return {RATES: json.dumps(facts, ensure_ascii=False).encode(), REASONS: buffer.getvalue()}


def notes_of(
    contract: Contract,
    columns: Columns,
    train: NDArray[np.int64],
    rows: NDArray[np.int64],
    scores: Floats,
    alone: Callable[[Columns], Floats],
) -> Notes:
    """Take the scores of some rows apart, and measure how often each declared group is among the best tenth.

    scores : (n,) of `rows`, as released; alone : gives the scores of these rows by a model of the own columns.
    """

    def predict(numbers: Numbers, categories: Categories) -> Floats:
        return alone(replace(columns, numbers=dict(numbers), categories=dict(categories)))

    logistic = contract.model.link == "logistic"
    reasons = find_reasons(predict, columns.numbers, columns.categories, train, scores, logistic)
    return Notes(_rates(contract, columns, rows, scores), reasons)


def _rates(
    contract: Contract, columns: Columns, rows: NDArray[np.int64], scores: Floats
) -> dict[str, tuple[Rate, ...]]:
    terms, best = contract.governance, deciles(scores) == 1
    numbers, categories = take(columns, rows)
    found = {}
    for name in terms.groups if terms is not None else ():
        groups = quarters(numbers[name]) if name in numbers else categories[name]
        found[name] = selection_rates(groups, best, contract.limits.min_support)
    return found
