"""What each column adds to the log odds of an additive model: its function, 0 on average over the train rows.

Only for the owner of the columns, from its own weights and rows. Products of pairs stand apart: of them only the size
is told, the standard deviation of what they add.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmkt.learn import additive, prepare
from fedmkt.learn.additive import Additive, missing_name, spike_name
from fedmkt.learn.prepare import MISSING, OTHER, CategoryColumn, NumberColumn, Scaling
from fedmkt.learn.splines import Array, Smooth, is_ordinary

_STEPS: Final = 80
_CELLS: Final = 40
_TAIL: Final = 0.01


@dataclass(frozen=True)
class Level:
    """A level of a category, or a value of a number that is told apart. share : of the train rows."""

    name: str
    effect: float
    share: float


@dataclass(frozen=True)
class Shape:
    """One column. values, effects : the function, in log odds, () of a category; at a step a value stands twice.

    density : shares of the train rows in cells of equal width from the first value to the last, which also take
    what lies beyond; size : standard deviation of the effect over the train rows.
    """

    column: str
    values: tuple[float, ...]
    effects: tuple[float, ...]
    density: tuple[float, ...]
    levels: tuple[Level, ...]
    size: float


@dataclass(frozen=True)
class PairShape:
    """The products of two columns. size : standard deviation of their effect over the train rows."""

    left: str
    right: str
    size: float


@dataclass(frozen=True)
class Shapes:
    """All columns of one party in the table's order, numbers first; then its pairs."""

    columns: tuple[Shape, ...]
    pairs: tuple[PairShape, ...]


def shapes(
    fitted: Additive,
    weights: Array,
    numbers: Mapping[str, Array],
    categories: Mapping[str, NDArray[np.object_]],
) -> Shapes:
    """Evaluate all functions. weights : (d,) of the matrix columns; numbers, categories : the train rows."""
    of = dict(zip(fitted.columns, weights.tolist(), strict=True))
    scaled = {n.name: n.value for n in fitted.added.numbers}
    found = [_of_smooth(s, of, scaled, numbers[s.name]) for s in fitted.smooths]
    found += [_of_line(n, of, numbers[n.name]) for n in fitted.rest.numbers if n.value or n.missing]
    found += [_of_category(c, of, categories[c.name]) for c in fitted.rest.categories if c.indicators]
    order = {name: place for place, name in enumerate((*numbers, *categories))}
    found.sort(key=lambda shape: order[shape.column])
    return Shapes(tuple(found), _of_pairs(fitted, weights, numbers, categories))


def _of_smooth(
    smooth: Smooth, of: Mapping[str, float], scaled: Mapping[str, Scaling | None], values: Array
) -> Shape:
    weights = np.array([of[name] for name in smooth.columns])
    told = {MISSING: (missing_name(smooth), np.isnan(values))}
    if smooth.spike is not None:
        told[f"{smooth.spike:.12g}"] = spike_name(smooth), values == smooth.spike
    no, yes = {}, {}
    for level, (name, _) in told.items():
        scaling = scaled.get(name)
        no[level], yes[level] = _effects_of(scaling, of.get(name, 0.0))
    base = sum(no.values())
    levels = tuple(
        Level(level, base - no[level] + yes[level], float(rows.mean()))
        for level, (_, rows) in told.items()
        if rows.any()
    )
    grid = _grid(smooth)
    effects = smooth.apply(values) @ weights + base
    for level, (_, rows) in told.items():
        effects[rows] += yes[level] - no[level]
    return Shape(
        smooth.name, tuple(grid.tolist()), tuple((smooth.apply(grid) @ weights + base).tolist()),
        _density(values[is_ordinary(values, smooth.spike)], grid, len(values)), levels, float(effects.std()),
    )  # fmt: skip


def _effects_of(scaling: Scaling | None, weight: float) -> tuple[float, float]:
    """Return what a scaled 0/1 column adds at 0 and at 1."""
    if scaling is None:
        return 0.0, 0.0
    no, yes = scaling.apply(np.array([0.0, 1.0])) * weight
    return float(no), float(yes)


def _grid(smooth: Smooth) -> Array:
    knots = np.array(smooth.knots)
    grid = np.concatenate([np.linspace(knots[0], knots[-1], _STEPS + 1), knots])
    if smooth.degree == 0:
        grid = np.concatenate([grid, np.nextafter(knots[1:-1], -np.inf)])
    # The spike is a value of its own, with a level of its own: it would be a hole in the function.
    grid = np.unique(grid)
    return grid if smooth.spike is None else grid[grid != smooth.spike]


def _density(values: Array, grid: Array, rows: int) -> tuple[float, ...]:
    counts, _ = np.histogram(np.clip(values, grid[0], grid[-1]), _CELLS, (grid[0], grid[-1]))
    return tuple((counts / rows).tolist())


def _of_line(number: NumberColumn, of: Mapping[str, float], values: Array) -> Shape:
    absent = np.isnan(values)
    missing = f"{number.name} {MISSING}"
    no, yes = _effects_of(number.missing, of.get(missing, 0.0))

    def effect(x: Array) -> Array:
        if number.value is None:
            return np.zeros(len(x))
        return np.asarray(number.value.apply(x) * of[number.name], dtype=np.float64)

    grid = np.unique(np.quantile(values[~absent], np.linspace(_TAIL, 1 - _TAIL, 3)))
    if len(grid) < 2:
        grid = np.unique([values[~absent].min(), values[~absent].max()])
    levels: tuple[Level, ...] = ()
    if absent.any():
        at_median = float(effect(np.array([number.median]))[0])
        levels = (Level(MISSING, at_median + yes, float(absent.mean())),)
    effects = effect(np.where(absent, number.median, values)) + np.where(absent, yes, no)
    return Shape(
        number.name, tuple(grid.tolist()), tuple((effect(grid) + no).tolist()),
        _density(values[~absent], grid, len(values)), levels, float(effects.std()),
    )  # fmt: skip


def _of_category(category: CategoryColumn, of: Mapping[str, float], values: NDArray[np.object_]) -> Shape:
    parts = {
        level: _effects_of(scaling, of[f"{category.name}={level}"]) for level, scaling in category.indicators
    }
    base = sum(no for no, _ in parts.values())
    effects = {
        level: base + (parts[level][1] - parts[level][0] if level in parts else 0.0)
        for level in category.levels
    }
    present = values.tolist()
    level_of = prepare.levels_of(category.name, present)
    counts = Counter(level_of[value] for value in present)
    shares = {level: counts[level] / len(present) for level in category.levels if level != OTHER}
    if OTHER in category.levels:
        shares[OTHER] = 1 - sum(shares.values())
    found = tuple(Level(level, effects[level], shares[level]) for level in category.levels)
    mean = sum(one.share * one.effect for one in found)
    size = float(np.sqrt(sum(one.share * (one.effect - mean) ** 2 for one in found)))
    return Shape(category.name, (), (), (), found, size)


def _of_pairs(
    fitted: Additive,
    weights: Array,
    numbers: Mapping[str, Array],
    categories: Mapping[str, NDArray[np.object_]],
) -> tuple[PairShape, ...]:
    if not fitted.pairs:
        return ()
    matrix = additive.transform(fitted, numbers, categories)
    found = []
    for left, right in fitted.pairs:
        names = additive.product_names(fitted, left, right)
        at = [i for i, column in enumerate(matrix.columns) if column in names]
        found.append(PairShape(left, right, float((matrix.values[:, at] @ weights[at]).std())))
    return tuple(found)
