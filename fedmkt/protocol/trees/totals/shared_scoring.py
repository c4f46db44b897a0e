"""Scoring of boosted trees on shares, modes `totals` and `nothing`: nobody learns which leaf a row is in.

Computes the sum of the leaves of all trees for the held-out customers and those without a label, on shares, its
sigmoid, rounded on shares to the contract's decimals, and sends the rounded shares to the bank. Takes part: the bank,
one or two partners, and the dealer. The second partner folds trees as the first does (`duos`), leaves the sigmoid to
it, and takes part in the last rounding with 0: so the bank reads nothing without a share of each partner's, and each
counts what is released.

| learns | what |
|---|---|
| bank | one rounded probability for each matched customer that is scored (`Scores`) |
| partner, coordinator, dealer | nothing; how many splits the trees have, and whose, `TreeShape` told before |

Safe against a semi-honest bank or partner, or two partners together, while the dealer colludes with nobody, and of two
partners neither with the bank. A score is a function of a row's bins: the bank knows its own sides and, in mode
`totals`, all leaves, so what few trees or many decimals would say of the partner's bins is bounded by rounding alone
(redteam.md 1.4: of 5 trees at 20 bits all leaves follow, of 10 trees at 2 decimals hardly any). Train rows are never
scored. `scoring` counts the release in each partner's ledger, and refuses beyond it.

Values of trees: `shared_values`, some trees at a time; the sigmoid and the rounding: `ring.sigmoid`, `ring.rounding`
and `scoring`. Source: protocols.md sections 2 and 4. Letters: F, t, R as in `shared_gradients`.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.alignment.align import joint_rows, scored_rows
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import (
    Caller,
    HalfWords,
    Inbox,
    Masked,
    Message,
    Name,
    Nothing,
    Outcome,
    PublicValue,
    Silent,
    State,
    Step,
    Turn,
    Words,
    ask,
    data_parties,
    dealer,
    inbox_of,
    to_all,
)
from fedmkt.protocol.layout import BLOCK_BYTES, RESIDUAL_BITS
from fedmkt.protocol.linear.scoring import READ, RELEASE, Rounding, ScoreOpening, share_step
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.row_blocks import RowBlock, blocks_of, close_rows, of_rows
from fedmkt.protocol.shared import DealtRounding, deal_rounding, open_masked
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.nothing.blind_boosting import LeafShares
from fedmkt.protocol.trees.side_product import Bytes, MaskedSides, narrow, widen_halves
from fedmkt.protocol.trees.sides.boosting import OwnSplits, own_names, sides_of
from fedmkt.protocol.trees.sides.tree_growth import Forest
from fedmkt.protocol.trees.totals.duos import counterpart
from fedmkt.protocol.trees.totals.shared_gradients import FAR, SCORE_BITS, UNIT
from fedmkt.protocol.trees.totals.shared_growth import TreeOwners
from fedmkt.protocol.trees.totals.shared_values import (
    Folding,
    Forests,
    Place,
    both,
    fold,
    open_values,
    start,
    start_shared,
    total,
)
from fedmkt.protocol.trees.tree_columns import own_codes
from fedmkt.protocol.witness import checkpoint, witness
from fedmkt.ring import rounding, sigmoid
from fedmkt.ring.rlwe import Codes
from fedmkt.ring.side_bits import Bits

_LIFT_SHIFT = sigmoid.RESULT_BITS - RESIDUAL_BITS
_DEALT = 2 * FAR.sines.harmonics
"""Sines and cosines of a row: scores are few, so there is one series for all of them."""
ROW_BYTES = 4 * _DEALT + 16
"""Most bytes of a row in one message: what is dealt."""


@dataclass(frozen=True)
class ScoreAngles(Message):
    """The sender's share of F minus its share of t, modulo one period."""

    angles: Masked[Bytes]


@dataclass(frozen=True)
class ScoreLift(Message):
    """The sender's share of sigma(F) under its mask, modulo 2^32."""

    halves: Masked[HalfWords]


@dataclass(frozen=True)
class DealtScores(Message):
    """The bank's shares of sines and cosines, (2 K, n), and of the rounding that moves sigma(F) to 64 bits, (n,)."""

    angles: HalfWords
    high: Words
    top: Words


@dataclass(frozen=True)
class TreesToScore(PublicValue):
    """For each tree who splits which node, as `NodeOwners` told level by level; none if it was dropped."""

    trees: tuple[tuple[tuple[int, int], ...], ...]


@dataclass(frozen=True)
class TreeSums(State):
    """The own share of the sum of the trees so far of each row to score, (n,), and the rows' bins in own columns."""

    durable: ClassVar[bool] = False
    by_row: ClassVar[tuple[str, ...]] = ("words", "codes")
    words: HalfWords
    codes: Codes


@dataclass(frozen=True)
class Lifted(State):
    """The own opening of the angles, then of sigma(F), and at the bank the dealer's shares."""

    durable: ClassVar[bool] = False
    own: HalfWords
    dealt: DealtScores | None


