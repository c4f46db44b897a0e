"""Totals per bin: equal to numpy, refused where bins are small, and nothing else to be seen by either side."""

import dataclasses
import itertools

import numpy as np
import pytest

from fedmkt.contract.agreement import Limits
from fedmkt.errors import PeerError, PolicyRefused
from fedmkt.learn.bins import Binning, CategoryBins, NumberBins, join
from fedmkt.privacy.disclosure import DEFAULT, BinCounts, BinTotals, MatrixShape, MinimumBits
from fedmkt.protocol.alignment.align import Split, train_rows
from fedmkt.protocol.alignment.items import NO_ROW, Known
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import Inbox, Masked, Outcome, Silent, Step, data_parties, dealer
from fedmkt.protocol.prepare import Columns, real
from fedmkt.protocol.scorecard import bin_product, minimum, totals
from fedmkt.protocol.scorecard.bin_product import BankSide, MaskedBins, MaskedLabels, PartnerSide
from fedmkt.protocol.scorecard.minimum import BitOpening, PassShare, ValueOpening
from fedmkt.protocol.scorecard.totals import OwnBins, PartnerTotals, ReleasedTotals, ShownBins, bin_totals
from fedmkt.protocol.session import AddressedMasks
from fedmkt.protocol.trees import bin_layout
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.witness import checkpoint, close
from tests.engine import Killed, Tap, toy_world
from tests.protocol.plain_caller import (
    BANK,
    DEALER,
    SHOP,
    PlainCaller,
    chi_square,
    contract_of,
    joint_data,
    local_states,
    start_aligned,
)

ALLOWED = (*DEFAULT, *(k for k in totals.NEEDED if k not in DEFAULT))


def cut(values, shares, name="x0"):
    """Cut a column where the given shares of its values lie below; a bin of its own for missing values, if any."""
    edges = tuple(sorted(set(np.nanquantile(values, shares).tolist())))
    return NumberBins(name, edges, len(edges) + 1 if np.isnan(values).any() else 0)


def binned(
    k=2,
    n=900,
    seed=1,
    parts=4,
    limits=None,
    change=lambda data: data,
    rate=-1.2,
    missing=0.0,
    categories=True,
):
    """Return a caller whose partners have bins: x0 in `parts` of equal counts, x1 in halves, a category in three."""
    named = {SHOP: ("town",)} if categories else {}
    contract = contract_of(k, limits=limits, disclosures=ALLOWED, categories=named)
    data = joint_data(contract, n, seed, rate=rate)
    random = np.random.default_rng(seed + 100)
    for p in data_parties(contract)[1:]:
        data.x[p][random.random(n) < missing, 0] = np.nan
    return prepared(change(with_labels(data, data.y)), seed, parts, categories)


def prepared(data, seed=1, parts=4, categories=True):
    """Align the parties, and cut the partners' columns into bins on their train rows."""
    n = len(data.ids)
    if categories:
        towns = np.array(["north", "south", "east", None], dtype=object)
        columns = data.local[SHOP][1]
        drawn = np.random.default_rng(seed).choice(towns, n, p=[0.4, 0.3, 0.2, 0.1])
        data.local[SHOP] = (data.local[SHOP][0], dataclasses.replace(columns, categories={"town": drawn}))
    caller = start_aligned(data, seed=seed)
    for p in data_parties(data.contract)[1:]:
        numbers, train = caller.recall(p, Columns).numbers, real(caller.recall(p, Split).train)
        shares = np.arange(1, parts) / parts
        found = [cut(numbers["x0"][train], shares), cut(numbers["x1"][train], [0.5], "x1")]
        if p == SHOP and categories:
            found.append(CategoryBins("town", (("north",), ("south",), ("east", "(missing)")), 2))
        caller.states[p][OwnBins] = OwnBins(Binning(tuple(found)).to_json())
    return caller


def run(caller):
    bin_totals(caller, caller.contract, caller.overlap)
    return caller


