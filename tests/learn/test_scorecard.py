import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from fedmkt.learn.bins import quantile_bins
from fedmkt.learn.glm import Weights, fit_logistic, linear_predictor
from fedmkt.learn.merging import Totals, count_totals
from fedmkt.learn.prepare import Dropped
from fedmkt.learn.scorecard import (
    Candidate,
    ColumnPoints,
    Limits,
    Scale,
    Scorecard,
    assign_points,
    select,
    spread_base,
    stability_index,
    weigh_evidence,
)

ROWS = 5000
RANDOM = np.random.default_rng(12)
TABLE = pd.DataFrame({name: RANDOM.normal(size=ROWS) for name in "abc"})
TABLE["b"] += 0.8 * TABLE["a"]
Y = RANDOM.random(ROWS) < 1 / (1 + np.exp(2 - TABLE["a"] - 0.5 * TABLE["b"] ** 2 + 0.3 * TABLE["c"]))
BINS = {name: quantile_bins(name, TABLE[name].to_numpy(), 6).assign(TABLE[name].to_numpy()) for name in TABLE}
TOTALS = {name: count_totals(BINS[name], 6, Y) for name in TABLE}
EVIDENCE = {name: weigh_evidence(TOTALS[name]) for name in TABLE}
WOE = np.column_stack([EVIDENCE[name].woe[BINS[name]] for name in TABLE])


def totals_of(events: list[int], others: list[int]) -> Totals:
    return Totals(np.array(events) + np.array(others), np.array(events))


cells = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=12).filter(
    lambda pairs: sum(p[0] for p in pairs) > 0 and sum(p[1] for p in pairs) > 0
)
any_totals = cells.map(lambda pairs: totals_of([p[0] for p in pairs], [p[1] for p in pairs]))
small = st.floats(-3, 3)
cards = st.builds(
    Scorecard,
    st.builds(Scale, st.floats(-999, 999), st.floats(0.01, 99), st.sampled_from([-40.0, 20.0, 33.3])),
    st.integers(-1000, 1000),
    st.lists(
        st.builds(
            ColumnPoints,
            st.text(max_size=3),
            st.lists(st.integers(-99, 99), min_size=1, max_size=5).map(tuple),
        ),
        max_size=5,
        unique_by=lambda column: column.name,
    ).map(tuple),
)


@pytest.mark.parametrize("name", list(TABLE))
def test_woe_and_information_value_equal_pandas_group_bys(name: str) -> None:
    table = pd.crosstab(BINS[name], Y, normalize="columns")
    woe = np.log(table[True] / table[False])
    np.testing.assert_allclose(EVIDENCE[name].woe, woe, rtol=1e-12)
    expected = float(((table[True] - table[False]) * woe).sum())
    assert EVIDENCE[name].information_value == pytest.approx(expected, rel=1e-12)


def test_woe_and_information_value_equal_a_published_table() -> None:
    # hackingnote.com, "Weight of Evidence and Information Value": shares of positives and negatives in %.
    totals = totals_of([10, 15, 15, 20, 20, 20], [5, 5, 10, 20, 25, 35])
    evidence = weigh_evidence(totals)
    np.testing.assert_allclose(evidence.woe, [0.693, 1.099, 0.405, 0.0, -0.223, -0.560], atol=5e-4)
    np.testing.assert_allclose(evidence.parts, [0.035, 0.110, 0.020, 0.0, 0.011, 0.084], atol=5e-4)
    assert evidence.information_value == pytest.approx(0.260, abs=5e-4)


def test_smoothing_adds_rows_that_respond_at_the_average_rate() -> None:
    totals = totals_of([30, 10, 0], [70, 40, 50])  # 40 of 200 respond: a fifth
    events, others = np.array([30, 10, 0]) + 5 * 0.2, np.array([70, 40, 50]) + 5 * 0.8
    expected = np.log((events / events.sum()) / (others / others.sum()))
    np.testing.assert_allclose(weigh_evidence(totals, smoothing=5).woe, expected, rtol=1e-12)


