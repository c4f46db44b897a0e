"""Early stopping in mode totals: the loss that the bank is told, the trees that stay, and what each side sees."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fedmkt.config.files import parse_job
from fedmkt.errors import DataError, PeerError
from fedmkt.learn import boosting
from fedmkt.learn.splits import best_splits, leaf_values, scale_of, stop_at
from fedmkt.learn.trees import linear_predictor, predict
from fedmkt.party.node import open_data
from fedmkt.privacy.disclosure import EVERYONE, StopBits, ValidationLosses
from fedmkt.protocol.alignment.align import validation_rows
from fedmkt.protocol.core import data_parties
from fedmkt.protocol.linear.scoring import Released
from fedmkt.protocol.trees.sides import early_stop
from fedmkt.protocol.trees.sides.boosting import OwnSplits
from fedmkt.protocol.trees.sides.early_stop import LossesSoFar, TreesKept
from fedmkt.protocol.trees.sides.tree_growth import Forest, columns_of
from fedmkt.protocol.trees.totals import shared_growth, shared_scoring, shared_stopping
from fedmkt.protocol.trees.totals.shared_boosting import fit
from fedmkt.protocol.trees.totals.shared_cells import settings_of
from fedmkt.protocol.trees.totals.shared_gradients import UNIT, TrainAnswers
from fedmkt.protocol.trees.totals.shared_growth import TreeOwners
from fedmkt.protocol.trees.totals.shared_stopping import LossShare, low_bits
from fedmkt.protocol.trees.tree_columns import cut_columns
from fedmkt.simulation.rehearsal import Planned
from fedmkt.simulation.shared_traffic import CONTENT
from fedmkt.simulation.traffic import Sizes
from fedmkt.simulation.tree_traffic import TreeFacts
from fedmkt.simulation.world import generate, write_world
from tests.engine import Killed, Tap, world_of
from tests.protocol.plain_caller import DEALER, chi_square, start_aligned
from tests.protocol.shared_world import Watch, contract, grown, model_of, scores_of, splits_of
from tests.protocol.test_two_worlds import differing, relayed, view
from tests.protocol.tree_world import BANK, SHOP, by_owner, pooled, tree_caller, tree_data, validates

UNIFORM = {
    "HintBlock", "EncryptedShares", "SharedTotals", "MaskedSides", "TreeAngles", "TreeGradients", "CellOpening",
    "PlaneOpening", "CellPasses", "LossOpening",
}  # fmt: skip
"""Messages to the partner that are uniform by themselves."""
CLASSES = ("fit.open_classes", "fit.deal_classes", "fit.open_weighed")
EAGER = {"trees": 14, "rate": 0.8, "patience": 2, "validation_fraction": 0.25}


class Scores:
    """Records the scores of all train rows after each tree, as only both parties together could."""

    def __init__(self, monkeypatch):
        self.found, told = [], shared_stopping.stop_after

        def stop_after(caller, *rest):
            self.found.append(scores_of(caller))
            return told(caller, *rest)

        monkeypatch.setattr("fedmkt.protocol.trees.totals.shared_boosting.stop_after", stop_after)

    def losses(self, caller):
        """Return the mean squared error of the validation rows after each tree."""
        mask = validates(caller, BANK)
        y = caller.recall(BANK, TrainAnswers).y[: len(mask)][mask].astype(float)
        light, heavy = caller.contract.trees.class_weights
        p = [1 / (1 + np.exp(-scores[mask])) for scores in self.found]
        return np.array([np.average((q - y) ** 2, weights=np.where(y == 1, heavy, light)) for q in p])


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 3.0), (2.0, 1.0)])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_bank_is_told_the_mean_loss_and_the_trees_up_to_the_best_stay(weights, seed, monkeypatch):
    seen = Scores(monkeypatch)
    caller = grown(tree_caller(contract(class_weights=weights, **EAGER), seed=seed))
    exact, found = seen.losses(caller), np.array(caller.recall(BANK, LossesSoFar).values)
    assert np.abs(found - exact).max() < 1.5e-3
    assert np.abs(np.diff(found - exact)).max() < 7e-4
    best = stop_at(found.tolist(), 2)
    told = [t.value.kept for t in caller.told if isinstance(t.value, TreesKept)]
    assert told == [0] * (best + 1) + [best] and best == stop_at(exact.tolist(), 2)
    for kind, party in ((Forest, BANK), (OwnSplits, SHOP), (TreeOwners, BANK), (TreeOwners, SHOP)):
        assert len(caller.recall(party, kind).trees) == best
    assert len(caller.recall(BANK, Forest).decisions) == best < 14


def test_rows_that_validate_are_in_no_total_and_the_trees_are_those_of_the_others(monkeypatch):
    watch = Watch(monkeypatch)
    caller = grown(tree_caller(contract(**(EAGER | {"patience": 4, "rate": 0.4}))))
    settings, columns = settings_of(caller.contract), columns_of(caller.contract)
    table, mask = pooled(caller, lambda split: split.train), validates(caller, BANK)
    trains, scale = int((~mask).sum()), scale_of(settings, 1.0)
    last, compared = np.array(shared_growth.grid(caller.turn(BANK)).values) - 1, 0
    roots = [c for (nodes, _), c in zip(watch.cuts, watch.opened, strict=True) if nodes == (0,)]
    assert all((root[0, :, :, shared_growth.COUNT].sum(axis=-1) == trains).all() for root in roots)
    for tree, found in enumerate(caller.recall(BANK, Forest).trees):
        rows = watch.rows(caller, tree) * ~mask[:, None]
        plain = boosting.grow(table, rows, np.ones(len(columns), bool), settings, scale, [0] * len(columns))
        if SHOP in {columns[s.column].owner for s in plain.splits}:
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
            units = np.rint(leaf_values(plain.leaves, settings, scale) / UNIT)
            assert [v for _, v in found.leaves] == (units * UNIT)[np.argsort(plain.leaves.nodes)].tolist()
    assert compared >= 2


@pytest.mark.parametrize("terms", [{}, {"class_weights": (1.0, 3.0)}], ids=["plain", "weighed"])
def test_it_goes_with_checked_shares(terms):
    caller = grown(tree_caller(contract(checked_shares=True, **(EAGER | terms))))
    losses = caller.recall(BANK, LossesSoFar).values
    assert len(losses) > 2 and len(caller.recall(SHOP, OwnSplits).trees) == int(np.argmin(losses)) + 1


def test_a_bank_that_lets_a_validation_row_train_is_noticed_with_checked_shares(monkeypatch):
    original = shared_growth.root_shares

    def root_shares(turn, root):
        level, vectors = original(turn, root)
        if turn.first:
            row = np.flatnonzero(validation_rows(turn))[0]
            for lane in vectors.lanes:
                lane[..., row] += np.array(1, lane.dtype)
        return level, vectors

    monkeypatch.setattr("fedmkt.protocol.trees.totals.shared_boosting.root_shares", root_shares)
    with pytest.raises(PeerError):
        grown(tree_caller(contract(checked_shares=True, **EAGER)))


def test_scores_are_those_of_the_trees_that_stay():
    caller = grown(tree_caller(contract(**EAGER)))
    shared_scoring.score(caller, caller.contract, caller.overlap)
    table = pooled(caller, lambda split: np.concatenate([split.held_out, split.unlabelled]))
    expected = 100 * predict(model_of(caller), by_owner(table))
    assert np.abs(caller.recall(BANK, Released).units - expected).max() < 1.2


def test_a_training_that_reaches_its_last_tree_keeps_the_best_as_well():
    caller = grown(tree_caller(contract(**(EAGER | {"trees": 5, "patience": 9}))))
    losses = caller.recall(BANK, LossesSoFar).values
    best = int(np.argmin(losses)) + 1
    assert len(losses) == 5 > best == len(caller.recall(SHOP, OwnSplits).trees)
    table = pooled(caller, lambda split: split.train)
    assert len(linear_predictor(model_of(caller), by_owner(table))) == table.rows


def test_each_tree_tells_the_bank_one_number_and_everybody_one_bit():
    caller = grown(tree_caller(contract(**EAGER)))
    trees = len(caller.recall(BANK, LossesSoFar).values)
    found = [d for _, d in caller.revealed if isinstance(d, StopBits | ValidationLosses)]
    high = shared_stopping.loss_rows(caller.contract, caller.overlap)
    number = ValidationLosses(to=BANK, losses=1, low=20, high=high)
    assert found == [number, StopBits(to=EVERYONE, trees=1)] * trees
    assert validates(caller, BANK).sum() <= high < 2 * validates(caller, BANK).sum()


def test_the_low_bits_of_the_sum_are_not_told():
    caller = grown(tree_caller(contract(**(EAGER | {"patience": 4}))))
    rows = int(validates(caller, SHOP).sum())
    totals = [s.message.total for s in caller.seen_by(BANK) if isinstance(s.message, LossShare)]
    assert len(totals) > 3 and all(total % 2 ** low_bits(rows) == 0 for total in totals)
    assert len({total >> 40 for total in totals}) > 2  # a share, not a sum
    for n in (20, 77, 3164, 60_000):
        assert 2.0**-18 <= 2 ** low_bits(n) / (n * 2**16) <= 2.0**-17


def test_the_masks_of_a_loss_are_used_once_and_what_is_opened_is_uniform():
    # The session refuses a mask that is drawn twice, so that the run comes to its end says the first.
    caller = grown(tree_caller(contract(**(EAGER | {"validation_fraction": 0.5})), n=4000))
    kinds = {"losses.open": 0, "losses.choose": 0, "losses.lift": 0}
    for sent in caller.sent:
        if sent.step in kinds:
            message = sent.message
            match sent.step:
                case "losses.open":
                    parts = [message.angles.words]
                case "losses.choose":
                    parts = [p.words for p in (message.bits, *message.vectors)]
                case _:
                    parts = [message.values.words]
            for part in parts:
                if part.size > 500:
                    kinds[sent.step] += 1
                    assert abs(chi_square(part)) < 5
    assert min(kinds.values()) > 3


@pytest.mark.parametrize(
    ("terms", "least"), [({"validation_fraction": 0.01}, 20), ({"trees": 800, "depth": 2}, 803)]
)
def test_a_party_does_not_stop_early_by_few_rows(terms, least):
    """Each of three resumes may tell the loss of a tree again, which other roundings make another tree."""
    with pytest.raises(DataError, match=f"fewer than {least} rows say when to stop"):
        grown(tree_caller(contract(**(EAGER | terms))))


def test_a_loss_that_few_heavy_rows_make_up_is_not_told():
    """With weights of 1 and 100 the mean over 200 rows would be that of the handful that responded."""
    terms = contract(class_weights=(1.0, 100.0), **EAGER)
    data = tree_data(terms)
    columns = data.local[BANK][1]
    label = columns.label.copy()
    label[np.flatnonzero(label == 1)[24:]] = 0
    data.local[BANK] = (data.local[BANK][0], replace(columns, label=label))
    with pytest.raises(DataError, match="fewer than 20 make up the loss"):
        grown(start_aligned(data))


def test_planned_bytes_are_the_real_ones():
    caller = tree_caller(contract(class_weights=(1.0, 2.0), **EAGER))
    sent, bins = len(caller.sent), cut_columns(caller, caller.contract)
    fit(caller, caller.contract, caller.overlap, bins)
    lists = dict.fromkeys((BANK, SHOP), 1500)
    sizes = Sizes(caller.contract, caller.overlap, {}, lists, TreeFacts(bins, ()))
    found = set()
    for message in caller.sent[sent:]:
        if message.step.startswith("losses.") or message.step in CLASSES:
            planned = Planned(message.sender, SimpleNamespace(name=message.step), 0)
            content, readers = CONTENT[message.step](sizes, planned)
            assert content <= len(message.data) <= content + 320 * max(1, readers), message.step
            found.add(message.step)
    assert found == {*CLASSES, "losses.open", "losses.deal", "losses.choose", "losses.lift", "losses.tell"}


# ------------------------------------------------------------------------------------------ two worlds


def test_but_for_the_decision_nobody_else_sees_anything_of_the_labels(monkeypatch):
    """With the same splits and the same decision, another bank's labels change nothing but uniform words."""
    terms = contract(min_gain=0.0, class_weights=(1.0, 2.0), **(EAGER | {"trees": 2}))
    chosen, worlds = [], []

    def recording(*given):
        chosen.append(best_splits(*given))
        return chosen[-1]

    monkeypatch.setattr(shared_growth, "best_splits", recording)
    monkeypatch.setattr(
        early_stop, "trees_kept", lambda losses, patience, ends: len(losses) if ends else None
    )
    for number in (0, 1):
        data = tree_data(terms)
        if number:
            columns = data.local[BANK][1]
            labelled = np.flatnonzero(~np.isnan(columns.label))
            label = columns.label.copy()
            label[labelled] = columns.label[np.random.default_rng(3).permutation(labelled)]
            data.local[BANK] = (data.local[BANK][0], replace(columns, label=label))
            monkeypatch.setattr(shared_growth, "best_splits", lambda *given: chosen.pop(0))
        worlds.append(grown(start_aligned(data)))
    one, other = worlds
    assert relayed(one) == relayed(other) and one.revealed == other.revealed
    for reader in (SHOP, DEALER):
        assert view(one, reader) == view(other, reader)
    assert differing(one, other, DEALER) == set()
    assert {"LossOpening", "MaskedSides"} < differing(one, other, SHOP) <= UNIFORM


