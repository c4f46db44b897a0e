"""Boosted trees in mode sides: what each side sees, what it refuses, and what a resume does."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fedmkt.config.files import parse_job
from fedmkt.errors import ConfigError, PolicyRefused
from fedmkt.party.node import open_data
from fedmkt.privacy.disclosure import ChosenSplits, HistogramTotals, SplitSides, TreeShape
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import data_parties
from fedmkt.protocol.linear.scoring import Released
from fedmkt.protocol.trees.sides import boosting, tree_growth, tree_scoring
from fedmkt.protocol.trees.sides.tree_growth import Forest, LevelSplits, RowSides, SplitRequest
from fedmkt.protocol.trees.sides.tree_scoring import ScoredSides
from fedmkt.protocol.trees.tree_columns import cut_columns
from fedmkt.ring.fields import gradient_fields
from fedmkt.simulation.world import generate, write_world
from tests.engine import Killed, Tap, world_of
from tests.protocol.plain_caller import BANK, DEALER, SHOP, TELECOM, chi_square, start_aligned
from tests.protocol.test_two_worlds import differing, relayed, view
from tests.protocol.tree_world import grown, tree_caller, tree_contract, tree_data


def scored(caller):
    grown(caller)
    tree_scoring.score(caller, caller.contract, caller.overlap)
    return caller


def passing(caller):
    """What the coordinator sees, and what is declared, but for the matrices of a linear model."""
    revealed = [("revealed", step, d) for step, d in caller.revealed]
    return [line for line in (*relayed(caller), *revealed) if line[1] != "prepare.fit"]


def of_trees(caller, reader):
    """What a reader is sent by the steps of trees."""
    return [s for s in caller.seen_by(reader) if isinstance(s.message, SplitRequest | RowSides | ScoredSides)]


# ------------------------------------------------------------------------------------------ two worlds


@pytest.fixture
def same_choices(monkeypatch: pytest.MonkeyPatch):
    """In later worlds the bank chooses the splits that it chose in the first, whatever its totals say."""
    chosen, original = [], tree_growth.best_splits

    def recording(*given):
        chosen.append(original(*given))
        return chosen[-1]

    def replay():
        monkeypatch.setattr(tree_growth, "best_splits", lambda *given: chosen.pop(0))

    monkeypatch.setattr(tree_growth, "best_splits", recording)
    return replay


def other_labels(data):
    columns = data.local[BANK][1]
    labelled = np.flatnonzero(~np.isnan(columns.label))
    label = columns.label.copy()
    label[labelled] = columns.label[np.random.default_rng(3).permutation(labelled)]
    data.local[BANK] = (data.local[BANK][0], replace(columns, label=label))


def other_values(party):
    def change(data):
        columns = data.local[party][1]
        numbers = {k: v[::-1].copy() for k, v in columns.numbers.items()}
        data.local[party] = (data.local[party][0], replace(columns, numbers=numbers))

    return change


CHANGES = {"labels": other_labels, "columns of the bank": other_values(BANK)}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_but_for_the_chosen_splits_the_partner_sees_nothing_of(change, same_choices) -> None:
    contract = tree_contract(2, min_gain=0.0)
    worlds = []
    for number in (0, 1):
        data = tree_data(contract)
        if number:
            change(data)
            same_choices()
        worlds.append(scored(start_aligned(data)))
    one, other = worlds
    assert passing(one) == passing(other)
    for reader in (SHOP, DEALER):
        assert view(one, reader) == view(other, reader)
    assert differing(one, other, SHOP) == {"EncryptedRows"}
    assert differing(one, other, DEALER) == set()
    for caller in worlds:
        rows = np.concatenate(
            [s.message.rows.ravel() for s in caller.seen_by(SHOP) if s.step == "histogram.encrypt"]
        )
        assert abs(chi_square(rows)) < 5


def test_a_partner_sees_nothing_of_the_other_partners_columns(same_choices) -> None:
    contract = tree_contract(3)
    worlds = []
    for number in (0, 1):
        data = tree_data(contract)
        if number:
            other_values(TELECOM)(data)
            same_choices()
        worlds.append(scored(start_aligned(data)))
    one, other = worlds
    assert passing(one) == passing(other)
    assert view(one, SHOP) == view(other, SHOP)
    assert differing(one, other, SHOP) == {"EncryptedRows"}


def test_of_the_partners_numbers_the_bank_sees_no_more_than_their_order() -> None:
    contract, worlds = tree_contract(2), []
    for change in (lambda x: x, lambda x: np.exp(x / 3) - 7):
        data = tree_data(contract)
        columns = data.local[SHOP][1]
        numbers = {k: change(v) for k, v in columns.numbers.items()}
        data.local[SHOP] = (data.local[SHOP][0], replace(columns, numbers=numbers))
        worlds.append(scored(start_aligned(data)))
    one, other = worlds
    assert passing(one) == passing(other)
    assert differing(one, other, BANK) == differing(one, other, SHOP) == set()


def test_everything_that_is_told_is_declared() -> None:
    caller = scored(tree_caller(tree_contract(2)))
    found = {(step, type(d), d.to) for step, d in caller.revealed if not step.startswith("prepare")}
    assert found == {
        ("histogram.reply", HistogramTotals, BANK), ("fit.choose", TreeShape, "all"),
        ("fit.choose", ChosenSplits, SHOP), ("fit.sides", SplitSides, BANK), ("score.sides", SplitSides, BANK),
    }  # fmt: skip
    told = {type(t.value).__name__ for t in caller.told if t.step.startswith(("fit", "histogram", "score"))}
    assert told == {"Silent", "LevelSplits", "HistogramShape"}
    levels = [t.value for t in caller.told if isinstance(t.value, LevelSplits)]
    shapes = [d.splits for _, d in caller.revealed if isinstance(d, TreeShape)]
    assert shapes == [level.splits for level in levels]
    splits = sum(level.partners[0] for level in levels)
    assert splits == sum(map(len, caller.recall(SHOP, boosting.OwnSplits).trees)) > 0
    kinds = (ChosenSplits, SplitSides)
    assert [sum(d.splits for _, d in caller.revealed if isinstance(d, k)) for k in kinds] == [
        splits,
        2 * splits,
    ]


def test_every_row_has_a_side_whatever_node_it_is_in() -> None:
    caller = scored(tree_caller(tree_contract(2)))
    rows = caller.recall(
        SHOP, tree_growth.RowBins if hasattr(tree_growth, "RowBins") else boosting.RowBins
    ).codes.shape[1]
    sides = [s.message for s in of_trees(caller, BANK) if isinstance(s.message, RowSides)]
    assert {m.bits.shape[1] for m in sides} == {-(-rows // 8)}


# ------------------------------------------------------------------------------------------ refusals


def test_the_edges_of_a_column_stay_within_the_cap() -> None:
    free = grown(tree_caller(tree_contract(2, trees=6)))
    capped = grown(tree_caller(tree_contract(2, trees=6, max_thresholds=2)))

    def edges(caller):
        opened = {}
        for tree in caller.recall(SHOP, boosting.OwnSplits).trees:
            for d in tree:
                opened.setdefault(d.column, set()).add(d.bin)
        return {column: len(bins) for column, bins in opened.items()}

    assert max(edges(free).values()) > 2 == max(edges(capped).values())
    assert len(capped.recall(BANK, Forest).trees) == 6
    (ledger,) = [v for k, v in capped.stores[SHOP].items() if k.startswith("tree edges/")]
    assert {c: len(b) for c, b in json.loads(ledger).items()} == edges(capped)


def test_a_partner_refuses_more_edges_than_agreed_even_those_of_an_earlier_epoch() -> None:
    contract = tree_contract(2, max_thresholds=2)
    ledger = {
        f"tree edges/{bytes(32).hex()}": json.dumps(
            {c: [90, 91] for c in ("x0", "x1", "x2", "town")}
        ).encode()
    }
    caller = tree_caller(contract, stores={SHOP: ledger})
    with pytest.raises(PolicyRefused, match="max_thresholds") as refused:
        grown(caller)
    assert not any(name in str(refused.value) for name in ("x0", "x1", "x2", "town", "90", "91"))


def changed(kind, change, **terms):
    """Return a caller in which the first message of a kind is changed on its way."""
    left = [True]

    def replaced(sent):
        if isinstance(sent.message, kind) and left:
            left.pop()
            return change(sent.message)
        return sent.message

    return tree_caller(tree_contract(2, **terms), change=replaced)


def with_split(row, column, value):
    def change(message):
        splits = message.splits.copy()
        splits[row, column] = value
        return SplitRequest(splits)

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: SplitRequest(m.splits[:0]), "as many as"),
        (lambda m: SplitRequest(np.concatenate([m.splits, m.splits])), "as many as"),
        (lambda m: SplitRequest(m.splits[:, :3]), "as many as"),
        (with_split(0, 0, 200), "other nodes"),
        (with_split(0, 0, -1), "other nodes"),
        (with_split(0, 1, 4), "no column"),
        (with_split(0, 1, -1), "no column"),
        (with_split(0, 2, 9), "no edge"),
        (with_split(0, 2, -1), "no edge"),
        (with_split(0, 3, 2), "no column"),
    ],
)
def test_a_partner_refuses_to_be_asked_for_anything_but_announced_splits(change, why) -> None:
    with pytest.raises(ValueError, match=why):
        grown(changed(SplitRequest, change))


@pytest.mark.parametrize("change", [lambda b: b[:, :-1], lambda b: b[:0], lambda b: np.concatenate([b, b])])
@pytest.mark.parametrize("kind", [RowSides, ScoredSides])
def test_the_bank_refuses_sides_of_another_shape(kind, change) -> None:
    caller = changed(kind, lambda m: replace(m, bits=change(m.bits)))
    with pytest.raises(ValueError, match="another shape than agreed"):
        scored(caller)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (LevelSplits(0, 0, 2, (1,)), "more splits than nodes"),
        (LevelSplits(0, 0, 1, (2,)), "more splits than nodes"),
        (LevelSplits(0, 0, 1, (-1,)), "more splits than nodes"),
        (LevelSplits(0, 1, 1, (1,)), "another level"),
        (LevelSplits(1, 0, 1, (1,)), "another level"),
    ],
)
def test_the_script_goes_no_further_with_splits_that_cannot_be(
    wrong: LevelSplits, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = tree_caller(tree_contract(2))
    lying = replace(boosting.CHOOSE, run=lambda turn, inbox: replace(
        tree_growth.choose(turn, inbox), public=wrong
    ))  # fmt: skip
    monkeypatch.setattr(boosting, "CHOOSE", lying)
    with pytest.raises(ValueError, match=why):
        grown(caller)


def test_a_training_whose_noise_does_not_fit_is_refused_before_it_begins() -> None:
    contract = tree_contract(2, trees=64, depth=8)
    sizes = cut_columns(tree_caller(tree_contract(2)), tree_contract(2))
    terms = boosting.histogram_terms(contract, Overlap(0, 100_000, 0, 10), sizes)
    assert terms.vectors == 2**7 * (64 + 3) and terms.fields == gradient_fields(3, 3)
    with pytest.raises(ConfigError, match="do not fit"):
        boosting.histogram_terms(contract, Overlap(0, 1 << 50, 0, 10), sizes)


# ------------------------------------------------------------------------------------------ kill and resume

JOB = """kind = "trees"
checkpoint_every = 1