def test_a_bin_without_rows_has_no_evidence_when_smoothed() -> None:
    evidence = weigh_evidence(totals_of([30, 10, 0], [70, 40, 0]), smoothing=0.5)
    assert evidence.woe[2] == pytest.approx(0, abs=1e-12)


@given(any_totals, st.sampled_from([0.5, 1.0, 20.0]))
def test_information_is_never_negative_and_shares_of_events_and_others_sum_to_one(
    totals: Totals, smoothing: float
) -> None:
    evidence = weigh_evidence(totals, smoothing)
    assert (evidence.parts >= 0).all()
    # From WoE w and part v the shares follow: others v / (w (e^w - 1)), events e^w times that.
    rate = totals.events.sum() / totals.rows.sum()
    others = totals.others + smoothing * (1 - rate)
    others_share = others / others.sum()
    assert others_share @ np.exp(evidence.woe) == pytest.approx(1)
    assert (others_share * np.expm1(evidence.woe)) @ evidence.woe == pytest.approx(
        evidence.information_value, abs=1e-12
    )


@given(any_totals, st.sampled_from([0.5, 2.0]))
def test_swapping_the_labels_turns_the_sign_of_woe_and_keeps_the_information(
    totals: Totals, smoothing: float
) -> None:
    swapped = weigh_evidence(Totals(totals.rows, totals.others), smoothing)
    np.testing.assert_allclose(swapped.woe, -weigh_evidence(totals, smoothing).woe, atol=1e-12)
    expected = weigh_evidence(totals, smoothing).information_value
    assert swapped.information_value == pytest.approx(expected, abs=1e-12)


@given(any_totals)
def test_smoothing_draws_woe_towards_zero(totals: Totals) -> None:
    sizes = [np.abs(weigh_evidence(totals, smoothing).woe) for smoothing in (0.5, 5.0, 1e9)]
    assert (sizes[0] >= sizes[1] - 1e-12).all() and (sizes[2] < 1e-3).all()


@pytest.mark.parametrize("name", list(TABLE))
def test_a_logistic_model_of_one_woe_column_has_weight_1_and_the_average_log_odds(name: str) -> None:
    fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(EVIDENCE[name].woe[BINS[name], None], Y)
    assert fitted.coef_[0, 0] == pytest.approx(1, abs=1e-5)
    assert fitted.intercept_[0] == pytest.approx(math.log(Y.mean() / (1 - Y.mean())), abs=1e-5)


