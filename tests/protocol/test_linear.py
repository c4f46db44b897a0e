import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fedmkt
from fedmkt.learn import prepare
from fedmkt.protocol import layout as layout_module
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import Masked, ask, data_parties, dealer, inbox_of
from fedmkt.protocol.layout import FIT, FRACTION_BITS, RESIDUAL_BITS, WEIGHT_BITS, layout
from fedmkt.protocol.linear.gram import _row_factor
from fedmkt.protocol.linear.logistic import DEAL_STEP, GRADIENT, OPEN_WEIGHTS, RESIDUAL, Pass
from fedmkt.protocol.linear.matrices import MaskedRows, Matrices, mask_matrices
from fedmkt.protocol.linear.predictor import Forward, Weights
from fedmkt.protocol.linear.sigmoid_blocks import FIT_ROWS, Lifting, apply_sigmoid
from fedmkt.protocol.linear.targets import LOAD_LABELS, Labels
from fedmkt.protocol.mask_counts import Counts
from fedmkt.protocol.prepare import Columns, Prepared, prepared_rows
from fedmkt.ring.fixed import encode
from tests.protocol.plain_caller import (
    chi_square,
    contract_of,
    joint_data,
    record_rounded,
    start_aligned,
    total,
)


def started(k, **model):
    """Return a caller with masked matrices and random shares of random weights."""
    contract = contract_of(k, model=model)
    caller = start_aligned(joint_data(contract, 600))
    plan = caller.layout()
    caller(data_parties(contract)[0], LOAD_LABELS)
    mask_matrices(caller, contract, FIT, plan)
    random = np.random.default_rng(5)
    w = encode(random.normal(0, 0.5, plan.width), WEIGHT_BITS)
    masks = [random.integers(0, 2**64, plan.width, np.uint64) for _ in range(k - 1)]
    shares = [w - sum(masks, np.zeros(1, np.uint64)), *masks]
    for p, share in zip(data_parties(contract), shares, strict=True):
        caller.states[p][Weights] = Weights(share)
    return caller, plan, w.view(np.int64)


def one_forward(caller, plan):
    contract = caller.contract
    parties, maker = data_parties(contract), dealer(contract)
    opened, (dealt,) = caller.both(
        [ask(p, OPEN_WEIGHTS) for p in parties], [ask(maker, FIT_ROWS.deal_forward)]
    )
    return apply_sigmoid(caller, contract, FIT_ROWS, plan, opened, dealt)


def one_gradient(caller, plan):
    parties, maker = data_parties(caller.contract), dealer(caller.contract)
    lifted = one_forward(caller, plan)
    residuals, (dealt,) = caller.both(
        [ask(p, RESIDUAL, *inbox_of(lifted, p)) for p in parties], [ask(maker, DEAL_STEP)]
    )
    r = total({p: caller.recall(p, Pass).residual for p in parties})
    caller.all([ask(p, GRADIENT, *inbox_of(residuals, p), *inbox_of([dealt], p)) for p in parties])
    return r


def whole_matrix(caller, plan):
    """Return all parties' columns side by side, as the integers that they were coded as."""
    own = [caller.recall(p, Matrices).own.astype(np.int64) for p in data_parties(caller.contract)]
    return np.concatenate(own, axis=1)


@pytest.mark.parametrize("k", [2, 3])
def test_shares_of_the_linear_predictor_add_up_to_the_product_exactly(k):
    caller, plan, w = started(k)
    one_forward(caller, plan)
    z = total({p: caller.recall(p, Forward).z for p in data_parties(caller.contract)})
    assert np.array_equal(z, whole_matrix(caller, plan) @ w)


@pytest.mark.parametrize(("k", "period"), [(2, 128), (3, 64)])
def test_shared_residuals_are_the_sigmoid_minus_the_label(k, period):
    caller, plan, w = started(k, period=period)
    r = one_gradient(caller, plan) / 2.0**RESIDUAL_BITS
    z = whole_matrix(caller, plan) @ w / 2.0 ** (FRACTION_BITS + WEIGHT_BITS)
    y = caller.recall(data_parties(caller.contract)[0], Labels).y
    expected = 1 / (1 + np.exp(-z[: plan.rows])) - y
    assert np.abs(z[: plan.rows]).max() > 2
    assert np.abs(r[: plan.rows] - expected).max() < 2e-3
    assert abs((r[: plan.rows] - expected).mean()) < 5e-4
    assert np.abs(r[plan.rows :] - z[plan.rows :]).max() < 2.0**-RESIDUAL_BITS, "penalty rows: the identity"


