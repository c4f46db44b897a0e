from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import chi2, chi2_contingency
from sklearn.isotonic import IsotonicRegression

from fedmkt.learn.merging import (
    ChiMerge,
    Map,
    Minimum,
    Monotone,
    Rule,
    Totals,
    count_totals,
    join_totals,
    merge,
)

NONE = Minimum(1, 0, 0)
SORTS = ["rising values", "rising values, then missing", "levels"]


def totals_of(rows: Sequence[int], events: Sequence[int]) -> Totals:
    return Totals(np.array(rows, dtype=np.int64), np.array(events, dtype=np.int64))


def draw_totals(seed: int, bins: int = 20, least: int = 1) -> Totals:
    random = np.random.default_rng(seed)
    rows = random.integers(least, 400, bins)
    rates = np.clip(np.cumsum(random.normal(0, 0.05, bins)) + 0.3, 0.01, 0.9)
    return Totals(rows, random.binomial(rows, rates).astype(np.int64))


def slow_chi_square(a: Sequence[int], b: Sequence[int]) -> float:
    """Kerber's statistic by scipy; `a` and `b` are (events, others)."""
    table = np.array([a, b])
    if (table.sum(axis=0) == 0).any() or (table.sum(axis=1) == 0).any():
        return 0.0
    return float(chi2_contingency(table, correction=False).statistic)


def slow_chi_merge(totals: Totals, confidence: float, max_bins: int) -> Map:
    """Do as Kerber 1992 says, computing everything anew at each step."""
    intervals = [[b] for b in range(len(totals.rows))]
    cells = np.stack([totals.events, totals.others], axis=1)
    while len(intervals) > 1:
        sums = [cells[part].sum(axis=0).tolist() for part in intervals]
        chi = [slow_chi_square(a, b) for a, b in pairwise(sums)]
        at = int(np.argmin(np.round(chi, 9)))
        if chi[at] > chi2.ppf(confidence, 1) and len(intervals) <= max_bins:
            break
        intervals[at : at + 2] = [intervals[at] + intervals[at + 1]]
    return tuple(i for i, part in enumerate(intervals) for _ in part)


def isotonic(totals: Totals, increasing: bool) -> np.ndarray:
    fit = IsotonicRegression(increasing=increasing)
    return fit.fit_transform(
        np.arange(len(totals.rows)), totals.events / totals.rows, sample_weight=totals.rows
    )


def rates(totals: Totals) -> list[Fraction]:
    return [Fraction(e, r) for r, e in zip(totals.rows.tolist(), totals.events.tolist(), strict=True)]


any_totals = st.lists(
    st.tuples(st.integers(0, 60), st.floats(0, 1)).map(lambda cell: (cell[0], round(cell[0] * cell[1]))),
    min_size=1,
    max_size=14,
).map(lambda cells: totals_of(*zip(*cells, strict=True)))
any_minimum = st.builds(Minimum, st.integers(1, 60), st.integers(0, 12), st.integers(0, 12))
any_rule = st.one_of(
    any_minimum,
    st.builds(ChiMerge, any_minimum, st.sampled_from([0.0, 0.5, 0.95, 0.999]), st.integers(1, 8)),
    st.builds(Monotone, any_minimum, st.sampled_from(["rising", "falling", "either"]), st.integers(1, 8)),
)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("confidence", "max_bins"), [(0.95, 100), (0.99, 100), (0.5, 6), (0.0, 3)])
def test_chi_merge_equals_kerbers_done_slowly(seed: int, confidence: float, max_bins: int) -> None:
    totals = draw_totals(seed)
    got = merge(totals, ChiMerge(NONE, confidence, max_bins), "rising values")
    assert got == slow_chi_merge(totals, confidence, max_bins)


