import dataclasses
import functools

import numpy as np
import pytest
from pydantic import ValidationError

from fedmkt.errors import PeerError
from fedmkt.learn import glm
from fedmkt.learn.prepare import Preparation
from fedmkt.privacy.disclosure import DEFAULT, StandardErrors
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.core import data_parties
from fedmkt.protocol.linear import cross_product, standard_errors
from fedmkt.protocol.linear.correlation import ColumnNorms, cross_correlation
from fedmkt.protocol.linear.logistic import fit
from fedmkt.protocol.linear.scoring import OwnWeights, Released, give_parts, score
from fedmkt.protocol.linear.standard_errors import OwnErrors, give_errors
from fedmkt.protocol.prepare import Columns, Prepared, prepared_rows, real
from tests.protocol.plain_caller import (
    BANK,
    SHOP,
    PlainCaller,
    chi_square,
    contract_of,
    joint_data,
    start_aligned,
)
from tests.protocol.test_two_worlds import check_same, columns_exchanged

ALL = (*DEFAULT, "CrossCorrelation", "ModelPart", "StandardErrors")
MASKED = {"MaskedColumns", "CrossOpening", "CurvatureShare"}


def contract_with(k):
    return contract_of(
        k, columns=(4, 3, 3), limits={"min_support": 50}, disclosures=ALL, model={"iterations": 20},
        scores={"decimals": 3},
    )  # fmt: skip


def up_to_errors(data, seed=3):
    caller = start_aligned(data, seed=seed)
    arguments = (caller, data.contract, caller.overlap, caller.columns())
    cross_correlation(*arguments)
    fit(*arguments)
    score(*arguments)
    give_parts(caller, data.contract)
    caller.sent, caller.told, caller.revealed, caller.rounds = [], [], [], 0
    return caller


@functools.cache
def scored(k):
    return up_to_errors(joint_data(contract_with(k), 4000, signal=0.6))


def fresh(base, seed=9):
    caller = PlainCaller(base.contract, base.local, seed=seed)
    caller.publics = dict(base.publics)
    for name, states in base.states.items():
        caller.states[name] = dict(states)
    return caller


def with_errors(k):
    caller = fresh(scored(k))
    give_errors(caller, caller.contract, caller.overlap, caller.columns())
    return caller


def side(caller, party, rows_of):
    fitted = Preparation.from_json(caller.recall(party, Prepared).preparation)
    return prepared_rows(fitted, caller.recall(party, Columns), real(rows_of(caller.recall(party, Split))))


def table(caller):
    parties = data_parties(caller.contract)
    return np.concatenate([side(caller, p, lambda s: s.train) for p in parties], axis=1)


def plain(caller):
    """Train on the pooled table and invert the information matrix there: weights and errors, intercept left out."""
    x = table(caller)
    y = caller.recall(BANK, Columns).label[real(caller.recall(BANK, Split).train)]
    penalty = caller.contract.model.penalty
    w = glm.fit_logistic(x, y, penalty)
    p = glm.predict(w, x)
    design = np.column_stack([np.ones(len(x)), x])
    information = (design * (p * (1 - p))[:, None]).T @ design
    information[1:, 1:] += penalty * np.eye(x.shape[1])
    return w.coefficients, np.sqrt(np.diag(np.linalg.inv(information)))[1:]


@pytest.mark.parametrize("k", [2, 3])
def test_each_party_gets_the_errors_of_its_weights_within_a_tenth_of_the_pooled_models(k):
    caller = with_errors(k)
    weights, exact = plain(caller)
    parties = data_parties(caller.contract)
    found = np.concatenate([caller.recall(p, OwnErrors).values for p in parties])
    assert np.abs(found / exact - 1).max() < 0.1 and np.abs(found / exact - 1).mean() < 0.05
    own = [
        caller.recall(p, Prepared).transform @ caller.recall(p, OwnWeights).values[-caller.columns()[p] :]
        for p in parties
    ]
    # Weights and errors belong together: a weight is off by its optimiser's rest, far less than its error.
    assert np.abs((np.concatenate(own) - weights) / exact).max() < 0.1


