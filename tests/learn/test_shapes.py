"""The functions of an additive model add up to its predictor, and each is 0 on average."""

import numpy as np
import pytest

from fedmkt.learn import additive, glm
from fedmkt.learn.additive import Form
from fedmkt.learn.prepare import MISSING
from fedmkt.learn.shapes import Shape, Shapes, shapes
from tests.learn.test_additive import Table, table


def made(basis: additive.Basis = "spline", pairs=()) -> tuple[Table, additive.Additive, np.ndarray, Shapes]:
    numbers, categories = table()
    numbers["few"] = np.where(np.arange(3000) % 9 == 0, np.nan, np.arange(3000) % 2)
    fitted = additive.fit(numbers, categories, Form(basis, 8, 0.001, pairs))
    weights = np.random.default_rng(7).standard_normal(len(fitted.columns))
    return (numbers, categories), fitted, weights, shapes(fitted, weights, numbers, categories)


def read(shape: Shape, values: np.ndarray) -> np.ndarray:
    """Read the effect of each row off one shape, as a person with a pencil would."""
    levels = {level.name: level.effect for level in shape.levels}
    if not shape.values:
        return np.array([levels[str(v)] for v in values])
    found = np.interp(values, shape.values, shape.effects)
    for name, effect in levels.items():
        found[np.isnan(values) if name == MISSING else values == float(name)] = effect
    return found


@pytest.mark.parametrize(("basis", "tolerance"), [("spline", 0.03), ("bins", 1e-9)])
def test_the_shapes_of_all_columns_add_up_to_the_predictor(basis: additive.Basis, tolerance: float) -> None:
    (numbers, categories), fitted, weights, found = made(basis)
    inside = np.ones(3000, bool)
    for smooth in fitted.smooths:
        v = numbers[smooth.name]
        inside &= np.isnan(v) | ((v >= smooth.knots[0]) & (v <= smooth.knots[-1])) | (v == smooth.spike)
    whole = additive.transform(fitted, numbers, categories).values @ weights
    table_columns = {**numbers, **categories}
    total = np.sum([read(shape, table_columns[shape.column]) for shape in found.columns], axis=0)
    assert inside.mean() > 0.9
    assert np.abs(total - whole)[inside].max() < tolerance * np.abs(whole).max()


@pytest.mark.parametrize("basis", ["spline", "bins"])
def test_every_shape_is_zero_on_average_and_has_the_size_of_its_effects(basis: additive.Basis) -> None:
    (numbers, categories), _, _, found = made(basis)
    assert [s.column for s in found.columns] == [*numbers, *categories]
    for shape in found.columns:
        effects = read(shape, {**numbers, **categories}[shape.column])
        assert abs(effects.mean()) < 0.03 * max(1.0, shape.size)
        assert shape.size == pytest.approx(effects.std(), rel=0.05)


def test_density_and_levels_are_shares_of_all_train_rows() -> None:
    *_, found = made()
    for shape in found.columns:
        assert sum(shape.density) + sum(level.share for level in shape.levels) == pytest.approx(1)
    (balance,) = (s for s in found.columns if s.column == "balance")
    assert balance.levels[0].name == "0" and balance.levels[0].share == pytest.approx(0.4, abs=0.03)


def test_the_products_of_a_pair_have_a_size_and_change_no_shape_of_a_column() -> None:
    (numbers, categories), fitted, weights, found = made(pairs=(("age", "job"),))
    at = [i for i, c in enumerate(fitted.columns) if "*" in c]
    products = additive.transform(fitted, numbers, categories).values[:, at] @ weights[at]
    assert [(p.left, p.right) for p in found.pairs] == [("age", "job")]
    assert found.pairs[0].size == pytest.approx(products.std())
    weights[at] = 0
    assert shapes(fitted, weights, numbers, categories).columns == found.columns


def test_a_model_without_weights_is_flat() -> None:
    (numbers, categories), fitted, weights, _ = made()
    for shape in shapes(fitted, 0 * weights, numbers, categories).columns:
        assert shape.size == 0 and not any(shape.effects) and not any(level.effect for level in shape.levels)


def test_the_shape_of_a_known_function_is_that_function() -> None:
    random = np.random.default_rng(8)
    x = random.uniform(-3, 3, 20_000)
    label = (random.random(20_000) < glm.sigmoid(np.sin(2 * x))).astype(float)
    fitted = additive.fit({"x": x}, {}, Form("spline", 10, 0.001))
    model = glm.fit_logistic(additive.transform(fitted, {"x": x}, {}).values, label, 1.0)
    (shape,) = shapes(fitted, model.coefficients, {"x": x}, {}).columns
    wanted = np.sin(2 * np.array(shape.values))
    assert np.abs(np.array(shape.effects) - wanted).mean() < 0.1
