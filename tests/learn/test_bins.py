import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from sklearn.preprocessing import KBinsDiscretizer

from fedmkt.learn.bins import (
    Binning,
    Bins,
    CategoryBins,
    NumberBins,
    category_bins,
    equal_width_bins,
    join,
    quantile_bins,
)
from fedmkt.learn.merging import ChiMerge, Map, Minimum, Monotone, Rule, count_totals, join_totals, merge

ROWS = 4000
RANDOM = np.random.default_rng(8)
EVEN = RANDOM.normal(40, 12, ROWS)
SKEWED = np.where(RANDOM.random(ROWS) < 0.2, np.nan, np.exp(RANDOM.normal(5, 1.5, ROWS)))
SPIKED = np.where(RANDOM.random(ROWS) < 0.6, 0.0, RANDOM.exponential(30, ROWS))


def texts(values: list[str | None]) -> NDArray[np.object_]:
    return np.array(values, dtype=np.object_)


TOWNS = texts([f"t{n}" for n in np.minimum(RANDOM.geometric(0.12, ROWS), 40)])
JOBS = texts(RANDOM.choice(["office", "trade", "retired", None], ROWS, p=[0.4, 0.3, 0.2, 0.1]).tolist())

numbers = arrays.arrays(
    np.float64,
    st.integers(1, 80),
    elements=st.one_of(
        st.floats(allow_infinity=False), st.sampled_from([0.0, 1.0, -0.0]), st.floats(-10, 10, width=16)
    ),
)
levels = st.lists(
    st.one_of(
        st.none(), st.sampled_from([*"abcdefgh", "(other)", "(missing)", float("nan")]), st.text(max_size=3)
    ),
    min_size=1,
    max_size=60,
)
names = st.text(st.characters(codec="utf-8"), max_size=3)
edges = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5, unique=True).map(sorted)
any_bins = st.one_of(
    st.builds(lambda name, cuts: NumberBins(name, tuple(cuts), len(cuts) + 1), names, edges),
    st.builds(lambda name, cuts: NumberBins(name, tuple(cuts), 0), names, edges),
    st.builds(
        lambda name, found: CategoryBins(name, (*((f,) for f in sorted(found)), ()), len(found)),
        names,
        st.sets(names.filter(lambda level: level != "(other)"), max_size=4),
    ),
)
any_binning = st.lists(any_bins, max_size=4, unique_by=lambda bins: bins.name).map(
    lambda b: Binning(tuple(b))
)


@pytest.mark.parametrize("count", [2, 5, 10, 33])
@pytest.mark.parametrize("values", [EVEN, SKEWED], ids=["even", "skewed"])
def test_quantile_bins_equal_scikit_learns(values: NDArray[np.float64], count: int) -> None:
    present = values[~np.isnan(values)]
    theirs = KBinsDiscretizer(
        count, encode="ordinal", quantile_method="averaged_inverted_cdf", subsample=None
    ).fit_transform(present[:, None])
    np.testing.assert_array_equal(quantile_bins("x", values, count).assign(present), theirs[:, 0])


def test_quantile_bins_of_a_whole_number_of_rows_are_all_of_one_size() -> None:
    values = RANDOM.permutation(1000).astype(float)
    assert np.bincount(quantile_bins("x", values, 20).assign(values)).tolist() == [50] * 20


@pytest.mark.parametrize("count", [2, 5, 10, 33])
@pytest.mark.parametrize("values", [EVEN, SKEWED], ids=["even", "skewed"])
def test_equal_width_bins_equal_scikit_learns(values: NDArray[np.float64], count: int) -> None:
    present = values[~np.isnan(values)]
    theirs = KBinsDiscretizer(count, encode="ordinal", strategy="uniform", subsample=None).fit(
        present[:, None]
    )
    fine = theirs.bin_edges_[0][1:-1]
    bins = equal_width_bins("x", values, count, minimum_rows=1)
    assert set(bins.edges) <= set(fine)  # bins without rows are joined, their edges are gone
    filled = np.unique(theirs.transform(present[:, None])[:, 0])
    assert len(bins.edges) == len(filled) - 1
    expected = np.searchsorted(filled, theirs.transform(present[:, None])[:, 0])
    np.testing.assert_array_equal(bins.assign(present), expected)


