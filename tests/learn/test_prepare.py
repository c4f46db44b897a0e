from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fedmkt.learn.prepare import Matrix, Preparation, Settings, fit, transform

Numbers = Mapping[str, NDArray[np.float64]]
Categories = Mapping[str, NDArray[np.object_]]

ROWS = 4000
RANDOM = np.random.default_rng(5)
TRAIN = RANDOM.random(ROWS) < 0.7


def texts(values: list[str | None]) -> NDArray[np.object_]:
    return np.array(values, dtype=np.object_)


def with_gaps(values: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    return np.where(RANDOM.random(len(values)) < share, np.nan, values)


NUMBERS = {
    "even": RANDOM.normal(40, 12, ROWS),
    "skewed": with_gaps(np.exp(RANDOM.normal(5, 1.5, ROWS)), 0.2),
    "counts": RANDOM.poisson(0.4, ROWS).astype(float),
}
CATEGORIES = {
    "job": texts(RANDOM.choice(["office", "trade", "retired", None], ROWS, p=[0.4, 0.3, 0.2, 0.1]).tolist()),
    "town": texts([f"t{n}" for n in np.minimum(RANDOM.geometric(0.12, ROWS), 40)]),
}


def prepare(numbers: Numbers, categories: Categories, settings: Settings | None = None) -> Matrix:
    rows = len(next(iter((*numbers.values(), *categories.values()))))
    return transform(fit(numbers, categories, TRAIN[:rows], settings), numbers, categories)


def column(matrix: Matrix, name: str) -> NDArray[np.float64]:
    return matrix.values[:, matrix.columns.index(name)]


def scale_twice(values: NDArray[np.float64], train: NDArray[np.bool_], clip: float) -> NDArray[np.float64]:
    """Standardise, clip, standardise with scikit-learn; no bound."""
    once = StandardScaler().fit(values[train, None]).transform(values[:, None])
    clipped = np.clip(once, -clip, clip)
    return np.asarray(StandardScaler().fit(clipped[train]).transform(clipped)[:, 0])


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_equals_scikit_learns_imputer_and_scalers(name: str) -> None:
    values = NUMBERS[name]
    filled = SimpleImputer(strategy="median").fit(values[TRAIN, None]).transform(values[:, None])[:, 0]
    np.testing.assert_allclose(
        column(prepare(NUMBERS, {}), name), scale_twice(filled, TRAIN, 4.0), rtol=0, atol=1e-12
    )


def test_a_missing_indicator_equals_scikit_learns() -> None:
    absent = np.isnan(NUMBERS["skewed"]).astype(float)
    expected = scale_twice(absent, TRAIN, 4.0)
    np.testing.assert_allclose(column(prepare(NUMBERS, {}), "skewed (missing)"), expected, atol=1e-12)


def test_a_category_equals_pandas_counts_and_scikit_learns_one_hot() -> None:
    values = pd.Series(CATEGORIES["town"])
    counts = values[TRAIN].value_counts()
    frequent = counts[counts >= 50].sort_index().sort_values(ascending=False, kind="stable").index.tolist()
    assert len(frequent) < len(counts)
    levels = values.where(values.isin(frequent), "(other)")
    expected = (levels[TRAIN].value_counts()).idxmax()
    encoder = OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(levels[TRAIN].to_frame())
    hot = encoder.transform(levels.to_frame())
    matrix = prepare({}, CATEGORIES)
    names = [name.removeprefix("town=") for name in matrix.columns if name.startswith("town=")]
    assert set(names) == set(encoder.categories_[0]) - {expected}
    for name in names:
        one = hot[:, list(encoder.categories_[0]).index(name)]
        got = column(matrix, f"town={name}")
        wanted = scale_twice(one, TRAIN, 4.0)
        # Rare levels are shrunk to the bound; up to that factor they agree.
        np.testing.assert_allclose(got / got.max(), wanted / wanted.max(), atol=1e-12)


def test_columns_have_mean_0_and_variance_1_on_train_rows_unless_they_are_shrunk() -> None:
    matrix = prepare(NUMBERS, {"job": CATEGORIES["job"]})
    np.testing.assert_allclose(matrix.values[TRAIN].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(matrix.values[TRAIN].std(axis=0), 1, atol=1e-12)


def test_other_rows_do_not_influence_what_is_learned() -> None:
    numbers = {name: np.where(TRAIN, values, 1e6) for name, values in NUMBERS.items()}
    categories = {name: np.where(TRAIN, values, "elsewhere") for name, values in CATEGORIES.items()}
    learned = fit(NUMBERS, CATEGORIES, TRAIN)
    assert fit(numbers, categories, TRAIN) == learned
    changed = transform(learned, numbers, categories)
    np.testing.assert_array_equal(
        changed.values[TRAIN], transform(learned, NUMBERS, CATEGORIES).values[TRAIN]
    )


def test_a_level_unseen_in_training_is_treated_as_other() -> None:
    learned = fit({}, CATEGORIES, TRAIN)
    towns = learned.categories[1]
    assert "(other)" in towns.levels
    rows = {"job": texts([None, "office"]), "town": texts(["t39", "never seen"])}
    unseen = transform(learned, {}, rows)
    np.testing.assert_array_equal(*(unseen.values[:, len(learned.categories[0].indicators) :]))


def test_without_other_an_unseen_level_equals_the_reference() -> None:
    few = {"job": CATEGORIES["job"]}
    learned = fit({}, few, TRAIN)
    assert learned.categories[0].reference == "office"
    rows = transform(learned, {}, {"job": texts(["office", "unseen"])})
    np.testing.assert_array_equal(rows.values[0], rows.values[1])


def test_missing_is_a_level_of_its_own() -> None:
    matrix = prepare({}, {"job": CATEGORIES["job"]})
    assert matrix.columns == ("job=trade", "job=retired", "job=(missing)")
    is_high = column(matrix, "job=(missing)") > 0
    assert is_high.tolist() == [value is None for value in CATEGORIES["job"]]


def test_nan_in_a_category_is_missing_too() -> None:
    job = CATEGORIES["job"].copy()
    job[[value is None for value in job]] = float("nan")
    expected = prepare({}, {"job": CATEGORIES["job"]})
    np.testing.assert_array_equal(prepare({}, {"job": job}).values, expected.values)


@pytest.mark.parametrize("cap", [2, 3, 5, 20])
def test_levels_are_capped_including_other(cap: int) -> None:
    learned = fit({}, {"town": CATEGORIES["town"]}, TRAIN, Settings(max_levels=cap))
    town = learned.categories[0]
    assert len(town.levels) <= cap
    counts = pd.Series(CATEGORIES["town"][TRAIN]).value_counts()
    kept = [level for level in town.levels if level != "(other)"]
    assert counts[kept].min() >= counts.drop(kept).max()


def test_equally_frequent_levels_are_ordered_by_name_not_by_row() -> None:
    values = texts(["b", "a", "c"] * 100)
    train = np.ones(300, dtype=bool)
    assert fit({}, {"x": values}, train) == fit({}, {"x": values[::-1].copy()}, train)
    assert fit({}, {"x": values}, train).categories[0].levels == ("a", "b", "c")


def test_data_that_use_the_reserved_names_join_those_levels() -> None:
    values = texts(["a"] * 200 + ["b"] * 100 + ["(other)"] * 100 + [None] * 60 + ["(missing)"] * 40)
    learned = fit({}, {"x": values}, np.ones(500, dtype=bool))
    assert set(learned.categories[0].levels) == {"a", "b", "(other)", "(missing)"}


@pytest.mark.parametrize(
    ("missing", "has_column"), [(0, False), (49, False), (50, True), (950, True), (951, False)]
)
def test_a_missing_indicator_needs_support_on_both_sides(missing: int, has_column: bool) -> None:
    values = RANDOM.normal(size=1000)
    values[:missing] = np.nan
    learned = fit({"x": values}, {}, np.ones(1000, dtype=bool))
    assert ("x (missing)" in learned.columns) == has_column


@pytest.mark.parametrize(("ones", "is_kept"), [(49, False), (50, True), (950, True), (951, False)])
def test_a_two_valued_number_needs_support_on_both_sides(ones: int, is_kept: bool) -> None:
    values = np.where(np.arange(1000) < ones, 7.0, 3.0)
    learned = fit({"x": values}, {}, np.ones(1000, dtype=bool))
    assert (learned.columns == ("x",)) == is_kept
    if not is_kept:
        assert [(d.name, d.reason) for d in learned.dropped] == [("x", "support under 50 rows in train")]


def test_forty_columns_of_one_row_each_are_all_dropped() -> None:
    train = np.ones(1000, dtype=bool)
    spikes = {f"row{i}": (np.arange(1000) == i).astype(float) for i in range(20)}
    noisy = {f"noisy{i}": (np.arange(1000) == i) * 1e6 + RANDOM.normal(size=1000) for i in range(20)}
    assert fit({**spikes, **noisy}, {}, train).columns == ()


def test_three_values_of_which_two_are_rare_are_dropped() -> None:
    values = np.zeros(1000)
    values[:30], values[30:45] = 1.0, 2.0
    assert fit({"x": values}, {}, np.ones(1000, dtype=bool)).columns == ()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full(1000, 0.1), "one value in train"),
        (np.full(1000, np.nan), "no value in train"),
        (1e15 + np.arange(1000) % 2 * 0.125, "one value in train"),
        (np.where(np.arange(1000) < 400, np.nan, 3.0), "one value in train"),
    ],
)
def test_a_number_without_variance_is_dropped_by_name(values: NDArray[np.float64], reason: str) -> None:
    learned = fit({"x": values}, {}, np.ones(1000, dtype=bool))
    assert ("x", reason) in [(d.name, d.reason) for d in learned.dropped]
    assert "x" not in learned.columns


