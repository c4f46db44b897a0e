import numpy as np
import pytest

from fedmkt.errors import PolicyRefused
from fedmkt.learn.prepare import Preparation
from fedmkt.privacy.disclosure import RangeBit
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.core import data_parties
from fedmkt.protocol.layout import WEIGHT_BITS
from fedmkt.protocol.linear.logistic import fit
from fedmkt.protocol.linear.predictor import Weights
from fedmkt.protocol.linear.range import InRange, check_range, omega
from fedmkt.protocol.prepare import Columns, Prepared, prepared_rows, real
from fedmkt.ring.fixed import encode
from tests.protocol.plain_caller import (
    BANK,
    SHOP,
    JointData,
    chi_square,
    contract_of,
    joint_data,
    local_states,
    start_aligned,
)


def checked(w_of, k=2, seed=1, **model):
    """Share the weights that w_of(unit direction, limit) gives, run the check; returns caller and weights."""
    contract = contract_of(k, model=model)
    caller = start_aligned(joint_data(contract, 300, seed), seed=seed)
    random = np.random.default_rng(seed)
    direction = random.standard_normal(caller.layout().width)
    direction /= np.sqrt(threshold_sum(caller, direction))  # sum of omega w^2 = 1
    w = encode(w_of(direction), WEIGHT_BITS)
    share_weights(caller, w, random)
    check_range(caller, contract)
    return caller


def share_weights(caller, w, random):
    parties = data_parties(caller.contract)
    masks = [random.integers(0, 2**64, len(w), np.uint64) for _ in parties[1:]]
    for p, share in zip(parties, [w - sum(masks, np.zeros(1, np.uint64)), *masks], strict=True):
        caller.states[p][Weights] = Weights(share)


def threshold_sum(caller, w):
    """Compute what the check compares with 1, from the module's text alone."""
    plan, limit = caller.layout(), 0.45 * caller.contract.model.period
    factor = np.empty(plan.width)
    shapes = caller.shapes()
    for p, s in shapes.items():
        factor[plan.columns[p]] = s.row_norm**2 * len(shapes) / (0.98 * limit**2)
    factor[0] = 1 / (0.02 * limit**2)
    return float(factor @ w**2)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("period", [64, 128])
@pytest.mark.parametrize("size", [0.0, 0.3, 0.8, 0.93])
def test_weights_within_the_bound_pass(k, period, size):
    for seed in range(3):
        caller = checked(lambda unit, s=size: s * unit, k, seed, period=period)
        assert {t.value for t in caller.told if isinstance(t.value, InRange)} == {InRange(True)}


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("period", [64, 128])
@pytest.mark.parametrize("size", [1.06, 1.3, 5.0, 44.0, 45.5, 64.0, 300.0, 6000.0])
def test_weights_beyond_the_bound_stop_the_run_with_advice(k, period, size):
    for seed in range(2):
        with pytest.raises(PolicyRefused, match="range check failed") as refused:
            checked(lambda unit, s=size: s * unit, k, seed, period=period)
        assert "penalty" in str(refused.value.hint) and "128" in str(refused.value.hint)


@pytest.mark.parametrize("sign", [-1, 1])
def test_one_large_weight_is_enough_to_fail(sign):
    def one(unit):
        w = np.zeros_like(unit)
        w[-1] = sign * 40.0
        return w

    with pytest.raises(PolicyRefused):
        checked(one)


def test_a_pass_bounds_every_score_of_every_row_below_the_period():
    """Cauchy-Schwarz, tried in the worst direction: weights along the longest row."""
    contract = contract_of(model={"period": 64})
    caller = start_aligned(joint_data(contract, 400))
    x = all_rows(caller)
    largest = 0.0
    for row in x[np.argsort(-np.linalg.norm(x, axis=1))[:5]]:
        w = row.copy()
        w[0] = 1e-3
        w *= 0.95 / np.sqrt(threshold_sum(caller, w))
        share_weights(caller, encode(w, WEIGHT_BITS), np.random.default_rng(1))
        check_range(caller, contract)
        largest = max(largest, float(np.abs(x @ w).max()))
    assert 0.2 * 64 < largest < 0.45 * 64


def all_rows(caller):
    """Return intercept and whitened columns of all parties for every aligned row, scored ones included."""
    sides = []
    for p in data_parties(caller.contract):
        prepared, split = caller.recall(p, Prepared), caller.recall(p, Split)
        rows = np.concatenate([real(r) for r in (split.train, split.held_out, split.unlabelled)])
        fitted = Preparation.from_json(prepared.preparation)
        sides.append(prepared_rows(fitted, caller.recall(p, Columns), rows) @ prepared.transform)
    return np.concatenate([np.ones((len(sides[0]), 1)), *sides], axis=1)


