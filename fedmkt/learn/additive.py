"""Columns of a table into the matrix of an additive model: smooth functions of numbers, and products of pairs.

A number becomes the columns of `splines`; one with too few values or rows for that, and every category, becomes what
`prepare` makes of it. Columns are added to these: 0/1 for the values of a number that are told apart, missing ones
among them, and products of pairs: the two smoothest columns of a number, or the 0/1 columns of a category, each with
each. All limits of `prepare` hold: no value beyond the bound, no column without the least support. Numbers that form
a pair with another party's have a basis of their own for that (`factors`), which is no part of the matrix.

An added column needs that support for what it adds, too: for its difference x from the closest sum of the columns
before it, sum x^2 / max x^2 rows, so that no row has more than its share of a weight. Where the value -1 of a number
and the level "unknown" of a category fall on the same rows but five, two weights would else tell about these five.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fedmkt.learn import factors, prepare, splines
from fedmkt.learn.prepare import MISSING, Matrix, Preparation
from fedmkt.learn.splines import Array, Smooth

Basis = Literal["spline", "bins"]
Numbers = Mapping[str, Array]
Categories = Mapping[str, NDArray[np.object_]]
FACTORS: Final = 2
"""Columns of a smooth function that enter products: its line and its bend."""
_DEGREES: Final[Mapping[str, tuple[int, ...]]] = {"spline": (3, 1), "bins": (0,)}
"""Degrees to try in turn: a number of few values may bear straight pieces where it bears no cubic ones."""
_BLOCK: Final = 1 << 14  # rows
_NEW: Final = 1e-6
"""Least share of its variance by which an added column differs from all before it."""


@dataclass(frozen=True)
class Form:
    """What the functions look like. knots : inner ones at most; smooth : weight of roughness, in units of the ridge.

    pairs : table columns whose products count. across : numbers whose products with another party's do.
    """

    basis: Basis
    knots: int
    smooth: float
    pairs: tuple[tuple[str, str], ...] = ()
    across: tuple[str, ...] = ()


@dataclass(frozen=True)
class Additive:
    """All that `transform` needs. rest : numbers without a function, and categories; added : made from the others.

    factors : the bases of products with another party's columns, one for each such pair.
    """

    smooths: tuple[Smooth, ...]
    rest: Preparation
    pairs: tuple[tuple[str, str], ...]
    added: Preparation
    factors: tuple[Smooth, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the matrix columns in order."""
        smooth = [name for s in self.smooths for name in s.columns]
        return (*smooth, *self.rest.columns, *self.added.columns)

    def to_json(self) -> str:
        """Text that `from_json` turns into an equal value, bit for bit."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "Additive":
        """Inverse of `to_json`; ValueError for anything else."""
        try:
            raw = json.loads(text)
            return Additive(
                tuple(_smooth(s) for s in raw["smooths"]),
                Preparation.from_json(json.dumps(raw["rest"])),
                tuple((str(a), str(b)) for a, b in raw["pairs"]),
                Preparation.from_json(json.dumps(raw["added"])),
                tuple(_smooth(s) for s in raw.get("factors", ())),
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError("not the preparation of an additive model") from error


def fit(
    numbers: Numbers, categories: Categories, form: Form, settings: prepare.Settings | None = None
) -> Additive:
    """Learn functions, levels and scales; all rows are train rows, arrays as in `prepare.fit`.

    Raises NoFactor if too few rows carry a number that is paired with another party's.
    """
    settings = settings or prepare.Settings()
    fitted = {name: _fit_smooth(name, numbers[name], form, settings) for name in numbers}
    smooths = tuple(smooth for smooth in fitted.values() if smooth is not None)
    left = {name: numbers[name] for name, smooth in fitted.items() if smooth is None}
    rest = _prepare(left, categories, settings)
    paired = tuple(_factor(name, numbers[name], form, settings) for name in form.across)
    found = Additive(smooths, rest, form.pairs, _prepare({}, {}, settings), paired)
    found = replace(found, added=_prepare(_carried(found, numbers, categories, settings), {}, settings))
    if len(set(found.columns)) != len(found.columns):
        raise ValueError("two matrix columns would have the same name; rename a table column")
    return found


def transform(fitted: Additive, numbers: Numbers, categories: Categories) -> Matrix:
    """Matrix of all rows, every entry within the preparation's bound."""
    main = _main(fitted, numbers, categories)
    if not fitted.added.columns:
        return Matrix(main, fitted.columns)
    added = prepare.transform(fitted.added, _added(fitted, numbers, main), {})
    return Matrix(np.concatenate([main, added.values], axis=1), fitted.columns)


def missing_name(smooth: Smooth) -> str:
    """Name the 0/1 column of missing values."""
    return f"{smooth.name} {MISSING}"


def spike_name(smooth: Smooth) -> str:
    """Name the 0/1 column of the value told apart."""
    return f"{smooth.name}={smooth.spike:.12g}"


def product_names(fitted: Additive, left: str, right: str) -> frozenset[str]:
    """Name all products that a pair may bring."""
    empty = np.zeros((0, len(fitted.columns)))
    one, two = (_factors(fitted, name, empty) for name in (left, right))
    return frozenset(f"{first}*{second}" for first in one for second in two)


class NoFactor(ValueError):
    """A number cannot be paired with another party's: too few values, or rows that carry one."""


