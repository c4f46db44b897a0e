"""Every engine gives what a plain set operation gives; the long forms are in `engine_cases` (make psi-cases)."""

from dataclasses import replace

import numpy as np
import pytest

from fedmkt.contract.agreement import AlignTerms
from fedmkt.crypto.prg import SeededRandom
from fedmkt.crypto.seal import Place, Prekey, open_sealed, seal
from fedmkt.crypto.sign import Identity
from fedmkt.protocol.alignment import items
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.alignment.psi import SHORT_LIST, engine, engine_name
from tests.protocol.engine_cases import ENGINES, Case, check, disturb, draw, found
from tests.protocol.plain_caller import BANK, SHOP, contract_of


@pytest.mark.parametrize("name", ENGINES)
def test_random_lists_match_as_plain_sets_do(name):
    random = np.random.default_rng(7)
    for _ in range(25):
        check(draw(random, name, longest=2_000))


@pytest.mark.parametrize("name", ENGINES)
def test_no_changed_message_crashes_or_invents_a_match(name):
    random = np.random.default_rng(8)
    endings = [disturb(random, name)[1] for _ in range(30)]
    assert endings.count("PeerError") > 5


@pytest.mark.parametrize("name", ENGINES)
def test_blocks_are_put_together(name, monkeypatch):
    monkeypatch.setattr(items, "BLOCK", 1024)
    random = np.random.default_rng(9)
    everybody = random.integers(0, 2**64, (3500, 2), dtype=np.uint64)
    check(Case(name, everybody[:2100], everybody[1400:], 1))
    check(Case(name, everybody[:1024], everybody[1000:3048], 2))


@pytest.mark.parametrize("name", ENGINES)
def test_all_messages_of_a_run_have_the_lengths_that_the_list_sizes_give(name):
    """Whatever is common, and wherever: placing items must not show in the length or the number of messages."""
    random = np.random.default_rng(10)
    seen = []
    for common in (0, 1, 150, 300):
        everybody = random.integers(0, 2**64, (700 - common, 2), dtype=np.uint64)
        caller = Case(name, everybody[:300], everybody[300 - common :], common).run()
        assert (found(caller).positions != NO_ROW).sum() == common
        seen.append([(s.step, s.sender, s.reader, len(s.data)) for s in caller.sent])
    assert all(run == seen[0] for run in seen)


@pytest.mark.parametrize("name", ENGINES)
def test_what_a_partner_receives_of_two_runs_is_unrelated(name):
    random = np.random.default_rng(11)
    everybody = random.integers(0, 2**64, (400, 2), dtype=np.uint64)
    runs = [Case(name, everybody[:200], everybody[100:], seed).run() for seed in (1, 2)]
    views = [{bytes(w) for s in r.seen_by(SHOP) for w in _pieces(s.data)} for r in runs]
    assert len(views[0]) > 200 and len(views[0] & views[1]) < 5


def _pieces(data: bytes) -> list[bytes]:
    body = data[4 + int.from_bytes(data[:4], "big") :]
    return [body[i : i + 16] for i in range(0, len(body), 16) if len(set(body[i : i + 16])) > 8]


def test_short_lists_take_the_plainest_engine_and_the_younger_assumption_is_never_taken_unasked():
    contract = contract_of()
    assert engine_name(contract, {BANK: SHORT_LIST, SHOP: SHORT_LIST}) == "oprf"
    assert engine_name(contract, {BANK: SHORT_LIST + 1, SHOP: 10}) == "ot"
    assert engine_name(contract, {BANK: 10, SHOP: 10**7}) == "ot"
    for name, intersect in ENGINES.items():
        named = contract_of(align={"engine": name})
        assert engine_name(named, {BANK: 10, SHOP: 10}) == name
        assert engine(named, {BANK: 10, SHOP: 10}) is intersect


def test_a_kept_set_needs_the_engine_that_has_one():
    for name in ("ot", "vole"):
        with pytest.raises(ValueError, match="reuse needs engine oprf"):
            AlignTerms(engine=name, reuse=1)
    assert engine_name(contract_of(align={"reuse": 5}), {BANK: 10**6, SHOP: 10**6}) == "oprf"


def test_two_thousand_changed_envelopes_of_an_intersection_are_refused():
    """In transit nothing can be changed at all: every message between parties is signed and sealed for its reader."""
    random = np.random.default_rng(12)
    case = Case("ot", *random.integers(0, 2**64, (2, 100, 2), dtype=np.uint64), 1)
    sent = [s for s in case.run().sent if s.reader == BANK]
    fresh = SeededRandom(b"changed envelopes")
    identity, prekey = Identity.generate(fresh), Prekey(fresh(32))
    refused = 0
    for i in range(2000):
        message = sent[i % len(sent)]
        place = Place(
            bytes(32), bytes(32), bytes(32), "main_job", i, message.step, message.sender, BANK, bytes(32)
        )
        envelope = seal(message.data, place, identity, prekey.public, fresh)
        with pytest.raises(ValueError):
            open_sealed(_flipped(envelope, i % 3, random), place, identity.public, prekey)
        refused += 1
    assert refused == 2000


def _flipped(envelope, part, random):
    """Flip one bit of the sender's key, the signature or the first piece of the content."""

    def flip(data):
        raw = bytearray(data)
        raw[random.integers(len(raw))] ^= 1 << int(random.integers(8))
        return bytes(raw)

    changes = (
        {"ephemeral": flip(envelope.ephemeral)},
        {"signature": flip(envelope.signature)},
        {"parts": (flip(envelope.parts[0]), *envelope.parts[1:])},
    )
    return replace(envelope, **changes[part])
