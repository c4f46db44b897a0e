"""Columns of a table into the matrix that a linear model is trained on; fitted on train rows only.

Every output column runs through the same scaling: standardise, clip at +-`clip`, standardise again, and where
the result could pass +-`bound`, shrink it until it cannot, on any row, seen or unseen. So every value of a
matrix lies within +-`bound`, which fixed-point training relies on; columns that were not shrunk have mean 0
and variance 1 on the train rows, the others mean 0 and a smaller variance.

Numbers: missing ones take the median, and a column that tells which were missing is added where at least
`min_support` rows are missing and at least `min_support` are not.
Categories: one 0/1 column per level except the most frequent, which is the reference. Missing is the level
"(missing)"; levels of fewer than `min_support` rows, levels beyond `max_levels` and levels never seen in
training share "(other)". Where "(other)" has too little support for a column, its rows equal the reference.

A column whose effective support in train is under `min_support` is dropped: the weight of a column that few
rows carry tells about those rows (a party with 40 one-row columns could read 40 labels).
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MISSING: Final = "(missing)"
OTHER: Final = "(other)"

_BLOCK: Final = 4096  # rows; a block of some hundred columns stays within the processor's cache
_CONSTANT: Final = 1e-12  # relative spread below which differences are rounding


@dataclass(frozen=True)
class Settings:
    """Limits of the preparation; `bound` and `clip` are in standard deviations, `min_support` in rows."""

    max_levels: int = 20
    clip: float = 4.0
    bound: float = 8.0
    min_support: int = 50

    def __post_init__(self) -> None:
        if self.max_levels < 2 or self.min_support < 0 or not 0 < self.clip <= self.bound < float("inf"):
            raise ValueError("max_levels must be >= 2, min_support >= 0 and 0 < clip <= bound")


@dataclass(frozen=True)
class Scaling:
    """x -> (clip((x * 2**-exponent - centre) / spread) - clipped_centre) / clipped_spread."""

    exponent: int
    centre: float
    spread: float
    clip: float
    clipped_centre: float
    clipped_spread: float

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scaled copy of `values`, which hold no NaN."""
        with np.errstate(over="ignore"):  # a row far beyond the train rows is clipped anyway
            scaled = np.ldexp(values, -self.exponent) if self.exponent else values.copy()
            scaled -= self.centre
            scaled /= self.spread
        np.clip(scaled, -self.clip, self.clip, out=scaled)
        scaled -= self.clipped_centre
        scaled /= self.clipped_spread
        return scaled


@dataclass(frozen=True)
class NumberColumn:
    """How one number becomes up to two columns; None = that column was dropped or is not needed."""

    name: str
    median: float
    value: Scaling | None
    missing: Scaling | None


@dataclass(frozen=True)
class CategoryColumn:
    """`levels` that are told apart in train; `indicators` are those that have a column of their own."""

    name: str
    levels: tuple[str, ...]
    reference: str
    indicators: tuple[tuple[str, Scaling], ...]


@dataclass(frozen=True)
class Dropped:
    """A column that is not in the matrix, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Preparation:
    """All that `transform` needs; learned from train rows, and free of any row."""

    numbers: tuple[NumberColumn, ...]
    categories: tuple[CategoryColumn, ...]
    dropped: tuple[Dropped, ...]
    bound: float

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the matrix columns in order."""
        names: list[str] = []
        for number in self.numbers:
            names += [number.name] * (number.value is not None)
            names += [_missing_name(number.name)] * (number.missing is not None)
        for category in self.categories:
            names += [_level_name(category.name, level) for level, _ in category.indicators]
        return tuple(names)

    def to_json(self) -> str:
        """Text that `from_json` turns into an equal preparation, bit for bit."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "Preparation":
        """Inverse of `to_json`; ValueError for anything else."""
        return _preparation(text)


@dataclass(frozen=True)
class Matrix:
    """values : (n, d) float64 in C order, every entry within the preparation's bound; columns : d names."""

    values: NDArray[np.float64]
    columns: tuple[str, ...]


def fit(
    numbers: Mapping[str, NDArray[np.float64]],
    categories: Mapping[str, NDArray[np.object_]],
    train: NDArray[np.bool_],
    settings: Settings | None = None,
) -> Preparation:
    """Learn medians, levels and scales from the rows where `train` is true; the other rows are not looked at.

    numbers : (n,) float64 each, NaN = missing; categories : (n,) str or None each; train : (n,) bool
    """
    settings = settings or Settings()
    _check_shapes(numbers, categories, len(train))
    if train.dtype != np.bool_ or not train.any():
        raise ValueError("train must be a mask with at least one row")
    dropped: list[Dropped] = []
    fitted_numbers = tuple(_fit_number(n, v[train], settings, dropped) for n, v in numbers.items())
    fitted_categories = tuple(_fit_category(n, v[train], settings, dropped) for n, v in categories.items())
    preparation = Preparation(fitted_numbers, fitted_categories, tuple(dropped), settings.bound)
    if len(set(preparation.columns)) != len(preparation.columns):
        raise ValueError("two matrix columns would have the same name; rename a table column")
    return preparation


