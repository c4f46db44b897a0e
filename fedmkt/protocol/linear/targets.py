"""What the bank alone knows of each row: its label, how much it counts, and what is added to its predictor.

Computes, at the bank for itself, labels and weights of the training rows in the common order, the null model (an
intercept beside the offset, and the mean curvature there), which is where training begins, and the bank's share of
all offsets. Takes part: the bank. Nobody else learns anything, unless the bank refuses its rows: that much is told.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.model_terms import MAX_ROW_WEIGHT, ROW_WEIGHT_UNIT, ModelTerms
from fedmkt.errors import DataError
from fedmkt.learn import glm
from fedmkt.protocol.alignment.align import joint_rows
from fedmkt.protocol.alignment.items import NO_ROW, Rows
from fedmkt.protocol.core import Inbox, Nothing, Outcome, Silent, State, Step, Turn, Words
from fedmkt.protocol.layout import FIT, FRACTION_BITS, WEIGHT_BITS, Stage, layout_of
from fedmkt.protocol.linear.links import most_offset
from fedmkt.protocol.prepare import Columns, real
from fedmkt.ring.fixed import encode

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Units(State):
    """At the bank: the units in which the model is trained, as `glm.Scale`."""

    center: float
    spread: float
    offset_center: float
    offset_spread: float

    @property
    def scale(self) -> glm.Scale:
        """The same as a scale."""
        return glm.Scale(self.center, self.spread, self.offset_center, self.offset_spread)


@dataclass(frozen=True)
class Labels(State):
    """The bank's training rows in the common order, zero where padded.

    y : labels in units of the training; units : what each row counts, in sixteenths; null : the model without columns.
    """

    durable: ClassVar[bool] = False
    y: Floats
    units: Words
    null: glm.Null


def known_rows(model: ModelTerms, columns: Columns, rows: Rows) -> glm.Rows:
    """Return label, offset and rounded weight of the bank's rows; DataError for one that counts more than 8."""
    if columns.label is None:
        raise ValueError("labels are the bank's")
    weight = weight_units(model, columns, rows).astype(np.float64) * ROW_WEIGHT_UNIT
    return glm.Rows(columns.label[rows], weight, offsets(columns, rows))


def weight_units(model: ModelTerms, columns: Columns, rows: Rows) -> Words:
    """Return what the rows count in sixteenths, (n,), rounded; errors as `known_rows`."""
    weight = np.ones(len(rows))
    if columns.weight is not None:
        weight *= columns.weight[rows]
    if model.class_weights is not None and columns.label is not None:
        weight *= np.array(model.class_weights)[columns.label[rows].astype(np.int64)]
    if float(weight.max(initial=0.0)) > MAX_ROW_WEIGHT:
        raise DataError(
            f"a row of the bank counts {weight.max():g} times, class weight and column together: at most "
            f"{MAX_ROW_WEIGHT:g} are accepted"
        )
    units: Words = np.round(weight / ROW_WEIGHT_UNIT).astype(np.uint64)
    return units


def _load_labels(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    """At the bank: put the labels of the training rows into the common order, once per epoch.

    Refuses a training too thin for its passes, which tells the others that much: with 5 or more rows of the rarer
    class for each column 200 of 200 random jobs ended within .0014 AUC of the optimum.
    """
    plan, columns, train = layout_of(turn, FIT), turn.recall(Columns), joint_rows(turn, True)
    model, present = turn.contract.model, train != NO_ROW
    raw = known_rows(model, columns, real(train))
    _check_events(turn, raw, plan.width - 1)
    try:
        scale = glm.standard_units(model.link, raw)
    except ValueError as error:
        raise DataError(f"{turn.me}: {error}") from None
    _check_offsets(turn, columns, scale)
    known = scale.rows(raw)
    y, units = np.zeros(plan.rows), np.zeros(plan.rows, np.uint64)
    y[present], units[present] = known.y, (known.weight / ROW_WEIGHT_UNIT).astype(np.uint64)
    null = glm.fit_null(model.link, known)
    kept = Units(scale.center, scale.spread, scale.offset_center, scale.offset_spread)
    return Outcome(Silent(), keep=(Labels(y, units, null), kept))


def _check_events(turn: Turn, known: glm.Rows, columns: int) -> None:
    least, y = turn.contract.limits.min_events, known.y[known.weight > 0]
    if turn.contract.model.link == "logistic":
        _check_classes(turn, y)
        found = int(np.bincount(y.astype(np.int64)).min())
        what = "of the rarer class (customers who answered, or who did not)"
    elif turn.contract.model.link == "poisson":
        found, what = int((y > 0).sum()), "with a count above zero"
    else:
        found, what = len(y), "that count"
    if found < least * columns:
        raise DataError(
            f"{turn.me}: the training rows have {found / columns:.1f} {what} for each of {columns} columns, and "
            f"limits.min_events wants {least}: use fewer columns or more customers"
        )


def _check_classes(turn: Turn, y: Floats) -> None:
    if not np.isin(y, (0.0, 1.0)).all():
        raise DataError(f"{turn.me}: a label that is neither 0 nor 1, where the model is logistic")
    if len(np.unique(y)) < 2:
        raise DataError(
            f"{turn.me}: the training rows have one class only: customers who answered and who did not are needed"
        )


def _check_offsets(turn: Turn, columns: Columns, scale: glm.Scale) -> None:
    """Refuse an offset beyond the contract's bound, on which the range of every score rests."""
    if columns.offset is None:
        return
    for training in (True, False):
        found = scale.offsets(offsets(columns, real(joint_rows(turn, training))))
        largest, bound = float(np.abs(found).max(initial=0.0)), most_offset(turn.contract)
        if largest > bound:
            raise DataError(
                f"{turn.me}: an offset is {largest:.3g} from the mean, the contract's [model] max_offset is {bound:g}"
            )


def offsets(columns: Columns, rows: Rows) -> Floats:
    """Return what is added to the linear predictor of the bank's rows, (n,)."""
    return np.zeros(len(rows)) if columns.offset is None else columns.offset[rows]


def offset_words(turn: Turn, stage: Stage) -> Words | None:
    """Return what the bank adds to its own share of z of a stage's rows, at the scale of z; None if nothing."""
    if not turn.first or turn.contract.bank.offset is None:
        return None
    rows = joint_rows(turn, stage.penalised)
    out = np.zeros(len(rows))
    out[rows != NO_ROW] = turn.recall(Units).scale.offsets(offsets(turn.recall(Columns), real(rows)))
    return encode(out, FRACTION_BITS + WEIGHT_BITS)


LOAD_LABELS = Step("fit.load_labels", _load_labels, Silent)