@pytest.mark.parametrize("k", [2, 3])
def test_shares_of_the_gradient_add_up_to_the_transposed_product_exactly(k, monkeypatch):
    rounded = record_rounded(monkeypatch)
    caller, plan, _ = started(k)
    r = one_gradient(caller, plan)
    assert np.array_equal(total(rounded["gradient", 0]), whole_matrix(caller, plan).T @ r)


@pytest.mark.parametrize("k", [2, 3])
def test_the_gradient_is_that_of_the_penalised_loss(k, monkeypatch):
    """The penalty rows, built from the whitening, must act as penalty/2 |weights of the prepared columns|^2."""
    rounded = record_rounded(monkeypatch)
    caller, plan, w = started(k, penalty=30.0)
    one_gradient(caller, plan)
    g = total(rounded["gradient", 0]) / 2.0 ** (FRACTION_BITS + RESIDUAL_BITS)
    w = w / 2.0**WEIGHT_BITS
    x, transforms = [], []
    for p in data_parties(caller.contract):
        prepared, split = caller.recall(p, Prepared), caller.recall(p, Split)
        fitted = prepare.Preparation.from_json(prepared.preparation)
        rows = split.train[split.train != NO_ROW]
        x.append(prepared_rows(fitted, caller.recall(p, Columns), rows))
        transforms.append(prepared.transform)
    n, y = len(x[0]), caller.recall(data_parties(caller.contract)[0], Labels).y
    white = np.concatenate([np.ones((n, 1)), *(a @ t for a, t in zip(x, transforms, strict=True))], axis=1)
    residual = 1 / (1 + np.exp(-white @ w)) - y[:n]
    expected, at = white.T @ residual, 1
    for t in transforms:
        own = slice(at, at + len(t))
        expected[own] += 30.0 * t.T @ (t @ w[own])
        at += len(t)
    assert np.abs(g - expected).max() < 2e-3 * n


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize(("room", "many_matrix_blocks"), [(40_000, False), (4_000, True)])
def test_matrices_and_sigmoids_that_travel_in_blocks_give_the_same(k, room, many_matrix_blocks, monkeypatch):
    monkeypatch.setattr(layout_module, "BLOCK_BYTES", room)
    rounded = record_rounded(monkeypatch)
    caller, plan, w = started(k)
    assert len(plan.sigmoid_blocks(caller.contract)) > 3
    assert (len(plan.matrix_blocks()) > 3) == many_matrix_blocks
    r = one_gradient(caller, plan)
    z = whole_matrix(caller, plan) @ w
    y = caller.recall(data_parties(caller.contract)[0], Labels).y
    sigma = 1 / (1 + np.exp(-z[: plan.rows] / 2.0 ** (FRACTION_BITS + WEIGHT_BITS)))
    assert np.abs(r[: plan.rows] / 2.0**RESIDUAL_BITS - sigma + y).max() < 2e-3
    assert np.array_equal(total(rounded["gradient", 0]), whole_matrix(caller, plan).T @ r)


def test_a_second_pass_uses_other_masks_than_the_first():
    caller, plan, _ = started(2)
    one_gradient(caller, plan)
    first = list(caller.sent)
    one_gradient(caller, plan)
    second = caller.sent[len(first) :]
    repeated = {s.data[-16:] for s in first if s.sender != "coordinator"}
    assert not [s for s in second if s.data[-16:] in repeated and s.sender != "coordinator"]


def test_the_others_get_uniform_words_for_a_matrix():
    caller, _, _ = started(2)
    masked = [s.message.rows.words for s in caller.sent if isinstance(s.message, MaskedRows)]
    assert len(masked) == 2
    assert all(abs(chi_square(m)) < 4.5 for m in masked)


def test_padded_rows_are_zero_and_the_intercept_stands_in_real_rows_only():
    caller, plan, _ = started(2)
    for i, p in enumerate(data_parties(caller.contract)):
        own, train = caller.recall(p, Matrices).own, caller.recall(p, Split).train
        assert (train == NO_ROW).any()
        assert not own[: plan.rows][train == NO_ROW].any()
        if i == 0:
            assert set(own[: plan.rows, 0][train != NO_ROW].tolist()) == {1 << FRACTION_BITS}
            assert not own[plan.rows :, 0].any(), "the intercept is not penalised"