def transform(
    preparation: Preparation,
    numbers: Mapping[str, NDArray[np.float64]],
    categories: Mapping[str, NDArray[np.object_]],
) -> Matrix:
    """Matrix of all rows; beside it, needs memory for one code per row and category only."""
    wanted_numbers = {n.name: numbers[n.name] for n in preparation.numbers}
    wanted_categories = {c.name: categories[c.name] for c in preparation.categories}
    rows = len(next(iter((*wanted_numbers.values(), *wanted_categories.values())), ()))
    _check_shapes(wanted_numbers, wanted_categories, rows)
    tables = [_level_table(category) for category in preparation.categories]
    codes = [_codes(c.name, c.levels, c.reference, wanted_categories[c.name]) for c in preparation.categories]
    columns = preparation.columns
    values = np.empty((rows, len(columns)), dtype=np.float64)
    for start in range(0, rows, _BLOCK):
        block = values[start : start + _BLOCK]
        at = 0
        for number in preparation.numbers:
            at = _fill_number(block, at, number, wanted_numbers[number.name][start : start + _BLOCK])
        for table, code in zip(tables, codes, strict=True):
            block[:, at : at + table.shape[1]] = table[code[start : start + _BLOCK]]
            at += table.shape[1]
        np.clip(block, -preparation.bound, preparation.bound, out=block)  # the last bit of a division
    return Matrix(values, columns)


def _missing_name(name: str) -> str:
    return f"{name} {MISSING}"


def _level_name(name: str, level: str) -> str:
    return f"{name}={level}"


def _check_shapes(
    numbers: Mapping[str, NDArray[np.float64]], categories: Mapping[str, NDArray[np.object_]], rows: int
) -> None:
    for name, values in (*numbers.items(), *categories.items()):
        if values.shape != (rows,):
            raise ValueError(f"column {name!r} has shape {values.shape}, not ({rows},)")
    for name, number in numbers.items():
        if number.dtype != np.float64 or np.isinf(number).any():
            raise ValueError(f"column {name!r} must be float64 without infinite values")


def _fit_number(
    name: str, values: NDArray[np.float64], settings: Settings, dropped: list[Dropped]
) -> NumberColumn:
    absent = np.isnan(values)
    missing = int(absent.sum())
    present = len(values) - missing
    if not present:
        dropped.append(Dropped(name, "no value in train"))
        return NumberColumn(name, 0.0, None, None)
    median = _median(values[~absent] if missing else values)
    filled = np.where(absent, median, values) if missing else values
    value = _fit_scaling(name, filled, settings, dropped)
    indicator = None
    if min(missing, present) >= max(settings.min_support, 1):
        indicator = _fit_scaling(_missing_name(name), absent.astype(np.float64), settings, dropped)
    return NumberColumn(name, median, value, indicator)


def _median(values: NDArray[np.float64]) -> float:
    low, high = (len(values) - 1) // 2, len(values) // 2
    ordered = np.partition(values, (low, high))
    if ordered[low] == ordered[high]:
        return float(ordered[low])
    return float(ordered[low] / 2 + ordered[high] / 2)  # halved first: the sum may overflow


def _fit_category(
    name: str, values: NDArray[np.object_], settings: Settings, dropped: list[Dropped]
) -> CategoryColumn:
    present = values.tolist()
    level_of = levels_of(name, present)
    counts = Counter(map(level_of.__getitem__, present))
    frequent = sorted(
        (level for level, count in counts.items() if count >= settings.min_support and level != OTHER),
        key=lambda level: (-counts[level], level),
    )
    all_kept = len(frequent) == len(counts) and len(frequent) <= settings.max_levels
    levels = frequent if all_kept else [*frequent[: settings.max_levels - 1], OTHER]
    kept = {level: counts[level] for level in levels if level != OTHER}
    if not all_kept:
        kept[OTHER] = len(values) - sum(kept.values())
    reference = max(levels, key=lambda level: kept[level])
    indicators: list[tuple[str, Scaling]] = []
    if len(levels) == 1:
        dropped.append(Dropped(name, "one level in train"))
    codes = _codes(name, tuple(levels), reference, values)
    for code, level in enumerate(levels):
        if level == reference:
            continue
        indicator = (codes == code).astype(np.float64)
        scaling = _fit_scaling(_level_name(name, level), indicator, settings, dropped)
        if scaling is not None:
            indicators.append((level, scaling))
    return CategoryColumn(name, tuple(levels), reference, tuple(indicators))


def levels_of(name: str, values: Sequence[object]) -> dict[object, str]:
    """Return the level of each value that occurs: far cheaper than judging every row."""
    try:
        return {value: _level(value) for value in set(values)}
    except TypeError:
        raise ValueError(f"column {name!r} must hold text or None") from None


def _level(value: object) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return MISSING
    if not isinstance(value, str):
        raise TypeError
    return value


