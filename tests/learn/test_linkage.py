import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmkt.learn.identifiers import normalise, normalise_ids
from fedmkt.learn.linkage import (
    UNPAIRED,
    Key,
    KeyedRows,
    Pairs,
    join,
    normalise_keys,
    one_to_one,
    quality,
)


def by_hand(matches: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Follow the rule with loops and sets, one row at a time."""
    rows = len(matches[0])
    slots, keys, taken = [UNPAIRED] * rows, [UNPAIRED] * rows, set[int]()
    for key, match in enumerate(matches):
        for row, slot in enumerate(match):
            if slot != UNPAIRED and slots[row] == UNPAIRED and slot not in taken:
                slots[row], keys[row] = slot, key
                taken.add(slot)
    return slots, keys


@st.composite
def some_matches(draw: st.DrawFn) -> tuple[int, list[list[int]]]:
    slots = draw(st.integers(0, 12))
    rows = draw(st.integers(0, 12))
    one = st.lists(st.integers(UNPAIRED, slots - 1), min_size=rows, max_size=rows)
    return slots, draw(st.lists(one, min_size=1, max_size=4))


def arrays(matches: Sequence[Sequence[int]]) -> list[np.ndarray]:
    return [np.array(match, dtype=np.int64) for match in matches]


@given(some_matches())
def test_pairs_are_those_of_the_rule_followed_by_hand(case: tuple[int, list[list[int]]]) -> None:
    slots, matches = case
    found = one_to_one(arrays(matches), slots)
    assert (found.slots.tolist(), found.keys.tolist()) == by_hand(matches)
    assert (found.slots.dtype, found.keys.dtype) == (np.int64, np.int8)


@given(some_matches())
def test_no_row_and_no_slot_is_paired_twice_and_none_is_left_that_could_be(
    case: tuple[int, list[list[int]]],
) -> None:
    slots, matches = case
    found = one_to_one(arrays(matches), slots)
    taken = [slot for slot in found.slots.tolist() if slot != UNPAIRED]
    assert len(taken) == len(set(taken))
    assert ((found.slots == UNPAIRED) == (found.keys == UNPAIRED)).all()
    for match in matches:
        free = [s for s, own in zip(match, found.slots, strict=True) if own == UNPAIRED and s != UNPAIRED]
        assert set(free) <= set(taken)


def test_an_earlier_key_wins_and_the_loser_may_be_found_by_a_later_one() -> None:
    phone, email = [2, UNPAIRED, 0], [1, 2, 0]
    found = one_to_one(arrays([phone, email]), 3)
    # Row 1 wants slot 2, which row 0 has by its phone; row 0's own e-mail says slot 1, which stays free.
    assert (found.slots.tolist(), found.keys.tolist()) == ([2, UNPAIRED, 0], [0, UNPAIRED, 0])


def test_of_rows_that_claim_one_slot_by_one_key_the_first_has_it() -> None:
    found = one_to_one(arrays([[1, 1, 1], [UNPAIRED, 0, 0]]), 2)
    assert (found.slots.tolist(), found.keys.tolist()) == ([1, 0, UNPAIRED], [0, 1, UNPAIRED])


@pytest.mark.parametrize(
    ("matches", "slots"), [([], 3), ([[0], [0, 1]], 3), ([[3]], 3), ([[-2]], 3), ([[0]], 0)]
)
def test_matches_that_are_none_are_refused(matches: list[list[int]], slots: int) -> None:
    with pytest.raises(ValueError, match="key"):
        one_to_one(arrays(matches), slots)


def test_a_million_rows_with_three_keys_are_paired_within_a_second() -> None:
    random = np.random.default_rng(1)
    rows = 1_000_000
    matches = []
    for _ in range(3):
        match = random.permutation(rows)
        match[random.random(rows) < 0.5] = UNPAIRED
        matches.append(match)
    started = time.process_time()
    found = one_to_one(matches, rows)
    assert time.process_time() - started < 1
    assert len(np.unique(found.slots[found.slots != UNPAIRED])) == (found.slots != UNPAIRED).sum() > 600_000


# Lists with several keys

PEOPLE = {
    "phone": ["138 0013 8000", "", "13800138000", "13900139000", None, "", "no phone", "+86 13700137000"],
    "email": ["a@x.cn", "b@x.cn", "a2@x.cn", "Home@x.cn", "home@x.cn", "c@x.cn", "-", "d@x.cn"],
    "card": ["1", "2", "3", "4", "5", "2", "", "5"],
}


def people(labels: list[float] | None = None) -> KeyedRows:
    keys = [
        Key("phone", (PEOPLE["phone"],)), Key("email", (PEOPLE["email"],)), Key("raw", (PEOPLE["card"],)),
    ]  # fmt: skip
    return normalise_keys(keys, "86", None if labels is None else np.array(labels))


def test_a_list_keeps_who_can_be_found_by_any_key() -> None:
    found = people()
    # Row 2 repeats the phone of row 0, row 6 has no id, and rows 3, 4 share an e-mail, 1 and 5, 4 and 7 a card.
    assert found.rows.tolist() == [0, 1, 3, 5, 7]
    assert found.keys == (
        ("+8613800138000", None, "+8613900139000", None, "+8613700137000"),
        ("a@x.cn", "b@x.cn", None, "c@x.cn", "d@x.cn"),
        ("1", None, "4", None, None),
    )
    assert found.persons.tolist() == [0, 1, 0, 2, -1, 3, -1, 4]


def test_what_became_of_a_list_is_counted() -> None:
    report = people([1, 0, 0, 1, 0, 1, 0, 0]).report
    assert (report.rows, report.kept, report.duplicates, report.keyless) == (8, 5, 1, 2)
    assert report.label_conflicts == 1
    phone, email, card = report.keys
    assert (phone.used, phone.empty, phone.invalid, phone.ambiguous) == (3, 3, 1, 0)
    assert (email.used, email.empty, email.invalid, email.ambiguous) == (4, 0, 1, 2)
    assert (card.used, card.empty, card.invalid, card.ambiguous) == (2, 1, 0, 4)
    assert report.report_lines() == (
        "8 rows with 3 ids",
        "5 rows kept",
        "1 dropped: an earlier row has the same first id, or all the same ids",
        "1 of these duplicates carry another label than the row kept",
        "2 dropped: no valid id that no other row has",
        "phone: 3 rows can be found by it, 3 empty, 1 not valid",
        "email: 4 rows can be found by it, 1 not valid, 2 in several rows",
        "raw: 2 rows can be found by it, 1 empty, 4 in several rows",
    )


def test_a_row_that_repeats_all_ids_of_an_earlier_one_is_that_person() -> None:
    keys = [Key("phone", (["", ""],)), Key("email", (["a@x.cn", "A@x.cn"],))]
    found = normalise_keys(keys, "86")
    assert (found.rows.tolist(), found.keys) == ([0], ((None,), ("a@x.cn",)))
    assert found.persons.tolist() == [0, 0]


def test_a_list_does_not_show_its_ids() -> None:
    found = people()
    text = repr(found) + repr(found.report) + " ".join(found.report.report_lines())
    assert "138" not in text and "x.cn" not in text


@given(
    st.lists(
        st.tuples(*[st.sampled_from(["", "a", "b", "c", "d"])] * 3, st.sampled_from([0.0, 1.0, float("nan")]))
    )
)
def test_every_row_of_a_list_is_kept_or_counted_once(rows: list[tuple[str, str, str, float]]) -> None:
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    keys = [Key("raw", (column,)) for column in columns[:3]]
    found = normalise_keys(keys, "", np.array(columns[3]))
    report = found.report
    assert report.rows == len(rows) == report.kept + report.duplicates + report.keyless
    assert len(found.rows) == report.kept == len(set(found.rows.tolist()))
    for values, key in zip(found.keys, report.keys, strict=True):
        present = [value for value in values if value is not None]
        assert len(present) == len(set(present)) == key.used
        assert key.used + key.empty + key.invalid + key.ambiguous == report.rows - report.duplicates
    assert all(any(row) for row in zip(*found.keys, strict=True))
    assert found.persons[found.rows].tolist() == list(range(report.kept))


@given(st.lists(st.sampled_from(["", "a", " a", "b", "c", "d"])))
def test_a_list_with_one_key_is_that_of_a_single_id(values: list[str]) -> None:
    several, single = normalise_keys([Key("raw", (values,))], ""), normalise_ids("raw", values, "")
    assert several.keys == (single.ids,)
    assert several.rows.tolist() == single.rows.tolist()
    assert several.report.duplicates == single.report.duplicates


@pytest.mark.parametrize(
    ("keys", "labels"),
    [
        ([], None),
        ([Key("raw", (["a"],)), Key("raw", (["a", "b"],))], None),
        ([Key("compound", (["a"], ["a", "b"]))], None),
        ([Key("raw", (["a"],))], np.zeros(2)),
    ],
)
def test_columns_of_different_lengths_are_refused(keys: list[Key], labels: np.ndarray | None) -> None:
    with pytest.raises(ValueError, match="one length"):
        normalise_keys(keys, "", labels)


# Two lists


def test_a_union_finds_people_whom_one_key_misses() -> None:
    bank = normalise_keys(
        [
            Key("phone", (["13800138000", "13900139000", ""],)),
            Key("email", (["a@x.cn", "b@x.cn", "c@x.cn"],)),
        ],
        "86",
    )
    shop = normalise_keys(
        [
            Key("phone", (["", "+86 138 0013 8000", "13600136000"],)),
            Key("email", (["C@x.cn", "", "b@x.cn"],)),
        ],
        "86",
    )
    found = join(bank.keys, shop.keys)
    assert (found.slots.tolist(), found.keys.tolist()) == ([1, 2, 0], [0, 1, 1])


@given(st.lists(st.integers(0, 30), unique=True), st.lists(st.integers(0, 30), unique=True))
def test_a_join_by_one_key_is_the_intersection(own: list[int], other: list[int]) -> None:
    found = join([list(map(str, own))], [list(map(str, other))])
    pairs = {(own[row], other[slot]) for row, slot in enumerate(found.slots) if slot != UNPAIRED}
    assert pairs == {(one, one) for one in set(own) & set(other)}


@given(st.lists(st.tuples(*[st.integers(0, 20)] * 3), max_size=20), st.randoms(use_true_random=False))
def test_the_pairs_of_a_union_do_not_depend_on_the_order_of_rows(
    people: list[tuple[int, int, int]], random: object
) -> None:
    columns = [[str(person[key]) for person in people] for key in range(3)]
    own = normalise_keys([Key("raw", (column,)) for column in columns], "").keys
    order = np.random.default_rng(len(people)).permutation(len(own[0]))
    shuffled = [[values[at] for at in order] for values in own]
    straight, mixed = join(own, own), join(shuffled, own)
    assert mixed.slots.tolist() == straight.slots[order].tolist()
    assert straight.slots.tolist() == list(range(len(own[0])))


def test_recall_and_precision_are_counted_against_the_truth() -> None:
    pairs = Pairs(np.array([0, 2, UNPAIRED, 3]), np.zeros(4, dtype=np.int8))
    found = quality(pairs, np.array([0, 1, 2, UNPAIRED]))
    assert (found.found, found.correct, found.true) == (3, 1, 3)
    assert (found.recall, found.precision) == (1 / 3, 1 / 3)
    nothing = quality(Pairs(np.full(2, UNPAIRED), np.full(2, UNPAIRED, np.int8)), np.full(2, UNPAIRED))
    assert (nothing.recall, nothing.precision) == (1.0, 1.0)


def test_lists_with_different_numbers_of_keys_are_not_joined() -> None:
    with pytest.raises(ValueError, match="2 keys here and 1 there"):
        join([["a"], ["b"]], [["a"]])


def test_keys_are_in_the_spelling_of_their_kind() -> None:
    written = ["+86 (0)138-0013-8000"]
    assert normalise_keys([Key("phone", (written,))], "86").keys[0] == tuple(
        normalise("phone", written, "86")
    )
