"""Training and scoring over the partner's whole list, of whom only the bank knows who is common."""

import functools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fedmkt.errors import ConfigError, DataError
from fedmkt.learn import glm
from fedmkt.privacy.disclosure import DEFAULT, Scores
from fedmkt.protocol.alignment.align import Slots, Split
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import Silent, Step
from fedmkt.protocol.layout import SCORE, layout
from fedmkt.protocol.linear import weighted_gram
from fedmkt.protocol.linear.bounds import check_bounds, job_bounds
from fedmkt.protocol.linear.gram import STEP_BITS, Solver, start_halvings
from fedmkt.protocol.linear.logistic import fit
from fedmkt.protocol.linear.matrices import Matrices
from fedmkt.protocol.linear.scoring import Released, RoundedShare, score
from fedmkt.protocol.prepare import Columns, Prepared, Shape
from tests.protocol.hidden_world import (
    hidden_contract,
    hidden_data,
    place,
    real_labels,
    real_matrix,
    start_hidden,
)
from tests.protocol.plain_caller import (
    BANK,
    SHOP,
    chi_square,
    contract_of,
    reconstructed_weights,
    record_rounded,
    total,
    unwhitened,
)
from tests.protocol.test_two_worlds import MASKED as MASKED_WHERE_SHOWN
from tests.protocol.test_two_worlds import differing, relayed, view

MASKED = MASKED_WHERE_SHOWN | {"HiddenWeight", "SideOpening", "WeightedRows"}


def trained(n=2000, rate=0.4, seed=1, columns=(5, 4), data=None, **options):
    model = {"iterations": 20} | options.pop("model", {})
    contract = hidden_contract(columns, model=model)
    caller = start_hidden(data or hidden_data(contract, n, rate, seed, **options), seed=seed)
    fit(caller, contract, caller.overlap, caller.columns())
    return caller


def optimum(caller):
    """Fit the rows that count, in one place."""
    return glm.fit_logistic(real_matrix(caller), real_labels(caller), caller.contract.model.penalty)


def check_optimal(caller, tolerance=1e-2):
    found, best = unwhitened(caller, reconstructed_weights(caller)), optimum(caller)
    reference = np.concatenate([[best.intercept], best.coefficients])
    assert np.linalg.norm(found - reference) < tolerance * np.linalg.norm(reference)
    for training in (True, False):
        x, y = real_matrix(caller, training), real_labels(caller, training)
        x, y = x[~np.isnan(y)], y[~np.isnan(y)]
        joint = roc_auc_score(y, x @ found[1:])
        assert abs(joint - roc_auc_score(y, x @ reference[1:])) < 1e-3


@pytest.mark.parametrize(
    ("n", "rate", "penalty", "selection", "model"),
    [
        (2000, 0.5, 1.0, 0.0, {}),
        (2000, 0.4, 40.0, 0.5, {"period": 64}),
        (8000, 0.1, 1.0, 0.5, {}),
        (8000, 0.1, 1.0, 2.0, {}),
        (8000, 0.1, 1.0, -0.8, {}),
        (30_000, 0.03, 1.0, 1.0, {}),
    ],
)
def test_the_joint_model_is_the_optimum_on_the_common_customers(n, rate, penalty, selection, model):
    """Also where these differ from the rest of the list in mean and variance by any of these factors."""
    caller = trained(n, rate, selection=selection, model={"penalty": penalty} | model)
    check_optimal(caller)
    x, y = real_matrix(caller), real_labels(caller)
    theirs = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=1000).fit(x, y)
    found = unwhitened(caller, reconstructed_weights(caller))
    scikit = np.concatenate([theirs.intercept_, theirs.coef_[0]])
    assert np.linalg.norm(found - scikit) < 1e-2 * np.linalg.norm(scikit)