@pytest.mark.parametrize("k", [2, 3])
def test_the_shared_sums_are_those_of_the_banks_scores_and_the_partners_squares(k):
    caller = with_errors(k)
    released = caller.recall(BANK, Released)
    p = released.units[: released.held_out] / 1000
    for party in data_parties(caller.contract)[1:]:
        norms = caller.recall(party, ColumnNorms).norms
        q = np.minimum(50 * np.square(side(caller, party, lambda s: s.held_out) / norms), 1.0)
        messages = [
            s.message
            for s in caller.sent
            if s.reader == party and s.step in ("errors.inflate", "errors.release")
        ]
        assert len(messages) == k - 1
        means = ((p * (1 - p)) @ q) / q.sum(axis=0)
        inflated = next(m.values for m in messages if hasattr(m, "values"))
        expected = np.sqrt(inflated / means) / norms
        assert np.abs(caller.recall(party, OwnErrors).values / expected - 1).max() < 1e-3


def with_rare_column(data, caller, held_out):
    """Let the shop's last column single out 60 training and some held-out rows; return the data and these people."""
    found, person = caller.recall(SHOP, Split), np.argsort(data.order[SHOP])
    people = person[np.concatenate([real(found.train)[:60], real(found.held_out)[:held_out]])]
    customers, columns = data.local[SHOP]
    rare = np.zeros(len(data.ids))
    rare[data.order[SHOP][people]] = 1
    columns = dataclasses.replace(columns, numbers=columns.numbers | {"x2": rare})
    return dataclasses.replace(data, local=data.local | {SHOP: (customers, columns)}), people[60:]


def mean_read(caller):
    """Return what the shop can work out of its last column: the mean of p(1 - p) that it was told."""
    inflated = next(s.message.values for s in caller.sent if s.step == "errors.inflate" and s.reader == SHOP)
    error, norm = caller.recall(SHOP, OwnErrors).values[-1], caller.recall(SHOP, ColumnNorms).norms[-1]
    return inflated[-1] / (error * norm) ** 2


@pytest.mark.parametrize("defended", [False, True])
def test_a_column_of_one_held_out_row_reads_that_rows_score_only_where_no_support_is_asked(
    defended, monkeypatch
):
    data = joint_data(contract_with(2), 1500, signal=0.6)
    data, (person,) = with_rare_column(data, start_aligned(data, seed=3), 1)
    caller = up_to_errors(data)
    if not defended:

        def without_the_rule(turn):
            v = standard_errors.unit_columns(turn, turn.recall(Split).held_out)
            return np.minimum(50 * np.square(v), 1.0)

        monkeypatch.setattr(standard_errors, "_squares", without_the_rule)
    shares = []
    finish = standard_errors.decode
    monkeypatch.setattr(
        standard_errors, "decode", lambda words, bits: shares.append(words) or finish(words, bits)
    )
    give_errors(caller, caller.contract, caller.overlap, caller.columns())
    released = caller.recall(BANK, Released)
    p = released.units[: released.held_out] / 1000
    w = p * (1 - p)
    row = np.flatnonzero(released.rows[: released.held_out] == data.order[BANK][person])[0]
    v = side(caller, SHOP, lambda s: s.held_out)[:, -1] / caller.recall(SHOP, ColumnNorms).norms[-1]
    q = np.minimum(50 * np.square(v), 1.0)
    assert abs(w[row] - w.mean()) > 0.03
    if defended:
        assert np.isnan(caller.recall(SHOP, OwnErrors).values[-1])
        assert shares[-1][-1] == 0, "the sum over this column is nothing"
    else:
        # Who knows the mean of all others, as any other column tells it about, is left with one unknown.
        read = (mean_read(caller) * q.sum() - (q.sum() - q.max()) * np.delete(w, row).mean()) / q.max()
        assert abs(read - w[row]) < 0.005


