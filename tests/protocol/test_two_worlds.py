"""Two worlds: what a reader must not learn is changed, and its view keeps public values, messages and sizes.

A view is, for every message to a reader: round, step, sender, length in bytes, shapes of its arrays, and everything
in it that is not an array. The relay sees the lengths of all messages. What may differ between two worlds is listed
once: numbers under a mask (`MASKED`), and what the intersection blinds (`BLINDED`); all else must be equal.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest

from fedmkt.party import handle
from fedmkt.party.node import open_data
from fedmkt.party.table import Table
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.alignment.psi import Customers, psi
from fedmkt.protocol.core import Name, Silent, data_parties, dealer
from fedmkt.protocol.linear.logistic import fit
from fedmkt.protocol.linear.predictor import Weights
from fedmkt.protocol.linear.range import check_range
from fedmkt.protocol.linear.scoring import score
from fedmkt.protocol.prepare import Shape, prepare_columns, real
from fedmkt.protocol.witness import witness_all
from tests.engine import Tap, job_config, world_of
from tests.protocol.leak_scanner import seen
from tests.protocol.plain_caller import (
    BANK,
    SHOP,
    JointData,
    PlainCaller,
    contract_of,
    joint_data,
    local_states,
    start_aligned,
)

MASKED = {
    "MaskedRows", "VectorOpening", "AngleOpening", "LiftOpening", "GramOpening", "PairOpening", "RoundOpening",
    "GradientOpening", "CoarseOpening", "LookupOpening", "CountOpening", "BitShare",
    "ScoreOpening", "ScoreShare",
}  # fmt: skip
"""Uniform by themselves: each is a share, or a share plus a mask of its own."""

BLINDED = {"Blinded", "Evaluated", "Tags", "Matched"}
"""Points and tags of other people, in an order that follows from them; positions among these tags."""


def contents(value: object) -> object:
    """Return a message without its arrays and bytes, which are replaced by their shapes: `differing` compares those."""
    if isinstance(value, bytes):
        return ("bytes", len(value))
    if isinstance(value, np.ndarray):
        return ("array", value.shape, value.dtype.str)
    if is_dataclass(value):
        return (type(value).__name__, tuple(contents(getattr(value, f.name)) for f in fields(value)))
    if isinstance(value, tuple):
        return tuple(map(contents, value))
    return value


def view(caller: PlainCaller, reader: Name) -> list[object]:
    """Return what may not differ in what one reader is sent."""
    return [(s.round, s.step, s.sender, len(s.data), contents(s.message)) for s in caller.seen_by(reader)]


def relayed(caller: PlainCaller) -> list[object]:
    """Return what the coordinator sees: who sends to whom at which step, lengths, and public values."""
    lengths = [(s.round, s.step, s.sender, s.reader, len(s.data)) for s in caller.sent]
    return [*lengths, *((t.round, t.step, t.party, t.value) for t in caller.told)]


def differing(one: PlainCaller, other: PlainCaller, reader: Name) -> set[str]:
    """Name the classes of messages to a reader whose bytes differ."""
    pairs = zip(one.seen_by(reader), other.seen_by(reader), strict=True)
    return {type(a.message).__name__ for a, b in pairs if a.data != b.data}


def check_same(one: PlainCaller, other: PlainCaller, readers: tuple[Name, ...], may_differ: set[str]) -> None:
    """Compare two worlds for these readers and for the coordinator."""
    assert relayed(one) == relayed(other)
    assert one.revealed == other.revealed
    for reader in (*readers, dealer(one.contract)):
        assert view(one, reader) == view(other, reader)
        assert differing(one, other, reader) <= may_differ
    assert differing(one, other, dealer(one.contract)) == set()


# ------------------------------------------------------------------------------------------ intersection


def lists(k=2, n=80, common=50, seed=1):
    random = np.random.default_rng(seed)
    people = [f"p{i:06d}" for i in random.permutation(10**5)]
    found = {
        p: people[:common] + people[100 * (i + 1) : 100 * (i + 1) + n - common]
        for i, p in enumerate(NAMES[:k])
    }
    return {p: [ids[i] for i in random.permutation(n)] for p, ids in found.items()}


NAMES = (BANK, SHOP, Name("telecom"))


def intersected(ids, labelled=lambda i: hash_of(i) % 3 > 0):
    contract = contract_of(len(ids))
    local = {
        p: (Customers(tuple(v), np.array([labelled(i) for i in v]) if p == BANK else None),)
        for p, v in ids.items()
    }
    caller = PlainCaller(contract, local)
    psi(caller, contract)
    return caller


def hash_of(text):
    return sum(map(ord, text)) + ord(text[-1]) * 7


def others_replaced(ids, owner):
    """Give one party other customers whom nobody else has."""
    common = set.intersection(*map(set, ids.values()))
    return ids | {owner: [i if i in common else f"q{i[1:]}" for i in ids[owner]]}


@pytest.mark.parametrize("k", [2, 3])
def test_intersection_hides_a_partners_other_customers(k):
    ids = lists(k)
    one, other = intersected(ids), intersected(others_replaced(ids, SHOP))
    check_same(one, other, tuple(p for p in ids if p != SHOP), {"Evaluated", "Tags"})


@pytest.mark.parametrize("k", [2, 3])
def test_intersection_hides_the_banks_other_customers(k):
    ids = lists(k)
    one, other = intersected(ids), intersected(others_replaced(ids, BANK))
    check_same(one, other, tuple(p for p in ids if p != BANK), {"Blinded"})


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("owner", [BANK, SHOP])
def test_intersection_hides_the_order_of_the_other_sides_rows(k, owner):
    ids = lists(k)
    one, other = intersected(ids), intersected(ids | {owner: sorted(ids[owner])})
    check_same(one, other, tuple(p for p in ids if p != owner), BLINDED)
    if owner == BANK:
        matched = [[s.message for s in c.sent if type(s.message).__name__ == "Matched"] for c in (one, other)]
        # The same people, in an order that is drawn anew: it follows from nothing.
        assert all(np.array_equal(np.sort(a.slots), np.sort(b.slots)) for a, b in zip(*matched, strict=True))


def test_intersection_with_other_counts_in_the_same_band_looks_the_same():
    """Nobody but bank and partner can tell 41 common customers from 50."""
    one, other = (intersected(lists(2, common=c), labelled=lambda i: True) for c in (41, 50))
    assert relayed(one) == relayed(other)


# ------------------------------------------------------------------------------------------ split, prepare, witness


def test_split_shows_nothing_of_ids_or_rows():
    data = joint_data(contract_of(), 400)
    renamed = [f"another-{i:04d}" for i in range(400)]
    local = {p: local_states(data.contract, p, o, renamed, data.x[p], data.y) for p, o in data.order.items()}
    one = start_aligned(data)
    other = start_aligned(dataclasses.replace(data, ids=renamed, local=local))
    for caller in (one, other):
        caller.sent = [s for s in caller.sent if s.step.startswith("split.")]
        caller.told = [t for t in caller.told if t.step.startswith("split.")]
        caller.revealed = []
    assert len(one.sent) == 4
    check_same(one, other, (BANK, SHOP), set())


def test_prepare_tells_a_shape_and_nothing_of_values_in_any_row():
    caller = start_aligned(joint_data(contract_of(), 400))
    one, other = PlainCaller(caller.contract, {}), PlainCaller(caller.contract, {})
    changed = columns_exchanged(joint_data(contract_of(), 400), SHOP, caller)
    for fresh, local in ((one, caller.local), (other, changed.local)):
        for p in data_parties(fresh.contract):
            fresh.states[p] = dict(caller.states[p]) | {type(s): s for s in local[p]}
        prepare_columns(fresh, fresh.contract)
    assert not one.sent and not other.sent
    assert relayed(one) == relayed(other)


def test_the_turns_of_a_witness_read_and_write_nothing():
    """What rides with them is made of the party's log alone (`tests/party/test_riders.py`)."""
    caller = start_aligned(joint_data(contract_of(3), 300, 1))
    before = {p: dict(held) for p, held in caller.states.items()}
    caller.sent, caller.told = [], []
    witness_all(caller, caller.contract)
    assert not caller.sent and {t.value for t in caller.told} == {Silent()}
    assert caller.states == before


