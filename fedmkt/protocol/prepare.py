"""Preparation: each party turns its own columns into a matrix; only its shape leaves.

Computes, at every party for itself, imputed, one-hot coded, standardised, clipped and whitened columns, fitted on
train rows only. Takes part: all parties that hold data. Each learns the others' number of columns and the largest
row norm, rounded up; so does the coordinator.
Safe against everybody: nothing else is sent. A party may lie about its shape; the products then fail their checks.
Source: learn/prepare.py, learn/whiten.py; protocols.md section 2 (support rule of 50 rows).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract import Contract
from fedmkt.errors import DataError, PeerError
from fedmkt.learn import prepare, whiten
from fedmkt.privacy.disclosure import EVERYONE, MatrixShape
from fedmkt.protocol.align import Split
from fedmkt.protocol.core import Caller, Inbox, Name, Nothing, Outcome, PublicValue, State, Step, Turn, ask, data_parties
from fedmkt.protocol.psi import NO_ROW, Rows
from fedmkt.ring.fixed import encode32

MAX_COLUMNS = 400
MAX_ROW_NORM = 1000
_CHUNK = 1 << 16
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Columns(State):
    """A party's own columns by name, one entry per row of its list; missing is nan or None; label for the bank."""

    durable = False
    numbers: dict[str, Array]
    categories: dict[str, NDArray[np.object_]]
    label: Array | None


@dataclass(frozen=True)
class Prepared(State):
    """How the own columns become a matrix: the fitted preparation (JSON) and the whitening."""

    preparation: str
    transform: Array
    spread: Array


@dataclass(frozen=True)
class Shape(PublicValue):
    """Number of columns, and the largest Euclidean norm of a row, rounded up."""

    columns: int
    row_norm: int


def _prepare(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Shape]:
    columns, split = turn.recall(Columns), turn.recall(Split)
    limits = turn.contract.limits
    settings = prepare.Settings(max_levels=limits.max_levels, min_support=limits.min_support)
    train = real(split.train)
    numbers, categories = take(columns, train)
    fitted = prepare.fit(numbers, categories, np.ones(len(train), bool), settings)
    x = prepare.transform(fitted, numbers, categories).values
    if x.shape[1] == 0:
        raise DataError(f"{turn.me}: no column is left: each needs {limits.min_support} train rows on either value")
    if x.shape[1] > MAX_COLUMNS:
        raise DataError(f"{turn.me}: {x.shape[1]} prepared columns, at most {MAX_COLUMNS} are accepted")
    white = whiten.fit(x, 10 * turn.contract.model.penalty / len(train))
    norm = max(_largest_norm(x @ white.transform), _scored_norm(columns, split, fitted, white))
    if norm > MAX_ROW_NORM:
        raise DataError(f"{turn.me}: a row has norm {norm:.0f}, at most {MAX_ROW_NORM} is accepted")
    shape = Shape(x.shape[1], math.ceil(norm))
    reveals = (MatrixShape(to=EVERYONE, columns=shape.columns, row_norm=shape.row_norm),)
    kept = Prepared(fitted.to_json(), white.transform, white.spread)
    return Outcome(shape, keep=(kept,), reveals=reveals)


def _scored_norm(columns: Columns, split: Split, fitted: prepare.Preparation, white: whiten.Whitening) -> float:
    rows = real(np.concatenate([split.held_out, split.unlabelled]))
    return _largest_norm(prepare.transform(fitted, *take(columns, rows)).values @ white.transform) if len(rows) else 0.0


def _largest_norm(x: Array) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", x, x).max(initial=0.0)))


def real(rows: Rows) -> Rows:
    """Return the rows that stand for a person, without the padding."""
    found: Rows = rows[rows != NO_ROW]
    return found


def take(columns: Columns, rows: Rows) -> tuple[dict[str, Array], dict[str, NDArray[np.object_]]]:
    """Return the columns restricted to some rows."""
    return {n: v[rows] for n, v in columns.numbers.items()}, {n: v[rows] for n, v in columns.categories.items()}


def prepared_rows(fitted: prepare.Preparation, columns: Columns, rows: Rows) -> Array:
    """Return the own prepared matrix, not whitened, for some rows: (len(rows), d)."""
    return prepare.transform(fitted, *take(columns, rows)).values


def encoded_matrix(turn: Turn, rows: Rows, bits: int) -> NDArray[np.int32]:
    """Return the own whitened matrix for some rows as fixed point, (len(rows), d) int32, zero where padded.

    Works in chunks of rows, so that no second float matrix of that size exists.
    """
    prepared = turn.recall(Prepared)
    fitted = prepare.Preparation.from_json(prepared.preparation)
    columns = turn.recall(Columns)
    out = np.zeros((len(rows), len(prepared.spread)), dtype=np.int32)
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        values = prepare.transform(fitted, *take(columns, real(chunk))).values
        out[start : start + _CHUNK][chunk != NO_ROW] = encode32(values @ prepared.transform, bits)
    return out


def shapes(turn: Turn) -> dict[Name, Shape]:
    """Return what all parties published about their matrices, checked."""
    found = {p: turn.published(Shape, p) for p in turn.parties}
    for party, shape in found.items():
        if not (0 < shape.columns <= MAX_COLUMNS and 0 < shape.row_norm <= MAX_ROW_NORM):
            raise PeerError(f"{party}: prepare.fit: a matrix of this shape is not accepted")
    return found


PREPARE = Step("prepare.fit", _prepare, Shape, reveals=(MatrixShape,))


def prepare_columns(call: Caller, contract: Contract) -> dict[Name, Shape]:
    """Have each party prepare its own columns: one round."""
    parties = data_parties(contract)
    replies = call.all([ask(p, PREPARE) for p in parties])
    return {p: r.public.value for p, r in zip(parties, replies, strict=True)}
