import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedmkt.contract.agreement import Contract
from fedmkt.crypto.prg import SeededRandom
from fedmkt.crypto.seal import Prekey
from fedmkt.crypto.sign import Identity
from fedmkt.errors import PeerError
from fedmkt.protocol.core import Name, data_parties, dealer, everyone
from fedmkt.protocol.session import (
    NEW_RUN,
    AddressedMasks,
    Epoch,
    Hello,
    Invitation,
    agree,
    common_checkpoints,
    dealer_seed,
    say_hello,
)
from tests.engine import BANK, DEALER, SHOP, TELECOM, toy_world

WORLD = toy_world(Path("unused"), lambda call, contract: None, names=(BANK, SHOP, TELECOM))  # type: ignore[arg-type,return-value]
CONTRACT: Contract = WORLD.contract
NAMES = everyone(CONTRACT)


def hellos(
    seed: bytes = b"1", run: bytes = NEW_RUN, epoch: int = 1, held: tuple[int, ...] = (), version: str = "1"
) -> dict[Name, tuple[Hello, Prekey]]:
    made = {}
    for name in NAMES:
        draw = SeededRandom(seed + name.encode())
        prekey = Prekey(draw(32))
        identity = WORLD.identities[name]
        hello = say_hello(
            CONTRACT, Invitation(run, epoch), identity, name, draw(32), prekey, held, {}, version
        )
        made[name] = (hello, prekey)
    return made


def agreed(made: dict[Name, tuple[Hello, Prekey]], me: Name = BANK) -> Epoch:
    return agree(CONTRACT, [h for h, _ in made.values()], WORLD.keys, made[me][0])


def resigned(hello: Hello, identity: Identity, **changes: object) -> Hello:
    changed = replace(hello, **changes)  # type: ignore[arg-type]
    return replace(changed, signature=identity.sign(changed.signed_bytes()))


def test_all_participants_derive_the_same_run_and_epoch() -> None:
    made = hellos()
    epochs = [agreed(made, me) for me in NAMES]
    assert len({(e.run, e.id) for e in epochs}) == 1
    assert set(epochs[0].prekeys) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_participant_alone_makes_run_and_epoch_fresh(name: Name) -> None:
    """A party whose peers were all rolled back still gets an epoch of its own."""
    made = hellos()
    fresh = made | {name: hellos(b"2")[name]}
    assert agreed(made, name).run != agreed(fresh, name).run
    assert agreed(made, name).id != agreed(fresh, name).id


def test_the_epochs_of_one_run_differ_even_with_the_same_nonces() -> None:
    one, other = (agreed(hellos(run=b"r" * 32, epoch=e)) for e in (2, 3))
    assert one.run == other.run == b"r" * 32
    assert one.id != other.id


def test_hellos_in_another_order_give_the_same_epoch() -> None:
    made = hellos()
    ids = {
        agree(CONTRACT, list(order), WORLD.keys, made[BANK][0]).id
        for order in itertools.permutations(h for h, _ in made.values())
    }
    assert len(ids) == 1


def test_a_dropped_hello_is_noticed_by_all() -> None:
    made = hellos()
    for missing in NAMES:
        rest = [h for n, (h, _) in made.items() if n != missing]
        for me in set(NAMES) - {missing}:
            with pytest.raises(PeerError, match="hellos"):
                agree(CONTRACT, rest, WORLD.keys, made[me][0])


def test_two_hellos_of_one_participant_are_refused() -> None:
    made = hellos()
    for extra in (made[SHOP][0], hellos(b"2")[SHOP][0]):
        with pytest.raises(PeerError, match="hellos"):
            agree(CONTRACT, [*(h for h, _ in made.values()), extra], WORLD.keys, made[BANK][0])


def test_a_hello_of_a_stranger_is_refused() -> None:
    made = hellos()
    stranger = resigned(made[SHOP][0], Identity(b"\x09" * 32), party="mallory")
    with pytest.raises(PeerError, match="hellos"):
        agree(CONTRACT, [*(h for h, _ in made.values()), stranger], WORLD.keys, made[BANK][0])