def test_columns_that_vary_among_common_customers_only_do_not_make_the_passes_swing():
    """Such as a card of the bank's own brand: all their variance on the list is in a tenth of its rows."""
    contract = hidden_contract((5, 4), model={"iterations": 20})
    data = hidden_data(contract, 8000, 0.1, selection=0.0)
    data.x[SHOP][~data.common, 1] = 0.0
    data.x[SHOP][~data.common, 2] = data.x[SHOP][data.common, 2].mean()
    again = place(contract, data.x, data.y, data.common, data.slots, np.random.default_rng(3))
    caller = trained(data=again)
    w = caller.recall(SHOP, Prepared).transform
    white = real_matrix(caller)[:, 5:] @ w
    assert np.square(white).mean(axis=0).max() > 8, "white on the list, ten times as wide on these rows"
    check_optimal(caller)


def test_columns_that_are_constant_among_common_customers_get_no_weight():
    contract = hidden_contract((5, 4), model={"iterations": 20})
    data = hidden_data(contract, 6000, 0.2)
    data.x[SHOP][data.common, 1] = 0.5
    again = place(contract, data.x, data.y, data.common, data.slots, np.random.default_rng(3))
    caller = trained(data=again)
    found = unwhitened(caller, reconstructed_weights(caller))
    best = optimum(caller)
    x = real_matrix(caller)
    z, reference = x @ found[1:] + found[0], x @ best.coefficients + best.intercept
    assert np.abs(z - reference).max() < 0.05
    assert abs(roc_auc_score(real_labels(caller), z) - roc_auc_score(real_labels(caller), reference)) < 1e-3


def test_a_rare_response_still_reaches_the_optimum():
    caller = trained(20_000, 0.3, columns=(3, 3), base=-4.5)
    assert real_labels(caller).mean() < 0.03
    best, w = optimum(caller), unwhitened(caller, reconstructed_weights(caller))
    assert np.linalg.norm(w[1:] - best.coefficients) < 0.03 * np.linalg.norm(best.coefficients)


# ------------------------------------------------------------------------------------------ the Gram matrix


def test_the_shared_blocks_are_the_products_of_the_rows_that_count(monkeypatch):
    rounded = record_rounded(monkeypatch)
    own, opened = {}, weighted_gram._open_blocks

    def keep(turn, inbox):
        own[turn.me] = turn.recall(Matrices).own[:700].astype(np.int64)
        return opened(turn, inbox)

    step = Step("fit.weighted_gram", keep, Silent, reads=(weighted_gram.WeightedRows,))
    monkeypatch.setattr(weighted_gram, "OPEN_BLOCKS", step)
    caller = trained(1500, model={"iterations": 1, "gram_rows": 700})
    counts = (caller.recall(BANK, Slots).train != NO_ROW)[:700, None]
    mine, theirs = own[BANK], own[SHOP]
    found = total(rounded["gram/1", 0])
    cross, block = found[: mine.shape[1] * theirs.shape[1]], found[mine.shape[1] * theirs.shape[1] :]
    assert np.array_equal(cross, (mine.T @ theirs).reshape(-1))
    expected = theirs.T @ (theirs * counts)
    ridge = np.diag(block.reshape(expected.shape) - expected)
    assert np.array_equal(block.reshape(expected.shape) - np.diag(ridge), expected)
    spread, rows = caller.recall(SHOP, Prepared).spread, 1500
    assert ridge == pytest.approx(700 * 25 * 1.0 / rows / spread**2 * 2.0**32, rel=1e-6)


