"""Static bounds: what passes, what is refused, and that the refusal shows the numbers."""

from dataclasses import replace
from math import nan

import numpy as np
import pytest

from fedmkt.errors import ConfigError
from fedmkt.ring.bounds import Bound, LogisticShape, check, logistic_bounds, step_bound
from fedmkt.ring.fixed import encode32
from fedmkt.ring.kernels import gram, matvec_transposed

SHAPE = LogisticShape(
    rows=1_000_000,
    columns=101,
    x_bits=16,
    weight_bits=20,
    residual_bits=16,
    period=64,
    max_abs_x=8.0,
    max_abs_weight=64.0,
    max_abs_z=28.0,
)


def names_refused(shape: LogisticShape) -> set[str]:
    return {bound.name for bound in logistic_bounds(shape) if not bound.holds}


def test_a_million_rows_fit_with_the_usual_scales() -> None:
    check([*logistic_bounds(SHAPE), step_bound(SHAPE, 100.0, 16, 20)])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"rows": 2**40}, "gradient"),
        ({"residual_bits": 40}, "gradient"),
        ({"max_abs_x": 2.0**15}, "matrix"),
        ({"max_abs_weight": 2.0**42}, "weights"),
        ({"max_abs_z": 29.0}, "linear predictor"),
        ({"max_abs_z": nan}, "linear predictor"),
        ({"weight_bits": 43}, "period in the ring"),
        ({"rows": 2**30, "max_abs_x": 2.0}, "Gram block"),
    ],
)
def test_a_value_out_of_its_range_is_named(change: dict[str, float], name: str) -> None:
    assert name in names_refused(replace(SHAPE, **change))


def test_the_refusal_shows_every_broken_bound_with_its_numbers() -> None:
    good, bad = Bound("good", 61.9, "small"), Bound("gradient", 63.25, "5 rows * 2^60")
    worse = Bound("step", 70.0, "9 columns")
    with pytest.raises(ConfigError) as caught:
        check([good, bad, worse])
    text = str(caught.value)
    assert "gradient: 5 rows * 2^60 = 2^63.2, limit 2^62" in text
    assert "step: 9 columns = 2^70.0" in text
    assert "good" not in text


def test_the_limit_itself_is_refused() -> None:
    with pytest.raises(ConfigError):
        check([Bound("edge", 62.0, "")])


def test_the_sketch_s_first_step_is_refused() -> None:
    """redteam.md 2.5: H g with g not rounded before, f = 16 + 20 and H at 2^27."""
    with pytest.raises(ConfigError, match="optimiser step"):
        check([step_bound(SHAPE, 10.0, 27, 36)])


def test_no_data_within_the_contract_exceed_the_bounds_of_gradient_and_gram() -> None:
    """The largest data that a contract allows: all values at the clip, all residuals at their largest."""
    shape = replace(SHAPE, rows=1000, columns=1)
    bounds = {bound.name: bound for bound in logistic_bounds(shape)}
    matrix = encode32(np.full((1000, 1), 8.0), 16)
    residual = np.full(1000, int(1.1 * 2**16), dtype=np.uint64)
    assert int(matvec_transposed(matrix, residual)[0]) <= 2 ** bounds["gradient"].bits
    assert int(gram(matrix, matrix)[0, 0]) <= 2 ** bounds["Gram block"].bits * (1 + 1e-9)