def test_a_participant_notices_that_its_own_hello_was_swapped_for_an_older_one() -> None:
    made, older = hellos(), hellos(b"0")
    with pytest.raises(PeerError, match="another hello than mine"):
        agree(CONTRACT, [h for h, _ in (made | {BANK: older[BANK]}).values()], WORLD.keys, made[BANK][0])


CHANGED: dict[str, object] = {
    "contract": b"d" * 32,
    "run": b"r" * 32,
    "epoch": 2,
    "nonce": b"n" * 32,
    "prekey": Prekey(b"\x55" * 32).public,
    "checkpoints": (58,),
    "version": "2",
    "signature": bytes(64),
}


@pytest.mark.parametrize("field", CHANGED)
def test_a_hello_changed_by_the_coordinator_is_refused_in_its(field: str) -> None:
    made = hellos()
    made[SHOP] = (replace(made[SHOP][0], **{field: CHANGED[field]}), made[SHOP][1])  # type: ignore[arg-type]
    for me in (BANK, TELECOM, DEALER):
        with pytest.raises(PeerError):
            agreed(made, me)


def test_a_hello_signed_with_another_than_the_pinned_key_is_refused() -> None:
    made = hellos()
    made[SHOP] = (resigned(made[SHOP][0], WORLD.identities[DEALER]), made[SHOP][1])
    with pytest.raises(PeerError, match="pinned"):
        agreed(made)


@pytest.mark.parametrize(
    "field,value", [("run", b"q" * 32), ("epoch", 2), ("epoch", 1), ("contract", b"d" * 32)]
)
def test_a_hello_of_another_run_epoch_or_contract_is_refused_though_validly_signed(
    field: str, value: object
) -> None:
    made = hellos(run=b"r" * 32, epoch=3)
    made[SHOP] = (resigned(made[SHOP][0], WORLD.identities[SHOP], **{field: value}), made[SHOP][1])
    with pytest.raises(PeerError, match="another contract, run or epoch"):
        agreed(made)


def test_swapped_prekeys_are_refused() -> None:
    made = hellos()
    (bank, _), (shop, _) = made[BANK], made[SHOP]
    made[SHOP] = (replace(shop, prekey=bank.prekey), made[SHOP][1])
    with pytest.raises(PeerError, match="pinned"):
        agreed(made)


def test_an_old_hello_with_valid_signature_leads_to_an_epoch_that_its_maker_does_not_share() -> None:
    """The same run and number, from an invitation that was never opened: only the epoch id tells."""
    old, made = hellos(b"0"), hellos(b"1")
    mixed = made | {SHOP: old[SHOP]}
    assert agreed(mixed, BANK).id != agreed(made, SHOP).id
    assert agreed(mixed, BANK).prekeys[SHOP] != made[SHOP][1].public


def test_parties_that_run_different_versions_do_not_begin() -> None:
    made = hellos() | {SHOP: hellos(version="2")[SHOP]}
    with pytest.raises(PeerError, match="runs fedmkt"):
        agreed(made)


def test_signed_bytes_of_hellos_do_not_collide_when_text_moves_between_fields() -> None:
    hello = hellos()[BANK][0]
    others = [
        replace(hello, run=b"ab", nonce=b"c"), replace(hello, run=b"a", nonce=b"bc"),
        replace(hello, checkpoints=(1, 2)), replace(hello, checkpoints=(12,)), replace(hello, epoch=11),
    ]  # fmt: skip
    assert len({h.signed_bytes() for h in others}) == len(others)


def test_only_checkpoints_that_all_parties_with_data_hold_are_common() -> None:
    held = {BANK: (10, 20, 30), SHOP: (20, 30, 40), TELECOM: (5, 20), DEALER: ()}
    made = [replace(h, checkpoints=held[n]) for n, (h, _) in hellos().items()]
    assert set(common_checkpoints(CONTRACT, made)) == {20}


# ------------------------------------------------------------------------------------------------- masks

EPOCH = b"e" * 32


def masks(seed: bytes = b"s" * 32, me: Name = BANK) -> AddressedMasks:
    return AddressedMasks({me: seed}, draws_again=False)