@pytest.mark.parametrize(
    ("totals", "smoothing", "complaint"),
    [
        (totals_of([0, 0], [3, 4]), 1.0, "both labels"),
        (totals_of([3, 4], [0, 0]), 1.0, "both labels"),
        (totals_of([3, 0], [1, 4]), 0.0, "needs smoothing"),
        (totals_of([3, 1], [0, 4]), 0.0, "needs smoothing"),
        (totals_of([3, 1], [1, 4]), -1.0, "zero or more"),
        (totals_of([3, 1], [1, 4]), math.nan, "zero or more"),
    ],
)
def test_evidence_that_would_be_infinite_is_refused(totals: Totals, smoothing: float, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        weigh_evidence(totals, smoothing)


def test_the_stability_index_equals_the_formula_in_pandas() -> None:
    shares = pd.DataFrame({"old": [120, 300, 580], "new": [200, 290, 510]}).apply(lambda c: c / c.sum())
    expected = ((shares.new - shares.old) * np.log(shares.new / shares.old)).sum()
    assert stability_index([120, 300, 580], [200, 290, 510], 0.0) == pytest.approx(expected, rel=1e-12)
    smooth = pd.DataFrame({"old": [120.5, 300.5, 0.5], "new": [200.5, 0.5, 510.5]}).apply(
        lambda c: c / c.sum()
    )
    expected = ((smooth.new - smooth.old) * np.log(smooth.new / smooth.old)).sum()
    assert stability_index([120, 300, 0], [200, 0, 510]) == pytest.approx(expected, rel=1e-12)


counts = st.lists(st.tuples(st.integers(0, 900), st.integers(0, 900)), min_size=1, max_size=9).filter(
    lambda pairs: any(p[0] for p in pairs) and any(p[1] for p in pairs)
)


@given(counts)
def test_the_stability_index_is_symmetric_and_zero_only_where_nothing_moved(
    pairs: list[tuple[int, int]],
) -> None:
    old, new = [p[0] for p in pairs], [p[1] for p in pairs]
    index = stability_index(old, new)
    assert index >= 0 and index == pytest.approx(stability_index(new, old), abs=1e-12)
    assert stability_index(old, old) == 0
    smooth = np.array(pairs) + 0.5
    moved = np.abs(smooth[:, 0] / smooth[:, 0].sum() - smooth[:, 1] / smooth[:, 1].sum()).max()
    assert index > 0 or moved < 1e-9


@pytest.mark.parametrize(
    ("before", "after", "smoothing"),
    [
        ([1, 0], [1, 1], 0.0),
        ([1, 2], [1, 2, 3], 0.5),
        ([0, 0], [1, 1], 0.5),
        ([1, -1], [1, 1], 2.0),
        ([1, np.nan], [1, 1], 0.5),
        ([1, 1], [1, 1], -1.0),
        ([[1, 1]], [[1, 1]], 0.5),
        ([], [], 0.5),
    ],
)
def test_counts_that_cannot_be_compared_are_refused(
    before: list[float], after: list[float], smoothing: float
) -> None:
    with pytest.raises(ValueError, match=r".+"):
        stability_index(before, after, smoothing)


def slow_selection(table: pd.DataFrame, value: dict[str, float], stability: dict[str, float]) -> list[str]:
    """Drop weak and moved columns, then the weaker of each pair that pandas finds correlated above .6."""
    rest = [name for name in table if value[name] >= 0.02 and stability[name] <= 0.25]
    kept: list[str] = []
    while rest:
        best = max(rest, key=lambda name: value[name])
        kept.append(best)
        rest = [name for name in rest if name != best and abs(table[best].corr(table[name])) <= 0.6]
    return kept


@pytest.mark.parametrize("seed", range(20))
def test_selection_equals_a_slow_one_on_the_table(seed: int) -> None:
    random = np.random.default_rng(seed)
    table = pd.DataFrame(random.normal(size=(200, 3)) @ random.normal(size=(3, 12)))
    table = (table + 0.5 * random.normal(size=(200, 12))).rename(columns=str)
    value = dict(zip(table, random.exponential(0.1, 12), strict=True))
    stability = dict(zip(table, random.exponential(0.15, 12), strict=True))
    candidates = [Candidate(name, value[name], stability[name]) for name in table]
    chosen = select(candidates, table.corr().to_numpy(), Limits(correlation=0.6))
    assert list(chosen.kept) == slow_selection(table, value, stability)
    assert {d.name for d in chosen.dropped} | set(chosen.kept) == set(table)


def test_selection_says_why_a_column_is_dropped() -> None:
    candidates = [
        Candidate("weak", 0.01),
        Candidate("good", 0.2),
        Candidate("twin", 0.1),
        Candidate("moved", 0.3, 0.26),
        Candidate("too good", 2.0),
        Candidate("edge", 0.02, 0.25),
    ]
    correlation = np.eye(6)
    correlation[1, 2] = correlation[2, 1] = -0.9
    chosen = select(candidates, correlation, Limits(information_to=1.0))
    assert chosen.kept == ("good", "edge")
    assert chosen.dropped == (
        Dropped("too good", "information value above 1"),
        Dropped("moved", "stability index above 0.25"),
        Dropped("twin", "correlated with 'good'"),
        Dropped("weak", "information value under 0.02"),
    )


def test_the_limits_themselves_are_allowed() -> None:
    candidates = [Candidate("a", 0.5, 0.25), Candidate("b", 0.02, 0.25)]
    correlation = np.array([[1.0, -0.75], [-0.75, 1.0]])
    assert select(candidates, correlation, Limits(0.02, 0.5, 0.25, 0.75)).kept == ("a", "b")


def test_selection_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(ValueError, match="correlation"):
        select([Candidate("a", 0.1)], np.eye(2))
    with pytest.raises(ValueError, match="correlation"):
        select([Candidate("a", 0.1), Candidate("b", 0.1)], np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="finite"):
        select([Candidate("a", math.nan)], np.eye(1))


def test_the_scale_equals_published_ones() -> None:
    # Siddiqi 2006, chapter 6: 600 points at odds of 50 to 1, 20 points to double.
    scale = Scale(600, 50, 20)
    assert (round(scale.factor, 4), round(scale.offset, 3)) == (28.8539, 487.123)
    # mac.8miu.com/read-486481: 600 points at odds of 1 bad to 60, 20 points fewer double the odds of bad.
    scale = Scale(600, 1 / 60, -20)
    assert (round(scale.factor, 2), round(scale.offset, 1)) == (-28.85, 481.9)


@given(st.floats(1e-6, 1 - 1e-6), st.floats(-999, 999), st.floats(0.01, 99), st.sampled_from([-40.0, 20.0]))
def test_probability_is_the_inverse_of_score(p: float, base: float, odds: float, points: float) -> None:
    scale = Scale(base, odds, points)
    assert scale.probability(scale.score(p)) == pytest.approx(p, rel=1e-9)
    assert scale.probability(base) == pytest.approx(odds / (1 + odds), rel=1e-9)
    doubled = scale.probability(base + points)
    assert doubled / (1 - doubled) == pytest.approx(2 * odds, rel=1e-9)


@pytest.mark.parametrize(
    "scale", [(600, 0, 20), (600, -1, 20), (600, 1, 0), (math.nan, 1, 20), (600, math.inf, 20)]
)
def test_scales_that_make_no_sense_are_refused(scale: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Scale(*scale)


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, math.nan])
def test_certainty_has_no_score(p: float) -> None:
    with pytest.raises(ValueError, match="strictly"):
        Scale().score([0.5, p])