# ------------------------------------------------------------------------------------------ kill and resume

JOB = """kind = "trees"
checkpoint_every = 1

[trees]
reveal = "totals"
trees = 4
depth = 2
min_rows = 20
rate = 0.9
class_weights = [1.0, 2.0]
patience = 1
validation_fraction = 0.3
"""


@pytest.mark.parametrize(("step", "time"), [("losses.choose", 2), ("losses.keep_trees", 0)])
def test_a_run_killed_while_it_decides_ends_with_one_decision_of_both(step, time, job, whole, tmp_path):
    before, steps = whole
    at = [i for i, s in enumerate(steps) if s == step][time]
    world = world_of(job[0], tmp_path, job[1], seed=5)
    with pytest.raises(Killed):
        world.run(Tap(stop_after=at + 1))
    world.run(resume=True)
    bank, shop = (world.parties[p]._states for p in data_parties(world.contract))
    forest, losses, kept = (
        bank[Forest],
        bank[LossesSoFar].values,
        before.parties[BANK]._states[LossesSoFar].values,
    )
    again = steps[:at].count("losses.judge") - (step == "losses.keep_trees")  # trees that are saved
    assert losses[:again] == kept[:again]
    best = int(np.argmin(losses)) + 1
    assert len(losses) == min(4, best + 1)
    assert len(forest.trees) == len(shop[OwnSplits].trees) == len(shop[TreeOwners].trees) == best
    assert bank[Released].units.size


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    path = write_world(generate(1, 900, 900, 700), folder, minimum=100)
    text = path.read_text().replace("[model]\npenalty = 1.0\n", f"[model]\n{JOB}\n")
    config = parse_job(text.replace("[limits]\n", "[limits]\nmin_support = 20\n"), str(path))
    return config, {p.name: open_data(p, folder) for p in config.parties}


@pytest.fixture(scope="module")
def whole(job, tmp_path_factory):
    tap = Tap()
    world = world_of(job[0], tmp_path_factory.mktemp("whole"), job[1], seed=5)
    world.run(tap)
    return world, [p.message.step for p in tap.requests]
