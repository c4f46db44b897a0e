"""Boosted trees on totals with noise: the same trees in plain, what is opened, the ledger, and what noise hides."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from fedmkt.audit.records import read_leaf
from fedmkt.config.files import parse_job
from fedmkt.errors import PolicyRefused
from fedmkt.learn import noisy
from fedmkt.learn.splits import leaf_values, scale_of
from fedmkt.learn.trees import linear_predictor
from fedmkt.party.audit_log import LOG
from fedmkt.party.node import open_data
from fedmkt.privacy.disclosure import ChosenSplits, NoisyTotals, TreeShape
from fedmkt.privacy.noise import FLOODING_DELTA, epsilon_of
from fedmkt.protocol.alignment.align import train_rows
from fedmkt.protocol.budget_ledger import Training, earlier, epsilon_together
from fedmkt.protocol.core import Inbox, data_parties, dealer
from fedmkt.protocol.session import Request
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.sides.histogram import RowBins
from fedmkt.protocol.trees.sides.tree_growth import Forest, columns_of
from fedmkt.protocol.trees.totals import noise_ledger, noisy_growth, shared_boosting
from fedmkt.protocol.trees.totals.lane_plan import lanes_of
from fedmkt.protocol.trees.totals.noisy_growth import bins_of, noisy_settings, noisy_shares, plan_of
from fedmkt.protocol.trees.totals.shared_cells import LevelShares, level_cells
from fedmkt.protocol.trees.totals.shared_gradients import UNIT
from fedmkt.protocol.trees.totals.shared_growth import NodeTotals
from fedmkt.protocol.trees.tree_columns import cut_columns
from fedmkt.ring import discrete_gaussian
from fedmkt.simulation.world import generate, write_world
from tests.engine import Killed, Tap, world_of
from tests.protocol.plain_caller import Left
from tests.protocol.shared_world import Watch, contract, grown, model_of, scores_of, splits_of
from tests.protocol.test_shared_views import UNIFORM
from tests.protocol.test_two_worlds import differing, relayed, view
from tests.protocol.tree_world import BANK, SHOP, by_owner, pooled, tree_caller


def planned(caller):
    return plan_of(caller.contract, train_rows(caller.contract, caller.overlap))


class Drawn:
    """Records the noise of each level and the totals that the bank reads."""

    def __init__(self, monkeypatch):
        self.noise, self.cells = [], []
        draw, choose = noisy_growth.draw_noise, noisy_growth.choose_allowed
        monkeypatch.setattr(noisy_growth, "draw_noise", lambda *given: self.kept(draw(*given)))

        def chosen(turn, state, tree, cells, *rest):
            self.cells.append(cells)
            return choose(turn, state, tree, cells, *rest)

        monkeypatch.setattr(noisy_growth, "choose_allowed", chosen)

    def kept(self, noise):
        self.noise.append(noise)
        return noise


@pytest.mark.parametrize("terms", [{}, {"depth": 4, "bins": 13, "penalty": 30.0}], ids=["few", "fine"])
def test_trees_are_those_of_the_pooled_table_with_the_same_noise(terms, monkeypatch):
    watch, drawn = Watch(monkeypatch), Drawn(monkeypatch)
    caller = grown(tree_caller(contract(trees=4, epsilon=8.0, **terms)))
    settings, columns = noisy_settings(caller.contract), columns_of(caller.contract)
    table, bins = pooled(caller, lambda split: split.train), bins_of(caller.turn(BANK))
    last, compared, noise = np.array(bins.values) - 1, 0, iter(drawn.noise)
    for tree, found in enumerate(caller.recall(BANK, Forest).trees):
        rows, usable = watch.rows(caller, tree), np.ones(len(columns), bool)
        plain = noisy.grow(table, bins, rows, usable, settings, lambda nodes: next(noise))
        if not found.owners or SHOP not in {columns[s.column].owner for s in plain.splits}:
            continue
        compared += 1
        assert splits_of(caller, tree) == {
            (
                s.node,
                columns[s.column].owner,
                columns[s.column].name,
                min(s.bin, last[s.column]),
                s.missing_left,
            )
            for s in plain.splits
        }
        units = np.rint(leaf_values(plain.leaves, settings, scale_of(settings, 1.0)) / UNIT)
        assert dict(found.leaves) == dict(
            zip(plain.leaves.nodes.tolist(), (units * UNIT).tolist(), strict=True)
        )
    assert compared >= 2
    expected = linear_predictor(model_of(caller), by_owner(table))
    assert np.allclose(scores_of(caller), expected, atol=1e-12)


def test_every_total_that_is_opened_has_noise_and_is_declared_and_nothing_else_is(monkeypatch):
    watch, drawn = Watch(monkeypatch), Drawn(monkeypatch)
    caller = grown(tree_caller(contract(trees=2, epsilon=4.0)))
    plan, bins = planned(caller), bins_of(caller.turn(BANK))
    table, rows = pooled(caller, lambda split: split.train), watch.rows(caller, 0)
    root = noisy.boosting.histograms(table, np.zeros(len(rows), np.int32), rows, 1)[..., :2]
    assert np.array_equal(drawn.cells[0], root + drawn.noise[0])
    for noise, cells in zip(drawn.noise, drawn.cells, strict=True):
        assert noise.shape == cells.shape
        assert (noise[:, ~bins.places] == 0).all() and (cells[:, ~bins.places] == 0).all()
    noise = np.concatenate([n[:, bins.places].reshape(-1, 2) for n in drawn.noise])
    size = len(noise)
    for field, deviation in enumerate(plan.deviations):
        assert abs(noise[:, field].mean()) < 5 * deviation / math.sqrt(size)
        assert abs(noise[:, field].std() / deviation - 1) < 5 / math.sqrt(2 * size)
    found = [d for step, d in caller.revealed if step.startswith("fit.")]
    assert {type(d) for d in found} == {NoisyTotals, ChosenSplits, TreeShape}
    told = [d for d in found if isinstance(d, NoisyTotals)]
    assert {d.to for d in told} == {BANK} and sum(d.totals for d in told) == 2 * size
    assert {d.event for d in told} == {f"{plan}, all of this training"}
    # No comparison, so nobody is told which cells are small: not even how many groups were compared.
    assert not [s for s in caller.sent if s.step.startswith(("fit.open_counts", "fit.share_bits"))]
    assert {s.reader for s in caller.sent if isinstance(s.message, NodeTotals)} == {BANK}
    assert not [s for s in caller.sent if s.reader == dealer(caller.contract) and s.step == "fit.open_noisy"]


def test_of_a_row_at_the_partner_the_bank_sees_what_noisy_totals_say_and_nothing_else(monkeypatch):
    """With another row, and noise that makes up for it, nothing changes but uniform words."""
    draw, codes_of, opened, at, worlds = noisy_growth.draw_noise, shared_boosting.own_codes, [], 5, []

    def exact():
        shares = [level_cells(caller.turn(p)) for p in (BANK, SHOP)]
        lanes = noisy_growth._agreed(caller.contract, caller.recall(SHOP, LevelShares))[1]
        return lanes.split(np.moveaxis(sum(shares), 0, -1))

    def kept(*given):
        noise = draw(*given)
        opened.append(exact() + noise)
        return noise

    def made_up(*given):
        draw(*given)
        return opened.pop(0) - exact()

    def other_row(turn, rows):
        codes = codes_of(turn, rows)
        if turn.me == SHOP:
            sizes = np.array(caller.publics[SHOP, BinSizes].sizes)
            codes[:, at] = (codes[:, at] + sizes // 2) % sizes
        return codes

    for world in (0, 1):
        monkeypatch.setattr(noisy_growth, "draw_noise", made_up if world else kept)
        if world:
            monkeypatch.setattr(shared_boosting, "own_codes", other_row)
        caller = tree_caller(contract(trees=3, epsilon=4.0))
        worlds.append(grown(caller))
    one, other = worlds
    found = [w.recall(SHOP, RowBins).codes for w in worlds]
    changed = np.flatnonzero((found[0] != found[1]).any(axis=0))
    assert not opened and changed.tolist() == [at] and (found[0] != found[1])[:, at].all()
    assert relayed(one) == relayed(other) and one.revealed == other.revealed
    assert view(one, BANK) == view(other, BANK)
    forests = [w.recall(BANK, Forest) for w in worlds]
    assert len({(f.base, f.trees, f.decisions) for f in forests}) == 1
    # Sums that travel are under the partner's r, and its shares of totals are what the bank's shares leave.
    assert differing(one, other, BANK) <= {k.__name__ for k in UNIFORM}
    assert {"SharedTotals", "NodeTotals"} <= differing(one, other, BANK)


def test_totals_at_the_edge_of_their_words_come_out_right():
    """The largest totals of the most rows with the largest noise fit the words; what goes around comes back."""
    caller = tree_caller(contract(epsilon=0.5))
    lanes = lanes_of(caller.contract, caller.overlap, cut_columns(caller, caller.contract))
    plan = plan_of(caller.contract, lanes.rows)
    most = [
        lanes.rows * limit + discrete_gaussian.most(s)
        for limit, s in zip((34, 67), plan.deviations, strict=True)
    ]
    truth = np.array([[1, 1], [-1, 1], [1, -1], [-1, -1], [0, 0]]) * most
    noise = np.sign(truth) * [discrete_gaussian.most(s) for s in plan.deviations]
    totals = np.stack([lane.astype(np.uint64) for lane in lanes.join([*(truth - noise).T])])
    masks = np.array([(1 << bits) - 1 for bits in lanes.bits], np.uint64)
    own = np.random.default_rng(1).integers(0, 2**63, totals.shape, np.uint64)
    shape = (len(lanes.bits), 1, 1, 5)
    sent = noisy_shares(lanes, (totals - own).reshape(shape), noise.reshape(1, 1, 5, 2))
    assert (sent <= masks).all()
    read = lanes.split(np.moveaxis(own.reshape(shape), 0, -1) + sent)
    assert np.array_equal(read[0, 0], truth)


# ------------------------------------------------------------------------------------------ the ledger


def test_a_partner_counts_each_training_and_refuses_what_goes_beyond_the_contract():
    terms = contract(trees=1, depth=1, epsilon=5.0)
    stores = {SHOP: {}}
    for run in (1, 2, 3):
        caller = tree_caller(terms, stores=stores)
        turn, used = caller.turn, bytes([run]) * 32
        caller.turn = lambda party, turn=turn, used=used: replace(turn(party), run=used)
        if run < 3:
            grown(caller)
            continue
        with pytest.raises(PolicyRefused, match=r"would be epsilon (8|9)\.\d+; the contract allows 8"):
            grown(caller)
    plan = planned(caller)
    ledger = {name: json.loads(stores[SHOP][name]) for name in stores[SHOP] if name.startswith("noise/")}
    assert list(ledger) == [f"noise/{run * 32}" for run in ("01", "02")]
    assert {(e["organisation"], e["rho"], e["delta"]) for e in ledger.values()} == {
        ("the bank", plan.rho, plan.delta)
    }
    assert 5 < epsilon_of(2 * plan.rho, plan.delta) < 8 < epsilon_of(3 * plan.rho, plan.delta)


@pytest.mark.parametrize(
    ("known_by", "counts"),
    [
        ({}, True),
        ({"key": "ab" * 32}, True),
        ({"organisation": "x"}, True),
        ({"organisation": "x", "key": "y"}, False),
    ],
)
def test_the_ledger_knows_a_bank_by_its_name_or_its_key_whatever_the_contract(known_by, counts):
    terms = contract(trees=1, depth=1, epsilon=4.0)
    bank = {"organisation": "the bank", "key": terms.bank.key}
    entry = bank | known_by | {"rho": 1.5, "delta": 1e-9}
    caller = tree_caller(terms, stores={SHOP: {f"noise/{'aa' * 32}": json.dumps(entry).encode()}})
    if not counts:
        assert grown(caller)
        return
    with pytest.raises(PolicyRefused, match="this bank with noise") as refused:
        grown(caller)
    # At the smaller of the two deltas.
    assert f"{epsilon_of(1.5 + planned(caller).rho, 1e-9 - FLOODING_DELTA):.2f}" in str(refused.value)


def test_of_trainings_that_begin_at_the_same_moment_none_opens_totals_beyond_the_limit():
    """Each looks at the ledger before the other has written anything, and before either has opened anything."""
    begun = []
    for run in (1, 2):
        caller = tree_caller(contract(trees=1, depth=1, epsilon=7.0), stores={SHOP: {}})
        turn, used = caller.turn, bytes([run]) * 32
        caller.turn = lambda party, turn=turn, used=used: replace(turn(party), run=used)
        caller.leaves = lambda party, step: step == "fit.open_noisy"
        with pytest.raises(Left):
            grown(caller)
        begun.append(caller)
    together = {name: value for caller in begun for name, value in caller.stores[SHOP].items()}
    for caller in begun:
        assert noisy_growth._open(caller.turn(SHOP), Inbox(()))
        with pytest.raises(PolicyRefused, match="this bank with noise"):
            noisy_growth._open(replace(caller.turn(SHOP), store=together), Inbox(()))


@pytest.mark.parametrize("name", ["The  Bank", "the\u00a0bank", "\uff34he bank", "THE BANK"])
def test_a_name_in_another_spelling_is_the_same_bank(name):
    terms = contract(trees=1, depth=1, epsilon=4.0)
    other = terms.bank.model_copy(update={"organisation": name, "key": "ab" * 32})
    elsewhere = terms.model_copy(update={"parties": (other, *terms.parties[1:])})
    caller = tree_caller(terms)
    plan = planned(caller)
    one = noise_ledger._training(caller.turn(SHOP), plan)
    same = noise_ledger._training(replace(caller.turn(SHOP), contract=elsewhere), plan)
    assert (one.organisation, one.key != same.key) == (same.organisation, True)


def test_a_bank_that_changes_name_and_key_in_turn_is_one_bank():
    """Each training shares a name or a key with the one before, the first and the last share neither."""
    terms = contract(trees=1, depth=1, epsilon=4.0)
    names = [("first", "k1"), ("second", "k1"), ("second", "k2"), ("the bank", "k2"), ("others", "k9")]
    told = [{"organisation": name, "key": key, "rho": 0.1, "delta": 1e-5} for name, key in names]
    store = {f"noise/{i:064x}": json.dumps(entry).encode() for i, entry in enumerate(told, start=1)}
    caller = tree_caller(terms, stores={SHOP: store})
    turn = caller.turn(SHOP)
    found = earlier(turn.store, noise_ledger._training(turn, planned(caller)), turn.run.hex())
    assert sorted(t.organisation for t in found) == ["first", "second", "second", "the bank"]


def test_what_encrypted_sums_add_to_delta_adds_up_over_trainings():
    trainings = [Training("x", "y", 0.01, 1e-9)] * 40
    assert epsilon_together(trainings) == epsilon_of(0.4, 1e-9 - 39 * FLOODING_DELTA) > epsilon_of(0.4, 1e-9)
    assert epsilon_together(trainings * 2) == math.inf


def test_totals_of_more_columns_than_the_noise_is_for_are_refused():
    caller = tree_caller(contract(trees=1, depth=1, epsilon=4.0))
    caller.leaves = lambda party, step: step == "fit.open_noisy"
    with pytest.raises(Left):
        grown(caller)
    kept = noisy_growth._with_cells(caller.turn(SHOP), bins_of(caller.turn(SHOP)))
    wider = replace(kept, cells=np.concatenate([kept.cells, kept.cells[:, :, :1]], axis=2))
    assert noisy_growth._agreed(caller.contract, kept)
    with pytest.raises(ValueError, match="other columns than have totals"):
        noisy_growth._agreed(caller.contract, wider)


def test_a_level_beyond_those_that_noise_was_planned_for_is_refused():
    terms = contract(trees=2, depth=2, epsilon=4.0)
    plan = planned(tree_caller(terms))
    # Three resumes, each back by one tree at most.
    assert plan.levels == 2 * (2 + 3)
    stores = {SHOP: {f"noisy levels/{'00' * 32}": str(plan.levels - 3).encode()}}
    with pytest.raises(PolicyRefused, match="11 levels of trees are asked for, noise was planned for 10"):
        grown(tree_caller(terms, stores=stores))
    assert stores[SHOP][f"noisy levels/{'00' * 32}"] == b"10"


# ------------------------------------------------------------------------------------------ whole runs

JOB = """kind = "trees"
checkpoint_every = 1