def test_the_shared_inverse_is_that_of_the_rows_that_count():
    caller = trained(12_000, 0.1, model={"iterations": 1}, selection=1.0)
    plan, y = caller.layout(), real_labels(caller)
    transforms = [caller.recall(p, Prepared).transform for p in (BANK, SHOP)]
    x = real_matrix(caller)
    white = np.concatenate([np.ones((len(x), 1)), x[:, :5] @ transforms[0], x[:, 5:] @ transforms[1]], axis=1)
    ridge = np.concatenate(
        [[0.0], *(25 / len(x) / caller.recall(p, Prepared).spread ** 2 for p in (BANK, SHOP))]
    )
    a = white.T @ white / len(x) + np.diag(ridge)
    assert np.linalg.eigvalsh(a).max() > 3, "not white on these rows"
    found = total({p: caller.recall(p, Solver).k for p in (BANK, SHOP)}) / 2.0**STEP_BITS
    scale = 2.0 ** (plan.total - 1).bit_length() / (y.mean() * (1 - y.mean()) * len(x))
    expected = np.linalg.inv(a) * scale
    assert start_halvings(caller.contract, plan) > 3
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_too_few_common_rows_for_the_gram_matrix_are_refused():
    contract = hidden_contract((5, 4), model={"gram_rows": 150})
    caller = start_hidden(hidden_data(contract, 3000, 0.1))
    with pytest.raises(DataError, match=r"only \d+ of the 150 rows .* 80 are needed"):
        fit(caller, contract, caller.overlap, caller.columns())


@pytest.mark.parametrize(("rows", "common"), [(20_000, 2000), (1_000_000, 1000), (5_000_000, 100_000)])
def test_ordinary_jobs_are_within_all_bounds(rows, common):
    contract = hidden_contract((20, 20), limits={"min_common": common})
    overlap = Overlap(common - 1, rows, 0, 0, rows)
    check_bounds(contract, overlap, {p: Shape(20, 30) for p in (BANK, SHOP)})


def test_a_minimum_that_allows_next_to_nobody_among_millions_is_refused_with_the_numbers():
    contract = hidden_contract((20, 20), limits={"min_common": 20}, model={"max_weight": 4096.0})
    overlap = Overlap(19, 5_000_000, 0, 0, 5_000_000)
    with pytest.raises(ConfigError, match="step: "):
        check_bounds(contract, overlap, {p: Shape(20, 30) for p in (BANK, SHOP)})


def test_all_rounded_values_stay_within_their_bounds(monkeypatch):
    rounded = record_rounded(monkeypatch)
    caller = trained(8000, 0.1, selection=2.0)
    bounds = {b.name: b.bits for b in job_bounds(caller.contract, caller.overlap, caller.shapes())}
    names = {
        "gradient": "gradient",
        "step": "step",
        "inverse": "scaled inverse",
        "fit/penalty": "penalty row",
    }
    for (label, _), shares in rounded.items():
        if label in names:
            largest = np.abs(total(shares).astype(np.float64)).max()
            assert np.log2(max(largest, 1)) < max(
                bounds[names[label]], bounds["inverse"] if label == "inverse" else 0
            )
    assert {label for label, _ in rounded} >= set(names)


# ------------------------------------------------------------------------------------------ scores


@functools.cache
def scored(decimals=2, unlabelled=True):
    contract = hidden_contract(
        (5, 4), model={"iterations": 8}, scores={"decimals": decimals, "unlabelled": unlabelled}
    )
    caller = start_hidden(hidden_data(contract, 3000, 0.3))
    fit(caller, contract, caller.overlap, caller.columns())
    score(caller, contract, caller.overlap, caller.columns())
    return caller


@pytest.mark.parametrize("decimals", [1, 2, 3])
def test_a_released_score_is_the_probability_rounded_up_or_down(decimals):
    caller = scored(decimals)
    released, split = caller.recall(BANK, Released), caller.recall(BANK, Split)
    rows = caller.recall(BANK, Slots).scored
    w = unwhitened(caller, reconstructed_weights(caller))
    expected = dict(
        zip(
            rows[rows != NO_ROW].tolist(), glm.sigmoid(real_matrix(caller, False) @ w[1:] + w[0]), strict=True
        )
    )
    exact = np.array([expected[r] for r in released.rows.tolist()])
    assert np.abs(released.units - exact * 10**decimals).max() < 1 + 2e-3 * 10**decimals
    assert np.array_equal(released.rows, np.concatenate([split.held_out, split.unlabelled]))
    label = caller.recall(BANK, Columns).label[released.rows]
    assert not np.isnan(label[: released.held_out]).any() and np.isnan(label[released.held_out :]).all()


