"""Checked sums: before the partner answers with totals, the bank shows that it encrypted and opened its shares.

What the bank sends for the totals of a level, over the partner's bins, is compared with tags on its shares of g, h and
membership (`share_tags`). Takes part: the bank, the partner, and the dealer. For each batch of `shared_histogram`,
once all words b of the bank have arrived and before the partner answers,

    partner  ->  bank, dealer   a seed, from which everybody draws random subsets of the rows
    bank     ->  partner        for each subset and vector X = sum of x_b + mu modulo 2^64, mu dealt; a digest of the
                                tags of all X, and of all that it opened for side products since the last batch
    dealer   ->  partner        sums over the subsets of its pads A s + e, less Delta mu (`dealt_pads`); the keys of mu

The partner compares: the sums of b less those of the pads are Delta X, and the digest is what its keys make of X and
of the openings. Where one is not so it ends the run, without an answer.

| learns | what |
|---|---|
| bank | nothing: the seed comes after what it is for |
| partner | nothing: X lies under mu, and all else follows from X and b |
| dealer, coordinator | nothing but sizes |

What ends the run at the partner, for a bank that deviates in any way, with a semi-honest partner and a semi-honest
dealer that colludes with neither:

- a ciphertext that is not A s + e + Delta x_b for the dealt s and e and its tagged share, be it in one row, in two that
  cancel, in multiples of a power of two, or in the noise: goes unnoticed with a probability of at most 2^-21 (all
  subsets even out), or 2^-(64 - k) for a lane of k bits (it guesses the tag): 2^-19 for 31,647 rows, where k = 45.
  That is for each attempt: a guess that fails ends the epoch, and a resume or another run is a new one;
- an opening for a side product that is not its share under its mask: 2^-(64 - k); or tags of anything else.

`checked_bins` does the same, once per epoch, for the bank's own columns: they are bins, fixed from then on.

What does not end the run, so that a contract with this term must not be taken for one with a bank that is not trusted:

- **counts as they are compared**: shares of totals, once decrypted, carry no tag, nor do the bits of `cell_minimum`.
  A bank that lies there has cells of fewer rows than the minimum opened, down to single bins of either party. By bins
  of its own that are single rows, at most one less than the bins of a column, it reads these rows' g in each node, and
  so on which side of the partner's splits they fall;
- **gradients before they are rounded**: labels, leaves, openings of scores. All of that moves g and h within what
  rounding leaves of the ring, |g| <= 384 and |h| <= 3072 (labels: 34 and 67). With all others at 0, a bank that gives
  rows powers of two reads the cells of some 20 rows in each tree. Offsets to shares read as many as a lane has bits, in
  each node;
- **which rows a split of the bank's takes left**: the bits are its own for each split, tied neither to its bins nor to
  a table. So it may choose nodes of two trees, or two runs, that differ by one row, each of many rows, and reads from
  counts of these nodes in which open cell of every column of the partner's that row is: as `shared_boosting` says of
  differences, here on purpose, and several rows in each tree. No lie about a count is needed;
- the mean loss of validation rows, where there is `patience` (`shared_stopping`), and openings of scores at the end;
- anything at the partner.

For one partner. Two could hold the same keys, and pass on those of their products as they do shares (`duos`: 8 bytes a
row more), while each compares sums over subsets of its own with the b that both get, under a mu of its own; the bank's
bins the first alone asks about. That is not written; it would not help against a bank that joins forces with either.

Source: protocols.md section 4; SPDZ2k; Freivalds 1977. Letters: as in `shared_histogram`, `share_tags`; k the bits of a
lane. Price: the words of the bank's ciphertexts are whole, openings too, and the dealer's tags come on top
(docs/trees.md).
"""

