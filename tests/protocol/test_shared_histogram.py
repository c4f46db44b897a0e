"""Shared histograms: shares of totals over both parties' bins, against plain sums."""

from dataclasses import replace

import numpy as np
import pytest

from fedmkt.errors import ConfigError, PolicyRefused
from fedmkt.protocol.core import Masked
from fedmkt.protocol.trees.sides.histogram import RowBins
from fedmkt.protocol.trees.sides.histogram_terms import bin_blocks
from fedmkt.protocol.trees.totals import lanes as lanes_
from fedmkt.protocol.trees.totals.lanes import Lanes
from fedmkt.protocol.trees.totals.shared_histogram import (
    Answered,
    Asking,
    BinHints,
    DealtHints,
    EncryptedShares,
    HintBlock,
    SharedTotals,
    ShareVectors,
    TotalShares,
    add_up_nodes,
    send_hints,
)
from fedmkt.ring import rlwe
from fedmkt.ring.rlwe import DEGREE, NO_BIN
from tests.protocol.plain_caller import BANK, DEALER, SHOP, TELECOM, PlainCaller, chi_square, contract_of

COUNTS = {BANK: (4, 9), SHOP: (5, 32, 3)}
THREE = COUNTS | {TELECOM: (7, 2, 16, 3)}
LIMITS = (127, 260, 1)
APART, TOGETHER = ((127,), (260,), (1,)), ((127, 260), (1,))


def lanes_of(rows=5000, counts=COUNTS, vectors=64, limits=TOGETHER):
    return Lanes(rows, counts, limits, vectors)


def world(lanes, seed=1, **options):
    """Start a caller whose parties have random bins; some rows are padding at both."""
    random = np.random.default_rng(seed)
    padding = random.random(lanes.rows) < 0.05
    local = {}
    for party, counts in lanes.counts.items():
        codes = np.stack([random.integers(0, c, lanes.rows) for c in counts]).astype(np.uint8)
        codes[:, padding] = NO_BIN
        local[party] = (RowBins(codes, counts),)
    caller = PlainCaller(contract_of(len(lanes.counts)), local, seed=seed, **options)
    send_hints(caller, caller.contract, lanes)
    return caller


def draw(lanes, nodes, seed=1):
    """Draw rows' numbers, by lane (nodes, rows)."""
    random = np.random.default_rng(seed)
    low = (-127, 0, 0)
    return [random.integers(a, b + 1, (nodes, lanes.rows)) for a, b in zip(low, LIMITS, strict=True)]


def add_up(caller, lanes, values, seed=9):
    random = np.random.default_rng(seed)
    nodes = len(values[0])
    shares = [random.integers(0, 2**64, v.shape, np.uint64) for v in values]
    for partner in [*lanes.counts][1:]:
        # Both partners hold the same part.
        caller.states[partner][ShareVectors] = ShareVectors(lanes.join(shares))
    rest = [v.astype(np.uint64) - s for v, s in zip(values, shares, strict=True)]
    caller.states[BANK][ShareVectors] = ShareVectors(lanes.join(rest))
    add_up_nodes(caller, caller.contract, lanes, nodes)
    found = {}
    for party in lanes.counts:
        held = [caller.recall(p, TotalShares).values for p in lanes.counts]
        parts = [values[party] for values in held if party in values]
        assert len(parts) == 2
        total = sum(parts)
        found[party] = np.moveaxis(lanes.split(np.moveaxis(total, 0, -1)), -1, 0)
    return found


def plain(caller, party, values):
    """Add up bin by bin: (lanes, nodes, bins)."""
    held = caller.recall(party, RowBins)
    bins = [c == b for c, n in zip(held.codes, held.counts, strict=True) for b in range(n)]
    return np.stack([np.stack([v[:, i].sum(axis=1) for i in bins], axis=1) for v in values])


@pytest.mark.parametrize("counts", [COUNTS, THREE], ids=["one partner", "two partners"])
@pytest.mark.parametrize("limits", [APART, TOGETHER], ids=["apart", "together"])
@pytest.mark.parametrize("seed", range(3))
def test_shares_of_totals_add_up_to_plain_totals_for_all_parties_bins(seed, limits, counts):
    lanes = lanes_of(4096 + 37 * seed, counts, limits=limits)
    caller = world(lanes, seed)
    for batch, nodes in enumerate((1, 4, 2)):
        values = draw(lanes, nodes, 10 * seed + batch)
        found = add_up(caller, lanes, values)
        for party in counts:
            assert np.array_equal(found[party], plain(caller, party, values))


def test_extreme_values_keep_their_range():
    lanes = lanes_of(4096)
    caller = world(lanes)
    for sign in (1, -1):
        values = [np.full((1, 4096), v) for v in (sign * 127, 260, 1)]
        found = add_up(caller, lanes, values)
        assert np.array_equal(found[SHOP], plain(caller, SHOP, values))


@pytest.mark.parametrize("counts", [COUNTS, THREE], ids=["one partner", "two partners"])
def test_rows_and_hints_in_several_blocks_give_the_same(counts, monkeypatch):
    monkeypatch.setattr(lanes_, "BLOCK_BYTES", 8 * DEGREE * 3)
    monkeypatch.setattr("fedmkt.protocol.trees.sides.histogram_terms.BLOCK_BYTES", 8 * DEGREE * 9)
    lanes = lanes_of(2 * DEGREE + 11, counts)
    assert len(lanes.row_blocks(1)) == 3 and len(bin_blocks(40)) == 5 and len(bin_blocks(13)) == 2
    caller = world(lanes)
    values = draw(lanes, 2)
    found = add_up(caller, lanes, values)
    for party in counts:
        assert np.array_equal(found[party], plain(caller, party, values))


