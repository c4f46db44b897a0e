from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

from fedmkt.contract.agreement import Contract
from fedmkt.crypto.sign import Identity
from fedmkt.errors import PeerError
from fedmkt.protocol import wire
from fedmkt.protocol.core import (
    Call,
    Caller,
    Inbox,
    Message,
    Name,
    Nothing,
    Outcome,
    PublicValue,
    Silent,
    Step,
    Turn,
    ask,
    data_parties,
    inbox_of,
)
from fedmkt.protocol.turns import EMPTY_TRANSCRIPT, Follower, Receipt, chain, request_digest
from tests.engine import BANK, DEALER, SHOP, toy_world

RUN = b"r" * 32


@dataclass(frozen=True)
class Number(Message):
    value: int


@dataclass(frozen=True)
class Announced(PublicValue):
    value: int


def _unused(turn: Turn, inbox: Inbox[Message]) -> Outcome[Number, Announced]:
    raise AssertionError("a follower runs no step")


GIVE: Step[Nothing, Number, Announced] = Step("toy.give", _unused, Announced)
PASS: Step[Number, Number, Announced] = Step("toy.pass", _unused, Announced, reads=(Number,))
BOTH: Step[Number, Number, Announced] = Step("toy.both", _unused, Announced, reads=(Number,))


def relay(call: Caller, contract: Contract) -> Announced:
    """One call, one call that reads it, one round of two; twice that if the bank announced an odd number."""
    bank, shop = data_parties(contract)
    first = call(bank, GIVE)
    for _ in range(1 + first.public.value.value % 2):
        second = call(shop, PASS, first.to(shop))
        last = call.all([ask(p, BOTH, *inbox_of([second], p)) for p in (bank, shop)])
    return last[0].public.value


WORLD = toy_world(Path("unused"), relay)


def follower(epoch: int = 1, run: bytes = RUN) -> Follower:
    made = Follower(relay, WORLD.contract, run, WORLD.keys, epoch)
    made.start(epoch)
    return made


def receipt(
    driven: Follower,
    offset: int = 0,
    *,
    told: int = 2,
    signer: Identity | None = None,
    to: Sequence[Name] = (),
    **changes: object,
) -> Receipt:
    """Make the receipt that an honest party gives for a call of the current round."""
    call: Call[object, PublicValue] = driven.round[offset]  # type: ignore[type-var]
    index = driven.index + offset
    digests = [s.digest for s in call.inbox]
    asked = request_digest(driven.run, driven.epoch, index, call.step.name, driven.transcript, digests)
    readers = to or [n for n in (BANK, SHOP) if n != call.party]
    parts = tuple((str(r), bytes([index, i]) * 16, 5) for i, r in enumerate(readers))
    public = wire.encode(Announced(told))
    plain = Receipt(index, driven.epoch, call.party, call.step.name, asked, public, parts, (), b"")
    plain = replace(plain, **changes)  # type: ignore[arg-type]
    identity = signer or WORLD.identities[call.party]
    return replace(plain, signature=identity.sign(plain.signed_bytes(driven.run, driven.transcript)))


def play(driven: Follower, rounds: int = 100, told: int = 2) -> list[Receipt]:
    made: list[Receipt] = []
    for _ in range(rounds):
        if driven.finished:
            break
        closed = [receipt(driven, i, told=told) for i in range(len(driven.round))]
        driven.advance(closed)
        made += closed
    return made


def test_a_follower_knows_the_calls_of_the_current_round_and_no_other() -> None:
    driven = follower()
    assert [c.step.name for c in driven.round] == ["toy.give"]
    assert driven.expected(0, BANK).step is GIVE
    for index, party in ((0, SHOP), (1, SHOP), (-1, BANK), (1 << 70, BANK)):
        with pytest.raises(PeerError):
            driven.expected(index, party)
    play(driven, 2)
    assert [(c.party, c.step.name) for c in driven.round] == [(BANK, "toy.both"), (SHOP, "toy.both")]
    assert driven.expected(3, SHOP).party == SHOP


def test_a_script_is_followed_to_its_result() -> None:
    driven = follower()
    made = play(driven)
    assert driven.finished and driven.result == Announced(2)
    assert [r.step for r in made] == ["toy.give", "toy.pass", "toy.both", "toy.both"]
    assert driven.round == []


def test_a_script_branches_on_what_the_receipts_announce() -> None:
    assert len(play(follower(), told=3)) == 7


def test_two_followers_of_the_same_receipts_have_the_same_transcript() -> None:
    one, other = follower(), follower()
    other.replay(play(one))
    assert one.transcript == other.transcript != EMPTY_TRANSCRIPT
    assert other.finished