def test_many_blocks_of_rows_give_what_one_gives(monkeypatch):
    one = with_errors(2).recall(SHOP, OwnErrors).values
    monkeypatch.setattr(cross_product, "BLOCK_BYTES", 5000)
    assert np.allclose(with_errors(2).recall(SHOP, OwnErrors).values, one, rtol=1e-3)


@pytest.mark.parametrize("k", [2, 3])
def test_partners_alone_are_told_and_it_is_declared_by_each_sender(k):
    caller = with_errors(k)
    d = caller.columns()
    declared = sorted((step, x.to, x.weights) for step, x in caller.revealed if isinstance(x, StandardErrors))
    partners = data_parties(caller.contract)[1:]
    expected = [("errors.inflate", p, d[p]) for p in partners]
    expected += [("errors.release", q, d[q]) for p in partners for q in partners if q != p]
    assert declared == sorted(expected) and len(caller.revealed) == len(declared)


def test_all_but_the_inflations_is_uniform_by_itself():
    caller = with_errors(3)
    # What goes to two readers is the same.
    sent = {
        s.sender: s.message.rows.words
        for s in caller.sent
        if s.step == "errors.mask_columns" and s.message.rows.words.size
    }
    rows = list(sent.values())
    assert len(rows) == 3
    assert abs(chi_square(np.concatenate([w.reshape(-1) for w in rows]))) < 4.5
    shares = [s.message.words for s in caller.sent if s.step in ("errors.release", "errors.inflate")]
    assert len(shares) == 4 and abs(chi_square(np.concatenate(shares))) < 4.5


def test_the_bank_and_other_partners_cannot_tell_a_partners_columns_from_others():
    data = joint_data(contract_with(3), 900, signal=0.5)
    one = up_to_errors(data)
    other = up_to_errors(columns_exchanged(data, SHOP, one))
    bank = one.recall(BANK, Released)
    other.states[BANK][Released] = (
        bank  # the scores follow from the columns; what they tell is another matter
    )
    for caller in (one, other):
        give_errors(caller, caller.contract, caller.overlap, caller.columns())
    check_same(one, other, (BANK,), MASKED)
    assert not np.allclose(one.recall(SHOP, OwnErrors).values, other.recall(SHOP, OwnErrors).values)


def test_errors_of_weighted_rows_are_not_offered():
    with pytest.raises(ValidationError, match="where all rows count alike"):
        contract_of(2, limits={"min_support": 50}, disclosures=ALL, model={"class_weights": (1.0, 2.0)})


def test_without_the_disclosure_nothing_is_called():
    caller = fresh(scored(2))
    without = tuple(d for d in ALL if d != "StandardErrors")
    contract = caller.contract.model_copy(update={"disclosures": without})
    give_errors(caller, contract, caller.overlap, caller.columns())
    assert not caller.sent and caller.rounds == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: dataclasses.replace(m, values=m.values[1:]),
        lambda m: dataclasses.replace(m, values=-m.values),
        lambda m: dataclasses.replace(m, values=m.values * np.nan),
        lambda m: dataclasses.replace(m, words=m.words[1:]),
    ],
)
def test_a_partner_refuses_inflations_of_another_shape_or_kind(spoil):
    caller = fresh(scored(2))
    caller.change = lambda sent: spoil(sent.message) if sent.step == "errors.inflate" else sent.message
    with pytest.raises(PeerError, match=r"errors\.(inflate|take)"):
        give_errors(caller, caller.contract, caller.overlap, caller.columns())


def test_the_largest_sum_stays_below_the_bound_that_the_job_asserts():
    caller = with_errors(2)
    rows = standard_errors.held_out_rows(caller.contract, caller.overlap)
    q = np.minimum(
        50 * np.square(side(caller, SHOP, lambda s: s.held_out) / caller.recall(SHOP, ColumnNorms).norms), 1.0
    )
    assert 0.25 * q.sum(axis=0).max() * 2**40 < 0.25 * rows * 2**40 < 2**62