def tree_groups(trees: int, depth: int, rows: int) -> Iterator[slice]:
    """Split the trees, so that the values of all nodes of some of them fit into one message."""
    step = max(1, BLOCK_BYTES // (4 * rows << depth))
    yield from (slice(i, min(trees, i + step)) for i in range(0, trees, step))


def _begin(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, TreesToScore]:
    """Read the rows to score into bins; tell whose splits the trees have, as everybody was told before."""
    rows = joint_rows(turn, False)
    base = round(turn.recall(Forest).base / UNIT) if turn.first else 0
    words = np.full(len(rows), base % 2**SCORE_BITS, np.uint32)
    return Outcome(
        TreesToScore(turn.recall(TreeOwners).trees), keep=(TreeSums(words, own_codes(turn, rows)),)
    )


def _begin_group(trees: slice, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    if turn.has(LeafShares):
        shares = turn.recall(LeafShares).words[trees]
        first = shares.shape[1] - 1
        values = {(t, first + i): share for t, tree in enumerate(shares) for i, share in enumerate(tree)}
        return Outcome(Silent(), keep=(start_shared(values),))
    if not turn.first:
        return Outcome(Silent(), keep=(start({}),))
    leaves = {
        (t, node): round(value / UNIT)
        for t, tree in enumerate(turn.recall(Forest).trees[trees])
        for node, value in tree.leaves
    }
    return Outcome(Silent(), keep=(start(leaves),))


def _own_sides(turn: Turn, trees: slice, places: Collection[Place]) -> dict[Place, Bits]:
    own = turn.recall(Forest).decisions if turn.first else turn.recall(OwnSplits).trees
    sizes, codes = turn.published(BinSizes, turn.me), turn.recall(TreeSums).codes
    found: dict[Place, Bits] = {}
    for t, tree in enumerate(own[trees]):
        decisions = tuple(d for d in tree if (t, d.node) in places)
        sides = sides_of(codes, decisions, sizes, own_names(turn))
        found |= {(t, d.node): bits for d, bits in zip(decisions, sides, strict=True)}
    return found


def _open_group(
    trees: slice, forest: Forests, depth: int, turn: Turn, inbox: Inbox[Nothing]
) -> Outcome[MaskedSides, Silent]:
    count, used = next_count(turn, forest.label)
    places = {place for place, _ in forest.splits(depth)}
    state, sides = turn.recall(Folding), _own_sides(turn, trees, places)
    send, kept = open_values(turn, forest, depth, count, state, sides)
    return Outcome(Silent(), send=send, keep=(kept, used) if kept.products else (kept,))


def _add_group(forest: Forests, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    sums = turn.recall(TreeSums)
    words = sums.words + total(forest, turn.recall(Folding))
    return Outcome(Silent(), keep=(TreeSums(words, sums.codes),), forget=(Folding,))


# --- sigmoid and rounding


def _mask(turn: Turn, of: Name, what: str, block: int, shape: tuple[int, ...]) -> HalfWords:
    return turn.masks.half_words(of, f"score/trees/{what}", block, shape)


def _open_scores(block: int, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[ScoreAngles, Silent]:
    words = turn.recall(TreeSums).words
    own = words - _mask(turn, turn.me, "t", block, words.shape)
    message = ScoreAngles(Masked(narrow(own, SCORE_BITS)))
    return Outcome(Silent(), send={counterpart(turn): message}, keep=(Lifted(own, None),), forget=(TreeSums,))


def _deal_scores(block: RowBlock, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtScores, Silent]:
    (bank, partner), count, rows = turn.parties[:2], block.index, block.length
    t, mask = (
        _mask(turn, bank, f, count, (rows,)) + _mask(turn, partner, f, count, (rows,)) for f in ("t", "R")
    )
    others = _mask(turn, partner, "angles", count, (_DEALT, rows))
    angles = sigmoid.deal_correction(FAR.angles(t), FAR.sines.harmonics, [others], out=others)
    lift = rounding.deal_lift(mask, _LIFT_SHIFT)
    high, top = (v - _wide(turn, f, count, rows) for f, v in (("high", lift.high), ("top", lift.top)))
    return Outcome(Silent(), send={bank: DealtScores(angles, high, top)})


def _wide(turn: Turn, what: str, block: int, rows: int) -> Words:
    """Draw the first partner's share of what the rounding needs."""
    return turn.masks.words(turn.parties[1], f"score/trees/{what}", block, rows)


def _lift(block: int, turn: Turn, inbox: Inbox[ScoreAngles | DealtScores]) -> Outcome[ScoreLift, Silent]:
    own, other = turn.recall(Lifted).own, counterpart(turn)
    found = inbox.one(other, ScoreAngles).angles.words
    delta = FAR.angles(own + widen_halves(found, own.shape, SCORE_BITS))
    dealt = inbox.one(dealer(turn.contract), DealtScores) if turn.first else None
    angles = dealt.angles if dealt else _mask(turn, turn.me, "angles", block, (_DEALT, len(own)))
    value = sigmoid.evaluate(delta, angles, FAR.sines)
    if turn.first:
        value += sigmoid.HALF
    opened = rounding.prepare_lift(value, _mask(turn, turn.me, "R", block, value.shape), first=turn.first)
    return Outcome(Silent(), send={other: ScoreLift(Masked(opened))}, keep=(Lifted(opened, dealt),))


def _round(block: int, turn: Turn, inbox: Inbox[ScoreLift]) -> Outcome[ScoreOpening, Silent]:
    state = turn.recall(Lifted)
    found, n = inbox.one(counterpart(turn), ScoreLift).halves.words, len(state.own)
    if found.shape != state.own.shape:
        raise ValueError("the opening of the other party has another length")
    dealt = state.dealt
    if dealt is not None and not dealt.high.shape == dealt.top.shape == (n,):
        raise ValueError("the dealer's share of the rounding has another shape")
    high, top = (dealt.high, dealt.top) if dealt else (_wide(turn, f, block, n) for f in ("high", "top"))
    lifted = rounding.finish_lift(
        state.own + found, rounding.DealtRounding(high, top), _LIFT_SHIFT, first=turn.first
    )
    return _open_round(turn, block, lifted * np.uint64(10**turn.contract.scores.decimals), Lifted)


def _join_round(block: int, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[ScoreOpening, Silent]:
    """At a second partner: take part in the last rounding with 0, so that nothing is released without its share."""
    return _open_round(turn, block, np.zeros(len(turn.recall(TreeSums).words), np.uint64), TreeSums)


def _open_round(turn: Turn, block: int, share: Words, done: type[State]) -> Outcome[ScoreOpening, Silent]:
    own = open_masked(turn, "score/round", block, share)
    send = to_all(turn.others, ScoreOpening(Masked(own)))
    return Outcome(Silent(), send=send, keep=(Rounding(own),), forget=(done,))


def _deal_rounding(block: RowBlock, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtRounding, Silent]:
    dealt = deal_rounding(turn, "score/round", block.index, block.length, RESIDUAL_BITS)
    return Outcome(Silent(), send={turn.parties[0]: dealt})


BEGIN = Step("score.begin_trees", _begin, TreesToScore)


def score(call: Caller, contract: Contract, overlap: Overlap) -> None:
    """Score the bank's held-out and unlabelled customers and release the rounded scores to it."""
    parties, rows = data_parties(contract), scored_rows(contract, overlap)
    owners = call.all([ask(p, BEGIN) for p in parties])[0].public.value.trees
    for trees in tree_groups(len(owners), contract.trees.depth, rows):
        forest = Forests("scores", rows, owners[trees], contract.trees.reveal == "nothing")
        begin = Step("score.begin_group", partial(_begin_group, trees), Silent)
        add = Step("score.add_group", partial(_add_group, forest), Silent)
        call.all([ask(p, begin) for p in parties])
        fold(call, contract, forest, partial(_open_group, trees))
        call.all([ask(p, add) for p in parties])
    for block in blocks_of(rows, ROW_BYTES):
        _round_rows(call, contract, block)
    checkpoint(call, contract)
    witness(call, contract)
    released = call.all([ask(p, RELEASE) for p in parties[1:]])
    call(parties[0], READ, *inbox_of(released, parties[0]))
    checkpoint(call, contract)


def _round_rows(call: Caller, contract: Contract, block: RowBlock) -> None:
    """Share the rounded scores of a block of rows."""
    parties, maker, count = data_parties(contract), dealer(contract), block.index
    first, others = parties[:2], parties[2:]
    opens = of_rows(block, Step("score.open_trees", partial(_open_scores, count), Silent))
    lift = of_rows(
        block, Step("score.lift_trees", partial(_lift, count), Silent, reads=(ScoreAngles, DealtScores))
    )
    round_ = of_rows(block, Step("score.round_shares", partial(_round, count), Silent, reads=(ScoreLift,)))
    join = of_rows(block, Step("score.join_round", partial(_join_round, count), Silent))
    deal = Step("score.deal_trees", partial(_deal_scores, block), Silent)
    deal_last = Step("score.deal_tree_rounding", partial(_deal_rounding, block), Silent)
    opened, (dealt,) = call.both([ask(p, opens) for p in first], [ask(maker, deal)])
    lifted = call.all([ask(p, lift, *both(opened, dealt, p)) for p in first])
    rounds, (last,) = call.both(
        [*(ask(p, round_, *inbox_of(lifted, p)) for p in first), *(ask(p, join) for p in others)],
        [ask(maker, deal_last)],
    )
    call.all([ask(p, of_rows(block, share_step(count)), *both(rounds, last, p)) for p in parties])
    close_rows(call, "score", parties, block)