def test_nothing_can_be_added_to_a_finished_script() -> None:
    driven = follower()
    made = play(driven)
    with pytest.raises(PeerError):
        driven.replay(made[-1:])


CHANGES: dict[str, object] = {
    "index": 1,
    "epoch": 2,
    "party": "shop",
    "step": "toy.pass",
    "request": b"q" * 32,
    "public": wire.encode(Announced(3)),
    "parts": (("shop", b"z" * 32, 5),),
    "riders": (("shop", b"z" * 32, 5),),
    "signature": bytes(64),
}


def test_every_field_of_a_receipt_is_among_those_changed_below() -> None:
    assert set(CHANGES) == {f.name for f in fields(Receipt)}


@pytest.mark.parametrize("field", CHANGES)
def test_a_receipt_changed_on_its_way_is_refused_in_its(field: str) -> None:
    driven = follower()
    altered = replace(receipt(driven), **{field: CHANGES[field]})  # type: ignore[arg-type]
    with pytest.raises(PeerError):
        driven.advance([altered])


@pytest.mark.parametrize("field", ["index", "party", "step", "request"])
def test_a_receipt_for_another_call_is_refused_though_its_party_signed_it(field: str) -> None:
    driven = follower()
    with pytest.raises(PeerError):
        driven.advance([receipt(driven, **{field: CHANGES[field]})])  # type: ignore[arg-type]


def test_a_receipt_of_another_epoch_answers_another_request() -> None:
    driven = follower()
    with pytest.raises(PeerError, match="another request"):
        driven.advance([receipt(driven, epoch=2)])


def test_a_receipt_signed_by_another_participant_is_refused() -> None:
    driven = follower()
    for name in (SHOP, DEALER):
        with pytest.raises(PeerError, match="not signed"):
            driven.advance([receipt(driven, signer=WORLD.identities[name])])


def test_a_receipt_of_another_run_is_refused() -> None:
    elsewhere = follower(run=b"q" * 32)
    with pytest.raises(PeerError):
        follower().advance([receipt(elsewhere)])


def test_a_receipt_after_another_history_is_refused() -> None:
    """The same call of the same run, but the round before it told something else."""
    one, other = follower(), follower()
    one.advance([receipt(one, told=2)])
    other.advance([receipt(other, told=4)])
    with pytest.raises(PeerError):
        one.advance([receipt(other)])


def test_two_histories_that_differ_in_one_announced_value_have_different_transcripts() -> None:
    transcripts = set()
    for told in (2, 4):
        driven = follower()
        play(driven, 1, told=told)
        transcripts.add(driven.transcript)
    assert len(transcripts) == 2


def test_two_histories_that_differ_in_one_envelope_have_different_transcripts() -> None:
    one, other = follower(), follower()
    one.advance([receipt(one)])
    other.advance([receipt(other, parts=(("shop", b"z" * 32, 5),))])
    assert one.transcript != other.transcript


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_round_is_closed_with_all_of_its_receipts_or_not_at_all(count: int) -> None:
    driven = follower()
    play(driven, 2)
    closed = [receipt(driven, 0), receipt(driven, 1), receipt(driven, 1)]
    with pytest.raises(PeerError, match="receipts"):
        driven.advance(closed[:count])


def test_receipts_of_a_round_in_another_order_are_refused() -> None:
    driven = follower()
    play(driven, 2)
    with pytest.raises(PeerError):
        driven.advance([receipt(driven, 1), receipt(driven, 0)])


def test_a_replay_that_ends_within_a_round_is_refused() -> None:
    made = play(follower())
    with pytest.raises(PeerError):
        follower().replay(made[:3])


def test_a_replay_with_a_gap_or_a_repetition_is_refused() -> None:
    made = play(follower())
    for altered in (made[1:], [made[0], *made], made[:1] + made[2:]):
        with pytest.raises(PeerError):
            follower().replay(altered)


def played_twice(told: int = 3) -> list[Receipt]:
    """Seven receipts: the bank's are 0, 2 and 5, the shop's the others."""
    made = play(follower(), told=told)
    assert [r.party for r in made] == [BANK, SHOP, BANK, SHOP, SHOP, BANK, SHOP]
    return made


