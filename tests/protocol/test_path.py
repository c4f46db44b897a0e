"""A path of penalties: errors on validation rows, choice and final model are those of plain models of each penalty."""

import dataclasses
import functools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.metrics import mean_poisson_deviance, mean_squared_error

from fedmkt.errors import DataError, PolicyRefused
from fedmkt.learn import glm, metrics
from fedmkt.privacy.disclosure import DEFAULT, ChosenPenalty, PenaltyCurve
from fedmkt.protocol.alignment.align import Split, Validation, joint_rows, split
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.alignment.psi import Customers, psi
from fedmkt.protocol.core import data_parties, dealer
from fedmkt.protocol.linear import logistic, path
from fedmkt.protocol.linear.path import Curve, SquareShares
from fedmkt.protocol.linear.penalties import Trial, penalty_of
from fedmkt.protocol.linear.targets import Units
from fedmkt.protocol.prepare import Prepared, encoded_matrix, prepare_columns, real
from tests.protocol.glm_world import (
    check_addresses,
    draw,
    draws,
    found,
    known_rows,
    matrix,
    special,
    weight_error,
    world,
)
from tests.protocol.hidden_world import hidden_contract, hidden_data, start_hidden
from tests.protocol.plain_caller import BANK, SHOP, PlainCaller, contract_of, place, start_aligned
from tests.protocol.test_two_worlds import MASKED, check_same

PENALTIES = (10.0, 1000.0, 1.0, 100.0)
DISCLOSED = (*DEFAULT, "PenaltyCurve", "ChosenPenalty")
BOTH = {"offset": "o", "weight": "v"}
COLUMNS = (8, 6, 4)


def trained(k=2, names=None, seed=1, n=3000, model=None, change=lambda data: data, **options):
    """Train along a path, and return the caller with the masks that were drawn."""
    model = {"penalties": PENALTIES, "path_passes": 12} | (model or {})
    data = change(world(k, names, n, seed, 0.6, COLUMNS, model, disclosures=DISCLOSED, **options))
    caller = start_aligned(data, seed=seed)
    drawn = draws(caller)
    path.fit(caller, caller.contract, caller.overlap, caller.columns())
    return caller, drawn


def validates(caller):
    """Tell for each real training row, in the bank's order, whether penalties are compared on it."""
    rows, places = joint_rows(caller.turn(BANK), True), np.flatnonzero(caller.recall(BANK, Validation).rows)
    return np.isin(real(caller.recall(BANK, Split).train), real(rows[places]))


def part(known, rows):
    return glm.Rows(known.y[rows], known.weight[rows], known.offset[rows])


def expected(caller, penalty):
    """Return the mean squared error on the validation rows of a plain model of the others."""
    x, known, held = matrix(caller), known_rows(caller), validates(caller)
    kind, judged = caller.contract.model.link, part(known, held)
    fitted = glm.fit(kind, x[~held], part(known, ~held), penalty)
    mean, spread = glm.predict(fitted, x[held], kind, judged.offset), caller.recall(BANK, Units).spread
    if kind == "poisson":
        return float(mean_poisson_deviance(judged.y, mean, sample_weight=judged.weight)) * spread
    return float(mean_squared_error(judged.y, mean, sample_weight=judged.weight)) * spread**2


def by_sklearn(caller, penalty):
    """Return intercept and weights of scikit-learn's model of all train rows."""
    x, known, kind = matrix(caller), known_rows(caller), caller.contract.model.link
    model = {
        "logistic": LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=5000),
        "linear": Ridge(alpha=penalty),
        "poisson": PoissonRegressor(alpha=penalty / known.weight.sum(), tol=1e-10, max_iter=5000),
    }[kind]
    model.fit(x, known.y, sample_weight=known.weight)
    return np.append(model.intercept_, model.coef_)


def hidden(names=None, n=6000, rate=0.4, **model):
    """Train along a path where the partner does not know who is common."""
    terms = {"penalties": PENALTIES, "path_passes": 12} | model
    contract = special(hidden_contract((6, 5), model=terms, disclosures=DISCLOSED), names or {})
    data = hidden_data(contract, n, rate=rate)
    customers, own = data.local[BANK]
    data.local[BANK] = (customers, draw(own, names or {}, 1))
    caller = start_hidden(data)
    drawn = draws(caller)
    path.fit(caller, caller.contract, caller.overlap, caller.columns())
    return caller, drawn