def test_a_log_normal_column_cannot_leave_the_range_unseen():
    """Once, scores of exactly the richest customers came back with the wrong sign (log-normal, z = .8 x - 2)."""
    contract = contract_of(columns=(1, 1, 1), model={"iterations": 6})
    random = np.random.default_rng(3)
    n = 5000
    x = {p: np.exp(1.4 * random.standard_normal((n, 1))) for p in data_parties(contract)}
    z = 0.8 * x[BANK][:, 0] - 2
    assert z.max() > 16
    y = (random.random(n) < 1 / (1 + np.exp(-z))).astype(float)
    order = {p: random.permutation(n) for p in x}
    ids = [f"{i:05d}" for i in range(n)]
    local = {p: local_states(contract, p, order[p], ids, x[p], y) for p in x}
    caller = start_aligned(JointData(contract, ids, x, y, order, local))
    fit(caller, contract, caller.overlap, caller.columns())  # passes: the clip keeps every score in range
    w = sum(caller.recall(p, Weights).w for p in x).view(np.int64) / 2.0**WEIGHT_BITS
    scores = all_rows(caller) @ w
    assert np.abs(scores).max() < 0.45 * 128
    order_of_wealth = all_rows(caller)[:, 1]
    richest = np.argsort(-order_of_wealth * np.sign(np.corrcoef(order_of_wealth, scores)[0, 1]))[:20]
    assert (scores[richest] > 0).all(), "the richest keep the sign of their score"


def test_separable_data_stop_with_advice_instead_of_a_wrong_sigmoid():
    contract = contract_of(columns=(2, 2, 2), model={"iterations": 100, "period": 64, "penalty": 0.1})
    data = joint_data(contract, 1500)
    y = (data.x[BANK][:, 1] > -1.7).astype(float)
    data.local = {p: local_states(contract, p, o, data.ids, data.x[p], y) for p, o in data.order.items()}
    caller = start_aligned(data)
    with pytest.raises(PolicyRefused, match="range check failed"):
        fit(caller, contract, caller.overlap, caller.columns())


def test_the_bit_is_declared_and_is_all_that_is_public():
    caller = checked(lambda unit: 0.5 * unit, 3)
    ours = [t for t in caller.told if t.step.startswith("range.")]
    assert [t.step for t in ours if isinstance(t.value, InRange)] == ["range.read_bit"] * 3
    assert all(not vars(t.value) for t in ours if t.step != "range.read_bit")
    assert [d for s, d in caller.revealed if s == "range.share_bit"] == [RangeBit(to="all")] * 3, (
        "by the step that sends"
    )


def test_openings_of_a_check_are_uniform_and_its_bit_shares_are_too():
    seen: dict[str, list[bytes]] = {}
    masked_bits = {"range.open_lookup": 16, "range.open_count": 2}
    narrow: dict[str, list[int]] = {step: [] for step in masked_bits}
    for seed in range(60):
        caller = checked(lambda unit: 0.5 * unit, seed=seed)
        for sent in (s for s in caller.sent if s.sender == SHOP and s.step.startswith("range.")):
            arrays = [getattr(v, "words", v) for v in vars(sent.message).values()]
            if sent.step in masked_bits:
                narrow[sent.step] += arrays[0].tolist()
            else:
                seen.setdefault(sent.step, []).extend(a.tobytes() for a in arrays)
    assert len(seen) == 4
    for data in seen.values():
        assert abs(chi_square(b"".join(data))) < 4.5
    for step, values in narrow.items():
        assert max(values) < 2 ** masked_bits[step], "only the masked bits may leave"
        counts = np.bincount(np.array(values) % 4, minlength=4)
        assert ((counts - counts.sum() / 4) ** 2).sum() / (counts.sum() / 4) < 20


def test_omega_is_the_same_integer_at_every_party():
    caller = start_aligned(joint_data(contract_of(3), 300))
    found = [omega(caller.turn(p), caller.layout()) for p in data_parties(caller.contract)]
    assert all(f.dtype == np.uint64 and np.array_equal(f, found[0]) for f in found)
    # At least the exact factor (the check is never laxer than its text), at most one unit more.
    unit = np.eye(len(found[0]))
    exact = np.array([threshold_sum(caller, e) for e in unit]) * 2**12
    assert ((found[0] >= exact) & (found[0] <= exact + 1.001)).all()


def test_shares_that_add_up_to_no_bit_are_refused():
    contract = contract_of()
    caller = start_aligned(joint_data(contract, 300))
    share_weights(caller, np.zeros(caller.layout().width, np.uint64), np.random.default_rng(1))

    def spoil(sent):
        if sent.step == "range.share_bit" and sent.sender == SHOP:
            return type(sent.message)(sent.message.words + np.uint64(7))
        return sent.message

    caller.change = spoil
    with pytest.raises(ValueError, match="no bit"):
        check_range(caller, contract)
