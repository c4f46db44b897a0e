"""Boosted trees of all parties' columns, in mode `sides`: the bank learns the sides of the partners' splits.

Computes gradient-boosted trees, split for split those that `learn.boosting.fit` grows on the pooled table with the
same random numbers. Takes part: the bank, one or two partners, and the dealer. For each level of a tree the bank
sends the encrypted g and h of the rows of every node of which it lacks the totals (of two children the smaller one,
the largest of them first, both numbers packed into one), is given their totals per bin of the partners' columns
(`histogram`), chooses the splits (`tree_growth`), tells each owner those of its columns, and is told which side of
them every training row takes.

| learns | what |
|---|---|
| bank | totals per bin of nodes that it chooses, exactly (`HistogramTotals`); sides of every row (`SplitSides`) |
| partner | which edges of its own bins were chosen, at which node of which tree (`ChosenSplits`) |
| everybody | how many splits each level has, and how many are of each partner's columns (`TreeShape`); with \
`trees.patience` when training ends (`early_stop`) |
| dealer, coordinator | nothing else |

**The sides are nearly a hand-over.** Put together they are the binned value of each column of each training row: on
the bank-full data an attack on 50 trees of depth 5 read 14.2 of 14.5 bits per row, whoever encrypted the gradients.
A partner bounds them by coarse bins (`bins.count`) and by `trees.max_thresholds`, edges of one column in one run: it
counts them itself, over all epochs, and refuses beyond. Totals of small nodes say no more than the sides do.

**Left join.** Rows that only the bank has are in no bin of the partner's: what a node's bins lack to its total, which
the bank knows, goes with the missing, and so do these rows at each split. It knows who they are.

Safe against: a semi-honest partner or partners together, who see pseudo-random vectors over all rows, whose number
tells how many nodes there are and nothing about who is in them; a semi-honest bank, as far as the table says; a
semi-honest dealer that colludes with none. **Not safe against a malicious bank**, who may ask for any totals and,
within the cap, any sides. A partner counts the rows of its bins, the encrypted vectors and the edges; it does not
know whether a split was worth it. Wrong sides or totals of a malicious partner spoil the model, unnoticed.

A run that is killed within a tree goes back to the last checkpoint, masks and hints anew, and draws for each tree the
random numbers that it had before (`Forest.key`): same gradients, so same trees. That the same vectors are encrypted
twice, under fresh secrets, is paid for in the number of vectors that noise and flooding are planned for.

Source: protocols.md section 4; Chen and Guestrin 2016. Letters: g, h as in learn/splits.py; V vectors of a batch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.errors import PolicyRefused
from fedmkt.learn.trees import Bools, Decision
from fedmkt.privacy.disclosure import ChosenSplits, SplitSides, TreeShape
from fedmkt.protocol.alignment.align import joint_rows, train_rows, train_rows_at_least
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Name,
    Nothing,
    Outcome,
    Reply,
    Silent,
    State,
    Step,
    Turn,
    ask,
    data_parties,
    inbox_of,
)
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.sides.early_stop import stop_after
from fedmkt.protocol.trees.sides.histogram import RowBins, add_up_vectors, send_hints
from fedmkt.protocol.trees.sides.histogram_terms import Terms
from fedmkt.protocol.trees.sides.tree_growth import (
    LevelSplits,
    RowSides,
    SplitRequest,
    choose,
    grow,
    load_table,
    most_rows,
    plant,
    settings_of,
)
from fedmkt.protocol.trees.tree_columns import own_codes, party_columns
from fedmkt.protocol.witness import checkpoint, countersign, others_sign, showing
from fedmkt.ring.fields import gradient_fields
from fedmkt.ring.rlwe import NO_BIN, Codes


@dataclass(frozen=True)
class OwnSplits(State):
    """At a partner: the splits of its columns, tree by tree; what it holds of the model."""

    trees: tuple[tuple[Decision, ...], ...]


def histogram_terms(contract: Contract, overlap: Overlap, sizes: Mapping[Name, BinSizes]) -> Terms:
    """Plan the encrypted vectors of a whole training; ConfigError where their noise does not fit."""
    terms, settings = contract.trees, settings_of(contract)
    fields = gradient_fields(settings.gradient_bits, settings.hessian_bits)
    # After the root one node of each pair is asked for: 1 + 1 + 2 + 4 ... in all.
    per_tree = 1 << (terms.depth - 1)
    again = contract.limits.max_resumes * contract.model.checkpoint_every
    vectors = per_tree * (terms.trees + again)
    found = Terms(train_rows(contract, overlap), fields, vectors, contract.limits.min_support)
    found.budget(max(len(sizes[p].sizes) for p in data_parties(contract)[1:]))
    return found


# --- a partner's steps


def _load_bins(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    sizes = turn.published(BinSizes, turn.me)
    keep = () if turn.has(OwnSplits) else (OwnSplits(()),)
    return Outcome(Silent(), keep=(RowBins(own_codes(turn, joint_rows(turn, True)), sizes.sizes), *keep))


def _tell_sides(turn: Turn, inbox: Inbox[SplitRequest]) -> Outcome[RowSides, Silent]:
    """Tell which rows go left at the chosen splits, once they are counted against the cap."""
    bank, held = turn.parties[0], turn.recall(RowBins)
    level = turn.published(LevelSplits, bank)
    asked = level.partners[turn.parties.index(turn.me) - 1]
    decisions = read_request(turn, inbox.one(bank, SplitRequest), asked, level.depth)
    remember = _count_thresholds(turn, decisions)
    sides = told_of(turn, held.codes, decisions)
    before = turn.recall(OwnSplits).trees
    trees = (*before, *[()] * (level.tree + 1 - len(before)))
    kept = OwnSplits((*trees[: level.tree], trees[level.tree] + decisions))
    low = max(0, int(train_rows_at_least(turn.contract, turn.published(Overlap, bank))))
    reveals = (SplitSides(to=bank, splits=len(decisions), low=low, high=held.codes.shape[1]),)
    message = RowSides(np.packbits(sides, axis=1))
    return Outcome(Silent(), send={bank: message}, keep=(kept,), reveals=reveals, remember=remember)


def own_names(turn: Turn) -> list[str]:
    """Name the own columns in their order."""
    return [column.name for column in party_columns(turn.contract, turn.me)]


def read_request(turn: Turn, request: SplitRequest, asked: int, depth: int) -> tuple[Decision, ...]:
    """Read a request; ValueError unless it names `asked` nodes of the level, in order, and edges of own bins."""
    splits, names, sizes = request.splits, own_names(turn), turn.published(BinSizes, turn.me)
    if splits.shape != (asked, 4) or not asked:
        raise ValueError("the chosen splits are not as many as were announced")
    nodes, columns, bins, missing = splits.T
    if not ((np.diff(nodes) > 0).all() and nodes[0] >= 2**depth - 1 and nodes[-1] < 2 ** (depth + 1) - 1):
        raise ValueError("the chosen splits are of other nodes than those of this level")
    if columns.min() < 0 or columns.max() >= len(names) or not np.isin(missing, (0, 1)).all():
        raise ValueError("a chosen split is of no column of mine")
    last = np.array(sizes.sizes) - np.array(sizes.apart, dtype=np.int64) - 1
    if bins.min() < 0 or (bins > last[columns]).any():
        raise ValueError("a chosen split is at no edge of my bins")
    return tuple(Decision(n, names[c], b, bool(m)) for n, c, b, m in splits.tolist())


def sides_of(codes: Codes, decisions: Sequence[Decision], sizes: BinSizes, names: list[str]) -> Bools:
    """Tell for each decision which rows go left, (decisions, n); padding does not. codes : (columns, n)."""
    sides = np.empty((len(decisions), codes.shape[1]), np.bool_)
    for out, decision in zip(sides, decisions, strict=True):
        column = names.index(decision.column)
        np.less_equal(codes[column], decision.bin, out=out)
        if decision.missing_left and sizes.apart[column]:
            out |= codes[column] == sizes.sizes[column] - 1
        out &= codes[column] != NO_BIN
    return sides


def told_of(turn: Turn, codes: Codes, decisions: Sequence[Decision]) -> Bools:
    """Tell which rows go left at own splits, (decisions, n); of a left join those that only the bank has as well."""
    sides = sides_of(codes, decisions, turn.published(BinSizes, turn.me), own_names(turn))
    if turn.contract.align.join == "left":
        # They go with the missing. Padding cannot be told from them; the bank takes no notice of it.
        missing_left = np.array([d.missing_left for d in decisions], np.bool_)
        sides |= missing_left[:, None] & (codes == NO_BIN).all(axis=0)
    return sides


def _count_thresholds(turn: Turn, decisions: tuple[Decision, ...]) -> dict[str, bytes]:
    """Count in the store, not in a checkpoint: a resume from an earlier one must not forget what was told."""
    ledger = f"tree edges/{turn.run.hex()}"
    opened: dict[str, list[int]] = json.loads(turn.store.get(ledger, b"{}"))
    for decision in decisions:
        found = opened.setdefault(decision.column, [])
        if decision.bin not in found:
            found.append(decision.bin)
    if max(map(len, opened.values())) > turn.contract.trees.max_thresholds:
        raise PolicyRefused(
            "the bank asks for the sides of more edges of a column than trees.max_thresholds allows"
        )
    return {ledger: json.dumps(opened).encode()}


def _settle(trees: int, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    """Close the books of these trees: one without a split of the own columns has an empty part."""
    before = turn.recall(OwnSplits).trees[:trees]
    return Outcome(Silent(), keep=(OwnSplits((*before, *[()] * (trees - len(before)))),))


LOAD_TABLE = Step("fit.load_table", load_table, Silent)
LOAD_BINS = Step("fit.load_bins", _load_bins, Silent)
CHOOSE = showing(Step("fit.choose", choose, LevelSplits, reveals=(TreeShape, ChosenSplits)))
TELL_SIDES = Step("fit.sides", _tell_sides, Silent, reads=(SplitRequest,), reveals=(SplitSides,))


# --- script


def fit(call: Caller, contract: Contract, overlap: Overlap, sizes: Mapping[Name, BinSizes]) -> None:
    """Grow the contract's number of trees, or fewer (`early_stop`), with a checkpoint every few."""
    bank, *partners = data_parties(contract)
    terms = histogram_terms(contract, overlap, sizes)
    loaded_in = 0
    for tree in range(contract.trees.trees):
        if call.epoch != loaded_in:
            # Hints and masks live for one epoch.
            loaded_in = call.epoch
            call.both([ask(bank, LOAD_TABLE)], [ask(p, LOAD_BINS) for p in partners])
            send_hints(call, contract, terms)
        one_tree(call, contract, terms, tree)
        kept = stop_after(call, contract, tree)
        if kept or (tree + 1) % contract.model.checkpoint_every == 0:
            settle = Step("fit.settle_trees", partial(_settle, kept or tree + 1), Silent)
            call.all([ask(p, settle) for p in partners])
            checkpoint(call, contract)
        if kept:
            break


