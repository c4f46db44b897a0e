import functools

import numpy as np
import pytest

from fedmkt.errors import PolicyRefused
from fedmkt.party.store import Store
from fedmkt.privacy.disclosure import DEFAULT, ModelPart, Scores
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.core import Silent, data_parties
from fedmkt.protocol.layout import FRACTION_BITS, SCORE, WEIGHT_BITS
from fedmkt.protocol.linear.gram import Solver
from fedmkt.protocol.linear.logistic import fit
from fedmkt.protocol.linear.matrices import Matrices
from fedmkt.protocol.linear.predictor import Weights
from fedmkt.protocol.linear.scoring import (
    OwnWeights,
    Released,
    _count_release,
    give_parts,
    ledger_keys,
    score,
)
from fedmkt.protocol.pipeline import main_job
from fedmkt.protocol.prepare import real
from fedmkt.protocol.session import Request
from tests.engine import Tap, job_world
from tests.protocol.plain_caller import (
    BANK,
    DEALER,
    SHOP,
    TELECOM,
    Left,
    PlainCaller,
    chi_square,
    contract_of,
    joint_data,
    reconstructed_weights,
    start_aligned,
    total,
)


@functools.cache
def _trained(k, decimals, unlabelled, columns, n):
    contract = contract_of(
        k, columns=columns, model={"iterations": 4}, scores={"decimals": decimals, "unlabelled": unlabelled},
        disclosures=(*DEFAULT, "ModelPart"),
    )  # fmt: skip
    caller = start_aligned(joint_data(contract, n, signal=0.8))
    fit(caller, contract, caller.overlap, caller.columns())
    return caller


def ready_to_score(k=2, decimals=2, unlabelled=True, columns=(4, 4, 4), n=1500, seed=7, stores=None):
    """Return a caller that holds a trained model and nothing else that is left of the training."""
    base = _trained(k, decimals, unlabelled, columns, n)
    caller = PlainCaller(base.contract, base.local, seed=seed, stores=stores or {})
    caller.publics = dict(base.publics)
    for name, states in base.states.items():
        caller.states[name] = {t: s for t, s in states.items() if s.durable} | caller.states[name]
    return caller


def scored(**options):
    caller = ready_to_score(**options)
    score(caller, caller.contract, caller.overlap, caller.columns())
    return caller


def exact_scores(caller):
    """Compute sigma(z) of the real rows to score, from all parties' matrices and reconstructed weights."""
    own = [caller.recall(p, Matrices).own.astype(np.int64) for p in data_parties(caller.contract)]
    w = total({p: caller.recall(p, Weights).w for p in data_parties(caller.contract)})
    split = caller.recall(BANK, Split)
    here = np.concatenate([split.held_out, split.unlabelled]) >= 0
    z = (np.concatenate(own, axis=1) @ w)[here] / 2.0 ** (FRACTION_BITS + WEIGHT_BITS)
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("decimals", [1, 2, 3])
def test_a_released_score_is_the_probability_rounded_up_or_down(k, decimals):
    caller = scored(k=k, decimals=decimals)
    released, expected = caller.recall(BANK, Released), exact_scores(caller)
    assert released.units.shape == expected.shape
    # One unit for the rounding, and the error of the sine series in units.
    series = 1.5e-3 * 10**decimals
    assert np.abs(released.units - expected * 10**decimals).max() < 1 + series
    assert (released.units >= 0).all() and (released.units <= 10**decimals).all()


def test_rounding_is_unbiased_over_many_rows():
    caller = scored(n=6000)
    difference = caller.recall(BANK, Released).units / 100 - exact_scores(caller)
    assert len(difference) > 2000
    assert abs(difference.mean()) < 4 * 0.005 / np.sqrt(len(difference)) + 3e-4


def test_a_repeated_scoring_of_the_same_model_differs_by_at_most_one_unit():
    first, second = scored(seed=1), scored(seed=2)
    a, b = (c.recall(BANK, Released).units for c in (first, second))
    assert 0 < (a != b).mean() < 0.6 and np.abs(a - b).max() == 1


@pytest.mark.parametrize("unlabelled", [True, False])
def test_only_held_out_rows_and_rows_without_label_are_scored_each_once(unlabelled):
    caller = scored(unlabelled=unlabelled)
    released, split = caller.recall(BANK, Released), caller.recall(BANK, Split)
    assert len(np.unique(released.rows)) == len(released.rows)
    assert not set(released.rows) & set(real(split.train))
    asked = np.concatenate([real(split.held_out), real(split.unlabelled)])
    assert np.array_equal(released.rows, asked)
    assert released.held_out == len(real(split.held_out))


