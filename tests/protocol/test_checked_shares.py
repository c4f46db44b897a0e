"""Checked shares of trees: honest runs are what they were; a bank that deviates ends the run before totals leave."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from fedmkt.config.files import parse_job
from fedmkt.errors import PeerError
from fedmkt.learn.cells import joined_cells
from fedmkt.party.node import open_data
from fedmkt.protocol.core import Masked
from fedmkt.protocol.trees.side_product import MaskedSides
from fedmkt.protocol.trees.sides.histogram import RowBins
from fedmkt.protocol.trees.totals import (
    dealt_pads,
    shared_boosting,
    shared_gradients,
    shared_growth,
    shared_histogram,
)
from fedmkt.protocol.trees.totals.checked_bins import BinProof, BinShifts, VectorSeed
from fedmkt.protocol.trees.totals.checked_sums import ShareSums, SubsetSeed
from fedmkt.protocol.trees.totals.share_tags import OwnOpening, ShareTags, TagKeys
from fedmkt.protocol.trees.totals.shared_cells import LevelShares, grid
from fedmkt.protocol.trees.totals.shared_gradients import TreeGradients
from fedmkt.protocol.trees.totals.shared_growth import NodeTotals, TreeOwners
from fedmkt.protocol.trees.totals.shared_histogram import (
    EncryptedShares,
    HintBlock,
    SharedTotals,
    ShareVectors,
)
from fedmkt.ring import rlwe, short_words
from fedmkt.simulation.world import generate, write_world
from tests.engine import Killed, Tap, world_of
from tests.protocol.plain_caller import DEALER
from tests.protocol.shared_world import Watch, contract, grown, model_of, scores_of
from tests.protocol.test_shared_views import JOB
from tests.protocol.tree_world import BANK, SHOP, tree_caller

ROW = 7
"""A row that the bank wants to know."""
REFUSED = "bank: what it encrypted or opened is not its share"


def checked(**terms):
    return contract(**({"trees": 1, "depth": 3, "checked_shares": True} | terms))


def totals_sent(caller):
    return sum(isinstance(s.message, NodeTotals | SharedTotals) and s.sender == SHOP for s in caller.sent)


# ------------------------------------------------------------------------------------------ honest


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_trees_and_scores_are_bit_for_bit_those_of_a_run_without_checks(seed):
    plain = grown(tree_caller(contract(trees=3, depth=4), seed=seed))
    found = grown(tree_caller(checked(trees=3, depth=4), seed=seed))
    assert model_of(found).outline == model_of(plain).outline
    assert np.array_equal(scores_of(found), scores_of(plain))
    owners = {owner for tree in model_of(found).outline.trees for _, owner in tree.owners}
    assert owners == {BANK, SHOP}
    assert plain.revealed == found.revealed
    assert all(TagKeys not in caller.states[BANK] for caller in (plain, found))


def test_every_share_of_the_bank_has_its_tag(monkeypatch):
    """The equation of `ring.share_tags`, at every node of a tree, with what only both parties together hold."""
    seen = []
    original = shared_histogram.add_up_nodes

    def add_up_nodes(call, *rest):
        seen.append(
            {p: (call.recall(p, LevelShares).vectors, call.recall(p, ShareTags)) for p in (BANK, SHOP)}
        )
        return original(call, *rest)

    monkeypatch.setattr("fedmkt.protocol.trees.totals.shared_boosting.add_up_nodes", add_up_nodes)
    caller = grown(tree_caller(checked(depth=4)))
    alpha = caller.recall(SHOP, TagKeys).alpha
    assert [len(s[BANK][0][0]) for s in seen][:2] == [1, 2] and len(seen) >= 3
    for shares in seen:
        (lanes, tags), (_, keys) = shares[BANK], shares[SHOP]
        expected = keys.level + sum(a * x for a, x in zip(alpha, lanes, strict=True))
        assert np.array_equal(tags.level, expected)


def test_in_two_lanes_or_in_three(monkeypatch):
    """Where g and h do not fit one word each has a lane and a key of its own."""
    monkeypatch.setattr("fedmkt.protocol.trees.totals.lane_plan.TOGETHER", ((1 << 30,), (1 << 18,), (1,)))
    plain = grown(tree_caller(contract(trees=1)))
    found = grown(tree_caller(checked()))
    assert len(found.recall(SHOP, TagKeys).alpha) == 3
    assert model_of(found).outline == model_of(plain).outline


def test_a_batch_in_many_blocks_of_rows_is_checked_as_one(monkeypatch):
    monkeypatch.setattr("fedmkt.protocol.trees.totals.lanes.BLOCK_BYTES", 1)
    terms = checked(trees=1)
    found = grown(tree_caller(terms, n=12000))
    assert sum(isinstance(s.message, EncryptedShares) for s in found.sent) > 2 * terms.trees.depth
    assert model_of(found).outline == model_of(grown(tree_caller(contract(trees=1), n=12000))).outline


def test_the_dealer_sees_seeds_and_nothing_else_of_the_checks():
    caller = grown(tree_caller(checked(depth=2)))
    assert {type(s.message) for s in caller.seen_by(DEALER)} == {SubsetSeed, VectorSeed}


# ------------------------------------------------------------------------------------------ a malicious bank


def on_ciphertexts(change, at):
    """Change the bank's words, (n, V), of its `at`-th batch."""
    seen = []

    def tamper(sent):
        if not (isinstance(sent.message, EncryptedShares) and sent.sender == BANK):
            return sent.message
        seen.append(sent)
        if len(seen) != at + 1:
            return sent.message
        vectors = 2 * (1 if at < 2 else 2 ** (at - 1))
        rows = len(sent.message.rows) // vectors
        words = short_words.unpack(sent.message.rows, rows, [64] * vectors)
        change(words)
        return replace(sent.message, rows=short_words.pack(words, [64] * vectors))

    return tamper


