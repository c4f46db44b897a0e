"""Duos: who computes on shares with whom in trees of mode `totals`, and what two partners tell each other.

Every protocol on shares is between two: the bank and one partner, a duo. With two partners shares stay in two parts
all the same, the bank's and the partners', and **both partners hold the partners' part**: what one of them worked out
with the bank and the other needs it passes on (`PartnerShares`), sealed. The first partner of the contract keeps
the scores, shares the gradients with the bank, and adds up and compares the bank's columns besides its own; the second
adds up and compares its own; each multiplies by the side bits of its own splits.

| learns | what |
|---|---|
| bank | nothing |
| partner | nothing: the partners' part of what is shared, uniform |
| dealer, coordinator | nothing but how many vectors |

Both partners together see what one partner with all of their columns would see: each message between them is the part
that such a partner has, and each message to or from the bank is one of its. A fresh mask on what is passed on would
take nothing away from anybody: the bank and the second partner would still hold both parts between them, and the
partners together the same part. So this is safe against a semi-honest bank, against either partner and against both
together, while the dealer colludes with nobody. **The bank must not collude with either partner**: together these two
have both parts, so they know who is in which node, and with it which side of the other partner's splits each row takes:
what mode `sides` tells, nearly a hand-over. Totals of the other partner's cells stay shared with that partner and under
the minimum, but known groups that differ by few rows then tell about these, everywhere in a tree and not at its top.

**Not safe against a malicious partner.** What the minimum of each cell is compared with are counts of which each
partner says a part, the other's cells included: one that adds to its shares of membership, of rows whose numbers make
up for each other, has cells of the other's opened to the bank that are of fewer rows, and reads itself, of the bits of
its own and the bank's cells, counts compared with other numbers. The bank's cells, whose counts say something of the
second's splits, the first compares alone. What shows: a root whose members are not the rows that train, which the
second refuses (`shared_boosting`), and columns whose totals do not add up to the same, which the bank refuses once it
has seen them (`shared_growth`).

Source: protocols.md section 4. Bytes: those of a vector in its lanes, for each product that is passed on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.learn.trees import Column
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Message,
    Name,
    Nothing,
    Reply,
    Silent,
    Step,
    Turn,
    ask,
    data_parties,
    dealer,
    inbox_of,
    to_all,
)
from fedmkt.protocol.trees.side_product import (
    Batch,
    Bytes,
    DealtSides,
    Lanes,
    MaskedSides,
    Opened,
    deal_sides,
    kind_of,
    multiply_sides,
    narrow,
    open_sides,
    widen,
)
from fedmkt.protocol.trees.tree_columns import party_columns
from fedmkt.ring.side_bits import Bits, Numbers


@dataclass(frozen=True)
class Duo:
    """The bank and one partner; columns : those that they compare, among all columns that the asking party sees."""

    partner: Name
    columns: slice

    def other(self, turn: Turn) -> Name:
        """Return the other one of the two."""
        return self.partner if turn.first else turn.parties[0]


# --- who does what


def holders(contract: Contract, party: Name) -> tuple[Name, ...]:
    """Return whose bins a party has shares of totals of: the bank all, the first partner the bank's and its own."""
    parties = data_parties(contract)
    return {parties[0]: parties, parties[1]: parties[:2]}.get(party, (party,))


def asked(contract: Contract, party: Name) -> tuple[Name, ...]:
    """Return whom a party asks for totals: the bank all partners, the first partner the bank."""
    parties = data_parties(contract)
    return {parties[0]: parties[1:], parties[1]: parties[:1]}.get(party, ())


def asker(contract: Contract, party: Name) -> Name:
    """Return who asks a party for totals."""
    return next(p for p in data_parties(contract) if party in asked(contract, p))


def seen_columns(contract: Contract, party: Name) -> tuple[Column, ...]:
    """Return the columns whose cells a party has shares of, in the order of the contract."""
    return tuple(c for p in holders(contract, party) for c in party_columns(contract, p))


def duos(turn: Turn) -> tuple[Duo, ...]:
    """Return the duos that this party is one of: all of them at the bank, one at a partner."""
    found, start = [], 0
    for partner in turn.parties[1:] if turn.first else (turn.me,):
        size = len(seen_columns(turn.contract, partner))
        found.append(Duo(partner, slice(start, start + size)))
        start += size
    return tuple(found)


def peers(turn: Turn) -> tuple[Name, ...]:
    """Return the partners that this one passes its shares on to; none at the bank."""
    return () if turn.first else tuple(p for p in turn.others if p != turn.parties[0])


def counterpart(turn: Turn) -> Name:
    """Return the other one of the bank and the first partner."""
    bank, first, *_ = turn.parties
    return first if turn.first else bank


# --- side products


@dataclass(frozen=True)
class DealtDuos(Message):
    """The bank's shares of the products of each duo that has any."""

    parts: tuple[DealtSides, ...]


@dataclass(frozen=True)
class PartnerShares(Message):
    """The partners' part of vectors that the sender worked out with the bank, by lane (k, n, bytes)."""

    vectors: tuple[Bytes, ...]