def one_tree(call: Caller, contract: Contract, terms: Terms, tree: int) -> None:
    """Grow one tree level by level; it ends early where no node has a split that is worth it."""
    bank, *partners = data_parties(contract)
    call(bank, Step("fit.plant", partial(plant, terms), Silent))
    grow_level = Step("fit.grow", partial(grow, terms), Silent, reads=(RowSides,))
    asked_for, nodes = 1, 1
    for depth in range(contract.trees.depth):
        add_up_vectors(call, contract, terms, asked_for, most_rows(terms.rows, depth, asked_for))
        chosen = call(bank, CHOOSE)
        level = chosen.public.value
        if (level.tree, level.depth) != (tree, depth):
            raise ValueError("the splits are of another level than the totals")
        if not (min(level.partners) >= 0 and sum(level.partners) <= level.splits <= nodes):
            raise ValueError("a level of a tree has more splits than nodes")
        asked = [p for p, splits in zip(partners, level.partners, strict=True) if splits]
        sides: list[Reply[RowSides, Silent]] = []
        if asked:
            # The bank has signed for the heads that came with the totals when it decrypted them.
            if unsigned := others_sign(partners):
                countersign(call, unsigned)
            sides = call.all([ask(p, TELL_SIDES, *inbox_of([chosen], p)) for p in asked])
        call(bank, grow_level, *inbox_of(sides, bank))
        if not level.splits:
            break
        asked_for, nodes = level.splits, 2 * level.splits