def one_row(words):
    words[[ROW], 0] += np.uint64(1 << 40)


def two_rows_that_cancel(words):
    words[[ROW], 0] += np.uint64(1 << 40)
    words[[ROW + 1], 0] -= np.uint64(1 << 40)


def half_of_the_ring(words):
    words[[ROW], 0] += np.uint64(1 << 63)


def the_noise(words):
    """A quarter of Delta, in a lane of 41 bits here: decodes to the same totals, and shows each bin of the row."""
    words[[ROW], 0] += np.uint64(1 << 20)


def swapped_rows(words):
    words[[ROW, ROW + 1]] = words[[ROW + 1, ROW]]


def the_count(words):
    words[[ROW], -1] += np.uint64(1 << 60)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize(
    "change", [one_row, two_rows_that_cancel, half_of_the_ring, the_noise, swapped_rows, the_count]
)
def test_a_ciphertext_of_anything_but_the_share_ends_the_run(change, at, seed):
    caller = tree_caller(checked(), n=700, seed=seed, change=on_ciphertexts(change, at))
    with pytest.raises(PeerError, match=REFUSED):
        grown(caller)
    # Totals of the batches before, and none of this one: one answer and one message of totals for each level.
    assert totals_sent(caller) == 2 * at


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("step", ["fit.plant_shares", "tags.take_sides"])
@pytest.mark.parametrize("rows", [{ROW: 1 << 15}, {ROW: 1 << 15, ROW + 1: -(1 << 15)}, {ROW: 1 << 35}])
def test_a_bank_that_adds_to_its_share_and_uses_it_throughout_ends_the_run(rows, step, seed):
    """The attack of redteam 1.5, from the root and from a node below; the bank's tags are what they were."""
    caller = tree_caller(checked(), n=700, seed=seed)
    call, done = caller._answer, []

    def answer(asked):
        reply = call(asked)
        if asked.party == BANK and asked.step.name == step and not done:
            done.append(True)
            for kind, field in ((ShareVectors, "lanes"), (LevelShares, "vectors")):
                held = caller.states[BANK][kind]
                g, *others = (v.copy() for v in getattr(held, field))
                for row, offset in rows.items():
                    g[0, [row]] += np.uint64(offset % 2**64)
                caller.states[BANK][kind] = replace(held, **{field: (g, *others)})
        return reply

    caller._answer = answer
    with pytest.raises(PeerError, match=REFUSED):
        grown(caller)
    assert done and totals_sent(caller) == (0 if step == "fit.plant_shares" else 2)


