"""The product with the bank's secret weights: exact, uniform to look at, each mask for one use."""

import functools
from typing import Any

import numpy as np
import pytest

from fedmkt.protocol import layout as layout_module
from fedmkt.protocol.alignment.align import Slots
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.core import ask, data_parties, dealer, inbox_of
from fedmkt.protocol.layout import FIT, FRACTION_BITS, RESIDUAL_BITS, SCORE, WEIGHT_BITS
from fedmkt.protocol.linear.logistic import DEAL_STEP, GRADIENT, OPEN_WEIGHTS, RESIDUAL, Pass, fit
from fedmkt.protocol.linear.matrices import Matrices, mask_matrices
from fedmkt.protocol.linear.predictor import Forward, Weights
from fedmkt.protocol.linear.scoring import score
from fedmkt.protocol.linear.sigmoid_blocks import FIT_ROWS, apply_sigmoid
from fedmkt.protocol.linear.targets import LOAD_LABELS, Labels
from fedmkt.protocol.linear.weighted import Weight, hide_weight
from fedmkt.ring.fixed import encode
from fedmkt.ring.side_bits import unpack
from tests.protocol.hidden_world import hidden_contract, hidden_data, start_hidden
from tests.protocol.plain_caller import BANK, SHOP, chi_square, record_rounded, total


def started(**model: Any) -> Any:
    """Return a caller with masked matrices, hidden weights and random shares of random model weights."""
    contract = hidden_contract(model=model)
    caller = start_hidden(hidden_data(contract, 900))
    plan = caller.layout()
    caller(BANK, LOAD_LABELS)
    mask_matrices(caller, contract, FIT, plan)
    hide_weight(caller, contract, FIT)
    random = np.random.default_rng(5)
    w, mask = (
        encode(random.normal(0, 0.5, plan.width), WEIGHT_BITS),
        random.integers(0, 2**64, plan.width, np.uint64),
    )
    caller.states[BANK][Weights], caller.states[SHOP][Weights] = Weights(w - mask), Weights(mask)
    return caller, plan, w.view(np.int64)


def one_gradient(caller, plan):
    parties, maker = data_parties(caller.contract), dealer(caller.contract)
    opened, (dealt,) = caller.both(
        [ask(p, OPEN_WEIGHTS) for p in parties], [ask(maker, FIT_ROWS.deal_forward)]
    )
    lifted = apply_sigmoid(caller, caller.contract, FIT_ROWS, plan, opened, dealt)
    residuals, (dealt,) = caller.both(
        [ask(p, RESIDUAL, *inbox_of(lifted, p)) for p in parties], [ask(maker, DEAL_STEP)]
    )
    r = total({p: caller.recall(p, Pass).residual for p in parties})
    caller.all([ask(p, GRADIENT, *inbox_of(residuals, p), *inbox_of([dealt], p)) for p in parties])
    return r


def whole_matrix(caller):
    return np.concatenate([caller.recall(p, Matrices).own.astype(np.int64) for p in (BANK, SHOP)], axis=1)


@pytest.mark.parametrize("period", [64, 128])
@pytest.mark.parametrize("room", [None, 40_000])
def test_shared_residuals_are_the_weight_times_sigmoid_minus_label(period, room, monkeypatch):
    if room:
        monkeypatch.setattr(layout_module, "BLOCK_BYTES", room)
    caller, plan, w = started(period=period)
    assert (len(plan.sigmoid_blocks(caller.contract)) > 1) == bool(room)
    r = one_gradient(caller, plan)[: plan.rows]
    counts = caller.recall(BANK, Slots).train != NO_ROW
    assert 200 < counts.sum() < 400 and not r[~counts].any(), "exactly 0 for everybody else"
    z = (whole_matrix(caller) @ w)[: plan.rows] / 2.0 ** (FRACTION_BITS + WEIGHT_BITS)
    expected = 1 / (1 + np.exp(-z)) - caller.recall(BANK, Labels).y
    found = r / 2.0**RESIDUAL_BITS
    assert np.abs(z[~counts]).max() > 1, "strangers have a linear predictor of their own"
    assert np.abs(found - expected)[counts].max() < 2e-3
    assert abs((found - expected)[counts].mean()) < 5e-4


def test_the_gradient_is_that_of_the_rows_that_count(monkeypatch):
    rounded = record_rounded(monkeypatch)
    caller, plan, _ = started()
    r = one_gradient(caller, plan)
    assert np.array_equal(total(rounded["gradient", 0]), whole_matrix(caller).T @ r)