@pytest.mark.parametrize("values", [EVEN, SKEWED, SPIKED], ids=["even", "skewed", "spiked"])
def test_assigned_bins_equal_pandas_cut(values: NDArray[np.float64]) -> None:
    bins = quantile_bins("x", values, 12)
    cut = pd.cut(pd.Series(values), [-np.inf, *bins.edges, np.inf], right=False, labels=False)
    expected = cut.fillna(bins.missing).astype(int).to_numpy()
    np.testing.assert_array_equal(bins.assign(values), expected)


def test_missing_values_have_the_last_bin() -> None:
    bins = quantile_bins("x", SKEWED, 8)
    assert bins.missing == 8 and bins.count == 9
    np.testing.assert_array_equal(bins.assign(SKEWED) == 8, np.isnan(SKEWED))


@pytest.mark.parametrize(("missing", "is_apart"), [(0, False), (49, False), (50, True), (1000, True)])
def test_missing_values_need_the_minimum_rows_for_a_bin_of_their_own(missing: int, is_apart: bool) -> None:
    values = RANDOM.normal(size=2000)
    values[:missing] = np.nan
    bins = quantile_bins("x", values, 4)
    assert (bins.missing == len(bins.edges) + 1) == is_apart
    assert bins.assign(np.array([np.nan])).tolist() == [bins.missing]


def test_a_value_that_fills_whole_bins_has_a_bin_of_its_own() -> None:
    bins = quantile_bins("x", SPIKED, 10)
    at_zero = bins.assign(np.zeros(1))[0]
    np.testing.assert_array_equal(bins.assign(SPIKED) == at_zero, SPIKED == 0)


@pytest.mark.parametrize(
    ("below", "equal", "above", "sizes"),
    [
        (1000, 1000, 1000, [500, 500, 1000, 500, 500]),
        (1000, 1300, 700, [500, 500, 1300, 200, 500]),
        (900, 1300, 800, [500, 400, 1300, 300, 500]),
        (0, 700, 2300, [700, 300, 500, 500, 500, 500]),
        (0, 2900, 100, [2900, 100]),
        (100, 2900, 0, [100, 2900]),
    ],
)
def test_rows_around_a_frequent_value_are_not_in_its_bin(
    below: int, equal: int, above: int, sizes: list[int]
) -> None:
    values = np.concatenate([RANDOM.uniform(-9, -1, below), np.zeros(equal), RANDOM.uniform(1, 9, above)])
    assert np.bincount(quantile_bins("x", values, 6).assign(values)).tolist() == sizes


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.9, 0.95])
def test_two_values_are_told_apart(share: float) -> None:
    values = np.where(np.arange(1000) < 1000 * share, 3.0, 7.0)
    assert quantile_bins("x", values, 10).edges == (7.0,)


@given(numbers, st.integers(1, 12), st.integers(1, 10), st.sampled_from([quantile_bins, equal_width_bins]))
def test_every_number_is_in_one_bin_and_every_bin_holds_the_minimum(
    values: NDArray[np.float64], count: int, minimum: int, cut: object
) -> None:
    bins: NumberBins = cut("x", values, count, minimum)  # type: ignore[operator]
    assert bins.count <= count + 1
    found = bins.assign(values)
    assert found.shape == values.shape and found.min() >= 0 and found.max() < bins.count
    inside = [-np.inf, *bins.edges, np.inf]
    for value, b in zip(values, found, strict=True):
        if np.isnan(value):
            assert b == bins.missing
        else:
            assert [inside[i] <= value < inside[i + 1] for i in range(len(inside) - 1)].index(True) == b
    rows = np.bincount(found, minlength=bins.count)
    assert rows.min() >= minimum or bins.count == 1


