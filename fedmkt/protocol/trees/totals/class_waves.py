"""Values that depend on a shared score and on the label: one function for each class, evaluated on shares.

Computes shares of f_y(F) for every row, where the bank and one partner share F, and the bank alone knows y: a class
weight times a gradient, or a squared residual. Takes part: the bank, that partner, and the dealer.

| learns | what |
|---|---|
| bank, partner | nothing: what is opened is uniform |
| dealer, coordinator | nothing but sizes |

Both functions are sums of sines and cosines of F (`shared_gradients.Waves`), so each party has shares of both, and
f_y = f_0 + y (f_1 - f_0) takes one product with the bank's bits (`side_product`): one round. What is left of f_y, a
constant for each class, the bank adds by itself.

Safe against a semi-honest bank or partner, while the dealer colludes with neither. A bank that takes other bits for
labels computes something else; nothing shows it. Source: protocols.md section 4. Letters: F as in `shared_gradients`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmkt.protocol.core import HalfWords, Turn
from fedmkt.protocol.trees.side_product import (
    Batch,
    DealtSides,
    MaskedSides,
    Opened,
    multiply_sides,
    open_sides,
)
from fedmkt.protocol.trees.totals.shared_gradients import ScoreSeries, Waves
from fedmkt.ring.sigmoid import COEFFICIENT_BITS, RESULT_BITS, Series

WORD = 32
"""Values are shared modulo 2^32, at scale 2^28."""


@dataclass(frozen=True)
class ClassFunction:
    """s (sigma - 1/2) + d (sigma' - its constant) + c of a score, for rows without and with a response: (2,) each."""

    sigma: tuple[float, float]
    derivative: tuple[float, float]
    constant: tuple[float, float]


def weighed(light: float, heavy: float, series: ScoreSeries) -> tuple[ClassFunction, ClassFunction]:
    """Return w_y (sigma - y) and w_y sigma', for weights up to 1."""
    middle = series.constant / 2**COEFFICIENT_BITS
    return (
        ClassFunction((light, heavy), (0.0, 0.0), (light / 2, -heavy / 2)),
        ClassFunction((0.0, 0.0), (light, heavy), (light * middle, heavy * middle)),
    )


def squared_residual(light: float, heavy: float, series: ScoreSeries) -> ClassFunction:
    """Return w_y (sigma - y)^2: sigma^2 is sigma - sigma', so only the sign of sigma - 1/2 depends on y."""
    rest = 0.5 - series.constant / 2**COEFFICIENT_BITS
    return ClassFunction((light, -heavy), (-light, -heavy), (light * rest, heavy * rest))


@dataclass(frozen=True)
class ClassProduct:
    """Products under way: own shares of f_0 without its constant, by function (n,)."""

    batch: Batch
    opened: Opened
    base: tuple[HalfWords, ...]


def classes_batch(label: str, count: int, turn: Turn, rows: int, functions: int) -> Batch:
    """Return the product of the bank's labels with this many functions; `count` numbers it within the epoch."""
    return Batch(label, count, turn.parties[1], (True,), rows, (WORD,) * functions)


def open_classes(
    turn: Turn, batch: Batch, series: ScoreSeries, waves: Waves, functions: Sequence[ClassFunction],
    y: NDArray[np.uint8] | None,
) -> tuple[MaskedSides, ClassProduct]:  # fmt: skip
    """Evaluate f_0 and f_1 - f_0 and open what the product needs; y : (n,) at the bank."""
    base = tuple(_evaluate(waves, series, f.sigma[0], f.derivative[0]) for f in functions)
    steps = [
        _evaluate(waves, series, f.sigma[1] - f.sigma[0], f.derivative[1] - f.derivative[0])
        for f in functions
    ]
    bits = np.empty((0, batch.rows), np.bool_) if y is None else y.astype(np.bool_)[None]
    message, opened = open_sides(turn, batch, bits, [step[None] for step in steps])
    return message, ClassProduct(batch, opened, base)


def close_classes(
    turn: Turn, state: ClassProduct, found: MaskedSides, dealt: DealtSides | None,
    functions: Sequence[ClassFunction], y: NDArray[np.uint8] | None,
) -> HalfWords:  # fmt: skip
    """Return the own shares of f_y, (functions, n)."""
    products = multiply_sides(turn, state.batch, state.opened, found, dealt)
    out = np.stack([b + p[0] for b, p in zip(state.base, products, strict=True)]).astype(
        np.uint32, copy=False
    )
    if y is not None:
        for row, function in zip(out, functions, strict=True):
            constants = np.rint(np.array(function.constant) * 2**RESULT_BITS).astype(np.int64)
            row += constants[y].astype(np.uint32)
    return out


def _evaluate(waves: Waves, series: ScoreSeries, sigma: float, derivative: float) -> HalfWords:
    out = np.zeros(len(waves.delta), np.uint32)
    if sigma:
        out += waves.sines(_times(series.sines, sigma))
    if derivative:
        out += waves.cosines(_times(series.cosines, derivative))
    return out


def _times(series: Series, factor: float) -> Series:
    # Both parties round the same float of the contract alike: one product, correctly rounded everywhere.
    return Series(series.log2_period, tuple(round(c * factor) for c in series.coefficients))