def test_a_category_with_one_level_is_dropped_by_name() -> None:
    learned = fit(
        {}, {"x": texts(["a"] * 990 + ["b"] * 10)}, np.ones(1000, dtype=bool), Settings(min_support=5)
    )
    assert learned.columns == ("x=b",)
    learned = fit({}, {"x": texts(["a"] * 1000), "y": texts([f"n{i}" for i in range(1000)])}, TRAIN[:1000])
    assert {d.name: d.reason for d in learned.dropped} == dict.fromkeys("xy", "one level in train")
    assert learned.columns == ()


def test_reasons_name_no_rare_level() -> None:
    values = texts(["a"] * 600 + ["b"] * 380 + ["the mayor"] * 20)
    learned = fit({}, {"x": values}, np.ones(1000, dtype=bool))
    assert "mayor" not in learned.to_json()
    assert [d.name for d in learned.dropped] == ["x=(other)"]


def test_a_rare_level_is_shrunk_to_the_bound() -> None:
    values = texts(["a"] * 99_900 + ["b"] * 100)
    train = np.ones(100_000, dtype=bool)
    matrix = transform(fit({}, {"x": values}, train), {}, {"x": values})
    assert matrix.values.max() == pytest.approx(8.0)
    assert matrix.values.mean() == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=150)
