"""Ranking and calibration measures against scikit-learn, and against counting by hand."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve

from fedmkt.learn import metrics

Floats = NDArray[np.float64]


def seeded(seed: int = 1) -> Callable[[int], bytes]:
    """Return a stream of bytes for one test."""
    return np.random.default_rng(seed).bytes


def sample(rows: int, decimals: int = 16, seed: int = 3) -> tuple[Floats, Floats]:
    """Draw probabilities, and labels that follow them before rounding."""
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-rng.normal(-2, 1.2, rows)))
    return (rng.random(rows) < p).astype(float), np.round(p, decimals)


tied_rows = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(y for y, _ in rows) < len(rows)
)


@given(tied_rows)
@settings(max_examples=150, deadline=None)
def test_auc_counts_every_pair_and_half_of_the_ties(rows: list[tuple[bool, int]]) -> None:
    above = [s for y, s in rows if y]
    below = [s for y, s in rows if not y]
    won = sum((a > b) + (a == b) / 2 for a, b in itertools.product(above, below))
    got = metrics.auc([y for y, _ in rows], [s / 8 for _, s in rows])
    assert got == pytest.approx(won / len(above) / len(below), abs=1e-12)


@pytest.mark.parametrize("decimals", [1, 2, 16])
def test_measures_agree_with_scikit_learn(decimals: int) -> None:
    y, p = sample(5000, decimals)
    false_rate, true_rate, _ = oracle.roc_curve(y, p, drop_intermediate=False)
    assert metrics.auc(y, p) == pytest.approx(oracle.roc_auc_score(y, p), abs=1e-12)
    assert metrics.ks(y, p) == pytest.approx(np.max(true_rate - false_rate), abs=1e-12)
    assert metrics.brier(y, p) == pytest.approx(oracle.brier_score_loss(y, p), abs=1e-12)
    assert metrics.log_loss(y, p) == pytest.approx(oracle.log_loss(y, p), abs=1e-12)


def test_evaluate_gives_what_the_single_measures_give() -> None:
    y, p = sample(3000, 2)
    got = metrics.evaluate(y, p, seeded())
    interval = metrics.auc_interval(y, p, seeded())
    assert (got.auc, got.ks, got.brier) == (metrics.auc(y, p), metrics.ks(y, p), metrics.brier(y, p))
    assert (got.auc_low, got.auc_high) == (interval.low, interval.high)
    assert (got.log_loss, got.calibration) == (metrics.log_loss(y, p), metrics.calibration_table(y, p))
    assert got.deciles == metrics.decile_table(y, p)
    assert (got.rows, got.responders) == (3000, int(y.sum()))
    assert got.top_lift == got.deciles[0].lift


def test_measures_do_not_depend_on_the_order_of_rows() -> None:
    y, p = sample(2000, 2)
    order = np.random.default_rng(5).permutation(2000)
    first, second = metrics.evaluate(y, p, seeded()), metrics.evaluate(y[order], p[order], seeded())
    assert second.deciles == first.deciles
    assert (second.auc, second.auc_low, second.ks) == (first.auc, first.auc_low, first.ks)


@pytest.mark.parametrize("decimals", [2, 16])
def test_the_interval_is_that_of_a_bootstrap_by_rows(decimals: int) -> None:
    y, p = sample(4000, decimals)
    rng = np.random.default_rng(9)
    areas = []
    for _ in range(400):
        rows = rng.integers(0, 4000, 4000)
        areas.append(oracle.roc_auc_score(y[rows], p[rows]))
    low, high = np.quantile(areas, (0.025, 0.975))
    got = metrics.auc_interval(y, p, seeded(), repeats=400)
    assert (got.low, got.high) == pytest.approx((low, high), abs=0.15 * (high - low))


def test_the_interval_of_many_distinct_scores_lies_around_the_exact_area() -> None:
    y, p = sample(200_000)
    got = metrics.auc_interval(y, p, seeded(), repeats=400)
    area = oracle.roc_auc_score(y, p)
    width = got.high - got.low
    assert abs((got.low + got.high) / 2 - area) < 0.15 * width
    assert width == pytest.approx(2 * 1.96 * 0.00153, rel=0.15)  # DeLong's standard error of these rows


def test_the_same_random_bytes_give_the_same_interval() -> None:
    y, p = sample(500, 2)
    assert metrics.auc_interval(y, p, seeded(4)) == metrics.auc_interval(y, p, seeded(4))


@pytest.mark.parametrize("decimals", [1, 16])
def test_the_interval_of_a_gain_is_that_of_a_paired_bootstrap(decimals: int) -> None:
    y, p = sample(3000)
    rng = np.random.default_rng(2)
    worse = np.round(1 / (1 + np.exp(-(np.log(p / (1 - p)) + rng.normal(0, 1, 3000)))), decimals)
    gains = []
    for _ in range(400):
        rows = rng.integers(0, 3000, 3000)
        gains.append(oracle.roc_auc_score(y[rows], p[rows]) - oracle.roc_auc_score(y[rows], worse[rows]))
    low, high = np.quantile(gains, (0.025, 0.975))
    got = metrics.auc_gain_interval(y, worse, p)
    assert (got.low, got.high) == pytest.approx((low, high), abs=0.15 * (high - low))
    middle = metrics.auc(y, p) - metrics.auc(y, worse)
    assert (got.low + got.high) / 2 == pytest.approx(middle, abs=1e-12)


def test_calibration_agrees_with_scikit_learn_on_distinct_predictions() -> None:
    y, p = sample(5000)
    observed, predicted = calibration_curve(y, p, n_bins=10, strategy="quantile")
    table = metrics.calibration_table(y, p)
    assert [b.rows for b in table] == [500] * 10
    assert [b.predicted for b in table] == pytest.approx(predicted, abs=1e-12)
    assert [b.observed for b in table] == pytest.approx(observed, abs=1e-12)


def test_the_calibration_error_is_the_mean_gap_over_rows() -> None:
    y, p = np.array([0, 1, 0, 0, 1, 1]), np.array([0.2, 0.2, 0.2, 0.2, 0.9, 0.9])
    table = metrics.calibration_table(y, p)
    assert metrics.calibration_error(table) == pytest.approx((4 * 0.05 + 2 * 0.1) / 6)


def test_equal_predictions_stay_in_one_calibration_group() -> None:
    y, p = [0, 1, 0, 0, 1, 1], [0.1, 0.1, 0.1, 0.1, 0.9, 0.9]
    assert metrics.calibration_table(y, p) == (
        metrics.CalibrationBin(0.1, 0.25, 4),
        metrics.CalibrationBin(0.9, 1.0, 2),
    )


def test_deciles_of_distinct_scores_are_counts() -> None:
    y, p = sample(1005)
    table = metrics.decile_table(y, p)
    ordered = y[np.argsort(-p)]
    cuts = np.round(np.arange(11) * 100.5).astype(int)
    expected = [ordered[a:b].sum() for a, b in itertools.pairwise(cuts)]
    assert [d.responders for d in table] == pytest.approx(expected, abs=1e-9)
    assert [d.rows for d in table] == np.diff(cuts).tolist()
    assert [d.gain for d in table] == pytest.approx(np.cumsum(expected) / y.sum())
    assert [d.lift for d in table] == pytest.approx(expected / np.diff(cuts) / y.mean())


def test_a_tie_across_a_cut_gives_what_random_order_gives_on_average() -> None:
    y, p = sample(400, 1)
    rng = np.random.default_rng(8)
    trials = []
    for _ in range(3000):
        noise = rng.random(400) * 1e-6
        trials.append(y[np.argsort(-(p + noise))].reshape(10, 40).sum(axis=1))
    expected = np.mean(trials, axis=0)
    assert [d.responders for d in metrics.decile_table(y, p)] == pytest.approx(expected, abs=0.1)


def test_fewer_rows_than_deciles_still_give_ten_lines() -> None:
    table = metrics.decile_table([1, 0, 0], [0.9, 0.5, 0.1])
    assert [d.decile for d in table] == list(range(1, 11))
    assert sum(d.rows for d in table) == 3
    assert table[-1].gain == 1


@pytest.mark.parametrize("decimals", [2, 16])
def test_curves_are_thinned_and_keep_their_area(decimals: int) -> None:
    y, p = sample(20_000, decimals)
    roc, gains = metrics.roc_curve(y, p), metrics.gains_curve(y, p)
    for curve in (roc, gains):
        assert len(curve.x) <= 200
        assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
        assert min(np.diff(curve.x)) >= 0
        assert min(np.diff(curve.y)) >= 0
    assert np.trapezoid(roc.y, roc.x) == pytest.approx(oracle.roc_auc_score(y, p), abs=1e-3)
    top = metrics.decile_table(y, p)[0]
    assert np.interp(0.1, gains.x, gains.y) == pytest.approx(top.gain, abs=5e-3)


def test_a_two_decimal_score_on_a_border_goes_to_the_upper_bin() -> None:
    scores = np.round(np.arange(101) / 100, 2)
    y = (np.arange(101) % 2).astype(float)
    histogram = metrics.score_histogram(y, scores, bins=25)
    together = np.add(histogram.responders, histogram.others).tolist()
    assert together == [4] * 24 + [5]


@pytest.mark.parametrize(
    ("y", "p", "message"),
    [
        ([0, 0], [0.1, 0.2], "both labels"),
        ([1, 1], [0.1, 0.2], "both labels"),
        ([], [], "both labels"),
        ([0, 2], [0.1, 0.2], "0 or 1"),
        ([0, float("nan")], [0.1, 0.2], "0 or 1"),
        ([0, 1], [0.1, float("nan")], "finite"),
        ([0, 1], [0.1, 1.2], r"\[0, 1\]"),
        ([0, 1, 1], [0.1, 0.2], "one length"),
    ],
)
def test_unusable_rows_are_refused(y: list[float], p: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(y, p, seeded())
