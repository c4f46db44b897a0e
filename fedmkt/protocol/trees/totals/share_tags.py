"""Tags on the bank's shares of a tree, so that the partner notices where it puts other numbers in their place.

Computes, for the bank's shares of g, h and membership of every node, tags that the bank holds and keys that the
partner holds (`ring.share_tags`). Takes part: the bank, the partner, and the dealer. What is checked, and what is not,
stands in `checked_sums`, which uses them.

| learns | what |
|---|---|
| bank | nothing: tags are uniform without the keys |
| partner | nothing: what the bank opens besides is its share under a fresh mask |
| dealer, coordinator | nothing but sizes, as in `side_product` |

Safe against a malicious bank, a semi-honest partner and a semi-honest dealer that colludes with neither.

The dealer tags what it deals: of each rounding msb(R) and R >> s, of each side product v and the bank's share of u v.
Everything after is linear in that, with factors that both parties know. The rounding: its opened c; so whatever the
bank opens there, |g| and |h| are at most 1.5 times 2^(31 - s), 384 and 3072 (labels can do 34 and 67). A split of the
partner's: c. One of the bank's: the bits are the bank's alone, beta = c + (1 - 2 c) u, so it opens y_b = x_b - v_b as
well, for a v_b of its own, and with y = y_b + y_p, which both know,

    share of beta x = c y + (1 - 2 c) y u + c v_b + (1 - 2 c) (share of u (v_b + v_p))

which is the share that `side_product` gives it anyway; u is tagged for each lane. An opening x - v is checked by its
tag, which both can work out if it is right: the bank later sends a digest of all of them.

Source: protocols.md section 4; SPDZ2k. Letters: as in `side_product`; alpha, beta of tags as in `ring.share_tags`.
Bytes for each row: 32 of a tree's gradients; 16 of a split of the partner's; 16 and 8 L of one of the bank's, who opens
8 L more; openings take whole words.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.alignment.align import validation_rows
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Masked,
    Message,
    Name,
    Nothing,
    Outcome,
    Reply,
    Sealed,
    Silent,
    State,
    Step,
    Turn,
    Words,
    ask,
    data_parties,
    dealer,
    inbox_of,
)
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.row_blocks import RowBlock, of_rows
from fedmkt.protocol.trees.side_product import Batch, MaskedSides, Opened, dealt_sides, unpack_bits, widen
from fedmkt.protocol.trees.totals.duos import DealtDuos, PartnerShares
from fedmkt.protocol.trees.totals.lanes import Lanes
from fedmkt.protocol.trees.totals.shared_gradients import (
    Gradients,
    GradientShares,
    ScoreRange,
    TreeGradients,
    dealt_rounding,
    tagged_rounding,
)
from fedmkt.protocol.trees.totals.shared_growth import (
    NodeOwners,
    NodeSplits,
    node_products,
    split_nodes,
    take_node_sides,
)
from fedmkt.protocol.trees.totals.shared_values import both
from fedmkt.ring.share_tags import turned, weigh
from fedmkt.ring.side_bits import Bits


@dataclass(frozen=True)
class DealtTags(Message):
    """The bank's tags of what was dealt to it, (tags, n)."""

    words: Words


@dataclass(frozen=True)
class OwnOpening(Message):
    """The bank's x - v for its own splits, by lane (splits, n)."""

    lanes: tuple[Masked[Words], ...]


@dataclass(frozen=True)
class TagKeys(State):
    """At the partner: alpha of each lane, for one epoch."""

    durable: ClassVar[bool] = False
    alpha: Words


@dataclass(frozen=True)
class ShareTags(State):
    """At the bank tags, at the partner keys, of the bank's shares.

    level : of the level's nodes, (nodes, n); batch : of those that are added up next; opened : the tags of what the
    bank opened since the last check, (openings, n), as either works them out.
    """

    durable: ClassVar[bool] = False
    by_row: ClassVar[tuple[str, ...]] = ("level", "batch", "opened")
    level: Words
    batch: Words
    opened: Words


@dataclass(frozen=True)
class OwnOpened(State):
    """At the bank: the own v and x - v of its splits, by lane (splits, n)."""

    durable: ClassVar[bool] = False
    lanes: tuple[Words, ...]


def _alpha(turn: Turn, lanes: Lanes) -> Words:
    return turn.masks.words(turn.parties[1], "tags/alpha", 0, len(lanes.limits))


