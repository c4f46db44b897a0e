"""Ids, points and messages: what is planted is found, what is altered is refused."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fedmkt.attack_lab.attacks import ids, messages, points
from fedmkt.attack_lab.effort import quick
from fedmkt.attack_lab.subject import Subject
from tests.attack_lab.planted import shown

VECTORS = Path(__file__).parents[1] / "vectors" / "rfc9496_ristretto255.json"


@pytest.mark.parametrize("attack", [ids.hashed_ids, points.bad_points, messages.altered])
def test_an_attack_on_messages_works_undefended_and_not_here(attack, linear: Subject):
    found = attack(linear, quick(1))
    assert found.verdict == "held" and found.here == 0


@pytest.mark.parametrize("recipe", ids.RECIPES)
def test_ids_under_every_recipe_are_found_wherever_they_stand(recipe, linear: Subject):
    people = linear.tables["partner"].people[:20]
    needles = ids.Needles(people, b"contract")
    for offset in (0, 3):
        data = b"x" * offset + b"".join(ids.RECIPES[recipe](p.encode(), b"contract") for p in people)
        assert needles.find(data) == set(people)
    assert needles.find(np.random.default_rng(1).bytes(10_000)) == set()


def test_hashes_in_a_message_or_a_log_are_found(linear: Subject):
    people = linear.tables["bank"].people
    codes = np.frombuffer(b"".join(hashlib.md5(p.encode()).digest() for p in people), np.uint8)
    assert ids.hashed_ids(shown(linear, "partner", codes), quick(1)).here == min(2000, len(people))
    note = linear.given / "logs" / "planted.txt"
    note.write_text(hashlib.sha256(people[0].encode()).hexdigest())
    try:
        assert ids.hashed_ids(linear, quick(1)).here in (0, 1)  # the one may be among those not looked for
        everybody = ids.Needles(people, b"")
        assert everybody.find(note.read_bytes()) == {people[0]}
    finally:
        note.unlink()


def test_the_bad_encodings_are_those_of_the_standard():
    invalid = json.loads(VECTORS.read_text())["invalid"]
    assert sorted(points.BAD_ENCODINGS) == sorted(p for group in invalid.values() for p in group)


def test_unaltered_messages_are_opened_and_each_kind_of_change_is_not(linear: Subject):
    random = np.random.default_rng(3)
    identity, prekey = messages.Identity(random.bytes(32)), messages.Prekey(random.bytes(32))
    sent = messages.sealed_again(linear, identity, prekey, random)
    assert len(sent) > 10
    for one in sent:
        assert messages.is_opened(one.envelope, one.place, identity.public, prekey)
    for change in messages.CHANGES.values():
        for one, other in pairwise(sent):
            assert not messages.is_opened(*change(one, other, random), identity.public, prekey)