def test_the_bank_never_receives_a_score_of_a_stranger_or_of_a_training_row():
    """Not even as a share: what the two shares add up to is 0 for every row that is not to be scored."""
    contract = hidden_contract((5, 4), model={"iterations": 4})
    caller = start_hidden(hidden_data(contract, 3000, 0.3))
    fit(caller, contract, caller.overlap, caller.columns())
    banks = {}
    original = caller._answer

    def answer(call):
        if call.step.name == "score.read":
            banks["share"] = caller.recall(BANK, RoundedShare).words.copy()
        return original(call)

    caller._answer = answer
    score(caller, contract, caller.overlap, caller.columns())
    (sent,) = [s.message.words for s in caller.sent if s.step == "score.release"]
    units = (banks["share"] + sent).view(np.int64)
    scores = caller.recall(BANK, Slots).scored != NO_ROW
    assert len(units) == 3000 and not units[~scores].any()
    assert (units[scores] > 0).mean() > 0.95
    assert abs(chi_square(sent)) < 4.5
    strangers = np.flatnonzero(
        ~np.isin(caller.recall(SHOP, Slots).scored, caller.recall(SHOP, Slots).scored[scores])
    )
    assert len(strangers) > 2000


def test_customers_outside_the_campaign_get_a_score_where_the_contract_says_so():
    assert scored().recall(BANK, Released).held_out < len(scored().recall(BANK, Released).rows)


def test_one_release_of_as_many_rows_as_the_list_is_declared():
    caller = scored()
    declared = [d for _, d in caller.revealed if isinstance(d, Scores)]
    assert declared == [Scores(to=BANK, low=0, high=caller.layout(SCORE).rows, decimals=2)]


# ------------------------------------------------------------------------------------------ two worlds


def finished(data, seed=3):
    caller = start_hidden(data, seed=seed)
    caller.revealed = []
    fit(caller, data.contract, caller.overlap, caller.columns())
    score(caller, data.contract, caller.overlap, caller.columns())
    return caller


def toy():
    return hidden_contract((4, 3), model={"iterations": 2})


def other_common_people(data, rate, seed):
    """Give the bank another set of the partner's people, of another size, with values and labels of their own."""
    random = np.random.default_rng(seed)
    common = random.random(len(data.y)) < rate
    return place(data.contract, data.x, data.y, common, data.slots, random)


@functools.cache
def worlds():
    data = hidden_data(toy(), 1500, 0.4)
    return finished(data), finished(other_common_people(data, 0.25, seed=8)), data


def test_the_partner_sees_the_same_lengths_and_public_values_whoever_and_however_many_are_common():
    one, other, _ = worlds()
    ours = [x for x in relayed(one) if "prepare.fit" not in x]
    theirs = [x for x in relayed(other) if "prepare.fit" not in x]
    assert ours == theirs, "but for the shape of the bank's own matrix, which is declared"
    assert view(one, SHOP) == view(other, SHOP)
    assert differing(one, other, SHOP) <= MASKED
    assert one.revealed == other.revealed
    counts = [int((c.recall(BANK, Slots).train != NO_ROW).sum()) for c in (one, other)]
    assert abs(counts[0] - counts[1]) > 100


def test_the_partner_keeps_the_same_rows_whoever_is_common():
    one, other, data = worlds()
    for caller in (one, other):
        split, slots = caller.recall(SHOP, Split), caller.recall(SHOP, Slots)
        assert np.array_equal(slots.train, data.slots) and np.array_equal(slots.scored, data.slots)
        assert np.array_equal(split.train, data.slots) and not len(split.held_out) + len(split.unlabelled)
    assert caller.recall(SHOP, Prepared).preparation == one.recall(SHOP, Prepared).preparation


