"""Linear and Poisson models on shares: scikit-learn's optimum in the units of training, and nothing else is seen."""

import dataclasses
import functools

import numpy as np
import pytest
from sklearn.linear_model import PoissonRegressor, Ridge

from fedmkt.errors import DataError
from fedmkt.learn import glm
from fedmkt.protocol import layout as layout_module
from fedmkt.protocol.core import data_parties
from fedmkt.protocol.linear.logistic import fit
from fedmkt.protocol.linear.scoring import Released, score
from fedmkt.protocol.linear.targets import Units
from tests.protocol.glm_world import (
    check_addresses,
    draws,
    found,
    known_rows,
    matrix,
    raw_rows,
    special,
    trained,
    weight_error,
    world,
)
from tests.protocol.hidden_world import hidden_contract
from tests.protocol.plain_caller import BANK, contract_of, start_aligned
from tests.protocol.test_two_worlds import MASKED, check_same

KINDS = pytest.mark.parametrize("kind", ["linear", "poisson"])
BOTH = {"offset": "o", "weight": "v"}


@functools.cache
def model(kind, k=2, weighted=False, penalty=2.0):
    names = {"weight": "v"} if weighted else {}
    terms = {"kind": kind, "iterations": 24, "penalty": penalty}
    return trained(world(k, names, model=terms, seed=k, scores={"decimals": 3}), seed=k)


def scikit_learns(caller):
    """Fit in the bank's own units; return intercept and weights in those of training."""
    x, rows, penalty = matrix(caller), raw_rows(caller), caller.contract.model.penalty
    scale = caller.recall(BANK, Units).scale
    if caller.contract.model.kind == "linear":
        theirs = Ridge(alpha=penalty, tol=1e-12).fit(x, rows.y, rows.weight)
        return np.append((theirs.intercept_ - scale.center) / scale.spread, theirs.coef_ / scale.spread)
    alpha = penalty * scale.spread / rows.weight.sum()
    theirs = PoissonRegressor(alpha=alpha, tol=1e-10, max_iter=1000, solver="newton-cholesky")
    theirs.fit(x, rows.y, rows.weight)
    return np.append(theirs.intercept_ - np.log(scale.spread), theirs.coef_)


@KINDS
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_joint_model_is_scikit_learns(kind, k, weighted):
    caller = model(kind, k, weighted)
    assert weight_error(caller, scikit_learns(caller)) < 5e-3
    held_out, w = known_rows(caller, "held_out"), found(caller)
    x, best = matrix(caller, "held_out"), scikit_learns(caller)
    losses = [glm.mean_loss(kind, held_out, x @ v[1:] + v[0]) for v in (w, best)]
    assert abs(losses[0] - losses[1]) < 1e-3


@KINDS
def test_an_offset_is_added_in_the_labels_own_units(kind):
    """The offset of a linear model is in units of the label; the scores have it back."""
    data = world(2, {"offset": "o"}, model={"kind": kind, "iterations": 24}, scores={"decimals": 3})
    caller = trained(data)
    best = glm.fit(kind, matrix(caller), known_rows(caller), 1.0)
    assert weight_error(caller, np.append(best.intercept, best.coefficients)) < 5e-3


@KINDS
def test_released_scores_are_the_models_in_units_of_training(kind):
    caller = model(kind)
    score(caller, caller.contract, caller.overlap, caller.columns())
    released, w = caller.recall(BANK, Released), found(caller)
    z = matrix(caller, "held_out") @ w[1:] + w[0]
    scores = released.units[: released.held_out] / 1e3
    value, inside = glm.mean_label(kind, z), z < 2.5
    error = np.abs(scores - value) / np.maximum(1, value)
    assert inside.mean() > 0.95
    assert error[inside].max() < (0.002 if kind == "linear" else 0.012)
    assert kind == "poisson" or released.units.min() < 0, "a linear score may be below the mean"


@KINDS
def test_a_training_in_blocks_is_the_same(kind, monkeypatch):
    monkeypatch.setattr(layout_module, "BLOCK_BYTES", 40_000)
    data = world(2, {"weight": "v"}, model={"kind": kind, "iterations": 2}, n=700)
    caller = trained(data)
    monkeypatch.undo()
    assert np.abs(found(caller) - found(trained(data))).max() < 3e-3


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("linear", lambda y: np.where(np.isnan(y), y, 3.0), "all labels are alike"),
        ("poisson", lambda y: y - 1, "none below zero"),
        ("poisson", lambda y: y * 0, "not all zero"),
        ("logistic", lambda y: y + 1, "neither 0 nor 1"),
    ],
)
def test_labels_that_do_not_fit_the_model_are_refused(kind, change, message):
    data = world(2, model={"kind": kind, "iterations": 1}, n=500)
    customers, columns = data.local[BANK]
    data.local[BANK] = (customers, dataclasses.replace(columns, label=change(columns.label)))
    caller = start_aligned(data)
    with pytest.raises(DataError, match=message):
        fit(caller, data.contract, caller.overlap, caller.columns())


@pytest.mark.parametrize(("kind", "what"), [("linear", "that count"), ("poisson", "with a count above zero")])
def test_too_few_rows_for_the_columns_are_refused(kind, what):
    data = world(2, model={"kind": kind, "iterations": 1}, n=500, limits={"min_events": 90})
    caller = start_aligned(data)
    with pytest.raises(DataError, match=f"{what} for each of 9 columns, and limits.min_events wants 90"):
        fit(caller, data.contract, caller.overlap, caller.columns())


@KINDS
def test_a_hidden_match_is_refused_by_the_contract(kind):
    with pytest.raises(ValueError, match=f"hidden is for kind = logistic, not for {kind}"):
        hidden_contract(model={"kind": kind})


def test_class_weights_are_refused_where_labels_have_no_classes():
    with pytest.raises(ValueError, match=r"class_weights of .model. are for kind = logistic"):
        contract_of(model={"kind": "linear", "class_weights": (1.0, 2.0)})
    assert special(contract_of(model={"kind": "linear"}), BOTH).bank.weight == "v"


# ------------------------------------------------------------------------------------------ what is seen of it


def small(kind, seed=3, change=lambda columns: columns, k=2):
    data = world(k, BOTH, n=500, model={"kind": kind, "iterations": 2})
    customers, columns = data.local[BANK]
    data.local[BANK] = (customers, change(columns))
    caller = start_aligned(data, seed=seed)
    drawn = draws(caller)
    fit(caller, data.contract, caller.overlap, caller.columns())
    score(caller, data.contract, caller.overlap, caller.columns())
    return caller, drawn


def other_labels(columns):
    """Give the labelled rows each other's labels, in other units."""
    y = columns.label.copy()
    y[~np.isnan(y)] = 3 * y[~np.isnan(y)][::-1]
    return dataclasses.replace(columns, label=y)


@KINDS
@pytest.mark.parametrize("k", [2, 3])
def test_fit_and_scores_hide_labels_and_their_units(kind, k):
    one, other = small(kind, k=k)[0], small(kind, change=other_labels, k=k)[0]
    masked = MASKED | {"HiddenRowWeight", "RowOpening", "PredictorOpening"}
    check_same(one, other, data_parties(one.contract)[1:], masked)
    assert not np.array_equal(found(one), found(other))


@KINDS
def test_every_mask_has_an_address_of_its_own(kind):
    caller, drawn = small(kind, k=3)
    check_addresses(caller, drawn)