WORLDS = {
    "nothing": lambda values: [np.zeros_like(v) for v in values],
    "the largest": lambda values: [np.full_like(v, limit) for v, limit in zip(values, LIMITS, strict=True)],
    "drawn": lambda values: values,
}


@pytest.mark.parametrize("counts", [COUNTS, THREE], ids=["one partner", "two partners"])
def test_all_see_uniform_words_of_the_same_sizes_whatever_the_numbers_and_bins(counts):
    sizes = set()
    for name, change in WORLDS.items():
        lanes = lanes_of(counts=counts)
        caller = world(lanes)
        if name == "nothing":
            codes = caller.recall(SHOP, RowBins).codes
            codes[:] = codes % 2
        add_up(caller, lanes, change(draw(lanes, 4)), seed=len(name))
        for s in caller.sent:
            words = {
                HintBlock: lambda m: m.rows.words,
                EncryptedShares: lambda m: m.rows,
                SharedTotals: lambda m: m.words.words,
                DealtHints: lambda m: np.concatenate(m.shares),
            }[type(s.message)](s.message)
            assert abs(chi_square(words)) < 5, s.step
        sizes.add(tuple((s.step, s.round, s.reader, len(s.data)) for s in caller.sent))
    assert len(sizes) == 1


@pytest.mark.parametrize("counts", [COUNTS, THREE], ids=["one partner", "two partners"])
def test_the_share_of_either_party_alone_is_uniform(counts):
    lanes = lanes_of(counts=counts)
    caller = world(lanes)
    add_up(caller, lanes, WORLDS["nothing"](draw(lanes, 4)))
    for party in counts:
        for totals in caller.recall(party, TotalShares).values.values():
            for lane, bits in enumerate(lanes.bits):
                top = (totals[lane] << np.uint64(64 - bits) >> np.uint64(56)).astype(np.uint8)
                assert abs(chi_square(top)) < 5


def test_the_dealer_receives_nothing_and_nothing_is_public():
    lanes = lanes_of()
    caller = world(lanes)
    add_up(caller, lanes, draw(lanes, 2))
    assert not caller.seen_by(DEALER) and caller.revealed == []
    assert {type(t.value).__name__ for t in caller.told} == {"Silent"}


def test_secrets_masks_and_plain_hints_do_not_outlive_their_use():
    lanes = lanes_of()
    caller = world(lanes)
    assert all(caller.recall(p, BinHints).hint.size == 0 for p in (BANK, SHOP))
    add_up(caller, lanes, draw(lanes, 2))
    assert not any({Asking, Answered, ShareVectors} & set(caller.states[p]) for p in (BANK, SHOP))
    assert not any(k.durable for k in (ShareVectors, TotalShares, BinHints, Asking, Answered))


def test_either_party_refuses_more_vectors_than_agreed_even_after_a_resume():
    lanes = lanes_of(vectors=5)
    caller = world(lanes)
    add_up(caller, lanes, draw(lanes, 3))
    resumed = world(lanes, stores=caller.stores)
    add_up(resumed, lanes, draw(lanes, 2))
    with pytest.raises(PolicyRefused, match="6 encrypted vectors are asked for, agreed are 5"):
        add_up(resumed, lanes, draw(lanes, 1))


@pytest.mark.parametrize("limits", [((1 << 45,), (1,)), ((1 << 22, 1 << 14), (1,))])
def test_totals_that_do_not_fit_are_refused_at_the_start(limits):
    with pytest.raises(ConfigError, match=r"do not fit|too many encrypted"):
        world(lanes_of(limits=limits))


def test_with_two_partners_the_bank_encrypts_once_and_the_second_partner_asks_for_nothing():
    lanes = lanes_of(counts=THREE)
    caller = world(lanes)
    add_up(caller, lanes, draw(lanes, 2))
    sent = {(s.sender, s.reader): s.data for s in caller.sent if isinstance(s.message, EncryptedShares)}
    assert set(sent) == {(BANK, SHOP), (BANK, TELECOM), (SHOP, BANK)}
    assert sent[BANK, SHOP] == sent[BANK, TELECOM]
    assert set(caller.recall(TELECOM, TotalShares).values) == {TELECOM}
    assert {(s.sender, s.reader) for s in caller.sent if TELECOM in (s.sender, s.reader)} == {
        (BANK, TELECOM), (TELECOM, BANK),
    }  # fmt: skip


CHANGES = {
    "fewer rows": lambda m: replace(m, rows=m.rows[:-1]),
    "another block": lambda m: replace(m, block=m.block + 1),
    "no secrets": lambda m: replace(m, secrets=None),
    "secrets of another shape": lambda m: replace(m, secrets=Masked(m.secrets.words[:-1])),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_holder_refuses_rows_with(change):
    def meddle(s):
        return change(s.message) if isinstance(s.message, EncryptedShares) else s.message

    lanes = lanes_of()
    caller = world(lanes, change=meddle)
    with pytest.raises(ValueError, match=r"than agreed|out of order"):
        add_up(caller, lanes, draw(lanes, 1))


def test_the_exact_total_is_masked_even_where_it_is_known(monkeypatch):
    """Without flooding and with r drawn as zero the reply would show the totals: r is what hides them."""
    lanes = lanes_of()
    seen = []
    decode = rlwe.decode
    monkeypatch.setattr(rlwe, "decode", lambda w, bits: seen.append(decode(w, bits)) or seen[-1])
    caller = world(lanes)
    values = WORLDS["the largest"](draw(lanes, 1))
    add_up(caller, lanes, values)
    truth = plain(caller, SHOP, values)
    assert not any(np.array_equal(s.T, truth[lane][:, : s.size]) for lane in range(3) for s in seen)