@given(levels, st.integers(2, 6), st.integers(1, 8))
def test_every_level_is_in_one_bin_and_every_bin_holds_the_minimum(
    values: list[str | None], max_bins: int, minimum: int
) -> None:
    column = texts(values)
    bins = category_bins("x", column, max_bins, minimum)
    assert bins.count <= max_bins
    found = bins.assign(column)
    rows = np.bincount(found, minlength=bins.count)
    assert len(rows) == bins.count
    assert rows.min() >= minimum or bins.count == 1
    for value, b in zip(values, found, strict=True):
        level = "(missing)" if value is None or value != value else value
        homes = [i for i, group in enumerate(bins.groups) if level in group] or [bins.other]
        assert homes == [b]


def test_levels_equal_pandas_value_counts() -> None:
    counts = pd.Series(TOWNS).value_counts()
    frequent = counts[counts >= 50].sort_index().sort_values(ascending=False, kind="stable").index.tolist()
    bins = category_bins("town", TOWNS)
    assert len(frequent) < 20
    assert bins.groups == (*((level,) for level in frequent), ())
    expected = pd.Series(TOWNS).map({level: i for i, level in enumerate(frequent)}).fillna(len(frequent))
    np.testing.assert_array_equal(bins.assign(TOWNS), expected.astype(int))


def test_missing_is_a_level_like_others_and_names_of_rare_levels_are_not_kept() -> None:
    assert set(category_bins("job", JOBS).groups) == {("office",), ("trade",), ("retired",), ("(missing)",)}
    few = texts(["a"] * 600 + ["b"] * 380 + ["the mayor"] * 15 + [None] * 5)
    bins = category_bins("x", few)
    assert bins == CategoryBins("x", (("a",), ("b",)), 0)
    assert bins.assign(texts(["a", "b", "the mayor", None, "unseen"])).tolist() == [0, 1, 0, 0, 0]
    assert category_bins("x", few, minimum_rows=20) == CategoryBins("x", (("a",), ("b",), ()), 2)


def test_levels_are_capped_with_the_shared_bin_included() -> None:
    bins = category_bins("town", TOWNS, max_bins=4)
    assert bins.count == 4 and bins.other == 3
    assert category_bins("job", JOBS, max_bins=4).other == 0


def test_columns_with_nothing_to_cut_have_one_bin() -> None:
    for cut in (quantile_bins, equal_width_bins):
        assert cut("x", np.full(100, 3.0), 5).count == 1
        assert cut("x", np.full(100, np.nan), 5) == NumberBins("x", (), 0)
        assert cut("x", np.empty(0), 5) == NumberBins("x", (), 0)
        assert cut("x", EVEN, 1).count == 1
    assert category_bins("x", texts([])) == CategoryBins("x", ((),), 0)
    assert category_bins("x", texts([f"n{i}" for i in range(100)])) == CategoryBins("x", ((),), 0)


def test_a_range_wider_than_float64_is_cut() -> None:
    values = np.linspace(-1, 1, 1000) * 1.7e308
    bins = equal_width_bins("x", values, 4)
    assert bins.edges == pytest.approx((-0.85e308, 0.0, 0.85e308), abs=1e293)


@pytest.mark.parametrize(
    "rule", [Minimum(), ChiMerge(), Monotone(Minimum(100, 20, 20)), ChiMerge(max_bins=3)]
)
@pytest.mark.parametrize("values", [EVEN, SKEWED, SPIKED], ids=["even", "skewed", "spiked"])
def test_merged_bins_of_rows_hold_the_merged_totals(values: NDArray[np.float64], rule: Rule) -> None:
    y = np.random.default_rng(3).random(ROWS) < 0.1 + 0.2 * (np.nan_to_num(values) > np.nanmedian(values))
    bins = quantile_bins("x", values, 30)
    totals = count_totals(bins.assign(values), bins.count, y)
    mapping = merge(totals, rule, bins.order)
    merged = join(bins, mapping)
    assert isinstance(merged, NumberBins) and 1 < merged.count <= bins.count
    np.testing.assert_array_equal(merged.assign(values), np.array(mapping)[bins.assign(values)])
    after = count_totals(merged.assign(values), merged.count, y)
    expected = join_totals(totals, mapping)
    assert (after.rows == expected.rows).all() and (after.events == expected.events).all()
    assert (rule if isinstance(rule, Minimum) else rule.minimum).is_met(after)


