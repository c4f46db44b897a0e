"""Offsets and weights of rows: the bank's alone, and the optimum is scikit-learn's with the same ones."""

import dataclasses
import functools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fedmkt.errors import DataError
from fedmkt.learn import glm
from fedmkt.protocol import layout as layout_module
from fedmkt.protocol.core import data_parties
from fedmkt.protocol.layout import FIT, FRACTION_BITS, WEIGHT_BITS
from fedmkt.protocol.linear import logistic
from fedmkt.protocol.linear.links import most_predictor
from fedmkt.protocol.linear.logistic import fit
from fedmkt.protocol.linear.row_weights import RowOpening, RowValues
from fedmkt.protocol.linear.scoring import Released, score
from fedmkt.protocol.linear.targets import Labels, Units, offset_words
from fedmkt.protocol.prepare import Columns
from fedmkt.ring.fixed import decode
from tests.protocol.glm_world import (
    check_addresses,
    draws,
    found,
    hidden_caller,
    known_rows,
    matrix,
    trained,
    weight_error,
    world,
)
from tests.protocol.hidden_world import real_labels
from tests.protocol.plain_caller import BANK, SHOP, chi_square, start_aligned, total
from tests.protocol.test_two_worlds import MASKED, check_same

BOTH = {"offset": "o", "weight": "v"}
CASES = {
    "weights": ({"weight": "v"}, None),
    "classes": ({}, (1.0, 5.0)),
    "weights and classes": ({"weight": "v"}, (0.5, 2.0)),
}


@functools.cache
def model(case: str, k: int = 2, passes: int = 24):
    names, classes = CASES[case]
    return trained(world(k, names, model={"iterations": passes, "class_weights": classes}, seed=k), seed=k)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_the_weighted_model_is_scikit_learns_with_the_same_weights(case, k):
    caller = model(case, k)
    x, rows = matrix(caller), known_rows(caller)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(x, rows.y, rows.weight)
    reference = np.concatenate([theirs.intercept_, theirs.coef_[0]])
    assert weight_error(caller, reference) < 5e-3
    plain = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(x, rows.y)
    assert weight_error(caller, np.concatenate([plain.intercept_, plain.coef_[0]])) > 0.05, "and no other"
    test, y = matrix(caller, "held_out"), known_rows(caller, "held_out").y
    assert abs(roc_auc_score(y, test @ found(caller)[1:]) - roc_auc_score(y, test @ reference[1:])) < 1e-3


@pytest.mark.parametrize("names", [{"offset": "o"}, BOTH])
def test_the_model_with_an_offset_is_the_optimum_beside_it(names):
    caller = trained(world(2, names, model={"iterations": 24}))
    best = glm.fit("logistic", matrix(caller), known_rows(caller), 1.0)
    assert weight_error(caller, np.append(best.intercept, best.coefficients)) < 5e-3
    without = glm.fit_logistic(matrix(caller), known_rows(caller).y, 1.0)
    assert weight_error(caller, np.append(without.intercept, without.coefficients)) > 0.05


def test_scores_have_the_offset_of_their_row():
    data = world(2, {"offset": "o"}, model={"iterations": 24}, n=900, scores={"decimals": 4})
    caller = trained(data)
    score(caller, data.contract, caller.overlap, caller.columns())
    released, w = caller.recall(BANK, Released), found(caller)
    z = matrix(caller, "held_out") @ w[1:] + w[0]
    offset = known_rows(caller, "held_out").offset
    scores = released.units[: released.held_out] / 1e4
    assert np.abs(scores - glm.sigmoid(z + offset)).max() < 2e-3 < np.abs(scores - glm.sigmoid(z)).max()


def test_the_released_scores_come_in_blocks_too(monkeypatch):
    monkeypatch.setattr(layout_module, "BLOCK_BYTES", 40_000)
    data = world(2, BOTH, model={"iterations": 2}, n=700)
    caller = trained(data)
    assert len(caller.layout().sigmoid_blocks(data.contract)) > 2
    monkeypatch.undo()
    assert np.abs(found(caller) - found(trained(data))).max() < 1e-3


def test_hidden_match_and_weights_go_together():
    caller = hidden_caller({"weight": "v", "offset": "o"}, {"iterations": 24, "class_weights": (1.0, 2.0)})
    fit(caller, caller.contract, caller.overlap, caller.columns())
    rows, y = known_rows(caller), real_labels(caller)
    # `Split` and the hidden slots list the same people in another order.
    columns, labels = caller.recall(BANK, Columns), caller.recall(BANK, Labels)
    counts = labels.units > 0
    assert counts.sum() == len(rows.y) and np.array_equal(labels.y[counts], y)
    offset = decode(offset_words(caller.turn(BANK), FIT)[counts], FRACTION_BITS + WEIGHT_BITS)
    mean = caller.recall(BANK, Units).offset_center
    assert set(offset.round(6)) <= set((columns.offset - mean).round(6))
    best = glm.fit("logistic", matrix(caller), glm.Rows(y, labels.units[counts] / 16, offset), 1.0)
    assert weight_error(caller, np.append(best.intercept, best.coefficients)) < 5e-3