@pytest.mark.parametrize("seed", range(10))
def test_after_chi_merge_all_neighbours_differ_and_before_it_some_did_not(seed: int) -> None:
    totals = draw_totals(seed)
    merged = join_totals(totals, merge(totals, ChiMerge(NONE, 0.95, 100), "rising values"))
    cells = np.stack([merged.events, merged.others], axis=1).tolist()
    assert len(cells) < len(totals.rows)
    assert all(slow_chi_square(a, b) > 3.8414 for a, b in pairwise(cells))


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("direction", ["rising", "falling"])
def test_monotone_rates_equal_scikit_learns_isotonic_regression(seed: int, direction: str) -> None:
    totals = draw_totals(seed)
    mapping = merge(totals, Monotone(NONE, direction, 100), "rising values")
    merged = join_totals(totals, mapping)
    got = (merged.events / merged.rows)[list(mapping)]
    np.testing.assert_allclose(got, isotonic(totals, direction == "rising"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(25))
def test_either_direction_is_the_one_with_the_smaller_squared_error(seed: int) -> None:
    totals = draw_totals(seed)
    raw = totals.events / totals.rows
    errors = {up: float(totals.rows @ (raw - isotonic(totals, up)) ** 2) for up in (True, False)}
    better = "rising" if errors[True] <= errors[False] else "falling"
    got = merge(totals, Monotone(NONE, "either", 100), "rising values")
    assert got == merge(totals, Monotone(NONE, better, 100), "rising values")


@given(any_totals, any_rule, st.sampled_from(SORTS))
def test_every_merged_bin_holds_the_minimum_or_is_the_only_one(
    totals: Totals, rule: Rule, order: str
) -> None:
    assume(order != "levels" or not isinstance(rule, Monotone))
    merged = join_totals(totals, merge(totals, rule, order))
    least = rule if isinstance(rule, Minimum) else rule.minimum
    table = pd.DataFrame({"rows": merged.rows, "events": merged.events, "others": merged.others})
    fits = (table >= [least.rows, least.events, least.others]).all(axis=None)
    assert fits == least.is_met(merged)
    assert fits or len(table) == 1
    assert merged.rows.sum() == totals.rows.sum() and merged.events.sum() == totals.events.sum()


@given(any_totals, any_rule, st.booleans())
def test_bins_of_a_number_are_joined_with_neighbours_only_and_stay_in_order(
    totals: Totals, rule: Rule, has_missing: bool
) -> None:
    mapping = merge(totals, rule, SORTS[has_missing])
    ordered = mapping[: len(mapping) - has_missing]
    assert set(np.diff((0, *ordered))) <= {0, 1}
    if has_missing and mapping[-1] not in ordered:
        assert mapping[-1] == max(ordered, default=-1) + 1


@given(any_totals, any_rule)
def test_max_bins_holds_for_all_but_the_missing_values(totals: Totals, rule: Rule) -> None:
    mapping = merge(totals, rule, "rising values, then missing")
    if not isinstance(rule, Minimum):
        assert len(set(mapping[:-1])) <= rule.max_bins


@given(any_totals, any_minimum, st.sampled_from(["rising", "falling"]), st.booleans())
def test_rates_strictly_rise_or_fall_after_monotone_merging(
    totals: Totals, minimum: Minimum, direction: str, has_missing: bool
) -> None:
    mapping = merge(totals, Monotone(minimum, direction, 5), SORTS[has_missing])
    merged = join_totals(totals, mapping)
    is_apart = has_missing and mapping[-1] not in mapping[:-1]
    if len(merged.rows) - is_apart > 1:
        found = rates(merged)[: len(merged.rows) - is_apart]
        steps = [b - a for a, b in pairwise(found)]
        assert all(step > 0 if direction == "rising" else step < 0 for step in steps)


@given(any_totals, any_rule, st.sampled_from(SORTS))
def test_merging_what_is_merged_changes_nothing(totals: Totals, rule: Rule, order: str) -> None:
    assume(order != "levels" or not isinstance(rule, Monotone))
    mapping = merge(totals, rule, order)
    merged = join_totals(totals, mapping)
    if order != "levels":
        order = SORTS[mapping[-1] not in mapping[:-1]] if order == SORTS[1] else order
    assert merge(merged, rule, order) == tuple(range(len(merged.rows)))


@given(any_totals)
def test_reversed_values_that_fall_are_joined_as_values_that_rise(totals: Totals) -> None:
    assume(totals.rows.all())
    flipped = Totals(totals.rows[::-1].copy(), totals.events[::-1].copy())
    rising = merge(totals, Monotone(NONE, "rising", 100), "rising values")
    falling = merge(flipped, Monotone(NONE, "falling", 100), "rising values")
    assert rising == tuple(max(falling) - b for b in falling[::-1])


@given(st.integers(0, 2**32), st.permutations(range(12)))
def test_levels_are_merged_alike_whatever_their_order(seed: int, order: list[int]) -> None:
    totals = draw_totals(seed, 12)
    assume(len(set(rates(totals))) == 12)  # equals are settled by position
    shuffled = Totals(totals.rows[order], totals.events[order])
    rule = ChiMerge(NONE, 0.9, 4)
    first, second = merge(totals, rule, "levels"), merge(shuffled, rule, "levels")
    groups = {frozenset(b for b in range(12) if first[b] == g) for g in first}
    assert groups == {frozenset(order[i] for i in range(12) if second[i] == g) for g in second}


def test_levels_of_one_rate_come_together_though_they_do_not_stand_side_by_side() -> None:
    totals = totals_of([1000, 1000, 1000, 1000], [100, 300, 101, 299])
    assert merge(totals, ChiMerge(), "levels") == (0, 1, 0, 1)
    assert merge(totals, ChiMerge(), "rising values") == (0, 1, 2, 3)


def test_levels_have_no_monotone_rates() -> None:
    with pytest.raises(ValueError, match="no order"):
        merge(draw_totals(1), Monotone(), "levels")


def test_a_short_bin_joins_the_neighbour_that_it_differs_least_from() -> None:
    totals = totals_of([100, 30, 500], [20, 3, 50])
    assert merge(totals, Minimum(50, 0, 0), "rising values") == (0, 1, 1)
    totals = totals_of([100, 30, 500], [20, 6, 50])
    assert merge(totals, Minimum(50, 0, 0), "rising values") == (0, 0, 1)


def test_without_events_a_short_bin_joins_the_smaller_neighbour() -> None:
    assert merge(totals_of([100, 30, 90], [0] * 3), Minimum(50, 0, 0), "rising values") == (0, 1, 1)
    assert merge(totals_of([90, 30, 90], [0] * 3), Minimum(50, 0, 0), "rising values") == (0, 0, 1)


@pytest.mark.parametrize(
    ("rows", "events", "expected"),
    [
        ([100, 200, 60], [20, 60, 11], (0, 1, 2)),
        ([100, 200, 49], [20, 60, 11], (0, 1, 1)),
        ([100, 200, 60], [20, 60, 9], (0, 1, 1)),
        ([100, 200, 60], [20, 60, 51], (0, 1, 1)),
        ([100, 200, 0], [20, 60, 0], (0, 1, 1)),
        ([10, 20, 600], [2, 6, 60], (0, 0, 0)),
        ([0, 0, 600], [0, 0, 60], (0, 0, 0)),
    ],
)
def test_missing_values_have_a_bin_of_their_own_only_where_all_hold_enough(
    rows: list[int], events: list[int], expected: Map
) -> None:
    assert merge(totals_of(rows, events), Minimum(), "rising values, then missing") == expected


def test_missing_values_that_share_a_bin_do_not_break_the_order_of_rates() -> None:
    # On their own 0.20 < 0.21; with 45 missing rows that all responded the first would be above the second.
    totals = totals_of([1000, 900, 45], [200, 189, 45])
    assert merge(totals, Monotone(Minimum(), "rising"), "rising values, then missing") == (0, 0, 0)


def test_one_bin_stays_one_bin() -> None:
    for order in SORTS:
        assert merge(totals_of([5], [5]), Minimum(), order) == (0,)


@given(any_totals, any_rule)
def test_joined_totals_equal_pandas_sums_by_group(totals: Totals, rule: Rule) -> None:
    mapping = merge(totals, rule, "rising values")
    frame = pd.DataFrame({"rows": totals.rows, "events": totals.events}).groupby(list(mapping)).sum()
    merged = join_totals(totals, mapping)
    assert merged.rows.tolist() == frame["rows"].tolist()
    assert merged.events.tolist() == frame["events"].tolist()


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans())))
def test_counted_totals_equal_a_pandas_group_by(rows: list[tuple[int, bool]]) -> None:
    numbers, labels = (
        np.array([r[0] for r in rows], dtype=np.int32),
        np.array([r[1] for r in rows], dtype=bool),
    )
    totals = count_totals(numbers, 5, labels)
    groups = pd.Series(labels.astype(int)).groupby(numbers)
    assert totals.rows.tolist() == groups.size().reindex(range(5), fill_value=0).tolist()
    assert totals.events.tolist() == groups.sum().reindex(range(5), fill_value=0).tolist()