def counted(caller, partner, bins_of=OwnBins):
    """Count rows and events of each bin on both parties' tables, one row after the other."""
    binning = Binning.from_json(caller.recall(partner, bins_of).binning)
    columns, label = caller.recall(partner, Columns), caller.recall(BANK, Columns).label
    own, bank = caller.recall(partner, Split).train, caller.recall(BANK, Split).train
    out = {}
    for bins in binning.columns:
        values = {**columns.numbers, **columns.categories}[bins.name]
        rows, events = [0] * bins.count, [0] * bins.count
        for i, j in zip(own.tolist(), bank.tolist(), strict=True):
            if i != NO_ROW and j != NO_ROW:
                b = int(bins.assign(values[i : i + 1])[0])
                rows[b] += 1
                events[b] += int(label[j])
        out[bins.name] = (rows, events)
    return out


def shown(caller, partner):
    found = caller.recall(BANK, PartnerTotals).of(partner)
    return {name: (t.rows.tolist(), t.events.tolist()) for name, t in found.items()}


def of_kind(caller, kind):
    return [s.message for s in caller.sent if isinstance(s.message, kind)]


# ------------------------------------------------------------------------------------------ the totals


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_bank_gets_rows_and_events_of_every_bin_exactly(k, seed):
    caller = run(binned(k, seed=seed))
    for p in data_parties(caller.contract)[1:]:
        assert (caller.recall(p, Split).train == NO_ROW).any(), "padded rows count for nothing"
        expected = counted(caller, p)
        assert shown(caller, p) == expected and len(expected) == (3 if p == SHOP else 2)
        assert caller.recall(BANK, PartnerTotals).withheld[p] == ()


@pytest.mark.parametrize("k", [2, 3])
def test_rows_that_travel_in_blocks_give_the_same(k, monkeypatch):
    whole = run(binned(k))
    monkeypatch.setattr(bin_layout, "BLOCK_BYTES", 4000)
    blocks = run(binned(k))
    assert len(of_kind(blocks, MaskedBins)) == len(of_kind(blocks, MaskedLabels)) > 4 * (k - 1)
    for p in data_parties(whole.contract)[1:]:
        assert shown(blocks, p) == shown(whole, p) == counted(whole, p)


def test_customers_whom_the_partner_does_not_have_are_in_no_bin():
    contract = contract_of(align={"join": "left"}, disclosures=(*ALLOWED, "JoinedRows"))
    caller = prepared(joint_data(contract, 900), categories=False)
    train, bank = caller.recall(SHOP, Split).train, caller.recall(BANK, Split).train
    unknown = np.flatnonzero(train != NO_ROW)[::7]
    known = np.ones(900, bool)
    known[bank[unknown]] = False
    train[unknown] = NO_ROW
    caller.states[BANK][Known] = Known(known)
    run(caller)
    assert shown(caller, SHOP) == counted(caller, SHOP)
    assert sum(shown(caller, SHOP)["x0"][0]) == (bank != NO_ROW).sum() - len(unknown)


def test_sums_of_the_largest_words_are_exact():
    random = np.random.default_rng(1)
    places = random.integers(0, 6, (1 << 20, 1)).astype(np.int32)
    d = np.full(1 << 20, 2**32 - 1, np.uint32)
    expected = np.array([int((places == b).sum()) * (2**32 - 1) % 2**32 for b in range(5)], np.uint32)
    assert np.array_equal(bin_product._sum_by_bin(places, d, 5), expected)


def test_nothing_of_the_work_is_kept():
    caller = run(binned(3))
    kept = {kind for states in caller.states.values() for kind in states}
    assert not kept & {BankSide, PartnerSide, minimum.Comparison} and {PartnerTotals, ShownBins} <= kept


# ------------------------------------------------------------------------------------------ minimum of rows


def test_a_bin_with_too_few_rows_is_refused_before_anything_leaves():
    caller = binned(2)
    smallest = min(min(rows) for rows, _ in counted(caller, SHOP).values())
    refused_before_anything(
        binned(2, limits={"min_support": smallest + 1}), "fewer rows than limits.min_support"
    )
    assert shown(run(binned(2, limits={"min_support": smallest})), SHOP) == counted(caller, SHOP)


def refused_before_anything(caller, match):
    sent = len([s for s in caller.sent if not s.step.startswith("witness.")])
    with pytest.raises(PolicyRefused, match=match):
        run(caller)
    assert len([s for s in caller.sent if not s.step.startswith("witness.")]) == sent
    assert not [d for step, d in caller.revealed if step.startswith("totals.")]


def test_a_contract_that_does_not_name_every_disclosure_is_refused():
    for kind in totals.NEEDED:
        caller = binned(2)
        names = tuple(k for k in ALLOWED if k != kind)
        caller.contract = caller.contract.model_copy(update={"disclosures": names})
        refused_before_anything(caller, kind)