import hmac
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import ClassVar

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.crypto.prg import KEY_BYTES
from fedmkt.errors import PeerError
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Masked,
    Message,
    Outcome,
    Reply,
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
from fedmkt.protocol.mask_counts import next_count
from fedmkt.protocol.trees.totals.dealt_pads import encrypt_rows, noise_keys, public_polynomials, secrets_of
from fedmkt.protocol.trees.totals.lanes import Lanes
from fedmkt.protocol.trees.totals.share_tags import ShareTags, TagKeys
from fedmkt.protocol.trees.totals.shared_histogram import (
    Asking,
    Blocks,
    EncryptedShares,
    SharedTotals,
    ShareVectors,
    answer,
    answer_last,
    take_block,
)
from fedmkt.ring import rlwe
from fedmkt.ring.share_tags import SUBSETS, draw_subsets, subset_sums, weigh


@dataclass(frozen=True)
class SubsetSeed(Message):
    """What the subsets are drawn from, 32 bytes."""

    seed: bytes


@dataclass(frozen=True)
class ShareSums(Message):
    """The bank's X, (subsets, V), and the digest of its tags."""

    sums: Masked[Words]
    digest: bytes


@dataclass(frozen=True)
class PadSums(Message):
    """Sums of the pads less Delta mu, (subsets, V), and the keys of mu, (subsets, nodes)."""

    sums: Words
    keys: Words


@dataclass(frozen=True)
class SubsetsDrawn(State):
    """At the partner: the seed it sent."""

    durable: ClassVar[bool] = False
    seed: bytes


def _mask(turn: Turn, count: int, vectors: int) -> Words:
    return turn.masks.words(turn.parties[0], "subsets/mu", count, (SUBSETS, vectors))


def _mask_tags(turn: Turn, count: int, nodes: int) -> Words:
    return turn.masks.words(turn.parties[0], "subsets/tags", count, (SUBSETS, nodes))


def _by_lane(sums: Words, nodes: int) -> list[Words]:
    return [sums[:, at : at + nodes] for at in range(0, sums.shape[1], nodes)]


def _digest(openings: Words, sums: Words) -> bytes:
    raw = (np.ascontiguousarray(w).astype("<u8", copy=False).tobytes() for w in (openings, sums))
    return sha256(b"fedmkt share tags v1\n" + b"".join(raw)).digest()


def draw_seed(
    lanes: Lanes, nodes: int, turn: Turn, inbox: Inbox[EncryptedShares]
) -> Outcome[SubsetSeed, Silent]:
    """At the partner: take in the last block, and only then draw the subsets."""
    bank, seed = turn.parties[0], turn.random(KEY_BYTES)
    state = take_block(lanes, nodes, turn, turn.recall(Asking), inbox.one(bank, EncryptedShares))
    send = to_all((bank, dealer(turn.contract)), SubsetSeed(seed))
    return Outcome(Silent(), send=send, keep=(state, SubsetsDrawn(seed)))


def add_up_shares(
    lanes: Lanes, nodes: int, turn: Turn, inbox: Inbox[SubsetSeed]
) -> Outcome[ShareSums, Silent]:
    """At the bank: add up its shares and their tags over the subsets."""
    (partner,) = turn.others
    count, tags = turn.recall(Asking).count, turn.recall(ShareTags)
    subsets = draw_subsets(inbox.one(partner, SubsetSeed).seed, lanes.rows)
    vectors = np.concatenate([*turn.recall(ShareVectors).lanes, tags.batch]).T
    added = subset_sums(subsets, np.ascontiguousarray(vectors))
    width = len(lanes.limits) * nodes
    sums = added[:, :width] + _mask(turn, count, width)
    digest = _digest(tags.opened, added[:, width:] + _mask_tags(turn, count, nodes))
    kept = replace(tags, opened=tags.opened[:0])
    return Outcome(Silent(), send={partner: ShareSums(Masked(sums), digest)}, keep=(kept,))