def _codes(
    name: str, levels: tuple[str, ...], reference: str, values: NDArray[np.object_]
) -> NDArray[np.int32]:
    present = values.tolist()
    code = {level: i for i, level in enumerate(levels)}
    unseen = code.get(OTHER, code[reference])
    code_of = {value: code.get(level, unseen) for value, level in levels_of(name, present).items()}
    return np.fromiter(map(code_of.__getitem__, present), np.int32, len(present))


def _fit_scaling(
    name: str, values: NDArray[np.float64], settings: Settings, dropped: list[Dropped]
) -> Scaling | None:
    largest = float(np.abs(values).max())
    # Sums of squares overflow beyond 1e154 and vanish below 1e-154: such columns are first scaled to about 1.
    exponent = int(np.frexp(largest)[1]) if largest and not 1e-100 < largest < 1e100 else 0
    scaled = np.ldexp(values, -exponent)
    centre, spread = float(scaled.mean()), float(scaled.std())
    if spread <= _CONSTANT * float(np.abs(scaled).max()):
        dropped.append(Dropped(name, "one value in train"))
        return None
    clipped = np.clip((scaled - centre) / spread, -settings.clip, settings.clip)
    support = _effective_support(values, clipped - clipped.mean())
    if support < settings.min_support:
        dropped.append(Dropped(name, f"support under {settings.min_support} rows in train"))
        return None
    clipped_centre, clipped_spread = float(clipped.mean()), float(clipped.std())
    # The ends of the clip are as far as any row can go, also one that training has not seen.
    furthest = (settings.clip + abs(clipped_centre)) / clipped_spread
    shrink = max(furthest / settings.bound, 1.0)
    return Scaling(exponent, centre, spread, settings.clip, clipped_centre, clipped_spread * shrink)


def effective_support(values: NDArray[np.float64]) -> float:
    """Return how many rows carry a prepared column, (n,): of a two-valued one, those with the rarer value."""
    if not len(values) or float(values.min()) == float(values.max()):
        return 0.0
    return _effective_support(values, values - values.mean())


def _effective_support(values: NDArray[np.float64], centred: NDArray[np.float64]) -> float:
    """Rows that carry a column: the minority if two-valued, else also by (sum|x|)^2 / sum x^2."""
    absolute = np.abs(centred)
    spread_over = float(absolute.sum()) ** 2 / float(np.square(absolute).sum())
    low, high = float(values.min()), float(values.max())
    lows, highs = int((values == low).sum()), int((values == high).sum())
    if lows + highs == len(values):
        return min(lows, highs)
    return min(spread_over, int((values != _median(values)).sum()))


def _fill_number(
    block: NDArray[np.float64], at: int, number: NumberColumn, values: NDArray[np.float64]
) -> int:
    absent = np.isnan(values)
    if number.value is not None:
        block[:, at] = number.value.apply(np.where(absent, number.median, values))
        at += 1
    if number.missing is not None:
        block[:, at] = number.missing.apply(absent.astype(np.float64))
        at += 1
    return at


def _level_table(category: CategoryColumn) -> NDArray[np.float64]:
    """(levels, indicators): what each level's rows hold in each indicator column."""
    table = np.empty((len(category.levels), len(category.indicators)), dtype=np.float64)
    for i, level in enumerate(category.levels):
        for j, (own, scaling) in enumerate(category.indicators):
            table[i, j] = scaling.apply(np.array([float(level == own)]))[0]
    return table


def _preparation(text: str) -> Preparation:
    try:
        raw = json.loads(text)
        return Preparation(
            tuple(
                NumberColumn(str(n["name"]), float(n["median"]), _scaling(n["value"]), _scaling(n["missing"]))
                for n in raw["numbers"]
            ),
            tuple(_category(c) for c in raw["categories"]),
            tuple(Dropped(str(d["name"]), str(d["reason"])) for d in raw["dropped"]),
            float(raw["bound"]),
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("not a preparation") from error


def _category(raw: dict[str, object]) -> CategoryColumn:
    levels, indicators = raw["levels"], raw["indicators"]
    if not isinstance(levels, list) or not isinstance(indicators, list):
        raise TypeError
    fitted = []
    for level, scaling in indicators:
        own = _scaling(scaling)
        if own is None or level not in levels:
            raise ValueError("not a preparation")
        fitted.append((str(level), own))
    if raw["reference"] not in levels:
        raise ValueError("not a preparation")
    return CategoryColumn(
        str(raw["name"]), tuple(str(level) for level in levels), str(raw["reference"]), tuple(fitted)
    )


def _scaling(raw: Mapping[str, float] | None) -> Scaling | None:
    if raw is None:
        return None
    values = [float(raw[key]) for key in ("centre", "spread", "clip", "clipped_centre", "clipped_spread")]
    if not np.isfinite(values).all() or values[1] <= 0 or values[2] <= 0 or values[4] <= 0:
        raise ValueError("not a preparation")
    return Scaling(int(raw["exponent"]), *values)