@pytest.mark.parametrize("index", range(7))
@pytest.mark.parametrize("field", ["public", "parts", "request", "signer"])
def test_a_replay_with_one_receipt_altered_anywhere_is_refused(index: int, field: str) -> None:
    """Of most receipts the signature is not looked at: what its party signs later covers them."""
    made = played_twice()
    changed: object = {
        "public": wire.encode(Announced(5)),
        "parts": (),
        "request": b"x" * 32,
        "signer": b"x" * 64,
    }
    name = "signature" if field == "signer" else field
    altered = replace(made[index], **{name: changed[field]})  # type: ignore[index,arg-type]
    told = [*made[:index], altered, *made[index + 1 :]]
    is_vouched_for = field == "signer" and index < 5
    if is_vouched_for:
        follower().replay(told)  # all that is signed stands in what the same party signed later
        return
    driven = follower()
    with pytest.raises(PeerError):
        driven.replay(told)
    assert driven.round == [] and not driven.finished


def test_a_party_is_shown_its_own_receipts_as_it_made_them() -> None:
    made = played_twice()
    own = {r.index: r for r in made if r.party == BANK}
    follower().replay(made, own=own)
    for index in own:
        altered = replace(made[index], signature=b"x" * 64)
        with pytest.raises(PeerError, match="not the one that bank made"):
            follower().replay([*made[:index], altered, *made[index + 1 :]], own=own)


def test_a_replay_that_fails_leaves_no_call_to_answer() -> None:
    """The forged receipt would be vouched for by the one after it, which is not a receipt of this run at all."""
    made = play(follower())
    forged = replace(made[0], public=wire.encode(Announced(4)), signature=b"x" * 64)
    driven = follower()
    with pytest.raises(PeerError):
        driven.replay([forged, replace(made[0], index=9)])
    with pytest.raises(PeerError):
        driven.expected(1, SHOP)


def test_an_announced_value_of_another_class_is_refused_though_signed() -> None:
    driven = follower()
    for public in (wire.encode(Silent()), wire.encode(Number(3)), b"", b"\0" * 8):
        with pytest.raises((PeerError, ValueError)):
            driven.advance([receipt(driven, public=public)])


@pytest.mark.parametrize("length", [-1, 1 << 64, 1 << 200])
def test_absurd_numbers_in_a_receipt_are_a_peer_error(length: int) -> None:
    driven = follower()
    absurd = replace(receipt(driven), parts=(("shop", b"z" * 32, length),))
    with pytest.raises(PeerError):
        driven.advance([absurd])


def test_a_message_is_found_under_the_step_and_transcript_that_it_was_made_in() -> None:
    driven = follower()
    play(driven, 1)
    before = driven.transcript
    play(driven, 1)
    assert driven.made_at(0) == ("toy.give", EMPTY_TRANSCRIPT)
    assert driven.made_at(1) == ("toy.pass", before)
    with pytest.raises(KeyError):
        driven.made_at(2)


def test_requests_that_differ_in_anything_have_different_digests() -> None:
    base = (RUN, 1, 2, "toy.give", EMPTY_TRANSCRIPT, [b"a" * 32])
    changed = [
        (b"q" * 32, *base[1:]), (RUN, 2, *base[2:]), (RUN, 1, 3, *base[3:]), (RUN, 1, 2, "toy.pass", *base[4:]),
        (*base[:4], b"t" * 32, base[5]), (*base[:5], []), (*base[:5], [b"b" * 32]), (*base[:5], [b"a" * 32] * 2),
    ]  # fmt: skip
    digests = {request_digest(*arguments) for arguments in (base, *changed)}  # type: ignore[arg-type]
    assert len(digests) == 1 + len(changed)


def test_a_transcript_depends_on_every_receipt_and_on_their_order() -> None:
    driven = follower()
    play(driven, 2)
    one, other = receipt(driven, 0), receipt(driven, 1)
    signed = [r.signed_bytes(RUN, EMPTY_TRANSCRIPT) for r in (one, other)]
    chained = {chain(EMPTY_TRANSCRIPT, s) for s in (signed, signed[::-1], signed[:1], signed[1:], [])}
    assert len(chained) == 5


def test_signed_bytes_of_receipts_do_not_collide_when_text_moves_between_fields() -> None:
    base = receipt(follower())
    variants = [
        replace(base, step="a\nb", party="c"), replace(base, step="b", party="c\na"),
        replace(base, parts=(("ab", b"", 1),)), replace(base, parts=(("a", b"b", 1),)),
        replace(base, parts=(("a", b"d" * 8 + bytes(7) + b"\1" + bytes(3) + b"\1b", 1),)),
        replace(base, parts=(("a", b"d" * 8, 1), ("b", b"", 1))), replace(base, request=b"q", public=b""),
        replace(base, public=b"xy", parts=()), replace(base, public=b"x", parts=()),
    ]  # fmt: skip
    signed = {r.signed_bytes(RUN, EMPTY_TRANSCRIPT) for r in variants}
    assert len(signed) == len(variants)