@pytest.mark.parametrize("seed", [1, 2])
def test_without_the_check_the_noise_of_one_row_shows_each_of_its_bins(seed, monkeypatch):
    """An undefended control: finer than cells are opened, and before anything is compared. The totals are right."""
    words, original = [], rlwe.decode

    def decode(noisy, delta_bits):
        words.append((noisy.copy(), delta_bits))
        return original(noisy, delta_bits)

    def encrypt_rows(a, secrets, values, delta_bits, key):
        b = dealt_pads.encrypt_rows(a, secrets, values, delta_bits, key)
        b[[ROW], 0] += np.uint64(1 << (delta_bits[0] - 2))
        return b

    def as_bank(lanes, nodes, turn, inbox):
        with monkeypatch.context() as patch:
            if turn.first:
                patch.setattr(shared_histogram, "encrypt_rows", encrypt_rows)
            return encrypt(lanes, nodes, turn, inbox)

    encrypt = shared_histogram._encrypt
    monkeypatch.setattr(shared_histogram, "_encrypt", as_bank)
    monkeypatch.setattr(shared_histogram.rlwe, "decode", decode)
    caller = grown(tree_caller(contract(trees=1, depth=1), n=700, seed=seed))
    held, (noisy, (delta,)) = caller.recall(SHOP, RowBins), words[0]
    noise = (noisy[:, 0] << np.uint64(64 - delta)).view(np.int64) / 2.0**64
    assert noisy.shape[0] == sum(held.counts)
    starts = np.cumsum([0, *held.counts])
    found = [int(np.argmax(noise[a:b])) for a, b in pairwise(starts)]
    assert found == held.codes[:, ROW].tolist()


def changed(kind, change, sender=BANK):
    """Change the first message of a kind that has something to change."""
    done = []

    def tamper(sent):
        if done or not isinstance(sent.message, kind) or sent.sender != sender:
            return sent.message
        found = change(sent.message)
        if found is not None:
            done.append(True)
        return sent.message if found is None else found

    return tamper


def the_opening_for_a_split_of_the_partners(message):
    if not message.vectors[0].words.size:
        return None
    raw = message.vectors[0].words.copy()
    raw[0, ROW, 4] ^= 1
    return replace(message, vectors=(Masked(raw), *message.vectors[1:]))


def two_rows_of_such_an_opening(message):
    if not message.vectors[0].words.size:
        return None
    numbers = np.ascontiguousarray(message.vectors[0].words).view("<u8")[..., 0].copy()
    numbers[0, [ROW]] += np.uint64(1 << 40)
    numbers[0, [ROW + 1]] -= np.uint64(1 << 40)
    return replace(message, vectors=(Masked(numbers[..., None].view(np.uint8)), *message.vectors[1:]))


def the_opening_for_a_split_of_its_own(message):
    if not message.lanes[0].words.size:
        return None
    words = message.lanes[0].words.copy()
    words[0, [ROW]] += np.uint64(1 << 22)
    return OwnOpening((Masked(words), *message.lanes[1:]))


def the_opening_of_a_gradient(message):
    """Told to the partner, while the own share is of another one."""
    words = message.values.words.copy()
    words[0, [ROW]] += np.uint32(1 << 29)
    return TreeGradients(Masked(words))


def the_sums(message):
    words = message.sums.words.copy()
    words[3, [0]] += np.uint64(1)
    return replace(message, sums=Masked(words))


def the_tags(message):
    return replace(message, digest=bytes(32))


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (MaskedSides, the_opening_for_a_split_of_the_partners),
        (MaskedSides, two_rows_of_such_an_opening),
        (OwnOpening, the_opening_for_a_split_of_its_own),
        (TreeGradients, the_opening_of_a_gradient),
        (ShareSums, the_sums),
        (ShareSums, the_tags),
    ],
)
def test_an_opening_or_a_tag_of_something_else_ends_the_run(kind, change, seed):
    caller = tree_caller(checked(depth=4, trees=3), n=900, seed=seed, change=changed(kind, change))
    with pytest.raises(PeerError, match=REFUSED):
        grown(caller)


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_the_bank_opens_before_the_rounding_g_and_h_stay_within_the_ring(seed, monkeypatch):
    """Not caught, but bounded: as if it had chosen labels, and some bits more."""
    watch, original = Watch(monkeypatch), shared_gradients.open_gradients

    def anything(turn, *given):
        message, opened = original(turn, *given)
        if not turn.first:
            return message, opened
        random = np.random.default_rng(seed).integers(0, 1 << 32, opened.shape, dtype=np.uint32)
        return TreeGradients(Masked(random)), random

    monkeypatch.setattr(shared_gradients, "open_gradients", anything)
    caller = grown(tree_caller(checked(depth=1), n=900, seed=seed))
    g, h, _ = watch.rows(caller, 0).T
    assert 300 < np.abs(g).max() <= 384 and 2000 < np.abs(h).max() <= 3072