# ------------------------------------------------------------------------------------------ fit, range, score


def labels_changed(data: JointData, caller: PlainCaller) -> JointData:
    """Give the same labelled people other answers."""
    y = np.where(np.isnan(data.y), np.nan, 1 - data.y)
    local = {p: local_states(data.contract, p, o, data.ids, data.x[p], y) for p, o in data.order.items()}
    return dataclasses.replace(data, y=y, local=local)


def columns_exchanged(data: JointData, owner: Name, caller: PlainCaller) -> JointData:
    """Give a party's people each other's values, train and other rows apart: shape and row norm are public."""
    x, random = data.x[owner].copy(), np.random.default_rng(9)
    found = caller.recall(owner, Split)
    person_of = np.argsort(data.order[owner])
    for part in (found.train, np.concatenate([found.held_out, found.unlabelled])):
        people = person_of[real(part)]
        x[people] = x[random.permutation(people)]
    everybody = {**data.x, owner: x}
    local = {
        p: local_states(data.contract, p, o, data.ids, everybody[p], data.y) for p, o in data.order.items()
    }
    return dataclasses.replace(data, x=everybody, local=local)


def rows_reordered(data: JointData, owner: Name) -> JointData:
    order = data.order | {owner: data.order[owner][::-1].copy()}
    local = {p: local_states(data.contract, p, o, data.ids, data.x[p], data.y) for p, o in order.items()}
    return dataclasses.replace(data, order=order, local=local)


