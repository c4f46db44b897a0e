"""Side products: one party's bits times shared vectors, against plain products."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from fedmkt.protocol.core import Masked, Outcome, Silent, Step
from fedmkt.protocol.trees.side_product import (
    Batch,
    DealtSides,
    MaskedSides,
    deal_sides,
    kind_of,
    multiply_sides,
    narrow,
    open_sides,
    widen,
)
from tests.protocol.plain_caller import BANK, DEALER, SHOP, PlainCaller, chi_square, contract_of

LANES = (23, 16, 43, 32, 64)


def batch_of(owners=(True, False, False), rows=1000, count=0):
    return Batch("sides", count, SHOP, owners, rows, LANES)


def run(batch, bits, x, seed=1, change=lambda m: m):
    """Play all roles; bits : (k, n), x : by lane (k, n). Returns what is sent and the products."""
    caller = PlainCaller(contract_of(2), {}, seed=seed)
    random = np.random.default_rng(seed)
    shares = {SHOP: [random.integers(0, 2 ** (8 * v.itemsize), v.shape, v.dtype) for v in x]}
    shares[BANK] = [v - s for v, s in zip(x, shares[SHOP], strict=True)]
    opened, sent = {}, {}
    for party in (BANK, SHOP):
        turn = caller.turn(party)
        sent[party], opened[party] = open_sides(turn, batch, bits[batch.own(turn)], shares[party])
    dealt = deal_sides(caller.turn(DEALER), batch)
    sent = {p: change(m) for p, m in sent.items()}
    mine = multiply_sides(caller.turn(BANK), batch, opened[BANK], sent[SHOP], dealt)
    theirs = multiply_sides(caller.turn(SHOP), batch, opened[SHOP], sent[BANK], None)
    products = [a + b for a, b in zip(mine, theirs, strict=True)]
    return sent, dealt, products


def drawn(k, n, seed=1):
    random = np.random.default_rng(seed)
    return random.random((k, n)) < 0.3, [
        random.integers(0, 2 ** (8 * kind_of(b).itemsize), (k, n), kind_of(b)) for b in LANES
    ]


@pytest.mark.parametrize("owners", [(True, False, False), (True, True), (False,), ()])
@pytest.mark.parametrize("rows", [1, 64, 777])
def test_products_are_exact_in_every_lane(owners, rows):
    bits, x = drawn(len(owners), rows)
    _, _, products = run(batch_of(owners, rows), bits, x)
    for size, values, product in zip(LANES, x, products, strict=True):
        modulus = values.dtype.type((1 << size) - 1)
        assert np.array_equal(product & modulus, np.where(bits, values, values.dtype.type(0)) & modulus)


def test_what_travels_is_uniform_and_of_the_same_size_whatever_bits_and_vectors():
    sizes = set()
    for bits, x in (
        drawn(3, 9000),
        (np.ones((3, 9000), bool), [np.zeros((3, 9000), kind_of(b)) for b in LANES]),
    ):
        sent, dealt, _ = run(batch_of(rows=9000), bits, x)
        parts = [m.bits.words for m in sent.values()]
        parts += [v.words for m in sent.values() for v in m.vectors] + list(dealt.products)
        assert all(abs(chi_square(p)) < 5 for p in parts if p.nbytes > 5000)
        sizes.add(tuple(p.nbytes for p in parts))
    assert len(sizes) == 1


def test_a_second_product_has_masks_of_its_own():
    bits, x = drawn(3, 500)
    (first, *_), (second, *_) = run(batch_of(rows=500), bits, x), run(batch_of(rows=500, count=1), bits, x)
    for party in (BANK, SHOP):
        assert (first[party].bits.words != second[party].bits.words).all()
        assert (first[party].vectors[0].words != second[party].vectors[0].words).any(axis=-1).mean() > 0.99


@pytest.mark.parametrize("bits", [1, 8, 9, 24, 25, 32, 33, 43, 64])
def test_numbers_cut_to_their_bytes_come_back(bits):
    values = np.random.default_rng(1).integers(0, 1 << bits, (3, 7), kind_of(bits))
    assert np.array_equal(widen(narrow(values, bits), (3, 7), bits), values)
    with pytest.raises(ValueError, match="are not"):
        widen(narrow(values, bits), (3, 8), bits)


CHANGES = {
    "bits of another shape": lambda m: replace(m, bits=Masked(m.bits.words[:, :-1])),
    "a lane less": lambda m: replace(m, vectors=m.vectors[1:]),
    "fewer rows": lambda m: replace(m, vectors=tuple(Masked(v.words[:, :-1]) for v in m.vectors)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_messages_of_another_shape_are_refused(change):
    with pytest.raises(ValueError, match=r"shape|are not"):
        run(batch_of(), *drawn(3, 1000), change=change)


def test_without_the_dealers_share_the_bank_stops():
    caller, batch = PlainCaller(contract_of(2), {}), batch_of()
    bits, x = drawn(3, 1000)
    message, opened = open_sides(caller.turn(BANK), batch, bits[:1], x)
    theirs, _ = open_sides(caller.turn(SHOP), batch, bits[1:], x)
    for dealt in (None, DealtSides(())):
        with pytest.raises(ValueError, match="dealer"):
            multiply_sides(caller.turn(BANK), batch, opened, theirs, dealt)
    with pytest.raises(ValueError, match="do not fit"):
        open_sides(caller.turn(BANK), replace(batch, count=1), bits, x)
    assert isinstance(message, MaskedSides)


def test_the_messages_travel_by_wire():
    batch = batch_of()
    bits, x = drawn(3, 1000)

    def send(turn, inbox):
        message, _ = open_sides(turn, batch, bits[batch.own(turn)], x)
        return Outcome(Silent(), send={SHOP: message})

    caller = PlainCaller(contract_of(2), {})
    reply = caller(BANK, Step("toy.send", partial(send), Silent))
    assert reply.to(SHOP).body
