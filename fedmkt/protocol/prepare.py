"""Preparation: each party turns its own columns into a matrix; only its shape leaves.

Computes, at every party for itself, imputed, one-hot coded, standardised, clipped and whitened columns, fitted on train
rows only; where the match is hidden, at the partner on its whole list, whose support says nothing about common
customers: a column may be carried by few of them. Takes part: all parties that hold data. Each learns the others'
number of columns and the largest row norm, rounded up; so does the coordinator. Safe against everybody: nothing else is
sent. A party may lie about its shape; the products then fail their checks. Columns that moved too far may be left out
first (`protocol.shift`). Source: learn/prepare.py, learn/additive.py, learn/whiten.py; protocols.md section 2 (support
rule of 50 rows).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.errors import DataError, PeerError
from fedmkt.learn import additive, prepare, whiten
from fedmkt.learn.woe import WoeColumns
from fedmkt.privacy.disclosure import EVERYONE, MatrixShape
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.alignment.items import NO_ROW, Known, Rows
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Name,
    Nothing,
    Outcome,
    PublicValue,
    State,
    Step,
    Turn,
    ask,
    data_parties,
)
from fedmkt.protocol.linear.warm import earlier
from fedmkt.protocol.shift import OwnShift, Reference, fine_bins, measure_shift
from fedmkt.ring.fixed import encode32

KNOWN = "known to the partner"
MAX_COLUMNS = 400
MAX_ROW_NORM = 1000
RIDGE = 25.0
"""Ridge of the whitening in units of penalty / rows. A direction without variance, as of a column that occurs twice,
has curvature rows / RIDGE from the penalty alone. Times the bank's scale, at most `gram.MAX_SCALE` / rows, it must
stay below 2 (1 + momentum), or the passes overshoot there and rounding noise grows with each of them."""
START_RIDGE = RIDGE / 2
"""What is left of it at least where columns are an earlier model's: enough for the same, as rows may be fewer now."""
_CHUNK = 1 << 16
Array = NDArray[np.float64]
Fitted = prepare.Preparation | additive.Additive
"""How a table becomes a matrix, by the kind of the model."""
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Columns(State):
    """A party's own columns by name, one entry per row of its list; missing is nan or None.

    label, offset, weight : the bank's, without missing values but of labels.
    """

    durable = False
    numbers: dict[str, Array]
    categories: dict[str, NDArray[np.object_]]
    label: Array | None
    offset: Array | None = None
    weight: Array | None = None


@dataclass(frozen=True)
class Prepared(State):
    """How the own columns become a matrix: the fitted preparation (JSON) and the whitening."""

    preparation: str
    transform: Array
    spread: Array


@dataclass(frozen=True)
class OwnEvidence(State):
    """In a scorecard: the WoE columns (JSON of `WoeColumns`) that stand in place of the own ones."""

    columns: str


@dataclass(frozen=True)
class Shape(PublicValue):
    """Number of columns, and the largest Euclidean norm of a row, rounded up."""

    columns: int
    row_norm: int


def _prepare(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Shape]:
    columns, split = model_columns(turn), turn.recall(Split)
    limits = turn.contract.limits
    settings = prepare.Settings(max_levels=limits.max_levels, min_support=limits.min_support)
    if turn.has(OwnEvidence):
        # Points are a multiple of WoE: nothing may be clipped, and with `scorecard.min_share` nothing is that far out.
        settings = replace(settings, clip=settings.bound)
    train = real(split.train)
    before, shift = earlier(turn), None
    if before is None:
        columns, shift = _stable(turn, columns, train)
        fitted = _fit(turn, columns, train, settings)
    else:
        fitted = _still_carried(turn, read_fitted(before.preparation), columns, train)
    width = len(fitted.columns)
    if width == 0:
        raise DataError(
            f"{turn.me}: no column is left: each needs {limits.min_support} train rows on either value"
            + (", and bins.max_shift" if shift is not None and shift.left_out else "")
        )
    if width > MAX_COLUMNS:
        raise DataError(f"{turn.me}: {width} prepared columns, at most {MAX_COLUMNS} are accepted")
    if before is None:
        found = _whitening(fitted, columns, train, RIDGE * turn.contract.model.least_penalty / len(train))
        transform, spread = found.transform, found.spread
    else:
        transform, spread = before.transform, _still_stiff(turn, before.spread, len(train))
    norm = 0.0
    for chunk in _chunks(real(np.concatenate([split.train, split.held_out, split.unlabelled]))):
        norm = max(norm, _largest_norm(prepared_rows(fitted, columns, chunk) @ transform))
    if norm > MAX_ROW_NORM:
        raise DataError(f"{turn.me}: a row has norm {norm:.0f}, at most {MAX_ROW_NORM} is accepted")
    shape = Shape(width, math.ceil(norm))
    reveals = (MatrixShape(to=EVERYONE, columns=shape.columns, row_norm=shape.row_norm),)
    kept = Prepared(fitted.to_json(), transform, spread)
    return Outcome(shape, keep=(kept,) if shift is None else (kept, shift), reveals=reveals)