def test_chi_square_is_exact_for_totals_beyond_the_reach_of_float64() -> None:
    # Rates differ in the 18th digit: equal in float64, not equal here.
    big = 10**17
    totals = totals_of([big, big], [big // 2 + 1, big // 2])
    assert merge(totals, Monotone(NONE, "rising"), "rising values") == (0, 0)
    assert merge(totals, Monotone(NONE, "falling"), "rising values") == (0, 1)


@pytest.mark.parametrize(
    ("rows", "events"),
    [
        (np.array([], dtype=np.int64), np.array([], dtype=np.int64)),
        (np.array([3]), np.array([4])),
        (np.array([3]), np.array([-1])),
        (np.array([3.0]), np.array([1.0])),
        (np.array([3, 3]), np.array([1])),
        (np.array([[3]]), np.array([[1]])),
    ],
)
def test_impossible_totals_are_refused(rows: np.ndarray, events: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Totals(rows, events)


@pytest.mark.parametrize("mapping", [(0,), (0, 0, 0), (0, 2), (1, 1), (0, -1), ()])
def test_a_map_with_gaps_or_of_another_length_is_refused(mapping: Map) -> None:
    with pytest.raises(ValueError, match="map"):
        join_totals(totals_of([1, 2], [0, 1]), mapping)


@pytest.mark.parametrize(
    ("numbers", "labels"),
    [([0, 5], [0, 1]), ([0, -1], [0, 1]), ([0, 1], [0, 2]), ([0, 1], [0.0, np.nan]), ([0, 1], [0])],
)
def test_rows_that_cannot_be_counted_are_refused(numbers: list[int], labels: list[float]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        count_totals(np.array(numbers), 5, np.array(labels))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Minimum(rows=0),
        lambda: Minimum(events=-1),
        lambda: Minimum(others=-1),
        lambda: ChiMerge(confidence=1.0),
        lambda: ChiMerge(confidence=float("nan")),
        lambda: ChiMerge(max_bins=0),
        lambda: Monotone(max_bins=0),
        lambda: Monotone(direction="sideways"),
    ],
)
def test_rules_that_make_no_sense_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        make()  # type: ignore[operator]