def _factor(name: str, values: Array, form: Form, settings: prepare.Settings) -> Smooth:
    found = factors.fit(name, values, form.basis, settings.min_support)
    if found is None:
        raise NoFactor(
            f"{name!r} cannot be paired with another party's column: more than half of the train rows must have one of "
            "several values, besides missing ones and one that a fifth of the rows share"
        )
    return found


def _prepare(numbers: Numbers, categories: Categories, settings: prepare.Settings) -> Preparation:
    rows = len(next(iter((*numbers.values(), *categories.values())), (0,)))
    return prepare.fit(numbers, categories, np.ones(rows, bool), settings)


def _fit_smooth(name: str, values: Array, form: Form, settings: prepare.Settings) -> Smooth | None:
    for degree in _DEGREES[form.basis]:
        found = splines.fit(
            name, values, degree, form.knots, form.smooth, settings.min_support, settings.bound
        )
        if found is not None:
            return found
    return None


def _main(fitted: Additive, numbers: Numbers, categories: Categories) -> Array:
    """Return the columns to which others are added."""
    parts = [smooth.apply(numbers[smooth.name]) for smooth in fitted.smooths]
    if fitted.rest.columns:
        parts.append(prepare.transform(fitted.rest, numbers, categories).values)
    return np.concatenate(parts, axis=1)


def _added(fitted: Additive, numbers: Numbers, main: Array) -> dict[str, Array]:
    """Return all columns that may be added, by name, before they are scaled."""
    found = {}
    for smooth in fitted.smooths:
        values = numbers[smooth.name]
        found[missing_name(smooth)] = np.isnan(values).astype(np.float64)
        if smooth.spike is not None:
            found[spike_name(smooth)] = (values == smooth.spike).astype(np.float64)
    for left, right in fitted.pairs:
        for one, first in _factors(fitted, left, main).items():
            for two, second in _factors(fitted, right, main).items():
                found[f"{one}*{two}"] = first * second
    return found


def _factors(fitted: Additive, name: str, main: Array) -> dict[str, Array]:
    """Return what one table column brings to products; nothing if it has no matrix column."""
    at = 0
    for smooth in fitted.smooths:
        if smooth.name == name:
            return {column: main[:, at + i] for i, column in enumerate(smooth.columns[:FACTORS])}
        at += len(smooth.columns)
    places = {column: at + i for i, column in enumerate(fitted.rest.columns)}
    if name in places:
        return {name: main[:, places[name]]}
    levels = [
        f"{c.name}={level}" for c in fitted.rest.categories if c.name == name for level, _ in c.indicators
    ]
    # A scaled 0/1 column has mean 0 in train: it is above 0 where it was 1. So a product of two is 0/1 again.
    return {column: (main[:, places[column]] > 0).astype(np.float64) for column in levels}


def _carried(
    fitted: Additive, numbers: Numbers, categories: Categories, settings: prepare.Settings
) -> dict[str, Array]:
    """Return the columns that may be added and have the support for what they add.

    With X'X = L L', the columns of X inv(L)' are what each column of X adds to those before it.
    """
    moments: Array = np.zeros((0, 0))
    kept: dict[str, list[Array]] = {}
    for stack, added in _stacks(fitted, numbers, categories):
        moments = stack.T @ stack + (moments if len(moments) else 0.0)
        for name, values in added.items():
            kept.setdefault(name, []).append(values)
    if not kept:
        return {}
    scale = 1 / np.sqrt(np.maximum(np.diag(moments), 1e-300))
    pivots = np.linalg.cholesky(moments * np.outer(scale, scale) + 1e-9 * np.eye(len(moments)))
    new = np.linalg.inv(pivots).T[:, -len(kept) :] * scale[:, None]
    total = largest = np.zeros(len(kept))
    for stack, _ in _stacks(fitted, numbers, categories):
        squares = np.square(stack @ new)
        total, largest = total + squares.sum(axis=0), np.maximum(largest, squares.max(axis=0))
    is_new = np.diag(pivots)[-len(kept) :] ** 2 > _NEW
    is_carried = total >= settings.min_support * largest
    return {
        name: np.concatenate(parts)
        for (name, parts), own in zip(kept.items(), is_new & is_carried, strict=True)
        if own
    }


def _stacks(
    fitted: Additive, numbers: Numbers, categories: Categories
) -> Iterator[tuple[Array, dict[str, Array]]]:
    """Go through the rows in blocks: 1, the main columns and the added ones side by side; the added ones by name."""
    rows = len(next(iter((*numbers.values(), *categories.values())), ()))
    for start in range(0, rows, _BLOCK):
        block = slice(start, start + _BLOCK)
        some = {name: values[block] for name, values in numbers.items()}
        main = _main(fitted, some, {name: values[block] for name, values in categories.items()})
        added = _added(fitted, some, main)
        yield np.column_stack([np.ones(len(main)), main, *added.values()]), added


def _smooth(raw: Mapping[str, object]) -> Smooth:
    knots, coefficients, spike, degree = raw["knots"], raw["coefficients"], raw["spike"], raw["degree"]
    if not isinstance(knots, list) or not isinstance(coefficients, list) or not isinstance(degree, int):
        raise TypeError
    rows = tuple(tuple(float(c) for c in row) for row in coefficients)
    if len({len(row) for row in rows}) != 1 or len(rows) != len(knots) + degree - 1:
        raise ValueError("the coefficients of a function do not belong to its knots")
    told = None if spike is None else float(str(spike))
    return Smooth(str(raw["name"]), degree, tuple(float(k) for k in knots), rows, told)