def test_hidden_match_is_refused():
    caller = binned(2)
    align = caller.contract.align.model_copy(update={"match": "hidden"})
    caller.contract = caller.contract.model_copy(update={"align": align})
    refused_before_anything(caller, "hidden")


def test_a_column_is_shown_in_one_way_only_under_one_contract():
    """Edges one row apart in two runs would tell the bin of that row."""
    caller = run(binned(2))
    before = shown(caller, SHOP)
    assert shown(run(caller), SHOP) == before
    binning = Binning.from_json(caller.recall(SHOP, OwnBins).binning)
    first = binning.columns[0]
    moved = NumberBins("x0", (np.nextafter(first.edges[0], 9), *first.edges[1:]), first.missing)
    caller.states[SHOP][OwnBins] = OwnBins(Binning((moved, *binning.columns[1:])).to_json())
    before = len(caller.revealed)
    with pytest.raises(PolicyRefused, match="x0 was shown in other bins"):
        run(caller)
    assert len(caller.revealed) == before


# ------------------------------------------------------------------------------------------ minimum of events


def joined(pair, mapping):
    """Add up the counts of the bins that a map joins."""
    out = [[0] * (max(mapping) + 1) for _ in pair]
    for total, counts in zip(out, pair, strict=True):
        for b, count in zip(mapping, counts, strict=True):
            total[b] += count
    return tuple(out)


def first_that_holds(counts, maps, least):
    for mapping in maps:
        rows, events = joined(counts, mapping)
        if all(e >= least and r - e >= least for r, e in zip(rows, events, strict=True)):
            return mapping
    return None


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("rate", [-5.0, -3.0, -1.8, -0.8, 0.0, 2.8])
@pytest.mark.parametrize("least", [10, 16, 22])
def test_columns_are_joined_just_so_far_that_every_bin_has_events_and_others(k, rate, least):
    caller = run(binned(k, rate=rate, parts=8, missing=0.12, limits={"min_events": least}))
    for p in data_parties(caller.contract)[1:]:
        expected, withheld, joined_bins = {}, [], []
        binning = Binning.from_json(caller.recall(p, OwnBins).binning)
        for bins, (name, counts) in zip(binning.columns, counted(caller, p).items(), strict=True):
            maps = bin_layout.maps_of(
                bins.count, isinstance(bins, NumberBins) and bins.missing > len(bins.edges)
            )
            mapping = first_that_holds(counts, maps, least)
            if mapping is None:
                withheld.append(name)
            else:
                expected[name] = joined(counts, mapping)
                joined_bins.append(join(bins, mapping))
        assert shown(caller, p) == expected
        assert caller.recall(BANK, PartnerTotals).withheld[p] == tuple(withheld)
        assert caller.recall(p, ShownBins).binning == Binning(tuple(joined_bins)).to_json()
        assert shown(caller, p) == {n: c for n, c in counted(caller, p, ShownBins).items()}


def test_missing_values_alone_short_of_events_join_the_middle_bin():
    caller = run(binned(2, n=2000, rate=0.0, parts=8, missing=0.03, limits={"min_events": 25}))
    fine = counted(caller, SHOP)["x0"]
    assert min(fine[1][:-1]) >= 25 > fine[1][-1] and len(fine[1]) == 9
    assert shown(caller, SHOP)["x0"] == joined(fine, (0, 1, 2, 3, 4, 5, 6, 7, 4))


def test_a_bank_that_labels_one_person_reads_nothing():
    """Without the minimum the one event would stand in that person's bin of every column."""

    def one(data):
        y = np.where(np.isnan(data.y), np.nan, 0.0)
        y[np.flatnonzero(~np.isnan(y))[3]] = 1.0
        return with_labels(data, y)

    caller = run(binned(2, change=one))
    assert caller.recall(BANK, PartnerTotals).of(SHOP) == {}
    assert caller.recall(BANK, PartnerTotals).withheld[SHOP] == ("x0", "x1", "town")
    (released,) = of_kind(caller, ReleasedTotals)
    assert not released.rows.any() and not released.events.any(), "neither totals nor counts leave"
    assert not [d for _, d in caller.revealed if isinstance(d, BinCounts | BinTotals)]