def begin_tags(lanes: Lanes, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    """At the partner: draw the keys of an epoch."""
    return Outcome(Silent(), keep=(TagKeys(_alpha(turn, lanes)),))


def _betas(turn: Turn, label: str, count: int, shape: tuple[int, int]) -> Words:
    return turn.masks.words(turn.parties[1], f"tags/{label}", count, shape)


# --- gradients


def deal_gradient_tags(lanes: Lanes, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtTags, Silent]:
    """At the dealer: tag the bank's shares of R >> s and msb(R), of g and of h."""
    count, used = next_count(turn, "gradient tags")
    bank, partner = turn.parties
    batch = Gradients(count, partner, lanes.length, turn.published(ScoreRange, bank).period)
    alpha, beta = _alpha(turn, lanes), _betas(turn, "gradients", count, (4, lanes.length))
    lane_of = [lane for lane, fields in enumerate(lanes.fields) for _ in fields]
    tags = np.empty_like(beta)
    for field, shares in enumerate(dealt_rounding(turn, batch)):
        for i, share in enumerate(shares):
            at = 2 * field + i
            tags[at] = alpha[lane_of[field]] * share + beta[at]
    return Outcome(Silent(), send={bank: DealtTags(tags)}, keep=(used,))


def tag_gradients(lanes: Lanes, turn: Turn, inbox: Inbox[TreeGradients | DealtTags]) -> tuple[State, ...]:
    """Work out the tags or keys of the root; the bank's share of membership is 1, or 0, as both know."""
    state, (other,) = turn.recall(GradientShares), turn.others
    opened = state.own + inbox.one(other, TreeGradients).values.words
    shape = (4, lanes.length)
    if turn.first:
        dealt = inbox.one(dealer(turn.contract), DealtTags).words
        if dealt.shape != shape:
            raise ValueError("the tags of the gradients are missing or have another shape")
    else:
        dealt = _betas(turn, "gradients", state.batch.count, shape)
    lane_tags, known = tagged_rounding(opened, dealt)
    one = np.ones((1, lanes.length), np.uint64)
    tags = sum(lanes.join([*lane_tags[:, None], np.zeros_like(one)]), np.zeros_like(one))
    if not turn.first:
        tags -= weigh(turn.recall(TagKeys).alpha, lanes.join([*known[:, None], one]))
    # Rows that validate have shares of 0, which have tags and keys of 0.
    tags[:, validation_rows(turn)[lanes.here]] = 0
    return (ShareTags(tags, tags, np.empty((0, lanes.length), np.uint64)),)


# --- sides


def _own_masks(turn: Turn, batch: Batch) -> tuple[Words, ...]:
    """Draw v of the bank's own splits, by lane, at the bank or the dealer."""
    shape = sum(batch.of_bank), batch.rows
    return tuple(
        turn.masks.words(turn.parties[0], "tags/v", batch.count, shape, block=lane)
        for lane in range(len(batch.lanes))
    )


def _tag_count(batch: Batch) -> int:
    return 2 * len(batch.of_bank) + len(batch.lanes) * sum(batch.of_bank)


def deal_side_tags(lanes: Lanes, turn: Turn, inbox: Inbox[Nothing]) -> Outcome[DealtTags, Silent]:
    """At the dealer: tag v and the shares of u v of a level, and u of the bank's splits."""
    owners = turn.published(NodeOwners, turn.parties[0]).owners
    products, used = node_products(turn, lanes, split_nodes(range(len(owners)), owners), "side tags")
    batch = products.batch(turn, 1)
    mine = np.array(batch.of_bank, np.bool_)
    u, masks, shares = dealt_sides(turn, batch)
    alpha = _alpha(turn, lanes)
    own_u = u[mine].astype(np.uint64)
    v, w = [m.copy() for m in masks], [p.copy() for p in shares]
    for lane, own in enumerate(_own_masks(turn, batch)):
        v[lane][mine] = own
        w[lane][mine] += own_u * own
    betas = _betas(turn, "sides", batch.count, (_tag_count(batch), batch.rows))
    tags = np.concatenate([weigh(alpha, v), weigh(alpha, w), *(key * own_u for key in alpha)]) + betas
    return Outcome(Silent(), send={turn.parties[0]: DealtTags(tags)}, keep=(used,))


def _under_way(turn: Turn) -> tuple[Batch, Opened]:
    """Return the products of a level, which are all of the bank and its one partner."""
    state = turn.recall(NodeSplits)
    (opened,) = state.opened
    return state.products.batch(turn, 1), opened


def open_own(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[OwnOpening, Silent]:
    """At the bank: open the shares that its own bits are multiplied with too."""
    batch, products = _under_way(turn)
    (partner,), own = turn.others, batch.own(turn)
    masks = _own_masks(turn, batch)
    opened = tuple(x[own] - v for x, v in zip(products.x, masks, strict=True))
    message = OwnOpening(tuple(Masked(words) for words in opened))
    return Outcome(Silent(), send={partner: message}, keep=(OwnOpened(opened),))


@dataclass(frozen=True)
class _Openings:
    """What both know of a level's products: c, (k, n); y of the bank's splits and the bank's x - v of all, by lane."""

    c: Bits
    y: tuple[Words, ...]
    bank: tuple[Words, ...]


def _openings(turn: Turn, inbox: Inbox[MaskedSides | OwnOpening | DealtDuos | DealtTags]) -> _Openings:
    (batch, opened), (other,) = _under_way(turn), turn.others
    found = inbox.one(other, MaskedSides)
    own, mine = batch.own(turn), np.array(batch.of_bank, np.bool_)
    c = np.empty((len(own), batch.rows), np.bool_)
    c[own], c[~own] = opened.masked, unpack_bits(found.bits.words, batch.rows)
    # Each party's openings for the other one's bits, and at the partner the bank's for its own.
    sent = [x[~own] - v for x, v in zip(opened.x, opened.v, strict=True)]
    shape = int(own.sum()), batch.rows
    came = [widen(m.words, shape, size) for m, size in zip(found.vectors, batch.lanes, strict=True)]
    if turn.first:
        of_own: tuple[Words, ...] = turn.recall(OwnOpened).lanes
    else:
        of_own = tuple(m.words for m in inbox.one(other, OwnOpening).lanes)
        if [w.shape for w in of_own] != [(int(mine.sum()), batch.rows)] * len(batch.lanes):
            raise ValueError("the bank's openings for its own splits are of another shape than agreed")
    theirs, others = (came, sent) if turn.first else (sent, came)
    bank = tuple(np.empty(c.shape, np.uint64) for _ in batch.lanes)
    for lane, words in enumerate(bank):
        words[mine], words[~mine] = of_own[lane], others[lane]
    return _Openings(c, tuple(a + b for a, b in zip(of_own, theirs, strict=True)), bank)


def take_tagged_sides(
    turn: Turn, inbox: Inbox[MaskedSides | DealtDuos | OwnOpening | DealtTags]
) -> Outcome[PartnerShares, Silent]:
    """Finish the products as `take_node_sides` does, and their tags or keys."""
    tags, (batch, _) = turn.recall(ShareTags), _under_way(turn)
    known, mine, k = _openings(turn, inbox), np.array(batch.of_bank, np.bool_), len(batch.of_bank)
    shape = (_tag_count(batch), batch.rows)
    if turn.first:
        dealt = inbox.one(dealer(turn.contract), DealtTags).words
        if dealt.shape != shape:
            raise ValueError("the tags of the side products are missing or have another shape")
    else:
        dealt = _betas(turn, "sides", batch.count, shape)
    of_v, of_w, of_u = dealt[:k], dealt[k : 2 * k], dealt[2 * k :].reshape(len(batch.lanes), -1, batch.rows)
    left = turned(known.c, of_v, of_w)
    for y, u in zip(known.y, of_u, strict=True):
        product = y * u
        left[mine] += turned(known.c[mine], np.zeros_like(product), product)
    messages = tuple((s, m) for s, m in inbox.messages if isinstance(m, MaskedSides | DealtDuos))
    finished = take_node_sides(turn, Inbox(messages))
    owners = turn.published(NodeOwners, turn.parties[0]).owners
    parents = tags.level[[place for place, owner in enumerate(owners) if owner]]
    opened = parents - of_v
    if not turn.first:
        alpha = turn.recall(TagKeys).alpha
        left[mine] -= weigh(alpha, [known.c[mine] * y for y in known.y])
        opened += weigh(alpha, known.bank)
    level = np.empty((2 * k, batch.rows), np.uint64)
    level[0::2], level[1::2] = left, parents - left
    kept = ShareTags(level, left, np.concatenate([tags.opened, opened]))
    return replace(finished, keep=(*finished.keep, kept), forget=(*finished.forget, OwnOpened))


# --- script


OPEN_OWN = Step("tags.open_own", open_own, Silent)
TAKE_SIDES = Step(
    "tags.take_sides", take_tagged_sides, Silent, reads=(MaskedSides, DealtDuos, OwnOpening, DealtTags)
)


def deal_root(call: Caller, contract: Contract, lanes: Lanes) -> Reply[DealtTags, Silent]:
    """Let the dealer tag what it dealt for a tree's gradients."""
    deal = Step("tags.deal_gradients", partial(deal_gradient_tags, lanes), Silent)
    return call(dealer(contract), deal)


def take_sides(
    call: Caller, contract: Contract, lanes: Lanes, block: RowBlock,
    sides: list[Reply[MaskedSides, Silent]], dealt: Reply[DealtDuos, Silent],
) -> None:  # fmt: skip
    """Finish the products of a level, with tags, for a block of rows, once `MaskedSides` and `DealtDuos` are sent."""
    bank, partner = data_parties(contract)
    deal = Step("tags.deal_sides", partial(deal_side_tags, lanes), Silent)
    (opened,), (tags,) = call.both([ask(bank, of_rows(block, OPEN_OWN))], [ask(dealer(contract), deal)])
    inboxes: dict[Name, tuple[Sealed[MaskedSides | DealtDuos | OwnOpening | DealtTags], ...]] = {
        bank: (*both(sides, dealt, bank), *inbox_of([tags], bank)),
        partner: (*inbox_of(sides, partner), *inbox_of([opened], partner)),
    }
    call.all([ask(p, of_rows(block, TAKE_SIDES), *inbox) for p, inbox in inboxes.items()])