def test_shared_residuals_are_multiplied_exactly_and_rows_that_count_nothing_are_zero(monkeypatch):
    shares = {"before": {}, "after": {}}
    original = logistic.weigh_rows

    def recording(turn, inbox):
        kept = turn.recall(RowValues).words
        opened = {m.words.words.tobytes() for m in inbox.by_sender(RowOpening).values()}
        shares["before"][turn.me] = kept + sum(
            (np.frombuffer(o, np.uint64) for o in opened), np.zeros_like(kept)
        )
        shares["after"][turn.me] = original(turn, inbox)
        return shares["after"][turn.me]

    monkeypatch.setattr(logistic, "weigh_rows", recording)
    data = world(2, {"weight": "v"}, n=700, model={"iterations": 1})
    customers, columns = data.local[BANK]
    weight = np.where(np.arange(len(columns.weight)) % 3 == 0, 0.0, 1.3)
    data.local[BANK] = (customers, dataclasses.replace(columns, weight=weight))
    units = trained(data).recall(BANK, Labels).units.view(np.int64)
    assert set(units) == {0, 21}
    # The partner keeps v and shows x - v, which the bank adds to its own share: r is the sum.
    r, after = total(shares["before"]), total(shares["after"])
    assert np.array_equal(after, units * r)
    assert not after[units == 0].any() and np.abs(r[units == 0]).max() > 100


# ------------------------------------------------------------------------------------------ what is refused


def test_an_offset_beyond_the_contracts_bound_is_refused():
    data = world(2, {"offset": "o"}, n=500, model={"iterations": 1, "max_offset": 1.0})
    caller = start_aligned(data)
    with pytest.raises(DataError, match=r"an offset is .* from the mean, the contract.s .* max_offset is 1"):
        fit(caller, data.contract, caller.overlap, caller.columns())


def test_a_row_that_counts_more_than_the_contract_allows_is_refused():
    data = world(2, {"weight": "v"}, n=500, model={"iterations": 1, "class_weights": (1.0, 4.0)})
    caller = start_aligned(data)
    with pytest.raises(DataError, match=r"a row of the bank counts 10 times, .* at most 8"):
        fit(caller, data.contract, caller.overlap, caller.columns())


def test_the_range_that_an_offset_takes_is_taken_off_the_columns_range():
    plain, with_offset = world(2, n=500).contract, world(2, {"offset": "o"}, n=500).contract
    assert most_predictor(plain) == pytest.approx(0.45 * 128)
    assert most_predictor(with_offset) == pytest.approx(0.45 * 128 - 8)


# ------------------------------------------------------------------------------------------ what is seen of it


def small(names, classes, seed=3, change=lambda columns: columns, k=2):
    data = world(k, names, n=500, model={"iterations": 2, "class_weights": classes})
    customers, columns = data.local[BANK]
    data.local[BANK] = (customers, change(columns))
    caller = start_aligned(data, seed=seed)
    drawn = draws(caller)
    fit(caller, data.contract, caller.overlap, caller.columns())
    score(caller, data.contract, caller.overlap, caller.columns())
    return caller, drawn


CHANGES = {
    "weights": lambda c: dataclasses.replace(c, weight=c.weight[::-1].copy()),
    "offsets": lambda c: dataclasses.replace(c, offset=-c.offset),
    "labels": lambda c: dataclasses.replace(c, label=1 - c.label),
}


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("what", CHANGES)
def test_fit_and_scores_hide_the_banks_weights_offsets_and_classes(what, k):
    one, _ = small(BOTH, (1.0, 3.0), k=k)
    other, _ = small(BOTH, (1.0, 3.0), change=CHANGES[what], k=k)
    masked = MASKED | {"HiddenRowWeight", "RowOpening"}
    check_same(one, other, data_parties(one.contract)[1:], masked)
    assert not np.array_equal(found(one), found(other))


@pytest.mark.parametrize("k", [2, 3])
def test_every_mask_of_a_weighted_training_has_an_address_of_its_own(k):
    caller, drawn = small(BOTH, (1.0, 3.0), k=k)
    check_addresses(caller, drawn)
    labels = {a[1] for a in drawn[SHOP]}
    assert {"fit/row_weight/v", "fit/row_weight/uv"} <= labels and "fit/row_weight/u" not in labels


def test_what_is_shown_of_weights_and_values_is_uniform():
    caller = model("weights and classes")
    shown = [s.message.words.words for s in caller.sent if s.step == "fit.hide_row_weight"]
    opened = [s.message.words.words for s in caller.sent if isinstance(s.message, RowOpening)]
    assert len(shown) == 1 and len(opened) == 24
    assert all(abs(chi_square(w)) < 5 for w in (*shown, *opened))
    assert all(s.reader == BANK for s in caller.sent if isinstance(s.message, RowOpening))