[trees]
reveal = "totals"
epsilon = 5.0
trees = 2
depth = 2
min_rows = 20
penalty = 50.0
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    path = write_world(generate(1, 700, 700, 500), folder, minimum=100)
    config = parse_job(path.read_text().replace("[model]\npenalty = 1.0\n", f"[model]\n{JOB}\n"), str(path))
    return config, {p.name: open_data(p, folder) for p in config.parties}


def spent_by(world):
    store = world.parties[data_parties(world.contract)[1]]._store
    ledger = {name: json.loads(store[name]) for name in store if name.startswith("noise/")}
    return ledger, {name: int(store[name]) for name in store if name.startswith("noisy levels/")}


def records_of(world):
    partner = data_parties(world.contract)[1]
    lines = (world.folder / "logs" / partner / LOG).read_bytes().splitlines()
    return [read_leaf(line) for line in lines]


class KillAt(Tap):
    """Ends the processes when a step is asked for the so-manieth time."""

    def __init__(self, step, times):
        def change(name, message):
            self.left -= isinstance(message, Request) and message.step == step
            if not self.left:
                raise Killed(step)
            return message

        super().__init__(change=change)
        self.left = times


def test_a_run_killed_within_a_tree_is_one_training_whose_new_noise_is_counted(job, tmp_path):
    world, tap = world_of(job[0], tmp_path, job[1], seed=5), Tap()
    with pytest.raises(Killed):
        world.run(KillAt("fit.choose_noisy", 4))
    before, levels = spent_by(world)
    assert list(levels.values()) == [4]
    world.run(tap, resume=True)
    ledger, levels = spent_by(world)
    # The second tree is grown again: both of its levels are opened twice.
    assert [p.message.step for p in tap.requests].count("fit.open_noisy") == 2
    assert ledger == before and len(ledger) == 1 and list(levels.values()) == [6]
    # The log says what it takes, once, before any total left.
    (spent,) = [r.body for r in records_of(world) if r.type == "budget.spent"]
    assert spent["to"] == "bank" and spent["epsilon"] == "5"
    events = [r.body.get("kind", r.type) for r in records_of(world)]
    assert events.index("budget.spent") < events.index("NoisyTotals")


def test_of_runs_in_a_row_the_one_that_spends_too_much_is_refused(job, tmp_path):
    small = job[0].model_copy(update={"trees": job[0].trees.model_copy(update={"trees": 1, "depth": 1})})
    world = world_of(small, tmp_path, job[1], seed=5)
    world.run()
    world.run()
    # The bank is not told by how much.
    with pytest.raises(PolicyRefused, match=r"partner refused at fit\.load_shares$"):
        world.run()
    ledger, levels = spent_by(world)
    assert len(ledger) == len(levels) == 2
    together = epsilon_together([Training(**entry) for entry in ledger.values()])
    assert together < 8
    totals = [r.body["total"] for r in records_of(world) if r.type == "budget.spent"]
    assert len(totals) == 2 and 4.9 < float(totals[0]) <= 5 and totals[1] == f"{together:.6g}"
