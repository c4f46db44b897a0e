"""Early stopping of boosted trees: which rows say when, who is told, and that the model is that of the pooled table."""

from pathlib import Path

import numpy as np
import pytest

from fedmkt.config.files import parse_job
from fedmkt.config.job import JobConfig
from fedmkt.errors import DataError
from fedmkt.learn.splits import trees_kept
from fedmkt.learn.trees import predict
from fedmkt.party.node import open_data
from fedmkt.party.table import Table
from fedmkt.privacy.disclosure import EVERYONE, StopBits
from fedmkt.protocol.alignment.align import Split, Validation
from fedmkt.protocol.core import Public, data_parties
from fedmkt.protocol.linear.scoring import Released
from fedmkt.protocol.prepare import Columns, real
from fedmkt.protocol.scorecard.totals import OwnBins
from fedmkt.protocol.trees.sides import tree_growth, tree_scoring
from fedmkt.protocol.trees.sides.boosting import OwnSplits
from fedmkt.protocol.trees.sides.early_stop import LossesSoFar, TreesKept, read_kept
from fedmkt.protocol.trees.sides.tree_growth import Forest
from fedmkt.protocol.trees.tree_columns import fit_bins
from fedmkt.simulation.world import generate, write_world
from tests.engine import Killed, Tap, World, world_of
from tests.protocol.plain_caller import PlainCaller
from tests.protocol.test_boosting_sides import parts_of
from tests.protocol.tree_world import (
    BANK,
    SHOP,
    TELECOM,
    by_owner,
    grown,
    pooled,
    tree_caller,
    tree_contract,
    twin,
    validates,
)

EAGER = {"trees": 20, "rate": 0.8, "depth": 3, "patience": 2, "validation_fraction": 0.25}


