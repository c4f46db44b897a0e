"""Fit of predicted numbers and counts, against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import d2_tweedie_score, mean_poisson_deviance, r2_score, root_mean_squared_error

from fedmkt.learn.regression import evaluate_values, poisson_deviance


def test_numbers_are_measured_as_by_scikit_learn() -> None:
    random = np.random.default_rng(1)
    y = random.normal(5, 3, 500)
    p = y + random.normal(0, 2, 500)
    found = evaluate_values(y, p, are_counts=False)
    assert found.r2 == pytest.approx(r2_score(y, p))
    assert found.rmse == pytest.approx(root_mean_squared_error(y, p))
    assert (found.deviance, found.explained) == (None, None)
    assert (found.mean_label, found.mean_predicted, found.rows) == (y.mean(), p.mean(), 500)


def test_counts_have_a_deviance_too() -> None:
    random = np.random.default_rng(2)
    mean = np.exp(random.normal(-1, 0.7, 800))
    y = random.poisson(mean).astype(float)
    found = evaluate_values(y, mean, are_counts=True)
    assert found.deviance == pytest.approx(mean_poisson_deviance(y, mean))
    assert found.explained == pytest.approx(d2_tweedie_score(y, mean, power=1))
    rounded = evaluate_values(y, np.round(mean, 1), are_counts=True, least=0.05)
    assert rounded.deviance == pytest.approx(mean_poisson_deviance(y, np.maximum(np.round(mean, 1), 0.05)))


def test_what_cannot_be_measured_is_refused() -> None:
    for y, p, message in (
        ([1, 1], [1, 2], "alike"),
        ([1, 2], [1], "one length"),
        ([], [], "one length"),
        ([1, 2], [1, np.nan], "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_values(y, p, are_counts=False)
    with pytest.raises(ValueError, match="zero or more"):
        poisson_deviance(np.array([-1.0]), np.array([1.0]))