def _stable(turn: Turn, columns: Columns, train: Rows) -> tuple[Columns, OwnShift | None]:
    """Leave out the columns that moved too far; those of a scorecard were looked at before they were weighed."""
    if turn.has(OwnEvidence) or not turn.has(Reference):
        return columns, None
    rows, terms = take(columns, train), turn.contract.additive
    shift = measure_shift(turn, fine_bins(turn.contract, rows), rows)
    moved = () if shift is None else shift.left_out
    if paired := set(moved) & {*chain(*terms.pairs_of(turn.me)), *terms.paired_across(turn.me)}:
        raise DataError(
            f"{turn.me}: {min(paired)!r} moved too far (bins.max_shift), and a pair needs it",
            "leave the pair out of [additive] pairs",
        )
    numbers = {name: values for name, values in columns.numbers.items() if name not in moved}
    categories = {name: values for name, values in columns.categories.items() if name not in moved}
    return replace(columns, numbers=numbers, categories=categories), shift


def _fit(turn: Turn, columns: Columns, train: Rows, settings: prepare.Settings) -> Fitted:
    if turn.contract.model.kind != "additive":
        return prepare.fit(*take(columns, train), np.ones(len(train), bool), settings)
    terms = turn.contract.additive
    pairs, across = terms.pairs_of(turn.me), terms.paired_across(turn.me)
    form = additive.Form(terms.basis, terms.knots, terms.smooth, pairs, across)
    try:
        return additive.fit(*take(columns, train), form, settings)
    except additive.NoFactor as error:
        raise DataError(f"{turn.me}: {error}", "leave the pair out of [additive] pairs") from None


def read_fitted(text: str) -> Fitted:
    """Read what `Prepared` keeps; ValueError for anything else."""
    try:
        return prepare.Preparation.from_json(text)
    except ValueError:
        return additive.Additive.from_json(text)


def _whitening(fitted: Fitted, columns: Columns, train: Rows, ridge: float) -> whiten.Whitening:
    width = len(fitted.columns)
    moments = np.zeros((width, width))
    for chunk in _chunks(train):
        x = prepared_rows(fitted, columns, chunk)
        moments += x.T @ x
    return whiten.fit(moments / len(train), ridge)


def _still_carried(turn: Turn, fitted: Fitted, columns: Columns, train: Rows) -> Fitted:
    """Refuse an earlier preparation of which some column is carried by too few of the new rows."""
    least, x = turn.contract.limits.min_support, prepared_rows(fitted, columns, train)
    for name, values in zip(fitted.columns, x.T, strict=True):
        if prepare.effective_support(values) < least:
            raise DataError(
                f"{turn.me}: a prepared column of the earlier model, {name!r}, is carried by fewer than {least} train "
                "rows now",
                "leave out [model] start: the columns are prepared anew then",
            )
    return fitted


def _still_stiff(turn: Turn, spread: Array, rows: int) -> Array:
    """Refuse an earlier whitening that left out much less than the penalty now asks for: passes would overshoot."""
    if len(spread) and float(np.square(spread).min()) < START_RIDGE * turn.contract.model.penalty / rows:
        raise DataError(
            f"{turn.me}: the columns of the earlier model were prepared for a smaller penalty, or for more rows",
            "leave out [model] start: the columns are prepared anew then",
        )
    return spread