@pytest.mark.parametrize("scale", [Scale(), Scale(600, 50, -20), Scale(0, 1, 100)])
def test_points_equal_a_plain_scorecard_of_scikit_learns_model(scale: Scale) -> None:
    model = LogisticRegression(C=np.inf, tol=1e-10).fit(WOE, Y)
    card = assign_points(
        Weights(float(model.intercept_[0]), model.coef_[0]),
        {name: EVIDENCE[name].woe for name in TABLE},
        scale,
    )
    factor = scale.points_to_double / math.log(2)
    for column, weight in zip(card.columns, model.coef_[0], strict=True):
        shares = pd.crosstab(BINS[column.name], Y, normalize="columns")
        expected = factor * weight * np.log(shares[True] / shares[False])
        assert column.points == tuple(expected.round().astype(int))
    offset = scale.base_score - factor * math.log(scale.base_odds)
    assert card.base == round(offset + factor * model.intercept_[0])


@pytest.mark.parametrize("points", [20.0, -20.0, 200.0])
def test_scores_are_within_half_a_point_per_column_of_the_model_and_give_its_probabilities(
    points: float,
) -> None:
    weights = fit_logistic(WOE, Y, penalty=1.0)
    scale = Scale(500, 0.1, points)
    card = assign_points(weights, {name: EVIDENCE[name].woe for name in TABLE}, scale)
    z = linear_predictor(weights, WOE)
    scores = card.score(BINS)
    exact = scale.score(1 / (1 + np.exp(-z)))
    assert np.abs(scores - exact).max() <= 2.0 + 1e-9
    logit = np.log(scale.probability(scores)) - np.log1p(-scale.probability(scores))
    assert np.abs(logit - z).max() <= 2.0 * math.log(2) / abs(points) + 1e-9
    assert card.lowest <= scores.min() and scores.max() <= card.highest
    assert scores.dtype == np.int64