CASES = {
    "logistic": {},
    "three parties": {"k": 3},
    "weights and offset": {"names": BOTH},
    "classes that count differently": {"model": {"class_weights": (1.0, 3.0)}},
    "linear": {"model": {"kind": "linear"}},
    "linear, weights and offset": {"model": {"kind": "linear"}, "names": BOTH},
    "poisson": {"model": {"kind": "poisson", "path_passes": 24}},
    "poisson, weights and offset": {"model": {"kind": "poisson", "path_passes": 24}, "names": BOTH},
    "poisson, three parties": {"model": {"kind": "poisson", "path_passes": 24}, "k": 3},
}


HIDDEN = {
    "hidden match": {},
    "hidden match, weights and offset": {"names": BOTH},
    "hidden match of few": {"rate": 0.08, "n": 15000, "path_passes": 16},
}
NAMES = [*CASES, *HIDDEN]


@functools.cache
def case(name):
    return trained(**CASES[name]) if name in CASES else hidden(**HIDDEN[name])


@pytest.mark.parametrize("name", NAMES)
def test_the_curve_is_that_of_plain_models_of_the_rows_that_train(name):
    caller, _ = case(name)
    errors = caller.recall(BANK, Curve).errors
    right = [expected(caller, penalty) for penalty in caller.contract.model.path]
    # Twelve passes from one penalty to the next, and the series of exp on shares, are off by one in a thousand or so.
    assert errors == pytest.approx(right, rel=2e-3)
    assert caller.recall(BANK, Curve).rows == validates(caller).sum()
    assert caller.recall(BANK, Trial) == Trial(int(np.argmin(errors)), True) == caller.recall(SHOP, Trial)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_that_of_the_chosen_penalty_on_all_rows(name):
    caller, _ = case(name)
    penalty = penalty_of(caller.turn(BANK))
    best = glm.fit(caller.contract.model.link, matrix(caller), known_rows(caller), penalty)
    assert weight_error(caller, np.append(best.intercept, best.coefficients)) < 3e-3
    if "offset" not in name:
        assert weight_error(caller, by_sklearn(caller, penalty)) < 3e-3


@pytest.mark.parametrize("name", NAMES)
def test_every_mask_is_drawn_once(name):
    check_addresses(*case(name))


def test_only_the_sums_are_told_to_the_bank_alone_and_the_choice_to_all():
    caller, _ = case("three parties")
    told = [kind for step, kind in caller.revealed if step.startswith("path.")]
    assert told == [PenaltyCurve("bank", 4, 20)] * 2 + [ChosenPenalty("all")]
    sums = [s for s in caller.sent if isinstance(s.message, SquareShares)]
    assert [s.reader for s in sums] == [BANK, BANK]
    assert {s.message.words.shape for s in sums} == {(4,)}
    assert not any(s.step.startswith("path.") for s in caller.seen_by(dealer(caller.contract)))


# ------------------------------------------------------------------------------------------ left join


def joined(known, names=BOTH, **model):
    """Train along a path with all of the bank's 1,500 people, of whom the partner has every `known`th."""
    options = {
        "align": {"join": "left"},
        "disclosures": (*DISCLOSED, "JoinedRows"),
    }
    model = {"penalties": (1.0, 100.0), "path_passes": 16} | model
    data = world(2, names, 1500, 1, 0.6, COLUMNS, model, **options)
    customers, own = data.local[SHOP]
    common = np.array([int(i[7:]) % known == 0 for i in customers.ids])
    ids = tuple(i for i, is_common in zip(customers.ids, common, strict=True) if is_common)
    numbers = {name: values[common] for name, values in own.numbers.items()}
    data.local[SHOP] = (Customers(ids, None), dataclasses.replace(own, numbers=numbers))
    caller = PlainCaller(data.contract, data.local, seed=1)
    psi(caller, data.contract)
    split(caller, data.contract)
    prepare_columns(caller, data.contract)
    path.fit(caller, data.contract, caller.overlap, caller.columns())
    return caller