@dataclass(frozen=True)
class Products:
    """k side products over n rows; owners : whose the bits are, 0 the bank's, then the partners' in their order.

    Those of the bank's bits are of the bank and the first partner. passed : for each whether the other partner is told
    the partners' part of it. `label` and `count` as in `side_product`.
    """

    label: str
    count: int
    owners: tuple[int, ...]
    rows: int
    lanes: Lanes
    passed: tuple[bool, ...]

    def of(self, place: int) -> Bits:
        """Tell which of them the bank computes with the partner at this place among the parties: (k,)."""
        return np.array([max(owner, 1) == place for owner in self.owners], np.bool_)

    def passed_by(self, place: int) -> Bits:
        """Tell which of them the partner at this place passes on: (k,)."""
        return self.of(place) & np.array(self.passed, np.bool_)

    def batch(self, turn: Turn, place: int) -> Batch:
        """Return the products of that duo."""
        own = tuple(owner == 0 for owner in self.owners if max(owner, 1) == place)
        return Batch(self.label, self.count, turn.parties[place], own, self.rows, self.lanes)

    def places(self, turn: Turn) -> list[int]:
        """List the duos that have any, of which this party is one: all at the bank and the dealer."""
        mine = (turn.parties.index(turn.me),) if turn.me in turn.parties[1:] else range(1, len(turn.parties))
        return [place for place in mine if self.of(place).any()]


def open_products(
    turn: Turn, products: Products, bits: Bits, x: Sequence[Numbers]
) -> tuple[dict[Name, MaskedSides], tuple[Opened, ...]]:
    """Open what the own products need; bits : (own, n) in their order; x : by lane (k, n), read where they are own."""
    send, opened = {}, []
    me, whose = turn.parties.index(turn.me), np.array(products.owners, np.int64)
    if len(bits) != int((whose == me).sum()):
        raise ValueError(f"{len(bits)} vectors of bits are not those of the own splits")
    for place in products.places(turn):
        batch, of = products.batch(turn, place), products.of(place)
        own = bits[of[whose == me]]
        message, state = open_sides(turn, batch, own, [lane[of] for lane in x])
        send[batch.partner if turn.first else turn.parties[0]] = message
        opened.append(state)
    return send, tuple(opened)


def deal_products(turn: Turn, products: Products) -> DealtDuos:
    """At the dealer: deal the products of all duos."""
    return DealtDuos(tuple(deal_sides(turn, products.batch(turn, place)) for place in products.places(turn)))


def multiply(
    turn: Turn, products: Products, opened: tuple[Opened, ...], inbox: Inbox[MaskedSides | DealtDuos]
) -> tuple[Numbers, ...]:
    """Return the own shares of the products, by lane (k, n): at a partner 0 for those of the other partner."""
    k, places = len(products.owners), products.places(turn)
    dealt = inbox.one(dealer(turn.contract), DealtDuos).parts if turn.first else (None,) * len(places)
    if len(dealt) != len(places):
        raise ValueError("the dealer's shares are of other products")
    out = tuple(np.zeros((k, products.rows), kind_of(size)) for size in products.lanes)
    for place, state, part in zip(places, opened, dealt, strict=True):
        batch = products.batch(turn, place)
        found = inbox.one(batch.partner if turn.first else turn.parties[0], MaskedSides)
        for lane, share in zip(out, multiply_sides(turn, batch, state, found, part), strict=True):
            lane[products.of(place)] = share
    return out


def pass_on(turn: Turn, products: Products, shares: Sequence[Numbers]) -> dict[Name, PartnerShares]:
    """Address the own products to the other partner, where there are both."""
    of = products.passed_by(turn.parties.index(turn.me))
    return copies(turn, [lane[of] for lane in shares], products.lanes) if of.any() else {}


def take_over(
    turn: Turn, products: Products, shares: Sequence[Numbers], inbox: Inbox[PartnerShares]
) -> tuple[Numbers, ...]:
    """Put in what the other partner passed on; 0 stays for what it did not."""
    out = tuple(shares)
    for peer in peers(turn):
        of = products.passed_by(turn.parties.index(peer))
        if not of.any():
            continue
        found = read_copies(inbox.one(peer, PartnerShares), (int(of.sum()), products.rows), products.lanes)
        for lane, part in zip(out, found, strict=True):
            lane[of] = part
    return out


def copies(turn: Turn, vectors: Sequence[Numbers], lanes: Lanes) -> dict[Name, PartnerShares]:
    """Address vectors, by lane (k, n), to the other partner, if there is one."""
    readers = peers(turn)
    if not readers:
        return {}
    message = PartnerShares(tuple(narrow(v, bits) for v, bits in zip(vectors, lanes, strict=True)))
    return to_all(readers, message)


def read_copies(message: PartnerShares, shape: tuple[int, int], lanes: Lanes) -> tuple[Numbers, ...]:
    """Return the vectors, by lane; ValueError where there are others than agreed."""
    if len(message.vectors) != len(lanes):
        raise ValueError("the shares of the other partner are of other lanes than agreed")
    return tuple(widen(v, shape, bits) for v, bits in zip(message.vectors, lanes, strict=True))


def share_parts(
    call: Caller, contract: Contract, pool: Step[PartnerShares, Nothing, Silent],
    taken: Sequence[Reply[PartnerShares, Silent]],
) -> None:  # fmt: skip
    """Have both partners put in what the other one passed on; nothing where there is one."""
    partners = data_parties(contract)[1:]
    if len(partners) > 1:
        call.all([ask(p, pool, *inbox_of(taken, p)) for p in partners])