def test_the_layout_follows_from_public_values_only():
    contract = contract_of(3)
    parties = data_parties(contract)
    plan = layout(contract, Overlap(90, 100, 0, 10), dict(zip(parties, (4, 3, 2), strict=True)), FIT)
    assert [plan.columns[p] for p in parties] == [slice(0, 5), slice(5, 8), slice(8, 10)]
    assert plan.penalty_rows == plan.width == 10 and plan.total == plan.rows + 10
    assert 70 <= plan.rows <= 100


@pytest.mark.parametrize("step", ["fit.open_weights", "fit.angle", "fit.lift", "fit.residual"])
def test_an_opening_of_another_length_is_refused(step):
    def shorten(sent):
        if sent.step != step or sent.sender != "shop":
            return sent.message
        message = sent.message
        cut = {
            "fit.open_weights": lambda: type(message)(Masked(message.words.words[:-1])),
            "fit.angle": lambda: type(message)(Masked(message.angles.words[:-1]), message.penalty),
            "fit.lift": lambda: type(message)(Masked(message.halves.words[:-1])),
            "fit.residual": lambda: type(message)(Masked(message.words.words[:-1])),
        }
        return cut[step]()

    caller, plan, _ = started(2)
    caller.change = shorten
    with pytest.raises(ValueError, match="another length"):
        one_gradient(caller, plan)


def test_lifted_values_are_not_finished_before_all_openings_are_there():
    caller, plan, _ = started(3)
    parties = data_parties(caller.contract)
    lifted = one_forward(caller, plan)
    assert all(caller.recall(p, Lifting).done.shape == (plan.rows,) for p in parties)
    with pytest.raises(ValueError, match="missing"):
        caller(parties[0], RESIDUAL, *inbox_of(lifted[:2], parties[0]))


# ------------------------------------------------------------------------------------------ the same at all parties


ELSEWHERE = """
import hashlib, numpy as np
from fedmkt.ring import kernels, sigmoid
random = np.random.default_rng(7)
for period in (64, 128):
    series = sigmoid.series(period)
    delta, t = random.integers(0, 2**32, (2, 300), np.uint32)
    value = sigmoid.evaluate(delta, sigmoid.deal_angles(t, series.harmonics), series)
    print(sigmoid.constants_digest(series).hex(), hashlib.sha256(value.tobytes()).hexdigest())
x, w = random.integers(-2**30, 2**30, (40, 6)).astype(np.int32), random.integers(0, 2**64, 6, np.uint64)
print(hashlib.sha256(kernels.matvec(x, w).tobytes() + kernels.gram(x, x).tobytes()).hexdigest())
"""


def test_another_machine_without_a_compiler_gets_the_same_integers_to_multiply_shares_with():
    """A public factor that differed in its last bit at one party would turn shares into noise."""
    found = []
    for compiled in ("0", "1"):
        environment = dict(
            os.environ, NUMBA_DISABLE_JIT=compiled, PYTHONPATH=str(Path(fedmkt.__file__).parents[1])
        )
        done = subprocess.run(
            [sys.executable, "-c", ELSEWHERE],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        found.append(done.stdout)
    assert found[0] == found[1] and len(found[0].split()) == 5


def test_every_party_counts_its_masks_alike_and_scales_by_the_same_integers():
    caller, plan, _ = started(3)
    one_gradient(caller, plan)
    one_gradient(caller, plan)
    used = [caller.recall(p, Counts).used for p in data_parties(caller.contract)]
    assert used[0] == used[1] == used[2] == {"fit": 2}
    factors = [_row_factor(caller.turn(p), plan) for p in data_parties(caller.contract)]
    assert len(set(factors)) == 1 and isinstance(factors[0], int)


def test_the_dealer_with_one_opening_would_read_a_matrix():
    """Why the coordinator must belong to no party: its masks are all that hides the columns."""
    caller, plan, _ = started(2)
    (sent,) = [s.message for s in caller.sent if isinstance(s.message, MaskedRows) and s.sender == "shop"]
    mask = caller.turn(dealer(caller.contract)).masks.words("shop", "fit/U", 0, sent.rows.words.shape)
    assert np.array_equal((sent.rows.words + mask).view(np.int64), caller.recall("shop", Matrices).own)
    assert plan.columns_of("shop") == mask.shape[1]
