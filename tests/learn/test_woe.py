import numpy as np
import pytest

from fedmkt.learn import glm, prepare
from fedmkt.learn.bins import CategoryBins, NumberBins
from fedmkt.learn.woe import MOST_UNITS, WoeColumn, WoeColumns, in_units, place_rows, weights_of_woe

AGE = WoeColumn(NumberBins("age", (30.0, 50.0), 3), (-5000, 0, 2500, 123))
TOWN = WoeColumn(CategoryBins("town", (("north",), ("south", "east")), 1), (700, -700))
NUMBERS = {"age": np.array([20.0, 30.0, 70.0, np.nan])}
CATEGORIES = {"town": np.array(["north", "west", None, "east"], dtype=object)}


def test_each_row_gets_the_woe_of_its_bin():
    found = WoeColumns((AGE, TOWN)).weigh(NUMBERS, CATEGORIES)
    assert list(found) == ["age", "town"]
    assert found["age"].tolist() == pytest.approx([-0.5, 0.0, 0.25, 0.0123])
    assert found["town"].tolist() == pytest.approx([0.07, -0.07, -0.07, -0.07])
    assert place_rows(AGE.bins, NUMBERS, CATEGORIES).tolist() == [0, 1, 2, 3]


def test_columns_survive_their_text():
    columns = WoeColumns((AGE, TOWN))
    assert WoeColumns.from_json(columns.to_json()) == columns
    assert WoeColumns.from_json(columns.to_json()).to_json() == columns.to_json()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"binning":{"columns":[]}}', '{"binning":1,"units":[]}'])
def test_a_text_that_is_no_woe_columns_is_refused(text):
    with pytest.raises(ValueError):
        WoeColumns.from_json(text)


@pytest.mark.parametrize(
    "units", [(1, 2), (1, 2, 3, 4, 5), (0, 0, 0, MOST_UNITS + 1), (-MOST_UNITS - 1, 0, 0, 0)]
)
def test_woe_that_does_not_fit_its_bins_is_refused(units):
    with pytest.raises(ValueError, match=r"bins|range"):
        WoeColumn(AGE.bins, units)


def test_a_column_stands_there_once():
    with pytest.raises(ValueError, match="same name"):
        WoeColumns((AGE, AGE))


def test_rounding_moves_woe_by_half_a_unit_at_most():
    woe = np.random.default_rng(1).normal(0, 1, 200)
    units = in_units(woe)
    assert all(isinstance(u, int) for u in units)
    assert np.abs(np.array(units) * 1e-4 - woe).max() <= 5.0001e-5


def test_weights_of_prepared_columns_give_the_same_predictor_on_woe():
    random = np.random.default_rng(2)
    values = {f"x{j}": random.choice([-0.9, -0.1, 0.4, 2.0], 500, p=[0.3, 0.4, 0.24, 0.06]) for j in range(3)}
    values["constant"] = np.ones(500)
    settings = prepare.Settings(clip=8.0, bound=8.0)
    fitted = prepare.fit(values, {}, np.ones(500, bool), settings)
    matrix = prepare.transform(fitted, values, {}).values
    assert matrix.shape == (500, 3) and np.abs(matrix).max() > 2.5
    weights = glm.Weights(0.3, np.array([1.0, -2.0, 0.5]))
    found = weights_of_woe(fitted, weights)
    z = found.intercept + np.stack(list(values.values()), axis=1) @ found.coefficients
    assert np.allclose(z, glm.linear_predictor(weights, matrix), atol=1e-10)
    assert found.coefficients[3] == 0
    with pytest.raises(ValueError, match="not of 3"):
        weights_of_woe(fitted, glm.Weights(0.0, np.ones(2)))
