"""The matrix of an additive model: functions, values told apart, products, and what may not be added."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer

from fedmkt.learn import additive, glm, prepare
from fedmkt.learn.additive import Additive, Form
from fedmkt.learn.metrics import auc

Table = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


def table(n: int = 3000, seed: int = 1) -> Table:
    random = np.random.default_rng(seed)
    income = np.exp(random.normal(7, 1, n))
    income[random.random(n) < 0.1] = np.nan
    balance = np.where(random.random(n) < 0.4, 0.0, random.normal(0, 900, n))
    numbers = {
        "age": random.uniform(18, 90, n),
        "income": income,
        "balance": balance,
        "flag": random.integers(0, 2, n) * 1.0,
    }
    jobs = random.choice(["clerk", "student", "none"], n, p=[0.5, 0.3, 0.2]).astype(object)
    return numbers, {"job": jobs}


PAIRS = (("age", "balance"), ("age", "job"), ("flag", "job"), ("flag", "income"))


def test_columns_are_named_and_in_order() -> None:
    fitted = additive.fit(*table(), Form("spline", 2, 0.001))
    assert fitted.columns == (
        *(f"age~{i}" for i in range(1, 6)), *(f"income~{i}" for i in range(1, 6)),
        *(f"balance~{i}" for i in range(1, 6)), "flag", "job=student", "job=none", "income (missing)", "balance=0",
    )  # fmt: skip


@pytest.mark.parametrize("basis", ["spline", "bins"])
def test_json_gives_an_equal_preparation_and_equal_bits(basis: additive.Basis) -> None:
    numbers, categories = table()
    fitted = additive.fit(numbers, categories, Form(basis, 6, 0.01, PAIRS))
    again = Additive.from_json(fitted.to_json())
    assert again == fitted
    first, second = (additive.transform(f, numbers, categories) for f in (fitted, again))
    assert first.columns == second.columns == fitted.columns and first.values.shape[1] == len(fitted.columns)
    assert np.array_equal(first.values, second.values)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"smooths":[],"rest":{},"pairs":[],"added":{}}'])
def test_another_text_is_no_preparation(text: str) -> None:
    with pytest.raises(ValueError):
        Additive.from_json(text)


def test_coefficients_of_other_knots_are_refused() -> None:
    text = additive.fit(*table(), Form("spline", 2, 0.001)).to_json()
    with pytest.raises(ValueError, match="do not belong"):
        Additive.from_json(text.replace('"degree":3', '"degree":1', 1))


def test_every_value_of_unseen_rows_is_within_the_bound() -> None:
    fitted = additive.fit(*table(), Form("spline", 8, 0.0, PAIRS))
    numbers, categories = table(500, 9)
    numbers["age"][:3] = (-1e300, 1e300, np.nan)
    categories["job"][:2] = ("unheard of", None)
    found = additive.transform(fitted, numbers, categories).values
    assert np.isfinite(found).all() and np.abs(found).max() <= 8


def test_a_column_that_repeats_another_but_for_few_rows_is_not_added() -> None:
    for differing, is_added in ((10, False), (200, True)):
        _, categories = table()
        last = np.where(categories["job"] == "none", -1.0, np.random.default_rng(2).uniform(1, 90, 3000))
        last[:differing] = -1.0
        fitted = additive.fit({"last": last}, categories, Form("spline", 4, 0.001))
        assert ("last=-1" in fitted.columns) == is_added


def test_of_columns_that_are_missing_together_one_is_added() -> None:
    numbers, categories = table()
    numbers = {"income": numbers["income"], "second": numbers["income"] * 2}
    found = [c for c in additive.fit(numbers, categories, Form("spline", 4, 0.001)).columns if "missing" in c]
    assert found == ["income (missing)"]


@pytest.mark.parametrize("rows", [10, 100])
def test_a_product_adds_only_what_enough_rows_carry(rows: int) -> None:
    numbers, categories = table()
    student = np.flatnonzero(categories["job"] == "student")
    city = np.random.default_rng(3).choice(["a", "b"], 3000, p=[0.6, 0.4]).astype(object)
    city[student] = "b"
    city[student[:rows]] = "a"  # so few students are no "b" that student * b is student but for them
    fitted = additive.fit(numbers, categories | {"city": city}, Form("spline", 4, 0.001, (("job", "city"),)))
    assert any("*" in c and "student" in c for c in fitted.columns) == (rows == 100)


def test_a_product_tells_what_the_sum_of_two_functions_does_not() -> None:
    random = np.random.default_rng(5)
    numbers = {"x": random.uniform(-1, 1, 4000), "y": random.uniform(-1, 1, 4000)}
    label = (random.random(4000) < glm.sigmoid(4 * numbers["x"] * numbers["y"])).astype(float)
    found = {}
    for pairs in ((), (("x", "y"),)):
        x = additive.transform(additive.fit(numbers, {}, Form("spline", 4, 0.001, pairs)), numbers, {}).values
        found[pairs] = auc(label, glm.predict(glm.fit_logistic(x, label, 1.0), x))
    assert found[("x", "y"),] > 0.75 and found[()] < 0.58


def test_a_nonlinear_signal_is_found_as_scikit_learn_finds_it() -> None:
    random = np.random.default_rng(6)
    x = random.uniform(-3, 3, (6000, 2))
    label = (random.random(6000) < glm.sigmoid(1.5 * np.cos(2 * x[:, 0]) + np.abs(x[:, 1]) - 2)).astype(float)
    train = np.arange(6000) < 4000
    numbers = {"a": x[:, 0].copy(), "b": x[:, 1].copy()}
    seen = {n: v[train] for n, v in numbers.items()}

    def measured(values: np.ndarray) -> float:
        model = glm.fit_logistic(values[train], label[train], 1.0)
        return auc(label[~train], glm.predict(model, values[~train]))

    ours = measured(
        additive.transform(additive.fit(seen, {}, Form("spline", 10, 0.0005)), numbers, {}).values
    )
    straight = measured(prepare.transform(prepare.fit(numbers, {}, train), numbers, {}).values)
    theirs = make_pipeline(SplineTransformer(n_knots=12, knots="quantile"), LogisticRegression(max_iter=1000))
    best = auc(label[~train], theirs.fit(x[train], label[train]).predict_proba(x[~train])[:, 1])
    assert straight < 0.56 < 0.75 < ours
    assert ours == pytest.approx(best, abs=0.004)


def test_names_that_would_meet_are_refused() -> None:
    random = np.random.default_rng(0)
    with pytest.raises(ValueError, match="same name"):
        additive.fit(
            {"a": random.uniform(0, 1, 500), "a~1": random.integers(0, 2, 500) * 1.0},
            {},
            Form("spline", 2, 0.001),
        )