@pytest.mark.parametrize("size", range(1, 40))
@pytest.mark.parametrize("apart", [False, True])
def test_maps_are_nested_and_end_with_two_bins_or_the_fourth_map(size, apart):
    maps = bin_layout.maps_of(size, apart)
    assert maps[0] == tuple(range(size)) and 1 <= len(maps) <= bin_layout.MAX_MAPS
    assert max(maps[-1]) <= 1 or len(maps) == bin_layout.MAX_MAPS
    for fine, coarse in itertools.pairwise(maps):
        assert len({(f, c) for f, c in zip(fine, coarse, strict=True)}) == max(fine) + 1 > max(coarse) + 1
        assert sorted(set(coarse)) == list(range(max(coarse) + 1)) and max(coarse) >= 1
    for mapping in maps:
        join(NumberBins("x", tuple(map(float, range(size - 2))), size - 1) if apart and size > 1 else
             NumberBins("x", tuple(map(float, range(size - 1))), 0), mapping)  # fmt: skip


def test_missing_values_first_join_the_middle_then_neighbours_join_by_twos():
    assert bin_layout.maps_of(8, True) == (
        (0, 1, 2, 3, 4, 5, 6, 7),
        (0, 1, 2, 3, 4, 5, 6, 3),
        (0, 0, 1, 1, 2, 2, 3, 1),
        (0, 0, 0, 0, 1, 1, 1, 0),
    )
    assert bin_layout.maps_of(5, False) == ((0, 1, 2, 3, 4), (0, 0, 1, 1, 2), (0, 0, 0, 0, 1))
    assert bin_layout.maps_of(2, True) == bin_layout.maps_of(2, False) == ((0, 1),)


EDGES = (-(2**31), -(2**31) + 1, -(2**30), -65536, -2, -1, 0, 1, 2, 65535, 2**30, 2**31 - 2, 2**31 - 1)


def test_the_comparison_knows_the_sign_of_every_number():
    random = np.random.default_rng(2)
    values = np.concatenate(
        [np.array(EDGES), random.integers(-(2**31), 2**31, 400), random.integers(-9, 9, 99)]
    )
    groups = values.reshape(-1, 1)
    assert np.array_equal(compared(np.pad(groups, ((0, 0), (0, 1)))), groups[:, 0] >= 0)


@pytest.mark.parametrize("width", [2, 4, 16, 32])
def test_a_group_passes_when_all_of_its_members_do(width):
    random = np.random.default_rng(width)
    values = random.integers(-1, 2**20, (64, width))
    values[::2] = np.abs(values[::2])
    values[1::2, random.integers(0, width)] = -1
    assert np.array_equal(compared(values), (values >= 0).all(axis=1))
    assert np.array_equal(compared(np.where(values < 0, 0, values)), np.ones(64, bool))


def compared(values, seed=0):
    """Share numbers between bank and shop, compare them with 0, and return what both read."""
    caller = PlainCaller(contract_of(), {}, seed=seed)
    x = values.astype(np.int64).astype(np.uint32)
    other = np.random.default_rng(seed).integers(0, 2**32, x.shape, np.uint32)
    shape = (x.shape[0], x.shape[1])
    dealt = minimum.deal_minimum(caller.turn(DEALER), SHOP, "test", 0, shape)
    pair = ((BANK, SHOP, x - other, dealt), (SHOP, BANK, other, None))
    took = {me: minimum.open_values(caller.turn(me), peer, "test", 0, v, d) for me, peer, v, d in pair}
    for _ in range(len(minimum.layer_sizes(shape))):
        took = {p: minimum.open_layer(received(caller, took, p), inbox(took, p)) for p in (BANK, SHOP)}
    shares = {p: minimum.share_passes(received(caller, took, p), inbox(took, p)) for p in (BANK, SHOP)}
    for p, (_, state) in shares.items():
        caller.states[p][minimum.Comparison] = state
    a, b = (
        minimum.read_passes(caller.turn(p), Inbox(((q, shares[q][0]),)))
        for p, q in ((BANK, SHOP), (SHOP, BANK))
    )
    assert np.array_equal(a, b)
    return a


def received(caller, took, party):
    (caller.states[party][minimum.Comparison],) = took[party].keep
    return caller.turn(party)


def inbox(took, reader):
    (sender,) = (p for p in took if p != reader)
    return Inbox(((sender, took[sender].send[reader]),))