@pytest.mark.parametrize("world", [0, 1])
def test_all_that_the_partner_is_shown_is_uniform_in_either_world(world):
    caller = worlds()[world]
    arrays = {}
    for sent in caller.seen_by(SHOP):
        if type(sent.message).__name__ in MASKED - {"LookupOpening", "CountOpening"}:
            for value in vars(sent.message).values():
                words = getattr(value, "words", value)
                if isinstance(words, np.ndarray):
                    arrays.setdefault(type(sent.message).__name__, []).append(words.tobytes())
    assert {"HiddenWeight", "LiftOpening", "VectorOpening", "WeightedRows"} <= set(arrays)
    for name, found in arrays.items():
        joined = b"".join(found)
        if len(joined) >= 256 * 5:
            assert abs(chi_square(joined)) < 4.5, name


def test_what_the_partner_is_shown_of_each_row_has_nothing_to_do_with_whether_it_counts():
    """Compare, for every opening that has a word for each row, rows that count with the others."""
    caller = worlds()[0]
    counts = caller.recall(BANK, Slots).train != NO_ROW
    compared = 0
    for sent in caller.seen_by(SHOP):
        for value in vars(sent.message).values():
            words = getattr(value, "words", None)
            if (
                isinstance(words, np.ndarray)
                and words.ndim
                and len(words) >= len(counts)
                and sent.step.startswith("fit.")
            ):
                top = words[: len(counts)].reshape(len(counts), -1)[:, 0] >> words.dtype.type(
                    8 * words.itemsize - 1
                )
                agree = (top.astype(bool) == counts).mean()
                assert abs(agree - 0.5) < 4.5 * 0.5 / np.sqrt(len(counts)), sent.step
                compared += 1
    assert compared >= 8


def test_the_bank_sees_nothing_of_strangers():
    """The values of people whom the bank does not have go round among them: its view and its scores stay."""
    data = hidden_data(toy(), 1500, 0.4)
    one = finished(data)
    strangers = np.flatnonzero(~data.common)
    data.x[SHOP][strangers] = data.x[SHOP][np.random.default_rng(4).permutation(strangers)]
    shop = {n: np.ascontiguousarray(data.x[SHOP][:, j]) for j, n in enumerate(("x0", "x1", "x2"))}
    data.local[SHOP] = (data.local[SHOP][0], Columns(shop, {}, None))
    other = finished(data)
    assert relayed(one) == relayed(other)
    assert view(one, BANK) == view(other, BANK)
    assert differing(one, other, BANK) <= MASKED
    ours, theirs = (c.recall(BANK, Released) for c in (one, other))
    assert np.array_equal(ours.rows, theirs.rows)
    assert np.abs(ours.units - theirs.units).max() <= 1
    assert np.abs(reconstructed_weights(one) - reconstructed_weights(other)).max() < 1e-3


# ------------------------------------------------------------------------------------------ what a contract may say


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"align": {"match": "hidden", "join": "left"}}, "join = left"),
        ({"align": {"drop": 0.1, "dummies": 0.5}}, "only with match = hidden"),
        ({"align": {"match": "hidden", "dummies": 0.5}}, "both between 0 and 1"),
        ({"align": {"match": "hidden", "drop": 0.1}}, "both between 0 and 1"),
        ({"disclosures": (*DEFAULT, "ModelPart")}, "without ModelPart"),
    ],
)
def test_terms_that_would_tell_who_is_common_are_refused(change, message):
    contract = toy()
    with pytest.raises(ValueError, match=message):
        type(contract).model_validate(contract.model_dump() | change)


def test_hidden_rows_are_one_partners():
    three = contract_of(3)
    with pytest.raises(ValueError, match="one partner"):
        type(three).model_validate(three.model_dump() | {"align": {"match": "hidden"}})


def test_the_rows_follow_from_the_number_of_slots_alone():
    contract, columns = toy(), {BANK: 4, SHOP: 3}
    for low, high in ((19, 500), (99, 300)):
        assert layout(contract, Overlap(low, high, 0, 0, 500), columns, SCORE).rows == 500