# ------------------------------------------------------------------------------------------ columns that are no bins

BIN, OTHER_BIN, FACTOR = 1, 2, 64


def of_row(caller, bins):
    """Return what a hint has more where the row counts so much more in these bins."""
    turn = caller.turn(BANK)
    rows = caller.recall(BANK, RowBins).codes.shape[1]
    alone = np.full((1, rows), rlwe.NO_BIN, np.uint8)
    alone[0, ROW] = 0
    a = rlwe.transform_for_hint(dealt_pads.public_polynomials(turn, rows))
    extra = np.zeros((max(bins) + 1, rlwe.DEGREE), np.uint64)
    for place, factor in bins.items():
        extra[place] = rlwe.hint(a, alone, [1])[0] * np.uint64(factor % 2**64)
    return extra


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    "bins", [{BIN: FACTOR}, {BIN: 1}, {BIN: -1, OTHER_BIN: 1}, {BIN: 1 << 22}, {OTHER_BIN: -(1 << 16)}]
)
def test_a_hint_of_rows_that_weigh_more_or_less_ends_the_run(bins, seed):
    def weighs(message):
        words = message.rows.words.copy()
        extra = of_row(caller, bins)
        words[: len(extra)] += extra
        return HintBlock(message.block, Masked(words))

    caller = tree_caller(checked(), n=700, seed=seed, change=changed(HintBlock, weighs))
    with pytest.raises(PeerError, match="bank: the columns behind its hint are no bins"):
        grown(caller)
    assert not totals_sent(caller)


def another_place(message):
    places = message.shifts.words.copy()
    places[1, ROW] = (places[1, ROW] + 1) % 4
    return BinShifts(Masked(places))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "change"), [(BinShifts, another_place), (BinProof, lambda m: BinProof(bytes(32)))]
)
def test_a_place_that_is_not_the_hints_or_another_tag_ends_the_run(kind, change, seed):
    caller = tree_caller(checked(), n=700, seed=seed, change=changed(kind, change))
    with pytest.raises(PeerError, match="bank: the columns behind its hint are no bins"):
        grown(caller)


@pytest.mark.parametrize("seed", [1, 2])
def test_without_the_check_a_bank_reads_the_gradient_of_a_row_in_its_own_columns(seed, monkeypatch):
    """An undefended control: a row that counts 64 times more in one column is what its totals differ by."""
    watch, histogram, begin = Watch(monkeypatch), rlwe.histogram, shared_histogram._begin_hints
    caller = tree_caller(contract(trees=1, depth=1), n=700, seed=seed)
    at = []

    def begin_hints(lanes, turn, inbox):
        outcome = begin(lanes, turn, inbox)
        if turn.first:
            held = outcome.keep[0]
            extra = of_row(caller, {BIN: FACTOR})
            held.hint[: len(extra)] += extra
            at.append(turn.recall(RowBins).codes)
        return outcome

    def weighted(codes, counts, b):
        out = histogram(codes, counts, b)
        if np.shares_memory(codes, at[0]):
            out[BIN] += np.uint64(FACTOR) * b[ROW]
        return out

    monkeypatch.setattr(shared_histogram, "_begin_hints", begin_hints)
    monkeypatch.setattr(shared_histogram.rlwe, "histogram", weighted)
    # It does not complain of itself.
    monkeypatch.setattr(shared_growth, "check_columns", lambda cells: None)
    grown(caller)
    (cells,) = watch.opened
    weighed, honest = cells[0, :2].sum(axis=1)
    assert ((weighed - honest) == FACTOR * watch.rows(caller, 0)[ROW]).all()