@pytest.mark.parametrize("column", [TOWNS, JOBS], ids=["towns", "jobs"])
def test_merged_levels_hold_the_merged_totals(column: NDArray[np.object_]) -> None:
    y = np.random.default_rng(4).random(ROWS) < np.where(np.isin(column, ["t1", "t4", "trade"]), 0.3, 0.1)
    bins = category_bins("x", column)
    totals = count_totals(bins.assign(column), bins.count, y)
    mapping = merge(totals, ChiMerge(), bins.order)
    merged = join(bins, mapping)
    assert isinstance(merged, CategoryBins) and merged.count < bins.count
    np.testing.assert_array_equal(merged.assign(column), np.array(mapping)[bins.assign(column)])
    unseen = texts(["never seen", None])
    np.testing.assert_array_equal(merged.assign(unseen), np.array(mapping)[bins.assign(unseen)])


@pytest.mark.parametrize("mapping", [(0, 1, 0, 2), (1, 0, 2, 3), (0, 1), (0, 0, 2, 3)])
def test_a_map_that_joins_bins_of_a_number_that_are_no_neighbours_is_refused(mapping: Map) -> None:
    with pytest.raises(ValueError, match="map"):
        join(NumberBins("x", (1.0, 2.0), 3), mapping)


def test_missing_values_may_join_any_bin() -> None:
    bins = NumberBins("x", (1.0, 2.0), 3)
    assert join(bins, (0, 1, 2, 1)) == NumberBins("x", (1.0, 2.0), 1)
    assert join(bins, (0, 0, 1, 2)) == NumberBins("x", (2.0,), 2)
    assert join(bins, (0, 0, 0, 0)) == NumberBins("x", (), 0)


def test_labels_say_what_is_in_a_bin() -> None:
    assert NumberBins("x", (1.0, 2.5), 3).labels == (
        "below 1",
        "1 to below 2.5",
        "2.5 and above",
        "(missing)",
    )
    assert NumberBins("x", (1.0,), 0).labels == ("below 1 or (missing)", "1 and above")
    assert NumberBins("x", (), 0).labels == ("any number or (missing)",)
    assert CategoryBins("x", (("a", "b"), ("c",)), 1).labels == ("a, b", "c, (other)")
    assert CategoryBins("x", (("a",), ()), 1).labels == ("a", "(other)")


@given(any_binning)
def test_json_gives_back_an_equal_binning_with_the_same_digest(binning: Binning) -> None:
    again = Binning.from_json(binning.to_json())
    assert again == binning and again.digest == binning.digest
    assert again.to_json() == binning.to_json()


@given(any_binning, any_binning)
def test_digests_are_equal_exactly_for_equal_binnings(first: Binning, second: Binning) -> None:
    assert (first.digest == second.digest) == (first == second)


def test_one_bit_of_an_edge_changes_the_digest() -> None:
    one = Binning((NumberBins("x", (1.0,), 2),))
    assert one.digest != Binning((NumberBins("x", (float(np.nextafter(1.0, 2.0)),), 2),)).digest
    assert one.digest != Binning((NumberBins("x", (1.0,), 1),)).digest
    assert one.digest == Binning((NumberBins("x", (1,), 2),)).digest
    assert Binning((NumberBins("x", (0.0,), 2),)).digest == Binning((NumberBins("x", (-0.0,), 2),)).digest