def fitted(data: JointData) -> PlainCaller:
    caller = start_aligned(data, seed=3)
    fit(caller, data.contract, caller.overlap, caller.columns())
    return caller


def joint(k: int) -> JointData:
    return joint_data(contract_of(k, model={"iterations": 2}), 500, signal=0.6)


@pytest.mark.parametrize("k", [2, 3])
def test_fit_and_scores_hide_the_labels_from_every_partner(k):
    data = joint(k)
    one = fitted(data)
    other = fitted(labels_changed(data, one))
    for caller in (one, other):
        score(caller, caller.contract, caller.overlap, caller.columns())
    partners = data_parties(data.contract)[1:]
    check_same(one, other, partners, MASKED)
    assert not np.array_equal(one.recall(BANK, Weights).w, other.recall(BANK, Weights).w)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("owner", [BANK, SHOP])
def test_fit_and_scores_hide_a_partys_columns_from_all_others(k, owner):
    data = joint(k)
    one = fitted(data)
    other = fitted(columns_exchanged(data, owner, one))
    for caller in (one, other):
        score(caller, caller.contract, caller.overlap, caller.columns())
    check_same(one, other, tuple(p for p in data_parties(data.contract) if p != owner), MASKED)


@pytest.mark.parametrize("owner", [BANK, SHOP])
def test_fit_and_scores_hide_the_order_of_the_other_sides_file(owner):
    data = joint(2)
    one, other = fitted(data), fitted(rows_reordered(data, owner))
    for caller in (one, other):
        score(caller, caller.contract, caller.overlap, caller.columns())
    check_same(one, other, tuple(p for p in data_parties(data.contract) if p != owner), set())


@pytest.mark.parametrize("k", [2, 3])
def test_the_range_check_shows_its_bit_and_nothing_else_of_the_weights(k):
    worlds = []
    for seed in (1, 2):
        caller = start_aligned(joint_data(contract_of(k), 300), seed=1)
        caller.sent, caller.told, caller.revealed, caller.rounds = [], [], [], 0
        w = np.random.default_rng(seed).integers(-(2**18), 2**18, caller.layout().width).view(np.uint64)
        for i, p in enumerate(data_parties(caller.contract)):
            caller.states[p][Weights] = Weights(w if i == 0 else np.zeros_like(w))
        check_range(caller, caller.contract)
        worlds.append(caller)
    check_same(*worlds, data_parties(worlds[0].contract), MASKED)


# ------------------------------------------------------------------------------------------ the whole main job


@dataclasses.dataclass
class Recorded:
    """One run of the main job: what the relay sees, and what each reader decrypts."""

    receipts: list[object]
    publics: list[bytes]
    read: dict[str, list[tuple[str, str, int, Any]]]


CHANGES: dict[str, tuple[str, Callable[[dict[str, Table]], dict[str, Table]]]] = {}
"""What is changed, by name: whose secret it is, and how."""


def change(owner: str) -> Callable[[Callable[[Table, dict[str, Table]], Table]], object]:
    def register(function: Callable[[Table, dict[str, Table]], Table]) -> object:
        CHANGES[function.__name__] = (owner, lambda tables: tables | {owner: function(tables[owner], tables)})
        return function

    return register


