"""Which penalty a pass is made with, and on which rows: the contract's, or along a path each in its turn.

All of it follows from the contract, a place on the path that all parties count alike, and a public choice: nothing is
sent or learned here. Columns are whitened, and the penalty rows filled, once, for the least penalty: a larger one
multiplies what the penalty rows give, and adds to the diagonal of what is inverted (`gram`), so that the matrices are
masked once for the whole path. Along the path the residuals of the validation rows are set to zero, on all shares:
these rows do not train, until the last training takes all rows.

Letters: E = 1 + growth * ridge, (D + ridge of this penalty) / (D + ridge of the least) of a direction of variance D.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.alignment.align import Split, validation_rows
from fedmkt.protocol.core import PublicValue, State, Turn, Words
from fedmkt.protocol.prepare import RIDGE, Prepared, real

_MOST_UNITS = 256
_CLOSE = 0.5 / _MOST_UNITS
"""Penalties of a path are whole multiples of what the penalty rows stand for, but for a fifth of a percent."""


@dataclass(frozen=True)
class Trial(State):
    """Where on the path training is; `last` : with the chosen penalty, on all rows."""

    place: int
    last: bool


@dataclass(frozen=True)
class PenaltyChoice(PublicValue):
    """The place of the penalty with which the model is trained."""

    place: int


def _units(path: tuple[float, ...]) -> int:
    """Return into how few parts the least penalty is cut for the others to be multiples: rounding is multiplied too."""
    for units in range(1, _MOST_UNITS):
        times = [units * penalty / path[-1] for penalty in path]
        if all(abs(round(t) - t) <= _CLOSE * t for t in times):
            return units
    return _MOST_UNITS


def row_penalty(contract: Contract) -> float:
    """Return the penalty that the penalty rows stand for by themselves."""
    path = contract.model.path
    return path[-1] / _units(path) if path else contract.model.penalty


def multiple(turn: Turn) -> np.uint64:
    """Return by what the values of the penalty rows are multiplied now."""
    path = turn.contract.model.path
    return np.uint64(round(_units(path) * path[turn.recall(Trial).place] / path[-1]) if path else 1)


def penalty_at(contract: Contract, trial: Trial | None) -> float:
    """Return the penalty of a training; trial : None where the contract has one penalty."""
    return contract.model.penalty if trial is None else contract.model.path[trial.place]


def penalty_of(turn: Turn) -> float:
    """Return the penalty of the training under way, or of the one that is done."""
    return penalty_at(turn.contract, turn.recall(Trial) if turn.has(Trial) else None)


def ridge(turn: Turn) -> NDArray[np.float64]:
    """Return what whitening left out of each own column's variance, (d,): 0 for one that varies, up to 1."""
    rows = len(real(turn.recall(Split).train))
    least = RIDGE * turn.contract.model.least_penalty / rows
    return np.asarray(least / np.square(turn.recall(Prepared).spread), dtype=np.float64)


def growth(turn: Turn) -> int:
    """Return how many times the least penalty is added to it now, rounded: it only steers the passes."""
    return round(penalty_of(turn) / turn.contract.model.least_penalty) - 1


def is_tried(turn: Turn) -> bool:
    """Tell whether the validation rows do not train now."""
    return turn.has(Trial) and not turn.recall(Trial).last


def share_trained(turn: Turn) -> float:
    """Return which part of the train rows trains now."""
    return 1 - turn.contract.model.validation_fraction if is_tried(turn) else 1.0


def goes_on(turn: Turn) -> bool:
    """Tell whether a training begins where the one before ended."""
    return turn.has(Trial) and turn.recall(Trial) != Trial(0, False)


def passes_of(turn: Turn) -> int:
    """Return how many passes the training under way makes."""
    model = turn.contract.model
    return path_passes(turn.contract, turn.recall(Trial).place) if is_tried(turn) else model.iterations


def path_passes(contract: Contract, place: int) -> int:
    """Return how many passes the trial at a place of the path makes."""
    return contract.model.path_passes if place else contract.model.iterations


def all_passes(contract: Contract) -> int:
    """Return how many passes over all rows a run makes, those that measure among them."""
    tried = range(len(contract.model.path))
    return contract.model.iterations + sum(path_passes(contract, place) + 1 for place in tried)


def left_out(turn: Turn, residuals: Words) -> Words:
    """Set the own share of the residuals to zero where rows do not train now, (n,)."""
    if not is_tried(turn):
        return residuals
    found = residuals.copy()
    found[validation_rows(turn)] = 0
    return found