# ------------------------------------------------------------------------------------------ what is to be seen


def test_what_is_declared_is_what_is_opened():
    caller = run(binned(2, rate=-2.4, parts=8, missing=0.08))
    (released,) = of_kind(caller, ReleasedTotals)
    counts = shown(caller, SHOP)
    opened = {"columns": len(counts), "bins": sum(len(rows) for rows, _ in counts.values())}
    assert len(counts) > 0 and np.count_nonzero(released.rows) == opened["bins"]
    sizes = caller.publics[SHOP, BinSizes]
    bits = sum(len(m) for m in sizes.maps)
    assert [d for step, d in caller.revealed if step.startswith("totals.")] == [
        MatrixShape(to="all", columns=sizes.width, row_norm=2),
        MinimumBits(to="shop", columns=3, bits=bits, minimum=10),
        MinimumBits(to="bank", columns=3, bits=bits, minimum=10),
        BinCounts(to="bank", minimum=20, **opened),
        BinTotals(to="bank", minimum=20, **opened),
    ]
    assert {type(t.value).__name__ for t in caller.told if t.step.startswith("totals.")} == {
        "Silent",
        "BinSizes",
    }
    readers = {(type(s.message).__name__, s.reader) for s in caller.sent if s.step.startswith("totals.")}
    assert {r for n, r in readers if n == "ReleasedTotals"} == {"bank"} and "coordinator" not in {
        r for _, r in readers
    }


def totals_only(caller):
    """Forget what was sent and told before."""
    caller.sent, caller.told, caller.revealed, caller.rounds = [], [], [], 0
    return run(caller)


def two_worlds(k, change, **options):
    worlds = [totals_only(binned(k, change=c, **options)) for c in (lambda data: data, change)]
    for a, b in zip(worlds[0].sent, worlds[1].sent, strict=True):
        assert (a.round, a.step, a.sender, a.reader, len(a.data)) == (
            b.round,
            b.step,
            b.sender,
            b.reader,
            len(b.data),
        )
    assert worlds[0].told == worlds[1].told and worlds[0].revealed == worlds[1].revealed
    return worlds


UNIFORM = {"MaskedBins", "MaskedLabels", "ValueOpening", "BitOpening", "PassShare"}


def differing(worlds, reader):
    pairs = zip(*(w.seen_by(reader) for w in worlds), strict=True)
    return {type(a.message).__name__ for a, b in pairs if a.data != b.data}


def with_labels(data, y):
    local = {p: local_states(data.contract, p, o, data.ids, data.x[p], y) for p, o in data.order.items()}
    return dataclasses.replace(data, y=y, local=local)


@pytest.mark.parametrize("k", [2, 3])
def test_totals_hide_the_labels_from_every_partner(k):
    def turned(data):
        return with_labels(data, np.where(np.isnan(data.y), np.nan, 1 - data.y))

    worlds = two_worlds(k, turned)
    for p in data_parties(worlds[0].contract)[1:]:
        assert shown(worlds[0], p) != shown(worlds[1], p)
        assert {"MaskedLabels"} <= differing(worlds, p) <= UNIFORM
    assert differing(worlds, DEALER) == set()


def test_totals_hide_from_the_bank_which_rows_with_one_label_are_in_a_bin():
    """Exchanging the partner's values among rows of one label leaves all totals as they are."""

    def exchanged(data):
        x, random = data.x[SHOP].copy(), np.random.default_rng(9)
        for people in (np.flatnonzero(data.y == v) for v in (0.0, 1.0)):
            trained = people[np.isin(data.order[SHOP][people], trained_rows)]
            x[trained] = x[random.permutation(trained)]
        local = data.local | {SHOP: local_states(data.contract, SHOP, data.order[SHOP], data.ids, x, data.y)}
        return dataclasses.replace(data, x=data.x | {SHOP: x}, local=local)

    trained_rows = real(binned(2, categories=False).recall(SHOP, Split).train)
    worlds = two_worlds(2, exchanged, categories=False)
    assert shown(worlds[0], SHOP) == shown(worlds[1], SHOP)
    first, second = (w.recall(SHOP, Columns).numbers["x0"][trained_rows] for w in worlds)
    assert (first != second).mean() > 0.9
    # Equal totals under equal masks: even the partner's share at the end is the same.
    assert {"MaskedBins"} <= differing(worlds, BANK) <= UNIFORM | {"ReleasedTotals"}
    assert differing(worlds, DEALER) == set()


