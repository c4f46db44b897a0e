"""An additive model by the shared passes: the optimum on the pooled functions, and nothing of the functions shown."""

import functools

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import SplineTransformer

from fedmkt.learn import glm
from fedmkt.learn.additive import Additive
from fedmkt.learn.metrics import auc
from fedmkt.privacy.disclosure import DEFAULT
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.core import data_parties
from fedmkt.protocol.family import FAMILIES
from fedmkt.protocol.linear.scoring import Released
from fedmkt.protocol.prepare import Prepared, prepare_columns, read_fitted, real
from tests.protocol.plain_caller import (
    BANK,
    SHOP,
    JointData,
    PlainCaller,
    contract_of,
    labels,
    place,
    prepared_matrix,
    reconstructed_weights,
    start_aligned,
    unwhitened,
)
from tests.protocol.test_two_worlds import MASKED, check_same, columns_exchanged, labels_changed


def curved(kind: str = "additive", n: int = 3000, seed: int = 1, **options) -> JointData:
    """People whose answers depend on a wave in the bank's number and on how far the shop's is from 0."""
    contract = contract_of(
        columns=(2, 2), model={"kind": kind, "iterations": options.pop("iterations", 20)}, **options
    )
    random = np.random.default_rng(seed)
    x = {p: random.uniform(-3, 3, (n, 2)) for p in data_parties(contract)}
    z = 1.5 * np.cos(2 * x[BANK][:, 0]) + 1.5 * np.abs(x[SHOP][:, 0]) - 3 + 0.5 * x[SHOP][:, 1]
    y = (random.random(n) < glm.sigmoid(z)).astype(np.float64)
    y[random.random(n) < 0.1] = np.nan
    return place(contract, [f"person-{i:06d}" for i in range(n)], x, y, random)


def run(data: JointData) -> PlainCaller:
    caller = start_aligned(data, seed=3)
    family = FAMILIES[data.contract.model.kind]
    widths = family.fit(caller, data.contract, caller.overlap)
    family.score(caller, data.contract, caller.overlap, widths)
    return caller


@functools.cache
def trained(kind: str = "additive", basis: str = "spline") -> PlainCaller:
    form = {"additive": {"basis": basis}} if kind == "additive" else {}
    return run(curved(kind, scores={"decimals": 4}, **form))


def weights(caller: PlainCaller) -> np.ndarray:
    return unwhitened(caller, reconstructed_weights(caller))


def held_out_auc(caller: PlainCaller) -> float:
    """AUC of what the bank was given."""
    released = caller.recall(BANK, Released)
    return auc(labels(caller, lambda s: s.held_out), released.units[: released.held_out] / 1e4)


@pytest.mark.parametrize("basis", ["spline", "bins"])
def test_the_joint_model_is_the_optimum_on_the_pooled_functions(basis: str) -> None:
    caller = trained(basis=basis)
    x, y = prepared_matrix(caller, lambda s: s.train), labels(caller, lambda s: s.train)
    best = glm.fit_logistic(x, y, 1.0)
    reference = np.append(best.intercept, best.coefficients)
    assert np.linalg.norm(weights(caller) - reference) < 1e-2 * np.linalg.norm(reference)


def test_the_joint_model_is_as_good_as_scikit_learns_on_the_pooled_table() -> None:
    caller, data = trained(), curved()
    person = np.argsort(data.order[BANK])
    pooled = np.hstack([data.x[BANK], data.x[SHOP]])
    train, held_out = (person[real(getattr(caller.recall(BANK, Split), n))] for n in ("train", "held_out"))
    spline = SplineTransformer(n_knots=12, knots="quantile").fit(pooled[train])
    theirs = LogisticRegression(max_iter=1000).fit(spline.transform(pooled[train]), data.y[train])
    best = auc(data.y[held_out], theirs.predict_proba(spline.transform(pooled[held_out]))[:, 1])
    assert held_out_auc(caller) == pytest.approx(best, abs=0.005)


def test_functions_find_what_lines_cannot() -> None:
    assert held_out_auc(trained("logistic")) < 0.7 < 0.78 < held_out_auc(trained())