def told(caller: PlainCaller) -> list[int]:
    """Return what everybody was told, tree by tree."""
    return [t.value.kept for t in caller.told if isinstance(t.value, TreesKept)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("parties", [2, 3])
def test_the_trees_up_to_the_best_are_those_of_the_pooled_table_bit_for_bit(parties: int, seed: int) -> None:
    caller = grown(tree_caller(tree_contract(parties, **EAGER), seed=seed + 1))
    plain = twin(caller)
    assert parts_of(caller) == (plain.model.outline, plain.model.parts)
    assert caller.recall(BANK, LossesSoFar).values == plain.losses
    best = int(np.argmin(plain.losses)) + 1
    assert len(caller.recall(BANK, Forest).trees) == best < len(plain.losses) < 20
    assert told(caller) == [0] * (best + 1) + [best]


def test_class_weights_and_drawn_rows_go_with_it() -> None:
    terms = EAGER | {"row_share": 0.7, "column_share": 0.6, "class_weights": (1.0, 3.0)}
    caller = grown(tree_caller(tree_contract(2, **terms)))
    plain = twin(caller)
    assert parts_of(caller) == (plain.model.outline, plain.model.parts)
    assert caller.recall(BANK, LossesSoFar).values == plain.losses


def test_a_training_that_reaches_its_last_tree_keeps_the_best_as_well() -> None:
    caller = grown(tree_caller(tree_contract(2, **(EAGER | {"trees": 5, "patience": 10}))))
    plain = twin(caller)
    best = int(np.argmin(caller.recall(BANK, LossesSoFar).values)) + 1
    assert told(caller) == [0, 0, 0, 0, best]
    assert len(caller.recall(SHOP, OwnSplits).trees) == best < 5
    assert parts_of(caller) == (plain.model.outline, plain.model.parts)


def test_all_parties_draw_the_same_rows_and_none_of_them_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, vectors_of = [], tree_growth.vectors_of
    monkeypatch.setattr(tree_growth, "vectors_of", lambda *a: vectors.append(vectors_of(*a)) or vectors[-1])
    caller = grown(tree_caller(tree_contract(3, **EAGER)))
    masks = [caller.recall(p, Validation).rows for p in (BANK, SHOP, TELECOM)]
    assert np.array_equal(masks[0], masks[1]) and np.array_equal(masks[0], masks[2])
    assert 0.18 < validates(caller, BANK).mean() < 0.32
    assert len(vectors) > 3 and all(not batch[masks[0]].any() for batch in vectors)


def test_scores_are_those_of_the_trees_that_stay() -> None:
    caller = grown(tree_caller(tree_contract(2, **EAGER)))
    tree_scoring.score(caller, caller.contract, caller.overlap)
    table = pooled(caller, lambda split: np.concatenate([split.held_out, split.unlabelled]))
    expected = predict(twin(caller).model, by_owner(table))
    assert np.array_equal(caller.recall(BANK, Released).units, np.rint(100 * expected).astype(np.int64))


def test_without_patience_nobody_validates_and_nobody_is_told() -> None:
    caller = grown(tree_caller(tree_contract(2, validation_fraction=0.5)))
    assert validates(caller, BANK) is None and not told(caller)
    assert not [d for _, d in caller.revealed if isinstance(d, StopBits)]


def test_each_tree_tells_everybody_one_number() -> None:
    caller = grown(tree_caller(tree_contract(2, **EAGER)))
    found = [d for _, d in caller.revealed if isinstance(d, StopBits)]
    assert found == [StopBits(to=EVERYONE, trees=1)] * len(told(caller))


def test_fewer_rows_than_the_smallest_group_do_not_say_when_to_stop() -> None:
    with pytest.raises(DataError, match="fewer than 20 rows say when to stop"):
        grown(tree_caller(tree_contract(2, **(EAGER | {"validation_fraction": 0.01}))))


@pytest.mark.parametrize(
    ("tree", "ends", "kept"), [(3, False, 0), (3, False, 2), (19, True, 20), (19, True, 18), (0, True, 1)]
)
def test_what_the_bank_tells_is_taken_where_it_is_possible(tree: int, ends: bool, kept: int) -> None:
    contract = tree_contract(2, **EAGER)
    assert read_kept(contract, tree, ends, Public(TreesKept(kept), BANK)) == kept


@pytest.mark.parametrize(
    ("tree", "ends", "kept"),
    [
        (3, False, 3),
        (3, False, 4),
        (3, False, -1),
        (1, False, 1),
        (19, True, 0),
        (19, True, 17),
        (19, True, 21),
    ],
)
def test_what_the_bank_tells_is_refused_where_it_is_not(tree: int, ends: bool, kept: int) -> None:
    contract = tree_contract(2, **EAGER)
    with pytest.raises(ValueError, match="cannot be those up to the best"):
        read_kept(contract, tree, ends, Public(TreesKept(kept), BANK))


def test_where_training_ends_the_best_tree_is_the_last_that_stays() -> None:
    assert trees_kept([3.0, 1.0, 2.0], 5, ends=True) == 2
    assert trees_kept([3.0, 1.0, 2.0], 5, ends=False) is None
    assert trees_kept([3.0, 1.0, 2.0], 1, ends=False) == 2


def test_bins_are_those_of_the_rows_that_train() -> None:
    """Else labels of validation rows would order the bank's categories, and flatter the loss."""
    caller = grown(tree_caller(tree_contract(2, **EAGER)))
    split, mask = caller.recall(BANK, Split), validates(caller, BANK)
    columns = caller.recall(BANK, Columns)
    expected = fit_bins(caller.contract, BANK, columns, real(split.train)[~mask])
    assert caller.recall(BANK, OwnBins).binning == expected.to_json()
    assert expected != fit_bins(caller.contract, BANK, columns, real(split.train))


# ------------------------------------------------------------------------------------------ kill and resume

JOB = """kind = "trees"
checkpoint_every = 1

[trees]
reveal = "sides"
trees = 8
depth = 2
min_rows = 20
rate = 0.9
patience = 2
validation_fraction = 0.3
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[JobConfig, dict[str, Table]]:
    folder = tmp_path_factory.mktemp("job")
    path = write_world(generate(1, 900, 900, 700), folder, minimum=100)
    text = path.read_text().replace("[model]\npenalty = 1.0\n", f"[model]\n{JOB}\n")
    config = parse_job(text.replace("[limits]\n", "[limits]\nmin_support = 20\n"), str(path))
    return config, {p.name: open_data(p, folder) for p in config.parties}


@pytest.fixture(scope="module")
def whole(
    job: tuple[JobConfig, dict[str, Table]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[World, list[str]]:
    tap, world = Tap(), world_of(job[0], tmp_path_factory.mktemp("whole"), job[1], seed=5)
    world.run(tap)
    return world, [p.message.step for p in tap.requests]


@pytest.mark.parametrize(("step", "time"), [("fit.choose", 4), ("fit.measure", -1)])
def test_a_run_killed_within_a_tree_comes_to_the_same_decision(
    step: str,
    time: int,
    job: tuple[JobConfig, dict[str, Table]],
    whole: tuple[World, list[str]],
    tmp_path: Path,
) -> None:
    bank, shop = data_parties(whole[0].contract)
    before = whole[0].parties[bank]._states
    assert 1 <= len(before[Forest].trees) < len(before[LossesSoFar].values) < 8
    at = [i for i, s in enumerate(whole[1]) if s == step][time]
    killed = world_of(job[0], tmp_path, job[1], seed=5)
    with pytest.raises(Killed):
        killed.run(Tap(stop_after=at + 1))
    killed.run(resume=True)
    after = killed.parties[bank]._states
    assert after[LossesSoFar] == before[LossesSoFar]
    assert (after[Forest].trees, after[Forest].decisions) == (before[Forest].trees, before[Forest].decisions)
    assert killed.parties[shop]._states[OwnSplits] == whole[0].parties[shop]._states[OwnSplits]