@given(
    arrays.arrays(
        np.float64,
        st.integers(2, 80),
        elements=st.one_of(
            st.floats(allow_infinity=False), st.sampled_from([0.0, 1.0]), st.floats(-10, 10, width=16)
        ),
    ),
    st.data(),
)
def test_every_value_is_finite_and_within_the_bound_whatever_the_rows(
    values: NDArray[np.float64], data: st.DataObject
) -> None:
    train = data.draw(arrays.arrays(np.bool_, len(values)).filter(lambda mask: bool(mask.any())))
    learned = fit({"x": values}, {}, train, Settings(min_support=1))
    matrix = transform(learned, {"x": values}, {})
    assert np.isfinite(matrix.values).all()
    assert not matrix.values.size or np.abs(matrix.values).max() <= 8.0
    assert len(matrix.columns) == matrix.values.shape[1]


@given(
    st.lists(st.one_of(st.none(), st.sampled_from("abcdefgh"), st.text(max_size=3)), min_size=1, max_size=60),
    st.integers(0, 5),
    st.integers(2, 6),
)
def test_a_row_is_high_in_at_most_the_column_of_its_level(
    values: list[str | None], min_support: int, max_levels: int
) -> None:
    column_of = {"x": texts(values)}
    learned = fit(
        {}, column_of, np.ones(len(values), dtype=bool), Settings(max_levels, min_support=min_support)
    )
    matrix = transform(learned, {}, column_of)
    assert len(matrix.columns) < max_levels
    high = matrix.values > 0
    assert (high.sum(axis=1) <= 1).all()
    for value, row in zip(values, high, strict=True):
        level = "(missing)" if value is None else value
        on = {name.removeprefix("x=") for name, is_on in zip(matrix.columns, row, strict=True) if is_on}
        assert on <= ({level} if level in learned.categories[0].levels else {"(other)"})