def drawn(**changes: object) -> np.ndarray:
    made = {"of": BANK, "label": "fit/w", "count": 1, "to": SHOP, "block": 0} | changes
    source = AddressedMasks({BANK: b"s" * 32, SHOP: b"s" * 32}, draws_again=False)
    return source.words(
        made["of"], made["label"], made["count"], 2048, to=made["to"], block=made["block"]  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_party_and_the_dealer_derive_the_same_seed_and_nobody_else_does() -> None:
    party, maker, other = (Prekey(bytes([i]) * 32) for i in (1, 2, 3))
    own = dealer_seed(party, maker.public, EPOCH, BANK)
    assert own == dealer_seed(maker, party.public, EPOCH, BANK)
    assert own != dealer_seed(maker, other.public, EPOCH, BANK)


def test_seeds_of_two_epochs_or_two_parties_are_unrelated_even_with_the_same_keys() -> None:
    party, maker = Prekey(b"\x01" * 32), Prekey(b"\x02" * 32)
    seeds = {dealer_seed(party, maker.public, e, p) for e in (EPOCH, b"f" * 32) for p in (BANK, SHOP)}
    assert len(seeds) == 4


def test_a_party_draws_no_address_twice() -> None:
    source = masks()
    source.words(BANK, "fit/w", 1, 8)
    with pytest.raises(ValueError, match="second time"):
        source.words(BANK, "fit/w", 1, 8)


def test_an_address_is_used_up_whatever_kind_or_shape_is_drawn_the_second_time() -> None:
    draws: list[Callable[[AddressedMasks], object]] = [
        lambda m: m.words(BANK, "fit/w", 1, (2, 4)),
        lambda m: m.half_words(BANK, "fit/w", 1, 8),
        lambda m: m.words(BANK, "fit/w", 1, 1),
        lambda m: m.words(BANK, "fit/w", 1, 0, to="", block=0),
    ]
    for first, second in itertools.product(draws, repeat=2):
        source = masks()
        first(source)
        with pytest.raises(ValueError, match="second time"):
            second(source)


def test_the_dealer_may_draw_again_and_gets_the_same_words_as_the_party() -> None:
    maker = AddressedMasks({BANK: b"s" * 32, SHOP: b"t" * 32}, draws_again=True)
    expected = masks().words(BANK, "fit/w", 1, 8, to=SHOP, block=3)
    for _ in range(2):
        assert np.array_equal(maker.words(BANK, "fit/w", 1, 8, to=SHOP, block=3), expected)
    assert not np.array_equal(maker.words(SHOP, "fit/w", 1, 8, to=SHOP, block=3), expected)


def test_a_party_has_no_stream_of_another_party() -> None:
    with pytest.raises(KeyError):
        masks().words(SHOP, "fit/w", 1, 8)


def test_streams_that_differ_in_one_part_of_their_address_are_unrelated() -> None:
    changes = [{"label": "fit/r"}, {"count": 2}, {"block": 1}, {"to": BANK}, {"to": ""}, {"of": SHOP}]
    streams = [drawn(), *(drawn(**c) for c in changes)]
    for one, other in itertools.combinations(streams, 2):
        bits = np.unpackbits((one ^ other).view(np.uint8))
        assert abs(bits.mean() - 0.5) < 6 * 0.5 / np.sqrt(bits.size)
        assert not np.intersect1d(one, other).size


def test_masks_of_two_epochs_are_unrelated() -> None:
    party, maker = Prekey(b"\x01" * 32), Prekey(b"\x02" * 32)
    one, other = (
        masks(dealer_seed(party, maker.public, e, BANK)).words(BANK, "fit/w", 1, 2048) for e in (b"1", b"2")
    )
    assert not np.intersect1d(one, other).size


def test_masks_show_nothing_of_themselves() -> None:
    assert repr(masks()) == "AddressedMasks(hidden)"


def test_the_dealer_is_no_party_that_holds_data() -> None:
    assert dealer(CONTRACT) == DEALER not in data_parties(CONTRACT)