def add_up_pads(lanes: Lanes, nodes: int, turn: Turn, inbox: Inbox[SubsetSeed]) -> Outcome[PadSums, Silent]:
    """At the dealer: add up the pads over the subsets."""
    bank, partner = turn.parties
    count, used = next_count(turn, "pads")
    subsets = draw_subsets(inbox.one(partner, SubsetSeed).seed, lanes.rows)
    plans = lanes.words(partner, nodes)
    deltas, secrets = [plan.delta_bits for plan in plans], secrets_of(turn, bank, count, len(plans))
    a = rlwe.transform(public_polynomials(turn, lanes.rows))
    sums = np.zeros((SUBSETS, len(plans)), np.uint64)
    for block, rows in enumerate(lanes.row_blocks(nodes)):
        part = a.part(rows.start // rlwe.DEGREE, rlwe.polynomials(rows.stop))
        nothing = np.zeros((rows.stop - rows.start, len(plans)), np.int64)
        pads = encrypt_rows(part, secrets, nothing, deltas, noise_keys(turn, bank, count, block))
        sums += subset_sums(subsets[:, rows], pads)
    mu = _mask(turn, count, len(plans))
    alpha = turn.masks.words(partner, "tags/alpha", 0, len(lanes.limits))
    keys = _mask_tags(turn, count, nodes) - weigh(alpha, _by_lane(mu, nodes))
    message = PadSums(sums - (mu << np.array(deltas, np.uint64)), keys)
    return Outcome(Silent(), send={partner: message}, keep=(used,))


def check_and_answer(
    lanes: Lanes, nodes: int, turn: Turn, inbox: Inbox[ShareSums | PadSums]
) -> Outcome[SharedTotals, Silent]:
    """At the partner: compare sums and tags, and answer the batch if they agree; PeerError if not."""
    (bank,), state, tags = turn.others, turn.recall(Asking), turn.recall(ShareTags)
    shown, pads = inbox.one(bank, ShareSums), inbox.one(dealer(turn.contract), PadSums)
    deltas = np.array([plan.delta_bits for plan in lanes.words(turn.me, nodes)], np.uint64)
    shape = SUBSETS, len(deltas)
    if not shown.sums.words.shape == pads.sums.shape == shape or pads.keys.shape != (SUBSETS, nodes):
        raise ValueError("sums over subsets of rows have another shape than agreed")
    subsets = draw_subsets(turn.recall(SubsetsDrawn).seed, lanes.rows)
    encrypted = subset_sums(subsets, np.concatenate(state.words))
    is_share = np.array_equal(encrypted - pads.sums, shown.sums.words << deltas)
    keys = subset_sums(subsets, np.ascontiguousarray(tags.batch.T)) + pads.keys
    expected = weigh(turn.recall(TagKeys).alpha, _by_lane(shown.sums.words, nodes)) + keys
    if not (is_share and hmac.compare_digest(_digest(tags.opened, expected), shown.digest)):
        raise PeerError(
            f"{bank}: what it encrypted or opened is not its share of the numbers; no totals are sent",
            hint="ask the bank which program it runs, before another run is agreed",
        )
    answered = answer(lanes, nodes, turn, state)
    kept = replace(tags, opened=tags.opened[:0])
    return replace(answered, keep=(*answered.keep, kept), forget=(*answered.forget, SubsetsDrawn))


def checked_replies(
    call: Caller, contract: Contract, lanes: Lanes, nodes: int, blocks: Blocks
) -> list[Reply[SharedTotals, Silent]]:
    """Check the bank's batch, then let both answer."""
    (bank, partner), maker = data_parties(contract), dealer(contract)
    draw = Step("tags.draw_subsets", partial(draw_seed, lanes, nodes), Silent, reads=(EncryptedShares,))
    shares = Step("tags.add_up_shares", partial(add_up_shares, lanes, nodes), Silent, reads=(SubsetSeed,))
    pads = Step("tags.add_up_pads", partial(add_up_pads, lanes, nodes), Silent, reads=(SubsetSeed,))
    check = Step("tags.check", partial(check_and_answer, lanes, nodes), Silent, reads=(ShareSums, PadSums))
    reply = Step("nodes.reply", partial(answer_last, lanes, nodes), Silent, reads=(EncryptedShares,))
    drawn = call(partner, draw, *inbox_of(blocks, partner))
    (shown,), (summed,) = call.both(
        [ask(bank, shares, *inbox_of([drawn], bank))], [ask(maker, pads, *inbox_of([drawn], maker))]
    )
    checked = call(partner, check, *inbox_of([shown], partner), *inbox_of([summed], partner))
    return [checked, call(bank, reply, *inbox_of(blocks, bank))]