[trees]
reveal = "sides"
trees = 3
depth = 2
min_rows = 20
row_share = 0.8
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("job")
    path = write_world(generate(1, 700, 700, 500), folder, minimum=100)
    text = path.read_text().replace("[model]\npenalty = 1.0\n", f"[model]\n{JOB}\n")
    config = parse_job(text.replace("[limits]\n", "[limits]\nmin_support = 20\n"), str(path))
    return config, {p.name: open_data(p, folder) for p in config.parties}


@pytest.fixture(scope="module")
def whole(job, tmp_path_factory: pytest.TempPathFactory):
    tap = Tap()
    world = world_of(job[0], tmp_path_factory.mktemp("whole"), job[1], seed=5)
    world.run(tap)
    return world, [p.message.step for p in tap.requests]


def model_of(world):
    bank, shop = (world.parties[p]._states for p in data_parties(world.contract))
    return bank[Forest], shop[boosting.OwnSplits], bank[Released]


@pytest.mark.parametrize(
    ("step", "time"),
    [("histogram.encrypt", 3), ("fit.choose", 4), ("fit.sides", 3), ("fit.grow", 4), ("score.sides", 1)],
)
def test_a_run_killed_within_a_tree_resumes_to_the_same_trees(step, time, job, whole, tmp_path) -> None:
    before, steps = whole
    at = [i for i, s in enumerate(steps) if s == step][time - 1]
    world = world_of(job[0], tmp_path, job[1], seed=5)
    with pytest.raises(Killed):
        world.run(Tap(stop_after=at + 1))
    tap = Tap()
    world.run(tap, resume=True)
    # Hints and masks are new, what was drawn for the tree is not.
    assert tap.requests[0].message.step != "psi.announce"
    assert ("histogram.mask_hint" in {p.message.step for p in tap.requests}) == (step != "score.sides")
    (forest, own, released), (old_forest, old_own, old_released) = model_of(world), model_of(before)
    assert (forest.key, forest.trees, forest.decisions) == (
        old_forest.key,
        old_forest.trees,
        old_forest.decisions,
    )
    assert np.array_equal(forest.scores, old_forest.scores) and own == old_own
    assert np.array_equal(released.units, old_released.units)


def test_a_run_killed_before_its_first_tree_draws_anew_and_ends_with_a_valid_model(
    job, whole, tmp_path
) -> None:
    at = whole[1].index("fit.choose")
    world = world_of(job[0], tmp_path, job[1], seed=5)
    with pytest.raises(Killed):
        world.run(Tap(stop_after=at))
    world.run(resume=True)
    forest, own, released = model_of(world)
    assert forest.key != model_of(whole[0])[0].key
    assert len(forest.trees) == len(own.trees) == 3 and len(released.units)


def test_what_is_asked_again_counts_as_asked(job, whole, tmp_path) -> None:
    before, steps = whole
    at = [i for i, s in enumerate(steps) if s == "fit.choose"][3]
    world = world_of(job[0], tmp_path, job[1], seed=5)
    with pytest.raises(Killed):
        world.run(Tap(stop_after=at))
    world.run(resume=True)

    def asked(done):
        partner = data_parties(done.contract)[1]
        (count,) = [v for k, v in done.parties[partner]._store.items() if k.startswith("histogram vectors/")]
        return int(count)

    assert asked(before) < asked(world) <= asked(before) + 3 * 2