def test_the_functions_of_both_parties_are_those_of_the_signal() -> None:
    caller = trained()
    w, at = weights(caller), 1
    for party, signal in ((BANK, lambda v: 1.5 * np.cos(2 * v)), (SHOP, lambda v: 1.5 * np.abs(v))):
        fitted = read_fitted(caller.recall(party, Prepared).preparation)
        assert isinstance(fitted, Additive)
        grid = np.linspace(-2.8, 2.8, 200)
        first = fitted.smooths[0]
        found, wanted = first.apply(grid) @ w[at : at + len(first.columns)], signal(grid)
        assert np.abs((found - found.mean()) - (wanted - wanted.mean())).mean() < 0.25
        at += len(fitted.columns)


def test_products_count_for_the_pairs_of_the_contract_only() -> None:
    caller = start_aligned(curved(additive={"pairs": (("shop/x0", "shop/x1"),)}))
    found = {p: read_fitted(caller.recall(p, Prepared).preparation).columns for p in (BANK, SHOP)}
    assert not [c for c in found[BANK] if "*" in c]
    assert [c for c in found[SHOP] if "*" in c] == ["x0~1*x1~1", "x0~1*x1~2", "x0~2*x1~1", "x0~2*x1~2"]


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ((("x0", "x1"),), "PARTY/COLUMN"),
        ((("bank/x0", "bank/x7"),), "not bank/x7"),
        ((("bank/x0", "shop/x7"),), "not shop/x7"),
        ((("bank/x0", "shop/job"),), "numbers where a pair is of two parties, not shop/job"),
        ((("bank/x0", "telecom/x0"),), "not telecom/x0"),
        ((("bank/x0", "shop/x1"), ("shop/x1", "bank/x0")), "every pair once"),
        ((("bank/x0", "bank/y"),), "not bank/y"),
        ((("bank/x0", "bank/x1"), ("bank/x1", "bank/x0")), "every pair once"),
        ((("bank/x0", "bank/x0"),), "every pair once"),
    ],
)
def test_a_contract_refuses_pairs_that_nobody_can_make(pairs: tuple[tuple[str, str], ...], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        contract_of(
            columns=(2, 2), model={"kind": "additive"}, additive={"pairs": pairs}, categories={SHOP: ("job",)}
        )


@pytest.mark.parametrize("align", [{"match": "hidden"}, {"join": "left"}])
def test_pairs_of_two_parties_are_for_rows_that_both_know_to_be_common(align: dict[str, str]) -> None:
    kinds = (*DEFAULT, "JoinedRows")
    with pytest.raises(ValidationError, match="need match = shown and join = inner"):
        contract_of(
            columns=(2, 2), model={"kind": "additive"}, additive={"pairs": (("bank/x0", "shop/x0"),)},
            align=align, disclosures=kinds,
        )  # fmt: skip


def test_a_contract_of_another_kind_has_no_pairs() -> None:
    with pytest.raises(ValidationError, match="of kind additive"):
        contract_of(columns=(2, 2), additive={"pairs": (("bank/x0", "bank/x1"),)})


# ------------------------------------------------------------------------------------------ two worlds


def quick(**options) -> JointData:
    return curved(n=500, iterations=2, additive={"knots": 3}, **options)


@pytest.mark.parametrize("owner", [BANK, SHOP])
def test_fit_and_scores_hide_a_partys_functions_from_all_others(owner) -> None:
    data = quick()
    one = run(data)
    other = run(columns_exchanged(data, owner, one))
    check_same(one, other, tuple(p for p in data_parties(data.contract) if p != owner), MASKED)


def test_fit_and_scores_hide_the_labels_from_the_partner() -> None:
    data = quick()
    one = run(data)
    check_same(one, run(labels_changed(data, one)), (SHOP,), MASKED)


def test_where_each_owner_is_given_its_part_the_labels_show_in_nothing_but_that() -> None:
    data = quick(disclosures=(*DEFAULT, "ModelPart"))
    one = run(data)
    other = run(labels_changed(data, one))
    check_same(one, other, (SHOP,), MASKED | {"WeightShare"})


def test_prepare_tells_a_shape_and_nothing_of_values_in_any_row() -> None:
    data = quick()
    caller = start_aligned(data)
    told = []
    for local in (data.local, columns_exchanged(data, SHOP, caller).local):
        fresh = PlainCaller(data.contract, {})
        for p in data_parties(data.contract):
            fresh.states[p] = dict(caller.states[p]) | {type(s): s for s in local[p]}
        prepare_columns(fresh, data.contract)
        assert not fresh.sent
        told.append([(t.party, t.value) for t in fresh.told])
    assert told[0] == told[1]
