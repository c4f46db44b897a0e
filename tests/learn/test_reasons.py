import numpy as np

from fedmkt.learn.reasons import Categories, Floats, Numbers, find_reasons

NUMBERS = {"x": np.array([1.0, 2.0, 3.0, 10.0]), "z": np.array([0.0, np.nan, 1.0, 1.0])}
CATEGORIES = {"c": np.array(["a", "b", None, "b"], object)}
TRAIN = np.arange(4)


def predict(numbers: Numbers, categories: Categories) -> Floats:
    odds = 0.5 * numbers["x"] - np.nan_to_num(numbers["z"]) + 2.0 * (categories["c"] == "b")
    return np.asarray(1 / (1 + np.exp(-odds)))


def test_of_a_sum_of_columns_each_part_is_the_distance_from_the_typical_value() -> None:
    found = find_reasons(predict, NUMBERS, CATEGORIES, TRAIN, predict(NUMBERS, CATEGORIES), True)
    assert found.columns == ("x", "z", "c")
    np.testing.assert_allclose(found.own[:, 0], 0.5 * (NUMBERS["x"] - 2.5), atol=1e-4)
    np.testing.assert_allclose(found.own[:, 1], 1 - np.nan_to_num(NUMBERS["z"]), atol=1e-4)
    np.testing.assert_allclose(found.own[:, 2], [-2, 0, -2, 0], atol=1e-4)
    np.testing.assert_allclose(found.rest, 0, atol=1e-6)


def test_the_rest_is_what_the_released_score_has_besides_in_log_odds() -> None:
    ours = predict(NUMBERS, CATEGORIES)
    odds = np.log(ours / (1 - ours)) + np.array([1.0, -1.0, 0.5, 0.0])
    found = find_reasons(predict, NUMBERS, CATEGORIES, TRAIN, 1 / (1 + np.exp(-odds)), True)
    np.testing.assert_allclose(found.rest, [1.0, -1.0, 0.5, 0.0], atol=1e-6)


def test_of_values_parts_are_in_their_own_unit() -> None:
    found = find_reasons(lambda n, c: 3 * n["x"], NUMBERS, CATEGORIES, TRAIN, np.full(4, 40.0), False)
    np.testing.assert_allclose(found.own[:, 0], 3 * (NUMBERS["x"] - 2.5))
    np.testing.assert_allclose(found.rest, 40 - 3 * NUMBERS["x"])


def test_a_score_of_nothing_or_all_has_finite_reasons() -> None:
    found = find_reasons(predict, NUMBERS, CATEGORIES, TRAIN, np.array([0.0, 1.0, 0.5, 0.5]), True)
    assert np.isfinite(found.rest).all()
