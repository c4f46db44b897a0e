"""Why a row has its score: what each own column does to it, and what all the rest does, as one number.

A column's part is the score less the score of the same row with the column at its typical value: the median of the
train rows, or their most frequent level. That is exact for sums of columns, and one of many fair answers for trees. Of
a probability parts are log odds, of another value its own unit. What remains between the released score and that of
the own columns alone comes from everybody else's columns and from training together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = Mapping[str, NDArray[np.float64]]
Categories = Mapping[str, NDArray[np.object_]]
Predict = Callable[[Numbers, Categories], Floats]
"""Gives the scores, (n,), of a model of the own columns alone."""
_LEAST: Final = 1e-6


@dataclass(frozen=True)
class Reasons:
    """Parts of each score by own column, (n, k), and of all the rest, (n,)."""

    columns: tuple[str, ...]
    own: NDArray[np.float32]
    rest: NDArray[np.float32]


def find_reasons(
    predict: Predict,
    numbers: Numbers,
    categories: Categories,
    train: NDArray[np.int64],
    released: Floats,
    logistic: bool,
) -> Reasons:
    """Take scores apart. train : rows whose values are typical; released : (n,) the joint scores as they are known."""
    alone = _inner(predict(numbers, categories), logistic)
    names = (*numbers, *categories)
    own = np.empty((len(alone), len(names)), np.float32)
    for place, name in enumerate(names):
        if name in numbers:
            flat = predict(
                {**numbers, name: np.full_like(numbers[name], _median(numbers[name][train]))}, categories
            )
        else:
            usual = np.full(len(categories[name]), _most_frequent(categories[name][train]), object)
            flat = predict(numbers, {**categories, name: usual})
        own[:, place] = alone - _inner(flat, logistic)
    return Reasons(names, own, (_inner(released, logistic) - alone).astype(np.float32))


def _inner(scores: Floats, logistic: bool) -> Floats:
    if not logistic:
        return scores
    inside = np.clip(scores, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(inside / (1 - inside)), dtype=np.float64)


def _median(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _most_frequent(values: NDArray[np.object_]) -> object:
    names, counts = np.unique(np.array(["" if v is None else v for v in values], str), return_counts=True)
    best = str(names[counts.argmax()]) if len(names) else ""
    return best or None
