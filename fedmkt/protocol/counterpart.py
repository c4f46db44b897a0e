"""Counterparts: how a party knows another one again, over contracts, in what it remembers of it.

A counterpart is an organisation, in one spelling, with its identity key. One of the two is enough to know it again, and
so is a chain of others that were met: one that changes its name, and later its key, is the one it was before. One that
changes both at once is another; that a new key belongs to an organisation is for people to make sure of.
"""

from collections.abc import Collection
from dataclasses import dataclass

from fedmkt.contract.agreement import Contract, PartyTerms
from fedmkt.contract.words import comparable
from fedmkt.protocol.core import Name


@dataclass(frozen=True)
class Counterpart:
    """Another party with data: organisation in one spelling, identity key."""

    organisation: str
    key: str


def counterpart_of(party: PartyTerms) -> Counterpart:
    """Return a signer of a contract as it is known again."""
    return Counterpart(comparable(party.organisation), party.key)


def counterparts(contract: Contract, me: Name | str) -> tuple[Counterpart, ...]:
    """List the other parties with data of a contract."""
    return tuple(counterpart_of(p) for p in contract.parties if p.name != me)


def known_as(these: Collection[Counterpart], met: Collection[Counterpart]) -> frozenset[Counterpart]:
    """Find everybody among those met who may be one of these, themselves included."""
    found, rest = set(these), set(met)
    while True:
        organisations, keys = {c.organisation for c in found}, {c.key for c in found}
        more = {c for c in rest if c.organisation in organisations or c.key in keys}
        if not more:
            return frozenset(found)
        found |= more
        rest -= more