def _chunks(rows: Rows) -> list[Rows]:
    return [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]


def _largest_norm(x: Array) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", x, x).max(initial=0.0)))


def real(rows: Rows) -> Rows:
    """Return the rows that stand for a person, without the padding."""
    found: Rows = rows[rows != NO_ROW]
    return found


class Taken(Mapping[str, NDArray[T]]):
    """Columns restricted to some rows, copied one by one when they are looked at."""

    def __init__(self, columns: Mapping[str, NDArray[T]], rows: Rows) -> None:
        self._columns: Mapping[str, NDArray[T]] = columns
        self._rows = rows

    def __getitem__(self, name: str) -> NDArray[T]:
        """Copy the rows of one column."""
        found: NDArray[T] = self._columns[name][self._rows]
        return found

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self._columns)

    def __len__(self) -> int:
        """Count the columns."""
        return len(self._columns)


def with_known(columns: Columns, known: NDArray[np.bool_]) -> Columns:
    """Add the column that says which customers the partner has, where all of the bank's take part."""
    return replace(columns, numbers={**columns.numbers, KNOWN: known.astype(np.float64)})


def own_columns(turn: Turn) -> Columns:
    """Return the own columns that take part."""
    columns = turn.recall(Columns)
    return with_known(columns, turn.recall(Known).rows) if turn.has(Known) else columns


def weighed(columns: Columns, evidence: WoeColumns) -> Columns:
    """Put WoE columns in place of all columns."""
    return Columns(evidence.weigh(columns.numbers, columns.categories), {}, columns.label)


def model_columns(turn: Turn) -> Columns:
    """Return the columns that become the own matrix: those that take part, or in a scorecard their WoE."""
    columns = own_columns(turn)
    if turn.has(OwnEvidence):
        return weighed(columns, WoeColumns.from_json(turn.recall(OwnEvidence).columns))
    return columns


def take(columns: Columns, rows: Rows) -> tuple[Taken[np.float64], Taken[np.object_]]:
    """Return numbers and categories restricted to some rows."""
    return Taken(columns.numbers, rows), Taken(columns.categories, rows)


def prepared_rows(fitted: Fitted, columns: Columns, rows: Rows) -> Array:
    """Return the own prepared matrix, not whitened, for some rows: (len(rows), d)."""
    if isinstance(fitted, additive.Additive):
        return additive.transform(fitted, *take(columns, rows)).values
    return prepare.transform(fitted, *take(columns, rows)).values


def encoded_matrix(turn: Turn, rows: Rows, bits: int) -> NDArray[np.int32]:
    """Return the own whitened matrix for some rows as fixed point, (len(rows), d) int32, zero where padded.

    Works in chunks of rows, so that no second float matrix of that size exists.
    """
    prepared = turn.recall(Prepared)
    fitted = read_fitted(prepared.preparation)
    columns = model_columns(turn)
    out = np.zeros((len(rows), len(prepared.spread)), dtype=np.int32)
    at = 0
    for chunk in _chunks(rows):
        values = prepared_rows(fitted, columns, real(chunk)) @ prepared.transform
        out[at : at + len(chunk)][chunk != NO_ROW] = encode32(values, bits)
        at += len(chunk)
    return out


def shapes(turn: Turn) -> dict[Name, Shape]:
    """Return what all parties published about their matrices, checked."""
    return _checked({p: turn.published(Shape, p) for p in turn.parties})


def _checked(found: dict[Name, Shape]) -> dict[Name, Shape]:
    for party, shape in found.items():
        if not (0 < shape.columns <= MAX_COLUMNS and 0 < shape.row_norm <= MAX_ROW_NORM):
            raise PeerError(f"{party}: prepare.fit: a matrix of this shape is not accepted")
    return found


PREPARE = Step("prepare.fit", _prepare, Shape, reveals=(MatrixShape,))


def prepare_columns(call: Caller, contract: Contract) -> dict[Name, Shape]:
    """Have each party prepare its own columns: one round."""
    parties = data_parties(contract)
    replies = call.all([ask(p, PREPARE) for p in parties])
    return _checked({p: r.public.value for p, r in zip(parties, replies, strict=True)})