def joined_matrix(caller):
    """Return all columns of the bank's train rows, 0 where the partner has no such person."""
    rows = joint_rows(caller.turn(BANK), True) != NO_ROW
    sides = []
    for party in (BANK, SHOP):
        turn = caller.turn(party)
        white = encoded_matrix(turn, joint_rows(turn, True), 16)[rows] / 2.0**16
        sides.append(white @ np.linalg.inv(caller.recall(party, Prepared).transform))
    return np.concatenate(sides, axis=1)


@pytest.mark.parametrize(
    ("names", "kind"), [(BOTH, "logistic"), ({}, "logistic"), ({}, "linear"), ({}, "poisson")]
)
def test_with_a_left_join_curve_and_model_are_those_of_rows_of_zeros(names, kind):
    """Rows that stand for nobody are drawn too, where all count alike: their error is taken off."""
    caller = joined(2, names, kind=kind, path_passes=24)
    x, known = joined_matrix(caller), known_rows(caller)
    rows = joint_rows(caller.turn(BANK), True) != NO_ROW
    held = caller.recall(BANK, Validation).rows[rows]
    assert np.array_equal(caller.recall(SHOP, Validation).rows[rows], held)
    errors, right, spread = caller.recall(BANK, Curve).errors, [], caller.recall(BANK, Units).spread
    for penalty in caller.contract.model.path:
        fitted = glm.fit(kind, x[~held], part(known, ~held), penalty)
        judged = part(known, held)
        mean = glm.predict(fitted, x[held], kind, judged.offset)
        measure, power = (mean_poisson_deviance, 1) if kind == "poisson" else (mean_squared_error, 2)
        right.append(measure(judged.y, mean, sample_weight=judged.weight) * spread**power)
    assert errors == pytest.approx(right, rel=2e-3) and caller.recall(BANK, Curve).rows == held.sum()
    best = glm.fit(kind, x, known, penalty_of(caller.turn(BANK)))
    assert weight_error(caller, np.append(best.intercept, best.coefficients)) < 5e-3


def test_a_partner_that_has_few_of_the_validation_rows_refuses():
    """The bank knows the others' part of the sum but for the weights: they do not stand before its few."""
    with pytest.raises(DataError, match="shop: fewer than 20 of its rows"):
        joined(12)


# ------------------------------------------------------------------------------------------ a penalty that matters


def test_where_columns_measure_the_same_thing_badly_the_path_finds_a_penalty_that_predicts_better():
    """Sixty columns are three traits with much noise, and 900 people train: AUC grows by 2 points."""
    random, n = np.random.default_rng(7), 3000
    options = {"columns": (6, 54), "disclosures": DISCLOSED}
    tried = contract_of(2, model={"penalties": (1.0, 10.0, 100.0, 1000.0), "test_fraction": 0.7}, **options)
    plain = contract_of(2, model={"test_fraction": 0.7}, **options)
    traits = random.normal(size=(n, 3))
    columns = traits[:, np.arange(60) % 3] + 1.5 * random.normal(size=(n, 60))
    y = (random.random(n) < 1 / (1 + np.exp(0.5 - 0.7 * traits.sum(axis=1)))).astype(float)
    x, ids = {BANK: columns[:, :6], SHOP: columns[:, 6:]}, [f"p{i}" for i in range(n)]
    aucs = {}
    for name, contract, fit in (("path", tried, path.fit), ("one", plain, logistic.fit)):
        caller = start_aligned(place(contract, ids, x, y, np.random.default_rng(3)))
        fit(caller, contract, caller.overlap, caller.columns())
        weights = glm.Weights(found(caller)[0], found(caller)[1:])
        label = known_rows(caller, "held_out").y
        aucs[name] = metrics.auc(label, glm.predict(weights, matrix(caller, "held_out")))
        best = glm.fit("logistic", matrix(caller), known_rows(caller), penalty_of(caller.turn(BANK)))
        assert weight_error(caller, np.append(best.intercept, best.coefficients)) < 3e-3
        if name == "path":
            assert penalty_of(caller.turn(BANK)) in (100.0, 1000.0)
            right = [expected(caller, penalty) for penalty in contract.model.path]
            # Eight passes from one penalty to the next end near their optimum, not at it.
            assert caller.recall(BANK, Curve).errors == pytest.approx(right, rel=5e-3)
    assert aucs["path"] > aucs["one"] + 0.015, aucs


