import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from fedmkt.learn.collinear import choose, drop_inflated, near_copies, rounding_noise, variance_inflation
from fedmkt.learn.scorecard import Candidate, Limits


def table(n=4000, seed=1):
    """Eight columns: some alike, one nearly made up by two others."""
    random = np.random.default_rng(seed)
    common = random.standard_normal((n, 2))
    x = random.standard_normal((n, 8)) + common @ random.normal(0, 1, (2, 8))
    x[:, 3] = x[:, 0] + x[:, 1] + 0.5 * random.standard_normal(n)
    x[:, 7] = (x[:, 7] > 1).astype(float)
    return x


def slow_inflation(x):
    """Regress each column on all others, as statsmodels does, by scikit-learn."""
    found = []
    for j in range(x.shape[1]):
        others = np.delete(x, j, axis=1)
        found.append(1 / (1 - LinearRegression().fit(others, x[:, j]).score(others, x[:, j])))
    return np.array(found)


@pytest.mark.parametrize("seed", range(3))
def test_variance_inflation_is_that_of_regressions_on_all_other_columns(seed):
    x = table(seed=seed)
    expected = slow_inflation(x)
    assert expected.max() > 5
    assert np.allclose(variance_inflation(np.corrcoef(x.T)), expected, rtol=1e-9)


def test_columns_that_others_make_up_exactly_have_infinite_inflation_and_the_rest_their_own():
    x = table()
    doubled = np.column_stack([x, x[:, 2] - 2 * x[:, 5]])
    found = variance_inflation(np.corrcoef(doubled.T))
    assert np.isinf(found[[2, 5, 8]]).all()
    # The others' regressions are the same with the copy as without.
    others = [0, 1, 3, 4, 6, 7]
    assert np.allclose(found[others], slow_inflation(x)[others], rtol=1e-6)


def test_a_rounded_matrix_of_copies_is_found_to_be_one_within_its_noise():
    x = table()
    exact = np.corrcoef(np.column_stack([x, x[:, 2]]).T)
    for seed in range(20):
        noise = np.random.default_rng(seed).random(exact.shape)
        units = np.triu(np.floor(exact * 1e4 + noise), 1)
        rounded = np.clip((units + units.T) / 1e4, -1, 1) + np.eye(len(exact))
        found = variance_inflation(rounded, rounding_noise(len(exact), 4))
        assert np.isinf(found[[2, 8]]).all() and np.isfinite(np.delete(found, [2, 8])).all()


def test_rounding_to_four_decimals_moves_small_inflations_by_less_than_a_thousandth():
    x = table()[:, [1, 2, 4, 5, 6, 7]]
    exact = np.corrcoef(x.T)
    before = variance_inflation(exact)
    assert before.max() < 3
    after = variance_inflation(np.round(exact, 4), rounding_noise(6, 4))
    assert np.abs(after - before).max() < 1e-3


def test_near_copies_are_listed_from_the_strongest_down():
    x = table()
    correlation = np.corrcoef(x.T)
    found = near_copies(correlation, 0.3)
    slow = sorted(
        ((i, j) for i in range(8) for j in range(i + 1, 8) if abs(np.corrcoef(x[:, i], x[:, j])[0, 1]) > 0.3),
        key=lambda at: -abs(correlation[at]),
    )
    assert [(p.first, p.second) for p in found] == slow and len(slow) > 3
    assert all(p.correlation == correlation[p.first, p.second] for p in found)


def slow_drops(x, names, limit):
    names, dropped = list(names), []
    while len(names) > 1:
        inflation = slow_inflation(x)
        worst = int(inflation.argmax())
        if inflation[worst] <= limit:
            break
        dropped.append(names.pop(worst))
        x = np.delete(x, worst, axis=1)
    return names, dropped


@pytest.mark.parametrize("limit", [1.2, 2.0, 5.0])
def test_the_column_of_the_largest_inflation_leaves_until_none_is_above_the_limit(limit):
    x, names = table(), list("abcdefgh")
    kept, dropped = slow_drops(x, names, limit)
    found = drop_inflated(names, np.corrcoef(x.T), limit)
    assert list(found.kept) == kept and [d.name for d in found.dropped] == dropped
    assert dropped and all(d.reason.startswith("variance inflation") for d in found.dropped)


def test_of_exact_copies_the_one_of_less_worth_leaves():
    x = table()
    correlation = np.corrcoef(np.column_stack([x[:, 0], x[:, 4], x[:, 0]]).T)
    for worth, out in (([0.3, 0.2, 0.1], "c"), ([0.1, 0.2, 0.3], "a"), (None, "c")):
        found = drop_inflated(list("abc"), correlation, 10.0, worth)
        assert [(d.name, d.reason) for d in found.dropped] == [(out, "made up by other columns")]


def test_columns_are_chosen_by_information_value_stability_correlation_and_inflation():
    x = table()
    x = np.column_stack([x, x[:, 4] + 0.1 * np.random.default_rng(2).standard_normal(len(x))])
    worth = [0.5, 0.4, 0.3, 0.2, 0.1, 0.2, 0.01, 0.2, 0.09]
    drift = [0, 0, 0.5, 0, 0, 0, 0, 0, 0]
    candidates = [Candidate(n, w, s) for n, w, s in zip("abcdefghi", worth, drift, strict=True)]
    found = choose(candidates, np.corrcoef(x.T), Limits(correlation=0.95), inflation=3.0)
    reasons = {d.name: d.reason for d in found.dropped}
    assert reasons.pop("g") == "information value under 0.02"
    assert reasons.pop("c") == "stability index above 0.25"
    assert reasons.pop("i") == "correlated with 'e'"
    assert reasons and all(r.startswith("variance inflation") for r in reasons.values())
    left = x[:, ["abcdefghi".index(n) for n in found.kept]]
    assert slow_inflation(left).max() <= 3.0


@pytest.mark.parametrize(
    "wrong",
    [
        np.ones((2, 3)),
        np.array([[1.0, 0.2], [0.3, 1.0]]),
        np.array([[2.0, 0.2], [0.2, 1.0]]),
        np.array([[1.0, 1.2], [1.2, 1.0]]),
        np.array([[1.0, np.nan], [np.nan, 1.0]]),
    ],
)
def test_what_is_no_matrix_of_correlations_is_refused(wrong):
    with pytest.raises(ValueError, match="correlations"):
        variance_inflation(wrong)
