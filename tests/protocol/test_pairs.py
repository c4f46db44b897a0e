"""Pairs of two parties: products on shares are those of the pooled table, and so is the model; nothing else is told."""

import dataclasses
import functools
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedmkt.errors import ConfigError
from fedmkt.learn import factors, glm
from fedmkt.learn.additive import Additive
from fedmkt.learn.metrics import auc
from fedmkt.privacy.disclosure import DEFAULT
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.core import Masked, Message, Name, data_parties
from fedmkt.protocol.family import FAMILIES
from fedmkt.protocol.layout import FIT, SCORE, Stage
from fedmkt.protocol.linear.matrices import _MASK
from fedmkt.protocol.linear.pairs import _SHARE, DealtPairs, FactorOpening, PairShares, share_pairs
from fedmkt.protocol.linear.scoring import OwnWeights, Released, WeightShare
from fedmkt.protocol.prepare import Columns, Prepared, read_fitted, real
from fedmkt.simulation.rehearsal import Planned
from fedmkt.simulation.traffic import Sizes, bytes_sent
from tests.protocol.plain_caller import (
    BANK,
    SHOP,
    TELECOM,
    JointData,
    PlainCaller,
    Sent,
    chi_square,
    contract_of,
    labels,
    place,
    prepared_matrix,
    reconstructed_weights,
    start_aligned,
    total,
    unwhitened,
)
from tests.protocol.test_two_worlds import MASKED, check_same, columns_exchanged, labels_changed

ONE = (("bank/x0", "shop/x1"),)
THREE = (("bank/x0", "shop/x1"), ("telecom/x0", "shop/x0"), ("bank/x1", "telecom/x1"))


def crossed(pairs=ONE, n: int = 3000, parties: int = 2, seed: int = 1, **options: Any) -> JointData:
    """People whose answers depend on the bank's number where the shop's is positive, and the other way where not."""
    model = {"kind": "additive", "iterations": options.pop("iterations", 20)} | options.pop("model", {})
    contract = contract_of(
        parties, columns=(2, 2, 2), model=model, additive={"pairs": pairs, "knots": options.pop("knots", 4)},
        scores={"decimals": 4}, **options,
    )  # fmt: skip
    random = np.random.default_rng(seed)
    x = {p: random.uniform(-2, 2, (n, 2)) for p in data_parties(contract)}
    z = x[BANK][:, 0] * np.tanh(2 * x[SHOP][:, 1]) + 0.7 * x[SHOP][:, 0] - 0.5
    y = (random.random(n) < glm.sigmoid(z)).astype(np.float64)
    y[random.random(n) < 0.1] = np.nan
    for values in x.values():
        values[random.random(n) < 0.05, 1] = np.nan
    return place(contract, [f"person-{i:06d}" for i in range(n)], x, y, random)


def run(data: JointData) -> PlainCaller:
    caller = start_aligned(data, seed=3)
    family = FAMILIES["additive"]
    widths = family.fit(caller, data.contract, caller.overlap)
    family.score(caller, data.contract, caller.overlap, widths)
    return caller


@functools.cache
def trained(pairs=ONE, parties: int = 2) -> PlainCaller:
    return run(crossed(pairs, parties=parties, iterations=40))


def products_of(caller: PlainCaller, rows_of) -> np.ndarray:
    """Make the products of all pairs on the pooled table, for some real rows."""
    units: dict[Name, list[np.ndarray]] = {}
    for party in data_parties(caller.contract):
        fitted = read_fitted(caller.recall(party, Prepared).preparation)
        numbers, rows = caller.recall(party, Columns).numbers, real(rows_of(caller.recall(party, Split)))
        assert isinstance(fitted, Additive)
        units[party] = [factors.units(f, numbers[f.name][rows]) for f in fitted.factors]
    found = [
        factors.products(units[Name(a)].pop(0), units[Name(b)].pop(0))
        for (a, _), (b, _) in caller.contract.additive.across
    ]
    return np.hstack(found)


def pooled(caller: PlainCaller, rows_of) -> np.ndarray:
    return np.hstack([prepared_matrix(caller, rows_of), products_of(caller, rows_of)])


def weights(caller: PlainCaller) -> np.ndarray:
    """Return intercept, weights of the prepared columns, and those of the products."""
    white = reconstructed_weights(caller)
    own = caller.layout().own_width
    return np.append(unwhitened(caller, white[:own]), white[own:])


def released_auc(caller: PlainCaller) -> float:
    released = caller.recall(BANK, Released)
    return auc(labels(caller, lambda s: s.held_out), released.units[: released.held_out] / 1e4)