def test_the_banks_rows_of_strangers_are_zero_and_the_partners_are_real():
    caller, plan, _ = started()
    strangers = np.flatnonzero(caller.recall(BANK, Slots).train == NO_ROW)
    assert not caller.recall(BANK, Matrices).own[strangers].any()
    assert caller.recall(SHOP, Matrices).own[strangers].any(axis=1).all()
    assert plan.rows == 900


def test_a_weighted_value_is_no_larger_than_the_value(monkeypatch):
    """So every bound that holds for the sigmoid holds for its product with the weight."""
    caller, plan, _ = started()
    r = np.abs(one_gradient(caller, plan)[: plan.rows]) / 2.0**RESIDUAL_BITS
    assert r.max() < 1.1


# ------------------------------------------------------------------------------------------ what is seen of it


@functools.cache
def trained(seed=1):
    contract = hidden_contract(model={"iterations": 3})
    caller = start_hidden(hidden_data(contract, 2000, seed=seed), seed=seed)
    fit(caller, contract, caller.overlap, caller.columns())
    score(caller, contract, caller.overlap, caller.columns())
    return caller


def shown_bits(caller, stage):
    (sent,) = [s.message for s in caller.sent if s.step == f"{stage.name}.hide_weight"]
    return unpack(sent.bits.words, caller.layout(stage).rows)


def weights(caller, stage):
    slots = caller.recall(BANK, Slots)
    return (slots.train if stage.penalised else slots.scored) != NO_ROW


@pytest.mark.parametrize("stage", [FIT, SCORE])
def test_what_the_partner_is_shown_of_the_weights_agrees_with_them_for_half_of_the_rows(stage):
    for seed in (1, 2):
        caller = trained(seed)
        shown, own = shown_bits(caller, stage), weights(caller, stage)
        n = len(own)
        assert own.mean() < 0.4, "far from balanced itself"
        assert abs(shown.mean() - 0.5) < 4.5 * 0.5 / np.sqrt(n)
        assert abs((shown == own).mean() - 0.5) < 4.5 * 0.5 / np.sqrt(n)


def test_training_and_scoring_hide_their_weights_under_masks_of_their_own():
    """Under one mask the partner would see the exclusive or of both: who takes part at all."""
    caller = trained()
    together = shown_bits(caller, FIT) ^ shown_bits(caller, SCORE)
    difference = weights(caller, FIT) ^ weights(caller, SCORE)
    assert abs((together == difference).mean() - 0.5) < 4.5 * 0.5 / np.sqrt(len(difference))


def test_shares_that_the_partner_opens_are_uniform_and_never_alike():
    caller = trained()
    opened = [s.message.halves.words for s in caller.sent if s.step.endswith("begin_side")]
    assert len(opened) == 3 + 1, "one for each pass, one for the scores"
    assert all(abs(chi_square(o)) < 4.5 for o in opened)
    for i, one in enumerate(opened):
        assert all(abs(chi_square(one - other)) < 4.5 for other in opened[:i])


def test_only_the_bank_holds_the_weights():
    caller = trained()
    assert caller.recall(BANK, Weight).own is not None and caller.recall(SHOP, Weight).own is None
    assert [s.reader for s in caller.sent if s.step.endswith("begin_side")] == [BANK] * 4
    assert [s.reader for s in caller.sent if s.step.endswith("hide_weight")] == [SHOP] * 2


def test_weights_are_hidden_once_in_an_epoch():
    caller, _, _ = started()
    with pytest.raises(ValueError, match="fit/u 0 is drawn a second time"):
        hide_weight(caller, caller.contract, FIT)


@pytest.mark.parametrize("step", ["fit.hide_weight", "fit.begin_side"])
def test_a_message_of_another_length_is_refused(step):
    contract = hidden_contract(model={"iterations": 1})
    caller = start_hidden(hidden_data(contract, 900))

    def cut(sent):
        if sent.step != step:
            return sent.message
        (field,) = vars(sent.message)
        masked = getattr(sent.message, field)
        return type(sent.message)(type(masked)(masked.words[:-1]))

    caller.change = cut
    with pytest.raises(ValueError, match="another length"):
        fit(caller, contract, caller.overlap, caller.columns())


def test_states_of_weights_are_no_part_of_a_checkpoint():
    assert not Weight.durable and Slots.durable and not Forward.durable