@pytest.mark.parametrize("k", [2, 3])
def test_only_the_bank_gets_scores_and_nobody_gets_anything_else(k):
    caller = scored(k=k)
    assert [n for n in caller.states if Released in caller.states[n]] == [BANK]
    assert {type(t.value) for t in caller.told} == {Silent}
    kinds = {(s.step, s.reader) for s in caller.sent if s.step == "score.release"}
    assert kinds == {("score.release", BANK)}
    high = caller.layout(SCORE).rows
    declared = [d for _, d in caller.revealed]
    assert declared == [Scores(to=BANK, low=caller.overlap.unlabelled_low, high=high, decimals=2)] * (k - 1)


def test_no_exact_score_linear_predictor_or_weight_occurs_in_any_message():
    caller = scored(decimals=3)
    p = exact_scores(caller)
    w = total({q: caller.recall(q, Weights).w for q in data_parties(caller.contract)})
    own = [caller.recall(q, Matrices).own.astype(np.int64) for q in data_parties(caller.contract)]
    z = np.concatenate(own, axis=1) @ w
    values = [z, w, *(np.rint(p * 2**b).astype(np.int64) for b in (16, 20, 28, 32))]
    hidden = set(np.concatenate([v[np.abs(v) > 300] for v in values]).tolist())
    seen = np.concatenate([np.frombuffer(s.data[: len(s.data) // 8 * 8], "<i8") for s in caller.sent])
    assert len(hidden) > 500 and not hidden & set(seen.tolist())
    # Half words too: the sigmoid is opened modulo 2^32. Collisions of 2^13 values with 2^17 words are few.
    angles = {int(v) for v in (z >> (36 + 7 - 32)) & 0xFFFFFFFF}
    halves = np.concatenate([np.frombuffer(s.data[: len(s.data) // 4 * 4], "<u4") for s in caller.sent])
    expected = len(angles) * len(halves) / 2**32
    assert len(angles & set(halves.tolist())) <= expected + 5 * np.sqrt(expected) + 2


def test_what_the_bank_is_sent_is_uniform_by_itself():
    caller = scored(k=3)
    shares = [s.message.words for s in caller.sent if s.step == "score.release"]
    assert len(shares) == 2 and all(abs(chi_square(s)) < 4.5 for s in shares)
    assert abs(chi_square(shares[0] + shares[1])) < 4.5


def test_the_bank_learns_nothing_from_padded_rows():
    caller = scored()
    split, plan = caller.recall(BANK, Split), caller.layout(SCORE)
    asked = np.concatenate([split.held_out, split.unlabelled])
    assert len(asked) == plan.rows and (asked < 0).any()
    for p in data_parties(caller.contract):
        assert not caller.recall(p, Matrices).own[asked < 0].any()


# ------------------------------------------------------------------------------------------ the ledger


def test_scores_of_the_same_columns_are_released_up_to_a_quarter_of_them_then_refused():
    stores = {SHOP: {}, BANK: {}, DEALER: {}}
    for run in range(2):  # 8 columns: two functionals
        caller = scored(columns=(3, 8, 3), seed=run, stores=stores)
        assert Released in caller.states[BANK]
    caller = ready_to_score(columns=(3, 8, 3), seed=9, stores=stores)
    with pytest.raises(PolicyRefused, match="cap"):
        score(caller, caller.contract, caller.overlap, caller.columns())
    assert Released not in caller.states[BANK]
    assert not [s for s in caller.sent if s.step == "score.release"]


def test_a_contract_of_its_own_does_not_begin_a_new_ledger():
    first, second = contract_of(family="one"), contract_of(family="two", model={"penalty": 9.0})
    keys = [ledger_keys(PlainCaller(c, {}).turn(SHOP)) for c in (first, second)]
    assert keys[0] == keys[1]


def test_leaving_out_a_column_does_not_begin_a_new_ledger():
    stores = {SHOP: {}, BANK: {}, DEALER: {}}
    for run in range(2):
        scored(columns=(3, 8, 3), seed=run, stores=stores)
    with pytest.raises(PolicyRefused, match="cap"):
        scored(columns=(3, 5, 3), seed=2, stores=stores)


def test_each_partner_keeps_a_ledger_of_its_own():
    stores = {SHOP: {}, TELECOM: {}, BANK: {}, DEALER: {}}
    scored(k=3, columns=(3, 8, 4), seed=1, stores=stores)
    with pytest.raises(PolicyRefused, match="cap"):
        scored(k=3, columns=(3, 8, 4), seed=2, stores=stores)  # four columns: one functional
    counted = [[k for k in stores[p] if k.startswith("functionals/")] for p in (BANK, SHOP, TELECOM)]
    assert [len(c) for c in counted] == [0, 8, 4]


# ------------------------------------------------------------------------------------------ parts of the model


@pytest.mark.parametrize("k", [2, 3])
def test_parts_of_the_model_open_to_their_owners_only(k):
    caller = scored(k=k)
    give_parts(caller, caller.contract)
    w, plan = reconstructed_weights(caller), caller.layout(SCORE)
    for p in data_parties(caller.contract):
        assert np.array_equal(caller.recall(p, OwnWeights).values, w[plan.columns[p]])
        sizes = [len(s.message.words) for s in caller.sent if s.step == "model.give_part" and s.reader == p]
        assert sizes == [plan.columns_of(p)] * (k - 1), "shares of the reader's own columns and no others"
    declared = [d for s, d in caller.revealed if s == "model.give_part"]
    assert len(declared) == k * (k - 1) and all(isinstance(d, ModelPart) for d in declared)


# ------------------------------------------------------------------------------------------ who leaves


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize(
    "step",
    ["score.mask_rows", "score.open_weights", "score.angle", "score.lift", "score.round", "score.release"],
)
def test_nothing_is_released_when_a_partner_leaves_early(k, step):
    caller = ready_to_score(k=k)
    last = data_parties(caller.contract)[-1]
    caller.leaves = lambda party, name: (party, name) == (last, step)
    with pytest.raises(Left):
        score(caller, caller.contract, caller.overlap, caller.columns())
    assert Released not in caller.states[BANK]
    # Whatever the bank holds or was sent lacks the share of the one who left: it is uniform.
    shares = [s.message.words for s in caller.sent if s.step == "score.release"]
    assert len(shares) == (k - 2 if step == "score.release" else 0)
    assert all(abs(chi_square(s)) < 4.5 for s in shares)


def test_a_share_of_another_length_is_refused():
    caller = ready_to_score()

    def cut(sent):
        return type(sent.message)(sent.message.words[:-1]) if sent.step == "score.release" else sent.message

    caller.change = cut
    with pytest.raises(ValueError, match="another length"):
        score(caller, caller.contract, caller.overlap, caller.columns())
    assert Released not in caller.states[BANK]


def test_training_leaves_shares_from_which_neither_side_has_a_score():
    caller = ready_to_score()
    assert {Weights, Solver} <= set(caller.states[BANK]) & set(caller.states[SHOP])
    w = reconstructed_weights(caller)
    for p in data_parties(caller.contract):
        alone = caller.recall(p, Weights).w.view(np.int64) / 2.0**WEIGHT_BITS
        assert np.abs(alone - w).min() > 1e3


# ------------------------------------------------------------------------------------------ the whole job


@pytest.mark.parametrize("allowed", [False, True])
def test_the_job_opens_parts_of_the_model_only_where_the_contract_says_so(allowed):
    disclosures = (*DEFAULT, "ModelPart") if allowed else DEFAULT
    contract = contract_of(model={"iterations": 1}, disclosures=disclosures)
    caller = PlainCaller(contract, joint_data(contract, 200).local)
    main_job(caller, contract)
    assert (OwnWeights in caller.states[SHOP]) == allowed == (OwnWeights in caller.states[BANK])
    assert bool([s for s in caller.sent if s.step == "model.give_part"]) == allowed
    assert bool([d for _, d in caller.revealed if isinstance(d, ModelPart)]) == allowed


def scores_on_disk(world):
    return list(world.folder_of(BANK).rglob("scores.npz"))


def test_the_ledger_lies_in_the_partners_store_and_outlives_its_process(tmp_path):
    world = job_world(tmp_path, seed=3, iterations=1)
    world.run()
    (first,) = scores_on_disk(world)
    first.unlink()
    store = Store(world.folder_of("partner") / "store")
    counted = [k for k in store if k.startswith("functionals/")]
    assert {k.rsplit("/", 1)[1] for k in counted} == set(world.contract.party("partner").columns)
    assert {store[k] for k in counted} == {b"1"}
    store.put(counted[2], b"1000")
    with pytest.raises(PolicyRefused, match=r"partner refused at score\.release"):
        world.run()
    assert not scores_on_disk(world)


def test_the_same_shares_sent_again_after_a_resume_count_once_and_others_count_again():
    caller = ready_to_score()
    turn, share = caller.turn(SHOP), np.arange(5, dtype=np.uint64)
    caller.stores[SHOP].update(_count_release(turn, share))
    before = dict(caller.stores[SHOP])
    assert _count_release(turn, share) == {}
    again = ready_to_score(columns=(4, 12, 4), stores={SHOP: {}})
    for value in (1, 2):
        again.stores[SHOP].update(_count_release(again.turn(SHOP), share + np.uint64(value)))
    counts = {v for k, v in again.stores[SHOP].items() if k.startswith("functionals/")}
    assert counts == {b"2"} and before


def test_no_score_reaches_the_banks_disk_when_the_partner_leaves_before_the_release(tmp_path):
    def leave(name, message):
        if isinstance(message, Request) and (name, message.step) == ("partner", "score.release"):
            raise Left
        return message

    world = job_world(tmp_path, seed=4, iterations=1)
    tap = Tap(change=leave)
    with pytest.raises(Left):
        world.run(tap)
    assert not scores_on_disk(world)
    assert not world.parties[BANK].holds(Released)
    assert any(p.message.step == "score.round" for p in tap.requests)
