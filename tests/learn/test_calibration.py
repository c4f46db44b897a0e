"""Calibrated probabilities and score deciles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from fedmkt.learn.calibration import Calibration, deciles, fit_calibration


def test_distorted_scores_are_set_right() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(-1, 1, 200_000)
    y = (rng.random(200_000) < 1 / (1 + np.exp(-z))).astype(float)
    distorted = np.round(1 / (1 + np.exp(-(0.5 * z - 0.7))), 2)
    got = fit_calibration(distorted, y)
    assert (got.intercept, got.slope) == pytest.approx((1.4, 2.0), abs=0.05)
    for score in (0.15, 0.25, 0.4):
        rows = distorted == score
        assert got.apply([score])[0] == pytest.approx(y[rows].mean(), abs=0.02)


def test_the_fit_is_that_of_scikit_learn_on_the_logit() -> None:
    rng = np.random.default_rng(2)
    scores = np.round(rng.uniform(0.01, 0.99, 20_000), 2)
    y = (rng.random(20_000) < scores**2).astype(float)
    logit = np.log(scores / (1 - scores))
    expected = LogisticRegression(C=1e6, tol=1e-10).fit(logit[:, None], y)
    got = fit_calibration(scores, y)
    # Platt's targets count one imagined row of each label, hence not exactly equal
    assert (got.intercept, got.slope) == pytest.approx(
        (expected.intercept_[0], expected.coef_[0, 0]), abs=2e-3
    )


@given(st.floats(-5, 5), st.floats(0, 5), st.lists(st.integers(0, 100), min_size=2, max_size=30))
@settings(max_examples=100, deadline=None)
def test_order_and_ties_are_kept(intercept: float, slope: float, cents: list[int]) -> None:
    scores = np.sort(np.array(cents) / 100)
    p = Calibration(intercept, slope).apply(scores)
    assert np.all(np.diff(p) >= 0)
    assert np.all((p >= 0) & (p <= 1))
    assert np.all(np.diff(p)[np.diff(scores) == 0] == 0)


def test_scores_shown_as_zero_and_one_stay_short_of_certainty() -> None:
    p = Calibration(0.0, 1.0).apply([0.0, 0.01, 0.99, 1.0])
    assert 0 < p[0] < p[1] < p[2] < p[3] < 1


@pytest.mark.parametrize("scores", [[0.9, 0.8, 0.2, 0.1], [0.3, 0.3, 0.3, 0.3]])
def test_scores_that_do_not_rank_give_everyone_the_average(scores: list[float]) -> None:
    got = fit_calibration(scores, [0, 0, 1, 1])
    assert got.slope == 0
    assert got.apply(scores) == pytest.approx([0.5] * 4)


def test_perfectly_separated_rows_do_not_become_certain() -> None:
    p = fit_calibration([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]).apply([0.1, 0.9])
    assert 0.001 < p[0] < 0.5 < p[1] < 0.999


@pytest.mark.parametrize(
    ("scores", "y", "message"),
    [
        ([0.1, 0.2], [0, 0], "both must occur"),
        ([0.1, 0.2], [0, 2], "0 or 1"),
        ([0.1, 1.2], [0, 1], r"\[0, 1\]"),
        ([0.1, float("nan")], [0, 1], r"\[0, 1\]"),
        ([0.1], [0, 1], "one length"),
    ],
)
def test_unusable_pairs_are_refused(scores: list[float], y: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_calibration(scores, y)


def test_deciles_of_distinct_scores_have_equal_size_and_start_at_the_top() -> None:
    scores = np.random.default_rng(3).permutation(200) / 200
    got = deciles(scores)
    assert np.bincount(got).tolist() == [0, *[20] * 10]
    assert scores[got == 1].min() > scores[got == 2].max()


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60))
@settings(max_examples=150, deadline=None)
def test_a_decile_is_that_of_the_middle_rank_of_equal_scores(cents: list[int]) -> None:
    got = deciles(np.array(cents) / 100)
    for score, decile in zip(cents, got, strict=True):
        # twice the middle rank, in whole numbers
        doubled = 2 * sum(other > score for other in cents) + cents.count(score)
        assert decile == min(10, 10 * doubled // (2 * len(cents)) + 1)


def test_no_scores_have_no_deciles() -> None:
    assert deciles([]).tolist() == []
    with pytest.raises(ValueError, match="finite"):
        deciles([0.1, float("inf")])