@pytest.mark.parametrize("stage", [FIT, SCORE])
@pytest.mark.parametrize(("pairs", "parties"), [(ONE, 2), (THREE, 3)])
def test_shared_products_are_those_of_the_pooled_table_to_the_last_bit(
    stage: Stage, pairs, parties: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedmkt.protocol.layout.BLOCK_BYTES", 8 * 48 * 99)  # several blocks
    data = crossed(pairs, n=900, parties=parties)
    caller = start_aligned(data)
    plan = caller.layout(stage)
    assert len(plan.pair_blocks()) > 1
    share_pairs(caller, data.contract, stage, plan)
    rows = np.zeros((plan.total, plan.width - plan.own_width), np.uint64)
    for party in data_parties(data.contract):
        if plan.held_of(party) > plan.columns_of(party):
            held = plan.held(party)[plan.columns_of(party) :] - plan.own_width
            rows[:, held] += caller.recall(party, PairShares).words
    names = ("train",) if stage is FIT else ("held_out", "unlabelled")
    found = total({BANK: rows}) / 2.0**16
    split = caller.recall(BANK, Split)
    is_real = np.concatenate([getattr(split, n) for n in names]) >= 0
    wanted = np.vstack([products_of(caller, lambda s, n=n: getattr(s, n)) for n in names])
    assert np.array_equal(found[: plan.rows][is_real], wanted) and np.abs(wanted).max() > 3
    assert not found[: plan.rows][~is_real].any()
    penalty = np.eye(plan.width)[:, plan.own_width :] if stage is FIT else np.empty((0, found.shape[1]))
    assert np.array_equal(found[plan.rows :], penalty)


@pytest.mark.parametrize(("pairs", "parties"), [(ONE, 2), (THREE, 3)])
def test_the_joint_model_is_the_optimum_on_the_pooled_products(pairs, parties: int) -> None:
    caller = trained(pairs, parties)
    x, y = pooled(caller, lambda s: s.train), labels(caller, lambda s: s.train)
    best = glm.fit_logistic(x, y, 1.0)
    reference = np.append(best.intercept, best.coefficients)
    assert np.linalg.norm(weights(caller) - reference) < 3e-3 * np.linalg.norm(reference)
    released = caller.recall(BANK, Released)
    scores = glm.predict(best, pooled(caller, lambda s: s.held_out), "logistic")
    assert np.abs(released.units[: released.held_out] / 1e4 - scores).max() < 2e-3
    assert released_auc(caller) == pytest.approx(auc(labels(caller, lambda s: s.held_out), scores), abs=2e-4)


@pytest.mark.parametrize("penalty", [0.1, 400.0, 4000.0])
def test_so_it_is_with_any_penalty(penalty: float) -> None:
    data = crossed(n=1500, model={"penalty": penalty, "iterations": 40})
    caller = start_aligned(data, seed=3)
    FAMILIES["additive"].fit(caller, data.contract, caller.overlap)
    x, y = pooled(caller, lambda s: s.train), labels(caller, lambda s: s.train)
    best = glm.fit_logistic(x, y, penalty)
    reference = np.append(best.intercept, best.coefficients)
    assert np.linalg.norm(weights(caller) - reference) < 5e-3 * np.linalg.norm(reference)


def test_a_pair_of_dependent_numbers_is_fitted_as_well() -> None:
    data = crossed(n=4000)
    random, x = np.random.default_rng(5), {p: v.copy() for p, v in data.x.items()}
    x[SHOP][:, 1] = 0.9 * x[BANK][:, 0] + 0.4 * random.standard_normal(4000)
    caller = run(place(data.contract, data.ids, x, data.y, random))
    best = glm.fit_logistic(pooled(caller, lambda s: s.train), labels(caller, lambda s: s.train), 1.0)
    reference = np.append(best.intercept, best.coefficients)
    assert np.linalg.norm(weights(caller) - reference) < 2e-2 * np.linalg.norm(reference)
    scores = glm.predict(best, pooled(caller, lambda s: s.held_out), "logistic")
    held_out = labels(caller, lambda s: s.held_out)
    assert released_auc(caller) == pytest.approx(auc(held_out, scores), abs=1e-3)


def test_the_gram_matrix_of_pairs_is_not_estimated_from_few_rows() -> None:
    """Where both numbers have tails, few of 400 rows are far out in both: from these, scores went wrong by .3."""
    data = crossed(n=900, model={"gram_rows": 400})
    caller = start_aligned(data)
    with pytest.raises(ConfigError, match="from 400 rows, at least 4096 are needed"):
        FAMILIES["additive"].fit(caller, data.contract, caller.overlap)


def test_an_owner_has_the_shares_of_its_own_pairs_only() -> None:
    plan = start_aligned(crossed(THREE, n=600, parties=3)).layout()
    held = {p: set(plan.held(p)) - set(range(plan.own_width)) for p in (BANK, SHOP, TELECOM)}
    one, two, three = (set(range(p.columns.start, p.columns.stop)) for p in plan.pairs)
    assert held == {BANK: one | three, SHOP: one | two, TELECOM: two | three}
    assert plan.width == plan.own_width + 3 * factors.COLUMNS**2


def test_a_pair_finds_what_functions_alone_cannot() -> None:
    assert released_auc(trained(())) + 0.08 < released_auc(trained())


# ------------------------------------------------------------------------------------------ two worlds


def quick(pairs=ONE, parties: int = 2, **options: Any) -> JointData:
    return crossed(pairs, n=700, parties=parties, iterations=2, knots=2, **options)


@pytest.mark.parametrize("owner", [BANK, SHOP])
def test_a_pair_hides_an_owners_values_from_all_others(owner: Name) -> None:
    data = quick()
    one = run(data)
    other = run(columns_exchanged(data, owner, one))
    check_same(
        one, other, tuple(p for p in data_parties(data.contract) if p != owner), MASKED | {"FactorOpening"}
    )


def test_a_pair_of_two_partners_hides_the_values_of_one_from_bank_and_partner() -> None:
    data = quick(THREE, 3)
    one = run(data)
    other = run(columns_exchanged(data, TELECOM, one))
    check_same(one, other, (BANK, SHOP), MASKED | {"FactorOpening"})


def test_a_pair_hides_the_labels_from_the_partner() -> None:
    data = quick()
    one = run(data)
    check_same(one, run(labels_changed(data, one)), (SHOP,), MASKED)


def test_where_each_owner_is_given_its_part_nobody_is_given_a_part_of_a_pair() -> None:
    data = quick(disclosures=(*DEFAULT, "ModelPart"))
    caller = run(data)
    plan = caller.layout(SCORE)
    for party in (BANK, SHOP):
        assert len(caller.recall(party, OwnWeights).values) == plan.columns_of(party)
        given = [s.message for s in caller.seen_by(party) if isinstance(s.message, WeightShare)]
        assert [m.words.shape for m in given] == [(plan.columns_of(party),)]


def test_what_owners_and_dealer_send_for_a_pair_is_uniform() -> None:
    data = quick()
    caller = start_aligned(data)
    share_pairs(caller, data.contract, FIT, caller.layout())
    for kind in (FactorOpening, DealtPairs):
        words = [s.message.rows.words if kind is FactorOpening else s.message.products
                 for s in caller.sent if isinstance(s.message, kind)]  # fmt: skip
        assert words and all(abs(chi_square(w)) < 5 for w in words)
    # A share alone is uniform, but for the penalty's rows, which are public.
    rows = caller.layout().rows
    assert all(abs(chi_square(caller.recall(p, PairShares).words[:rows])) < 5 for p in (BANK, SHOP))


@pytest.mark.parametrize(
    ("kind", "said"), [(FactorOpening, "another shape than agreed"), (DealtPairs, "for another block")]
)
def test_messages_of_another_shape_are_refused(kind: type, said: str) -> None:
    data = quick()

    def shorter(sent: Sent) -> Message:
        if isinstance(sent.message, kind):
            field = "rows" if kind is FactorOpening else "products"
            value = getattr(sent.message, field)
            cut = Masked(value.words[:-1]) if kind is FactorOpening else value[:-1]
            return dataclasses.replace(sent.message, **{field: cut})
        return sent.message

    caller = start_aligned(data, change=shorter)
    with pytest.raises(ValueError, match=said):
        share_pairs(caller, data.contract, FIT, caller.layout())


@pytest.mark.parametrize(("step", "said"), [("share_pairs", "bases"), ("mask_rows", "masked rows")])
def test_where_a_message_is_missing_nothing_is_made_up(step: str, said: str) -> None:
    data = quick()
    caller = start_aligned(data)
    if step == "mask_rows":
        share_pairs(caller, data.contract, FIT, caller.layout())
    silent = {"share_pairs": _SHARE, "mask_rows": _MASK}[step][FIT.name]
    caller(SHOP, silent)
    with pytest.raises(ValueError, match=f"the {said} of the others are missing"):
        caller(SHOP, silent)


def test_every_step_sends_what_the_plan_says_of_it() -> None:
    data = quick(THREE, 3, disclosures=(*DEFAULT, "ModelPart"))
    caller = run(data)
    sizes = Sizes(data.contract, caller.overlap, caller.shapes(), {})
    made: Counter[tuple[str, str]] = Counter()
    planned: Counter[str] = Counter()
    sent: Counter[str] = Counter()
    for told in caller.told:
        if told.step.split(".")[0] in ("fit", "range", "score", "model"):
            call = Planned(
                told.party, SimpleNamespace(name=told.step, shows=None), made[told.party, told.step]
            )  # type: ignore[arg-type]
            planned[told.step] += bytes_sent(sizes, call)
            made[told.party, told.step] += 1
    for message in caller.sent:
        sent[message.step] += len(message.data)
    assert {"fit.share_pairs", "fit.deal_pairs", "score.share_pairs", "score.deal_pairs"} <= set(planned)
    for step, size in planned.items():
        calls, readers = (
            sum(n for (_, s), n in made.items() if s == step),
            sum(m.step == step for m in caller.sent),
        )
        # Sealing adds to each message, and each call has a public value: neither is in these lengths.
        assert 0 <= size - sent[step] <= 64 * calls + 240 * readers, step