def test_which_rows_a_split_of_the_banks_takes_left_nobody_ties_to_its_bins(monkeypatch):
    """A control, not caught: nodes of two trees differ by one row, and so do the counts of all open cells of them."""
    watch, sides_of, best = Watch(monkeypatch), shared_growth.own_sides, shared_growth.best_splits
    order = np.random.default_rng(3).random(5000) < 0.5

    def own_sides(turn, decisions):
        sides = sides_of(turn, decisions)
        if turn.first and [d.node for d in decisions] == [0]:
            sides = order[None, : sides.shape[1]].copy()
            sides[0, ROW] = len(turn.recall(TreeOwners).trees) == 1
        return sides

    def best_splits(cells, level, settings, scale, trends, allowed):
        if len(level.nodes) == 1 and allowed[:, :4].any():
            allowed = allowed.copy()
            allowed[:, 4:] = False
        return best(cells, level, settings, scale, trends, allowed)

    for module in (shared_growth, shared_boosting):
        monkeypatch.setattr(module, "own_sides", own_sides)
    monkeypatch.setattr(shared_growth, "best_splits", best_splits)
    caller = grown(tree_caller(checked(trees=2, depth=2)))
    codes, table = caller.recall(SHOP, RowBins).codes[:, ROW], grid(caller.turn(SHOP))
    (first, cuts), (second, same) = (
        (watch.opened[i][0], watch.cuts[i][1][0])
        for i, (nodes, _) in enumerate(watch.cuts)
        if nodes == (1, 2)
    )
    of_row = np.zeros((1, *first.shape[:2]), np.int64)
    for column, code in enumerate(codes, start=4):
        is_missing = code == table.values[column]
        of_row[0, column, table.bins if is_missing else code] = 1
    read = 0
    for column in range(4, len(first)):
        if (cuts[column] == same[column]).all():
            assert np.array_equal(
                (second - first)[column, :, -1], joined_cells(of_row, cuts[None])[0, column]
            )
            read += int(cuts[column].any())
    assert read >= 2


# ------------------------------------------------------------------------------------------ a whole run


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    path = write_world(generate(1, 700, 700, 500), folder, minimum=100)
    text = path.read_text().replace("[model]\npenalty = 1.0\n", f"[model]\n{JOB}checked_shares = true\n")
    config = parse_job(text.replace("[limits]\n", "[limits]\nmin_support = 20\n"), str(path))
    return config, {p.name: open_data(p, folder) for p in config.parties}


@pytest.fixture(scope="module")
def steps(job, tmp_path_factory):
    tap = Tap()
    world_of(job[0], tmp_path_factory.mktemp("whole"), job[1], seed=5).run(tap)
    return [p.message.step for p in tap.requests]


@pytest.mark.parametrize("step", ["tags.check", "tags.open_own"])
def test_a_run_killed_within_a_check_resumes_with_new_keys_and_masks(step, job, steps, tmp_path):
    """Parties refuse to draw the mask of one address twice: an epoch has keys, pads and masks of its own."""
    world = world_of(job[0], tmp_path, job[1], seed=5)
    begins = [i for i, s in enumerate(steps) if s == "fit.open_angles"][2]
    with pytest.raises(Killed):
        world.run(Tap(stop_after=steps.index(step, begins) + 1))
    again = Tap()
    world.run(again, resume=True)
    resumed = [p.message.step for p in again.requests]
    assert resumed.count("tags.begin") == 1 and resumed.count("tags.deal_gradients") == 2
    assert "tags.check" in resumed


def test_the_partner_ends_a_run_with_a_cheating_bank_and_says_why(job, tmp_path, monkeypatch, caplog):
    original = shared_boosting.root_shares

    def cheating(turn, root):
        level, vectors = original(turn, root)
        if turn.first:
            g, *others = (v.copy() for v in vectors.lanes)
            g[0, [ROW]] += np.uint64(1 << 15)
            vectors = ShareVectors((g, *others))
        return level, vectors

    monkeypatch.setattr(shared_boosting, "root_shares", cheating)
    tap = Tap()
    # Others are told no more than where it ended.
    with pytest.raises(PeerError, match=r"^partner refused at tags.check$"):
        world_of(job[0], tmp_path, job[1], seed=5).run(tap)
    assert f"partner: tags.check: {REFUSED} of the numbers; no totals are sent" in caplog.text
    steps = [p.message.step for p in tap.requests]
    assert steps[-1] == "tags.check" and "fit.open_totals" not in steps