def test_json_gives_back_an_equal_preparation_bit_for_bit() -> None:
    learned = fit(NUMBERS, CATEGORIES, TRAIN)
    again = Preparation.from_json(learned.to_json())
    assert again == learned
    np.testing.assert_array_equal(
        transform(again, NUMBERS, CATEGORIES).values, transform(learned, NUMBERS, CATEGORIES).values
    )


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "null", "1", '{"numbers":1}', "[" * 100_000),
        '{"numbers":[{"name":"x","median":0}],"categories":[],"dropped":[],"bound":8}',
        '{"numbers":[{"name":"x","median":0,"value":{"exponent":0,"centre":0,"spread":0,"clip":4,'
        '"clipped_centre":0,"clipped_spread":1},"missing":null}],"categories":[],"dropped":[],"bound":8}',
        '{"numbers":[],"categories":[{"name":"x","levels":["a"],"reference":"b","indicators":[]}],'
        '"dropped":[],"bound":8}',
        '{"numbers":[],"categories":[{"name":"x","levels":"ab","reference":"a","indicators":[]}],'
        '"dropped":[],"bound":8}',
    ],
)
def test_text_that_is_no_preparation_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Preparation.from_json(text)


def test_the_matrix_is_in_c_order_with_numbers_first() -> None:
    matrix = prepare(NUMBERS, CATEGORIES)
    assert matrix.values.flags.c_contiguous and matrix.values.dtype == np.float64
    assert matrix.columns[:4] == ("even", "skewed", "skewed (missing)", "counts")
    assert len(set(matrix.columns)) == len(matrix.columns) == matrix.values.shape[1]


def test_rows_in_blocks_equal_rows_at_once() -> None:
    learned = fit(NUMBERS, CATEGORIES, TRAIN)
    three = {name: np.tile(values, 3) for name, values in NUMBERS.items()}
    categories = {name: np.tile(values, 3) for name, values in CATEGORIES.items()}
    once = transform(learned, NUMBERS, CATEGORIES).values
    np.testing.assert_array_equal(transform(learned, three, categories).values, np.tile(once, (3, 1)))


def test_the_input_is_left_as_it_was() -> None:
    before = {name: values.copy() for name, values in NUMBERS.items()}
    prepare(NUMBERS, CATEGORIES)
    for name, values in before.items():
        np.testing.assert_array_equal(NUMBERS[name], values)


def test_a_table_without_rows_or_columns_is_transformed_to_nothing() -> None:
    learned = fit(NUMBERS, CATEGORIES, TRAIN)
    nothing = {name: values[:0] for name, values in NUMBERS.items()}
    no_text = {name: values[:0] for name, values in CATEGORIES.items()}
    assert transform(learned, nothing, no_text).values.shape == (0, len(learned.columns))
    assert fit({}, {}, TRAIN).columns == ()


@pytest.mark.parametrize(
    ("numbers", "categories", "train", "complaint"),
    [
        ({"x": np.array([1.0, np.inf])}, {}, np.ones(2, bool), "infinite"),
        ({"x": np.array([1, 2])}, {}, np.ones(2, bool), "float64"),
        ({"x": np.zeros(3)}, {}, np.ones(2, bool), "shape"),
        ({"x": np.zeros((2, 2))}, {}, np.ones(2, bool), "shape"),
        ({"x": np.zeros(2)}, {}, np.zeros(2, bool), "at least one row"),
        ({"x": np.zeros(2)}, {}, np.ones(2), "mask"),
        ({}, {"x": texts(["a"])}, np.ones(2, bool), "shape"),
        ({}, {"x": np.array(["a", 3], dtype=object)}, np.ones(2, bool), "text or None"),
        ({}, {"x": np.array(["a", []], dtype=object)}, np.ones(2, bool), "text or None"),
    ],
)
def test_columns_that_do_not_fit_are_refused(
    numbers: Numbers, categories: Categories, train: NDArray[np.bool_], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        fit(numbers, categories, train)


def test_two_columns_of_one_name_are_refused() -> None:
    gaps = np.where(np.arange(1000) % 2, np.nan, RANDOM.normal(size=1000))
    with pytest.raises(ValueError, match="same name"):
        fit({"x": gaps, "x (missing)": RANDOM.normal(size=1000)}, {}, TRAIN[:1000])


@pytest.mark.parametrize(
    "wrong", [{"max_levels": 1}, {"clip": 0.0}, {"clip": 9.0}, {"bound": float("inf")}, {"min_support": -1}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Settings(**wrong)  # type: ignore[arg-type]