def common_ids(tables: dict[str, Table]) -> set[str]:
    return set.intersection(*(set(t.ids) for t in tables.values()))


@change("bank")
def labels(table: Table, tables: dict[str, Table]) -> Table:
    return dataclasses.replace(table, label=1 - table.label)


@change("bank")
def other_customers_of_the_bank(table: Table, tables: dict[str, Table]) -> Table:
    common = common_ids(tables)
    return dataclasses.replace(table, ids=tuple(i if i in common else "+7" + i[3:] for i in table.ids))


@change("partner")
def other_customers_of_the_partner(table: Table, tables: dict[str, Table]) -> Table:
    common = common_ids(tables)
    return dataclasses.replace(table, ids=tuple(i if i in common else "+7" + i[3:] for i in table.ids))


def reordered(table: Table) -> Table:
    order = np.random.default_rng(4).permutation(len(table.ids))
    return dataclasses.replace(
        table, ids=tuple(table.ids[i] for i in order), rows=table.rows[order],
        numbers={n: v[order] for n, v in table.numbers.items()},
        categories={n: v[order] for n, v in table.categories.items()},
        label=None if table.label is None else table.label[order],
    )  # fmt: skip


@change("bank")
def order_of_the_banks_rows(table: Table, tables: dict[str, Table]) -> Table:
    return reordered(table)


@change("partner")
def order_of_the_partners_rows(table: Table, tables: dict[str, Table]) -> Table:
    return reordered(table)


@change("partner")
def columns_of_the_partner(table: Table, tables: dict[str, Table]) -> Table:
    """Change signs and mix rows of the numbers; how many columns there are stays."""
    order = np.random.default_rng(5).permutation(len(table.ids))
    numbers = {n: -v[order] if np.isfinite(v).all() else v for n, v in table.numbers.items()}
    return dataclasses.replace(table, numbers=numbers)


def record(folder, partners: int, altered: Callable[[dict[str, Table]], dict[str, Table]]) -> Recorded:
    config = job_config(folder / "data", rows=(460, 480, 400), iterations=1, partners=partners)
    tables = altered({p.name: open_data(p, folder / "data") for p in config.parties})
    read: dict[str, list[tuple[str, str, int, Any]]] = {}
    original = handle.open_sealed

    def keep(envelope, place, sender_public, prekey):
        plain = original(envelope, place, sender_public, prekey)
        shapes = [(a.shape, a.dtype.str) for a in seen("", bytes(plain)).arrays]
        read.setdefault(place.reader, []).append((place.step, place.sender, len(plain), shapes))
        return plain

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handle, "open_sealed", keep)
        world, tap = world_of(config, folder, tables, seed=21), Tap()
        world.run(tap)
        world.kill()
    receipts = [a.receipt for a in tap.answers]
    lengths = [
        (r.index, r.epoch, r.party, r.step, [(reader, n) for reader, _, n in r.parts]) for r in receipts
    ]
    return Recorded(lengths, [r.public for r in receipts], read)


@pytest.fixture(scope="module")
def first_worlds(tmp_path_factory):
    return {n: record(tmp_path_factory.mktemp("world"), n, lambda tables: tables) for n in (1, 2)}


CASES = [(what, 1) for what in CHANGES] + [("labels", 2), ("columns_of_the_partner", 2)]


@pytest.mark.parametrize(("what", "partners"), CASES)
def test_the_whole_job_looks_the_same_to_all_others(what, partners, first_worlds, tmp_path):
    one = first_worlds[partners]
    owner, altered = CHANGES[what]
    other = record(tmp_path, partners, altered)
    assert one.receipts == other.receipts, "the relay sees the same calls, readers and lengths"
    told = {i for i, (a, b) in enumerate(zip(one.publics, other.publics, strict=True)) if a != b}
    # The largest row norm of changed columns is declared (MatrixShape) and may differ, rounded up as it is.
    shapes = {i for i, p in enumerate(one.publics) if Shape.__name__.encode() in p}
    allowed = shapes if what.startswith("columns") else set()
    assert told <= allowed
    for reader in one.read:
        if reader != owner:
            assert one.read[reader] == other.read[reader]
    assert set(one.read) == {"bank", "partner", *(["partner2"] if partners == 2 else []), "coordinator"}
