"""Early stopping in mode totals: the loss that the bank is told, the trees that stay, and what each side sees."""

from types import SimpleNamespace

import numpy as np
import pytest

from fedmkt.errors import DataError
from fedmkt.learn import boosting
from fedmkt.learn.splits import leaf_values, scale_of, stop_at
from fedmkt.learn.trees import linear_predictor, predict
from fedmkt.privacy.disclosure import EVERYONE, StopBits, ValidationLosses
from fedmkt.protocol import shared_growth, shared_scoring, shared_stopping
from fedmkt.protocol.boosting import OwnSplits
from fedmkt.protocol.early_stop import LossesSoFar, TreesKept
from fedmkt.protocol.scoring import Released
from fedmkt.protocol.shared_boosting import fit
from fedmkt.protocol.shared_cells import settings_of
from fedmkt.protocol.shared_gradients import UNIT, TrainAnswers
from fedmkt.protocol.shared_growth import TreeOwners
from fedmkt.protocol.shared_stopping import LossShare, low_bits
from fedmkt.protocol.tree_columns import cut_columns
from fedmkt.protocol.tree_growth import Forest, columns_of
from fedmkt.simulation.rehearsal import Planned
from fedmkt.simulation.shared_traffic import CONTENT
from fedmkt.simulation.traffic import Sizes
from fedmkt.simulation.tree_traffic import TreeFacts
from tests.protocol.plain_caller import chi_square
from tests.protocol.shared_world import Watch, contract, grown, model_of, scores_of, splits_of
from tests.protocol.tree_world import BANK, SHOP, by_owner, pooled, tree_caller, validates

CLASSES = ("fit.open_classes", "fit.deal_classes", "fit.open_weighed")
EAGER = {"trees": 14, "rate": 0.8, "patience": 2, "validation_fraction": 0.25}


class Scores:
    """Records the scores of all train rows after each tree, as only both parties together could."""

    def __init__(self, monkeypatch):
        self.found, told = [], shared_stopping.stop_after

        def stop_after(caller, *rest):
            self.found.append(scores_of(caller))
            return told(caller, *rest)

        monkeypatch.setattr("fedmkt.protocol.shared_boosting.stop_after", stop_after)

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
    assert np.abs(np.diff(found - exact)).max() < 5e-4
    best = stop_at(found.tolist(), 2)
    told = [t.value.kept for t in caller.told if isinstance(t.value, TreesKept)]
    assert told == [0] * (best + 1) + [best] and best == stop_at(exact.tolist(), 2)
    for kind, party in ((Forest, BANK), (OwnSplits, SHOP), (TreeOwners, BANK), (TreeOwners, SHOP)):
        assert len(caller.recall(party, kind).trees) == best
    assert len(caller.recall(BANK, Forest).decisions) == best < 14


def test_rows_that_validate_are_in_no_total_and_the_trees_are_those_of_the_others(monkeypatch):
    watch = Watch(monkeypatch)
    caller = grown(tree_caller(contract(**EAGER)))
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
    caller = grown(tree_caller(contract(**EAGER)))
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
    ("terms", "least"), [({"validation_fraction": 0.01}, 20), ({"trees": 800, "depth": 2}, 800)]
)
def test_a_party_does_not_stop_early_by_few_rows(terms, least):
    with pytest.raises(DataError, match=f"fewer than {least} rows say when to stop"):
        grown(tree_caller(contract(**(EAGER | terms))))


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