@given(cards.filter(lambda card: bool(card.columns)), st.data())
def test_spreading_the_base_changes_no_score(card: Scorecard, data: st.DataObject) -> None:
    bins = {
        column.name: np.array(
            data.draw(st.lists(st.integers(0, len(column.points) - 1), min_size=7, max_size=7))
        )
        for column in card.columns
    }
    spread = spread_base(card)
    np.testing.assert_array_equal(spread.score(bins), card.score(bins))
    assert spread.base == 0 and (spread.lowest, spread.highest) == (card.lowest, card.highest)
    parts = [
        column.points[0] - old.points[0] for column, old in zip(spread.columns, card.columns, strict=True)
    ]
    assert max(parts) - min(parts) <= 1


@given(cards.filter(lambda card: bool(card.columns)), st.data())
def test_a_score_is_the_plain_sum_of_points(card: Scorecard, data: st.DataObject) -> None:
    row = {column.name: data.draw(st.integers(0, len(column.points) - 1)) for column in card.columns}
    got = card.score({name: np.array([b], dtype=np.int32) for name, b in row.items()})
    assert got.tolist() == [card.base + sum(c.points[row[c.name]] for c in card.columns)]


@given(cards)
def test_json_gives_back_an_equal_scorecard(card: Scorecard) -> None:
    assert Scorecard.from_json(card.to_json()) == card


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "null", "[" * 100_000),
        '{"scale":{"base_score":600.0,"base_odds":1.0,"points_to_double":20.0},"base":1.5,"columns":[]}',
        '{"scale":{"base_score":600,"base_odds":1.0,"points_to_double":20.0},"base":1,"columns":[]}',
        '{"scale":{"base_score":600.0,"base_odds":0.0,"points_to_double":20.0},"base":1,"columns":[]}',
        '{"scale":{"base_score":600.0,"base_odds":1.0,"points_to_double":20.0},"base":1,'
        '"columns":[{"name":"x","points":[]}]}',
        '{"scale":{"base_score":600.0,"base_odds":1.0,"points_to_double":20.0},"base":1,'
        '"columns":[{"name":"x","points":["1"]}]}',
        '{"scale":{"base_score":600.0,"base_odds":1.0,"points_to_double":20.0},"base":1,'
        '"columns":[{"name":"x","points":[99999999999]}]}',
    ],
)
def test_text_that_is_no_scorecard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Scorecard.from_json(text)


CARD = Scorecard(Scale(), 10, (ColumnPoints("x", (1, 2)), ColumnPoints("y", (5, 7))))


@pytest.mark.parametrize(
    "bins",
    [
        {"x": np.array([0, 2]), "y": np.array([0, 1])},
        {"x": np.array([0, -1]), "y": np.array([0, 1])},
        {"x": np.array([0, 1]), "y": np.array([0])},
        {"x": np.array([[0]]), "y": np.array([[0]])},
    ],
)
def test_rows_that_a_scorecard_does_not_know_are_refused(bins: dict[str, NDArray[np.int64]]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        CARD.score(bins)


def test_scorecards_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="same name"):
        Scorecard(Scale(), 0, (ColumnPoints("x", (1,)), ColumnPoints("x", (1,))))
    with pytest.raises(ValueError, match="how many rows"):
        Scorecard(Scale(), 0, ()).score({})
    with pytest.raises(ValueError, match="columns"):
        assign_points(Weights(0.0, np.ones(2)), {"x": np.zeros(3)})
    with pytest.raises(ValueError, match="finite"):
        assign_points(Weights(0.0, np.ones(1)), {"x": np.array([np.nan])})
    with pytest.raises(ValueError, match="too large"):
        assign_points(Weights(0.0, np.full(1, 1e9)), {"x": np.array([3.0])})


def test_a_model_without_columns_is_its_base() -> None:
    card = assign_points(Weights(0.0, np.zeros(0)), {})
    assert card == Scorecard(Scale(), 600, ()) and spread_base(card) == card