def test_a_withheld_column_and_a_shown_one_look_alike_to_the_coordinator():
    def unlabelled(data):
        return with_labels(
            data, np.where(np.isnan(data.y), np.nan, 0.0 + (np.arange(len(data.y)) % 300 == 0))
        )

    one, other = (totals_only(binned(2, change=c)) for c in (lambda data: data, unlabelled))
    assert len(shown(one, SHOP)) == 3 and not shown(other, SHOP)
    lengths = [[(s.round, s.step, s.sender, s.reader, len(s.data)) for s in w.sent] for w in (one, other)]
    assert lengths[0] == lengths[1] and one.told == other.told


def test_what_either_side_is_sent_is_uniform():
    seen = {}
    for seed in range(12):
        for s in totals_only(binned(2, seed=seed)).sent:
            for value in vars(s.message).values():
                if isinstance(value, Masked):
                    seen.setdefault(type(s.message).__name__, []).append(value.words.tobytes())
    assert set(seen) == {"MaskedBins", "MaskedLabels", "ValueOpening", "BitOpening"}
    for name, data in seen.items():
        if name != "BitOpening":  # its last words are not full
            assert abs(chi_square(b"".join(data))) < 4.5, name
    whole = [d[: len(d) // 4 * 4 - 4] for d in seen["BitOpening"]]
    assert abs(chi_square(b"".join(whole))) < 4.5


@pytest.mark.parametrize("k", [2, 3])
def test_no_mask_is_used_twice(k, monkeypatch):
    """A party that draws one address twice is stopped by its masks; here, none of two runs are alike either."""
    drawn = []
    original = AddressedMasks._key

    def noting(self, of, address):
        if self._drawn is not None:
            drawn.append((of, bytes(address)))
        return original(self, of, address)

    monkeypatch.setattr(AddressedMasks, "_key", noting)
    monkeypatch.setattr(bin_layout, "BLOCK_BYTES", 4000)
    caller = binned(k)
    first = run(caller) and shown(caller, SHOP)
    assert shown(run(caller), SHOP) == first
    assert len(drawn) > 100 and len(set(drawn)) == len(drawn)
    masked = [s.data for s in caller.sent if isinstance(s.message, MaskedBins | MaskedLabels | ValueOpening)]
    assert len({d[-64:] for d in masked}) == len(masked)


def test_two_runs_that_differ_in_one_label_tell_the_bins_of_that_row():
    """What the minimum does not stop, and why a contract limits its runs."""
    person = binned(2).recall(BANK, Split).train[5]

    def one_more(data):
        y = data.y.copy()
        (at,) = np.flatnonzero(data.order[BANK] == person)
        y[at] = 1 - y[at]
        return with_labels(data, y)

    one, other = run(binned(2)), run(binned(2, change=one_more))
    row = one.recall(SHOP, Split).train[5]
    binning, columns = Binning.from_json(one.recall(SHOP, OwnBins).binning), one.recall(SHOP, Columns)
    for bins in binning.columns:
        values = {**columns.numbers, **columns.categories}[bins.name]
        before, after = (np.array(shown(c, SHOP)[bins.name][1]) for c in (one, other))
        assert np.flatnonzero(before != after).tolist() == bins.assign(values[row : row + 1]).tolist()


# ------------------------------------------------------------------------------------------ messages out of order


SPOILT = {
    "MaskedBins": lambda m: MaskedBins(m.block, Masked(m.rows.words[:-1])),
    "MaskedLabels": lambda m: MaskedLabels(m.block + 1, m.labels),
    "DealtTotals": lambda m: dataclasses.replace(m, product=m.product[:-1]),
    "ValueOpening": lambda m: ValueOpening(Masked(m.halves.words[:-1])),
    "BitOpening": lambda m: BitOpening(m.left, Masked(m.right.words[:-1])),
    "PassShare": lambda m: PassShare(m.bits[:-1]),
    "ReleasedTotals": lambda m: dataclasses.replace(m, names=("x0", "x0", "town")),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_message_of_another_shape_is_refused(kind):
    caller = binned(2)
    caller.change = lambda s: SPOILT[kind](s.message) if type(s.message).__name__ == kind else s.message
    with pytest.raises(ValueError, match=r"length|block|contract"):
        run(caller)


def one_more(values):
    return values + (np.arange(len(values)) == 1).astype(values.dtype)


def test_totals_that_do_not_add_up_to_the_banks_own_rows_are_refused():
    for name in ("rows", "events"):
        caller = binned(2)

        def spoil(sent, name=name):
            message = sent.message
            if isinstance(message, ReleasedTotals):
                return dataclasses.replace(message, **{name: one_more(getattr(message, name))})
            return message

        caller.change = spoil
        with pytest.raises(PeerError, match="do not add up"):
            run(caller)


@pytest.mark.parametrize(
    "sizes", [((), ()), ((0,), (False,)), ((257,), (False,)), ((3,), ()), ((200,) * 100, (False,) * 100)]
)
def test_bins_of_sizes_that_nobody_accepts_stop_the_run(sizes, monkeypatch):
    caller = binned(2)
    step = dataclasses.replace(totals.BEGIN, run=lambda turn, inbox: Outcome(BinSizes(*sizes)))
    monkeypatch.setattr(totals, "BEGIN", step)
    with pytest.raises(PeerError, match="not accepted"):
        run(caller)


def test_the_dealer_with_one_opening_would_read_every_label():
    """Why the coordinator must belong to no party: its masks are all that hides labels and bins."""
    caller = run(binned(2))
    (sent,) = of_kind(caller, MaskedLabels)
    masks = caller.turn(dealer(caller.contract)).masks
    y = sent.labels.words + masks.half_words(BANK, "totals/v", 0, len(sent.labels.words), to=SHOP)
    train, label = caller.recall(BANK, Split).train, caller.recall(BANK, Columns).label
    assert np.array_equal(y[train != NO_ROW], label[real(train)])


# ------------------------------------------------------------------------------------------ sealed, logged, resumed

BANDS = Overlap(320, 340, 0, 10)


def _tell(turn, inbox):
    return Outcome(BANDS)


def _script(call, contract):
    overlap = call(BANK, Step("toy.tell", _tell, Overlap)).public.value
    checkpoint(call, contract)
    bin_totals(call, contract, overlap)
    checkpoint(call, contract)
    close(call, contract)
    return Silent()


def _engine(folder):
    """Make real parties of one column, their rows aligned before; the labels of the bank, the bins of the shop."""
    random = np.random.default_rng(4)
    y, x, n = (random.random(330) < 0.5).astype(float), random.standard_normal(330), 250
    none = np.empty(0, np.int64)
    order = {BANK: random.permutation(330), SHOP: random.permutation(330)}
    names = (*totals.NEEDED, "SetSize")
    limits = Limits(min_support=20)
    world = toy_world(folder, _script, limits=limits, disclosures=names)
    train = np.full((2, train_rows(world.contract, BANDS)), NO_ROW)
    train[:, :n] = order[BANK][:n], order[SHOP][:n]
    bins = OwnBins(Binning((NumberBins("x", (-0.6, 0.0, 0.6), 0),)).to_json())
    local = {
        BANK: (Columns({"x": x}, {}, y), Split(train[0], none, none)),
        SHOP: (Columns({"x": x[::-1].copy()}, {}, None), Split(train[1], none, none), bins),
    }
    world = toy_world(folder, _script, limits=limits, disclosures=names, local=local)
    place = np.digitize(x[::-1][order[SHOP][:n]], (-0.6, 0.0, 0.6))
    return world, np.bincount(place).tolist(), np.bincount(place, y[order[BANK][:n]]).astype(int).tolist()


def _of_bank(world):
    found = world.parties[BANK].recall(PartnerTotals).of("shop")["x"]
    return found.rows.tolist(), found.events.tolist()


def test_real_parties_seal_log_and_count_them(tmp_path):
    world, rows, events = _engine(tmp_path)
    tap = Tap()
    world.run(tap)
    assert _of_bank(world) == (rows, events)
    assert 40 < len(tap.requests) < 140


@pytest.mark.parametrize("part", range(5))
def test_a_run_that_was_killed_resumes_to_the_same_totals(part, tmp_path):
    world, rows, events = _engine(tmp_path)
    stop = 4 + 13 * part
    with pytest.raises(Killed):
        world.run(Tap(stop_after=stop))
    world.run(resume=True)
    assert _of_bank(world) == (rows, events)