def test_the_digest_is_the_sha256_of_the_text_behind_a_heading() -> None:
    # printf 'fedmkt bins 1\n{"columns":[{"name":"x","edges":[1.0],"missing":2}]}' | sha256sum
    expected = "d63c7889a74bb4c954048f322a9527459cb556ba8e1870c749b1762725b148e0"
    assert Binning((NumberBins("x", (1.0,), 2),)).digest == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "null", "1", '{"columns":1}', '{"columns":["edges"]}', "[" * 100_000),
        '{"columns":[{"name":"x","edges":[1.0]}]}',
        '{"columns":[{"name":"x","edges":[1],"missing":2}]}',
        '{"columns":[{"name":"x","edges":[1.0],"missing":true}]}',
        '{"columns":[{"name":"x","edges":[1.0],"missing":3}]}',
        '{"columns":[{"name":"x","edges":[1.0],"missing":-1}]}',
        '{"columns":[{"name":"x","edges":["1.0"],"missing":2}]}',
        '{"columns":[{"name":"x","edges":[NaN],"missing":2}]}',
        '{"columns":[{"name":"x","edges":[1e999],"missing":2}]}',
        '{"columns":[{"name":"x","edges":[2.0,1.0],"missing":3}]}',
        '{"columns":[{"name":"x","edges":[1.0,1.0],"missing":3}]}',
        '{"columns":[{"name":"x","edges":[' + "9" * 400 + '],"missing":2}]}',
        '{"columns":[{"name":7,"edges":[1.0],"missing":2}]}',
        '{"columns":[{"name":"x","edges":[1.0],"missing":2},{"name":"x","edges":[1.0],"missing":2}]}',
        '{"columns":[{"name":"x","edges":[1.0],"missing":2,"more":1}]}',
        '{"columns":[{"name":"x","edges":[1.0],"missing":2}]} ',
        '{"columns":[{"name":"x","groups":[["a"],["a"]],"other":0}]}',
        '{"columns":[{"name":"x","groups":[["a"],[]],"other":0}]}',
        '{"columns":[{"name":"x","groups":["ab"],"other":0}]}',
        '{"columns":[{"name":"x","groups":[["(other)"]],"other":0}]}',
        '{"columns":[{"name":"x","groups":[["a"]],"other":1}]}',
        '{"columns":[{"name":"x","groups":[],"other":0}]}',
    ],
)
def test_text_that_is_no_binning_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Binning.from_json(text)


def test_the_json_text_is_plain_json() -> None:
    binning = Binning((quantile_bins("x", EVEN, 3), category_bins("job", JOBS)))
    raw = json.loads(binning.to_json())
    assert raw["columns"][0]["edges"] == list(binning.columns[0].edges)  # type: ignore[union-attr]
    assert raw["columns"][1]["groups"][0] == ["office"]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (np.array([1.0, np.inf]), "infinite"),
        (np.array([1, 2]), "float64"),
        (np.zeros((2, 2)), "shape"),
    ],
)
def test_columns_that_cannot_be_cut_are_refused(values: NDArray[np.float64], complaint: str) -> None:
    for act in (lambda v: quantile_bins("x", v, 3), NumberBins("x", (1.0,), 2).assign):
        with pytest.raises(ValueError, match=complaint):
            act(values)


@pytest.mark.parametrize(
    "act",
    [
        lambda: category_bins("x", texts([1])),  # type: ignore[list-item]
        lambda: category_bins("x", texts(["a"]), max_bins=1),
        lambda: category_bins("x", texts(["a"]), minimum_rows=0),
        lambda: quantile_bins("x", EVEN, 0),
        lambda: quantile_bins("x", EVEN, 3, minimum_rows=0),
    ],
)
def test_settings_that_make_no_sense_are_refused(act: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        act()  # type: ignore[operator]


def test_cutting_leaves_the_input_as_it_was() -> None:
    before = SKEWED.copy()
    bins: Bins = quantile_bins("x", SKEWED, 7)
    assert isinstance(bins, NumberBins)
    bins.assign(SKEWED)
    np.testing.assert_array_equal(SKEWED, before)