@pytest.mark.parametrize("penalties", [(0.1, 1000.0), (1.0, 1.5)])
def test_a_model_of_the_largest_penalty_is_as_exact_as_without_a_path(penalties, monkeypatch):
    """What the penalty rows' rounding leaves is multiplied with them: least where they stand for a whole penalty."""
    monkeypatch.setattr(path, "int", lambda place: 0, raising=False)  # whatever the best place
    caller, _ = trained(n=1500, model={"kind": "linear", "penalties": penalties})
    assert penalty_of(caller.turn(BANK)) == max(penalties)
    best = glm.fit("linear", matrix(caller), known_rows(caller), max(penalties))
    assert weight_error(caller, np.append(best.intercept, best.coefficients)) < 3e-3


# ------------------------------------------------------------------------------------------ who sees what


def test_partners_and_coordinator_see_the_same_whatever_the_labels_are():
    """Whom the bank's labels are about is changed: all but the choice is masked, and that stays."""

    def turned(data):
        customers, own = data.local[BANK]
        label = own.label.copy()
        among = np.flatnonzero(~np.isnan(label))
        few = among[:60]
        label[few] = np.roll(label[few], 1)
        return dataclasses.replace(
            data, local=data.local | {BANK: (customers, dataclasses.replace(own, label=label))}
        )

    options = {"k": 3, "n": 1500, "model": {"penalties": (1.0, 1e4), "path_passes": 2, "iterations": 2}}
    one, other = trained(**options)[0], trained(change=turned, **options)[0]
    if one.recall(BANK, Trial) != other.recall(BANK, Trial):
        pytest.fail("these labels were to make the same choice")
    check_same(one, other, (SHOP,), MASKED)


def test_the_bank_sees_the_same_but_for_the_sums_whatever_a_partners_columns_are():
    def turned(data):
        customers, own = data.local[SHOP]
        numbers = {name: values[::-1].copy() for name, values in own.numbers.items()}
        return dataclasses.replace(
            data, local=data.local | {SHOP: (customers, dataclasses.replace(own, numbers=numbers))}
        )

    options = {"n": 1500, "model": {"penalties": (50.0, 1e5), "path_passes": 4, "iterations": 4}}
    one, other = trained(**options)[0], trained(change=turned, **options)[0]
    assert one.recall(BANK, Trial) == other.recall(BANK, Trial)
    check_same(one, other, (BANK,), MASKED | {"SquareShares"})


# ------------------------------------------------------------------------------------------ what is refused


def test_too_few_validation_rows_or_events_are_refused():
    with pytest.raises(PolicyRefused, match="too few customers may be common"):
        trained(n=400, limits={"min_support": 60})
    with pytest.raises(DataError, match="fewer than 150 of the rarer class among the rows"):
        trained(limits={"min_support": 150})


def test_validation_rows_that_do_not_count_are_not_counted():
    """A bank that weighs all but a few rows with next to nothing would read the error of those few."""

    def few(data):
        customers, own = data.local[BANK]
        weight = np.where(np.arange(len(own.label)) % 40, 0.0, 4.0)
        return dataclasses.replace(
            data, local=data.local | {BANK: (customers, dataclasses.replace(own, weight=weight))}
        )

    with pytest.raises(DataError, match="fewer than 20 rows that count"):
        trained(names={"weight": "v"}, model={"kind": "linear"}, change=few)


def test_another_run_compares_on_other_rows_of_the_same_train_rows():
    """Else two runs of which one weighs a row with 0 would tell its error: nothing else would differ."""
    people = []
    data = world(2, None, 1500, model={"penalties": PENALTIES}, disclosures=DISCLOSED)
    for run in (b"r" * 16, b"s" * 16):
        caller = start_aligned(data, run=run)
        rows = joint_rows(caller.turn(SHOP), True)
        people.append((set(real(rows)), set(real(rows[caller.recall(SHOP, Validation).rows]))))
    (one, held), (other, others) = people
    assert one == other and len(held & others) < 0.4 * len(held) < 0.5 * len(others)


def test_all_parties_draw_the_same_validation_rows():
    caller, _ = case("three parties")
    found = [np.flatnonzero(caller.recall(p, Validation).rows) for p in data_parties(caller.contract)]
    assert all(np.array_equal(found[0], places) for places in found)
    rows = len(joint_rows(caller.turn(BANK), True))
    assert len(np.unique(found[0])) == len(found[0]) == pytest.approx(0.2 * rows, rel=0.2)
