import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fedmkt.contract.agreement import Contract, Limits
from fedmkt.contract.signatures import SignedContract, sign
from fedmkt.crypto.seal import MAX_MESSAGE_BYTES, Envelope
from fedmkt.crypto.sign import Identity
from fedmkt.errors import DataError, PeerError, PolicyRefused
from fedmkt.party.handle import Party
from fedmkt.privacy.disclosure import EVERYONE, ListSize, SetSize
from fedmkt.protocol import wire
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Message,
    Name,
    Nothing,
    Outcome,
    PublicValue,
    Script,
    Silent,
    State,
    Step,
    Turn,
    ask,
    inbox_of,
    to_all,
)
from fedmkt.protocol.session import NEW_RUN, Answer, Hello, Invitation, Opening, Request
from fedmkt.protocol.turns import Receipt
from fedmkt.protocol.witness import checkpoint, close, witness
from fedmkt.transport.driver import Ask, Refusal, Told, serve
from tests.engine import BANK, DEALER, SHOP, TELECOM, Hand, Tap, World, begin, toy_world

PRIVATE = "customer-4711-income-98765"
ALL = (BANK, SHOP, TELECOM)


@dataclass(frozen=True)
class Number(Message):
    value: int


@dataclass(frozen=True)
class Announced(PublicValue):
    value: int


@dataclass(frozen=True)
class Counter(State):
    value: int


def _others(turn: Turn) -> tuple[Name, ...]:
    return tuple(p for p in (*ALL, DEALER) if p != turn.me and p in {s.name for s in turn.contract.signers})


def _tell(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Number, Announced]:
    return Outcome(Announced(len(turn.me)), send=to_all(_others(turn), Number(7)))


def _pass_on(turn: Turn, inbox: Inbox[Number]) -> Outcome[Number, Announced]:
    total = sum(m.value for m in inbox.every(Number))
    count = turn.recall(Counter).value + 1 if turn.has(Counter) else 1
    return Outcome(Announced(total), send=to_all(_others(turn), Number(total)), keep=(Counter(count),))


TELL = Step("toy.tell", _tell, Announced)
PASS = Step("toy.pass", _pass_on, Announced, reads=(Number,))


def exchange(call: Caller, contract: Contract) -> Announced:
    """The dealer and the telecom tell; then bank, shop and bank again pass on what came last; checkpoints between."""
    call(DEALER, TELL)
    call(TELECOM, TELL)
    first = call(BANK, TELL)
    call(SHOP, PASS, first.to(SHOP))
    checkpoint(call, contract)
    third = call(BANK, TELL)
    fourth = call(SHOP, PASS, third.to(SHOP))
    call.all([ask(p, PASS, *inbox_of([fourth], p)) for p in (BANK, TELECOM)])
    checkpoint(call, contract)
    return call(SHOP, PASS, call(BANK, TELL).to(SHOP)).public.value


@pytest.fixture
def world(tmp_path: Path) -> World:
    return toy_world(tmp_path, exchange, names=ALL, limits=Limits(max_resumes=3, max_runs=3))


@pytest.fixture
def hand(world: World) -> Hand:
    world.open()
    return Hand(world, begin(world.parties))


def lines(world: World, name: Name) -> list[Mapping[str, object]]:
    text = (world.folder_of(name) / "log" / "log.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def everything_on_disk(world: World) -> bytes:
    return b"\n".join(p.read_bytes() for p in sorted(world.folder.rglob("*")) if p.is_file())


def forged(receipt: Receipt, world: World, run: bytes, transcript: bytes, **changes: object) -> Receipt:
    """What a coordinator makes of a receipt whose signer's key it owns."""
    changed = replace(receipt, **changes)  # type: ignore[arg-type]
    identity = world.identities[Name(receipt.party)]
    return replace(changed, signature=identity.sign(changed.signed_bytes(run, transcript)))


# ------------------------------------------------------------------------------------------- the honest run


def test_a_script_runs_to_its_end_over_parties_that_share_nothing_but_messages(world: World) -> None:
    assert world.run() == Announced(7)


def test_every_message_on_its_way_is_sealed(world: World) -> None:
    tap = Tap()
    world.run(tap)
    plain = wire.encode(Number(7))
    assert len(tap.envelopes) > 20
    assert not any(plain in part for e in tap.envelopes for part in e.parts)


# ------------------------------------------------------------------------------------------- at most once


def test_the_same_request_gets_the_same_bytes_again(hand: Hand) -> None:
    hand.step(3)
    first, second = hand.ask(), hand.ask()
    assert [wire.encode(a) for a in first] == [wire.encode(a) for a in second]
    hand.accept(second)
    hand.step(2)


def test_a_step_runs_once_however_often_it_is_asked(hand: Hand) -> None:
    hand.step(3)
    for _ in range(4):
        hand.ask()
    assert hand.parties[SHOP].recall(Counter) == Counter(1)
    assert sum(r["type"] == "step.completed" for r in lines(hand.world, SHOP)) == 1


def _other_requests(hand: Hand) -> dict[str, Request]:
    """Requests under the number of the shop's first call that are not the one it was asked."""
    ((_, honest),) = hand.requests()
    other = hand.parties[TELECOM]
    assert other is not None
    return {
        "another step": replace(honest, step="toy.tell"),
        "no message": replace(honest, inbox=()),
        "a message twice": replace(honest, inbox=honest.inbox * 2),
        "another message": replace(honest, inbox=(hand.bodies[0, SHOP],)),
    }


@pytest.mark.parametrize("what", ["another step", "no message", "a message twice", "another message"])
def test_under_a_used_number_another_request_ends_the_epoch_with(what: str, hand: Hand) -> None:
    hand.step(3)
    ((_, honest),) = hand.requests()
    shop = hand.parties[SHOP]
    shop.handle(honest)
    with pytest.raises(PeerError, match="answered for another request"):
        shop.handle(_other_requests(hand)[what])
    with pytest.raises(PeerError, match="no epoch is open"):
        shop.handle(honest)


@pytest.mark.parametrize("what", ["another step", "no message", "a message twice", "another message"])
def test_under_a_fresh_number_a_request_that_is_not_the_scripts_ends_the_epoch_with(
    what: str, hand: Hand
) -> None:
    hand.step(3)
    ((_, honest),) = hand.requests()
    shop = hand.parties[SHOP]
    with pytest.raises(PeerError):
        shop.handle(_other_requests(hand)[what])
    with pytest.raises(PeerError, match="no epoch is open"):
        shop.handle(honest)
    assert lines(hand.world, SHOP)[-1]["type"] == "run.aborted"


def test_a_finished_call_is_not_answered_again_once_the_script_went_on(hand: Hand) -> None:
    hand.step(3)
    ((_, old),) = hand.requests()
    hand.step(1)
    hand.step(3)  # the checkpoint, a call of the bank, and the shop's next call
    with pytest.raises(PeerError, match="not in the current round"):
        hand.parties[SHOP].handle(old)


@pytest.mark.parametrize(
    "name,index,step", [(BANK, 2, "toy.tell"), (SHOP, 3, "toy.pass"), (SHOP, -1, "toy.pass")]
)
def test_a_call_is_refused_before_its_turn(name: Name, index: int, step: str, hand: Hand) -> None:
    with pytest.raises(PeerError, match="not in the current round"):
        hand.parties[name].handle(Request(index, step, (), ()))


def test_a_call_for_another_party_is_refused(hand: Hand) -> None:
    with pytest.raises(PeerError, match="is for coordinator, not for bank"):
        hand.parties[BANK].handle(Request(0, "toy.tell", (), ()))


def test_nothing_is_answered_before_an_epoch_is_open(world: World) -> None:
    world.open()
    with pytest.raises(PeerError, match="no epoch is open"):
        world.parties[DEALER].handle(Request(0, "toy.tell", (), ()))


@pytest.mark.parametrize("step", ["x" * 10_000, "\ud800", "\n\0", "é" * 100])
@pytest.mark.parametrize("index", [0, -(1 << 70), 1 << 70])
def test_a_senseless_request_is_refused_and_the_refusal_logged(step: str, index: int, hand: Hand) -> None:
    told = serve(hand.parties[DEALER], Request(index, step, (), ()))
    assert told == Refusal("PeerError", step)
    assert [r["type"] for r in lines(hand.world, DEALER)][-2:] == ["message.rejected", "run.aborted"]


@pytest.mark.parametrize("length", [0, 1, 1 << 20, MAX_MESSAGE_BYTES])
def test_an_envelope_of_another_length_is_refused(length: int, hand: Hand) -> None:
    hand.step(3)
    ((_, honest),) = hand.requests()
    altered = replace(honest.inbox[0], length=length)
    assert serve(hand.parties[SHOP], replace(honest, inbox=(altered,))) == Refusal("PeerError", "toy.pass")


# ------------------------------------------------------------------------------------------- altered messages


def _altered(envelope: Envelope) -> dict[str, Envelope]:
    part = bytes([envelope.parts[0][0] ^ 1]) + envelope.parts[0][1:]
    return {
        "part": replace(envelope, parts=(part,)),
        "signature": replace(envelope, signature=bytes(64)),
        "ephemeral": replace(envelope, ephemeral=b"\x09" + bytes(31)),
        "sender": replace(envelope, sender="telecom"),
        "unknown_sender": replace(envelope, sender="mallory"),
        "reader": replace(envelope, reader="telecom"),
    }


@pytest.mark.parametrize("what", ["part", "signature", "ephemeral", "sender", "unknown_sender", "reader"])
def test_a_message_changed_on_its_way_is_refused_in_its(what: str, hand: Hand) -> None:
    hand.step(3)
    ((_, honest),) = hand.requests()
    with pytest.raises(PeerError):
        hand.parties[SHOP].handle(replace(honest, inbox=(_altered(honest.inbox[0])[what],)))


def test_a_message_of_an_earlier_call_is_refused_in_place_of_a_later_one(hand: Hand) -> None:
    """Same sender, reader, step and content: only index and transcript differ."""
    hand.step(3)
    early = hand.bodies[2, SHOP]
    hand.step(3)
    ((name, honest),) = hand.requests()
    assert name == SHOP and honest.inbox[0].parts != early.parts
    with pytest.raises(PeerError):
        hand.parties[SHOP].handle(replace(honest, inbox=(early,)))


def test_a_message_for_another_reader_is_refused(hand: Hand) -> None:
    hand.step(3)
    ((_, honest),) = hand.requests()
    with pytest.raises(PeerError):
        hand.parties[SHOP].handle(replace(honest, inbox=(hand.bodies[2, TELECOM],)))


def test_messages_of_two_readers_are_unrelated_though_they_say_the_same(hand: Hand) -> None:
    hand.step(3)
    one, other = hand.bodies[2, SHOP], hand.bodies[2, TELECOM]
    assert one.ephemeral != other.ephemeral and one.parts != other.parts


# ------------------------------------------------------------------------------------------- equivocation


def _as_seen(receipts: list[Receipt], lie: Receipt) -> tuple[Receipt, ...]:
    return tuple(lie if r.index == lie.index else r for r in receipts)


@pytest.mark.parametrize("liar,index", [(DEALER, 0), (TELECOM, 1)])
@pytest.mark.parametrize("field", ["public", "parts"])
def test_a_coordinator_with_the_key_of(liar: Name, index: int, field: str, hand: Hand) -> None:
    """It owns that key and tells bank and shop two things, both validly signed: caught at the bank's next message."""
    hand.step(2)
    world, run = hand.world, hand.parties[BANK].run
    truth = hand.receipts[index]
    transcripts = [bytes(32)]
    probe = Hand(world, run)
    for receipt in hand.receipts:
        probe.follower.advance([receipt])
        transcripts.append(probe.follower.transcript)
    changes = {"public": wire.encode(Announced(99)), "parts": (("bank", b"z" * 32, 5),)}
    lie = forged(truth, world, run, transcripts[index], **{field: changes[field]})
    if index == 0:  # the round after it is told on top of the lie, by the telecom that heard it too
        told = forged(hand.receipts[1], world, run, _after(world, run, lie))
        seen = (lie, told)
    else:
        seen = (hand.receipts[0], lie)
    with pytest.raises(PeerError):
        # Bank heard the lie, shop the truth. If already the bank refuses, the lie needs more keys than one.
        answer = hand.parties[BANK].handle(Request(2, "toy.tell", seen, ()))
        news = (*hand.receipts, answer.receipt)
        hand.parties[SHOP].handle(Request(3, "toy.pass", news, (_for(answer, SHOP),)))


def _after(world: World, run: bytes, lie: Receipt) -> bytes:
    probe = Hand(world, run)
    probe.follower.advance([lie])
    return probe.follower.transcript


def _for(answer: Answer, reader: Name) -> Envelope:
    return next(e for e in answer.envelopes if e.reader == reader)


def test_a_message_sealed_under_another_story_is_refused_even_if_its_receipt_were_accepted(
    hand: Hand,
) -> None:
    """The coordinator owns telecom *and bank*: it signs a receipt for the bank that fits the shop's story."""
    hand.step(2)
    world, run = hand.world, hand.parties[BANK].run
    before = Hand(world, run)
    before.follower.advance([hand.receipts[0]])
    lie = forged(hand.receipts[1], world, run, before.follower.transcript, public=wire.encode(Announced(99)))
    answer = hand.parties[BANK].handle(Request(2, "toy.tell", (hand.receipts[0], lie), ()))
    honest = Hand(world, run)
    honest.follower.replay(hand.receipts)
    digests: list[bytes] = []
    from fedmkt.protocol.turns import request_digest

    asked = request_digest(run, 1, 2, "toy.tell", honest.follower.transcript, digests)
    fitted = forged(answer.receipt, world, run, honest.follower.transcript, request=asked)
    honest.follower.advance([fitted])  # the receipt alone convinces
    with pytest.raises(PeerError, match="signature"):
        hand.parties[SHOP].handle(Request(3, "toy.pass", (*hand.receipts, fitted), (_for(answer, SHOP),)))


def test_a_public_value_changed_by_the_coordinator_is_refused_at_once(hand: Hand) -> None:
    hand.step(2)
    lie = replace(hand.receipts[1], public=wire.encode(Announced(99)))
    with pytest.raises(PeerError, match="not signed"):
        hand.parties[BANK].handle(Request(2, "toy.tell", _as_seen(hand.receipts, lie), ()))


@pytest.mark.parametrize("dropped", [0, 1])
def test_a_party_that_is_not_shown_a_receipt_answers_nothing(dropped: int, hand: Hand) -> None:
    hand.step(2)
    rest = tuple(r for r in hand.receipts if r.index != dropped)
    with pytest.raises(PeerError):
        hand.parties[BANK].handle(Request(2, "toy.tell", rest, ()))


def test_receipts_of_an_earlier_run_are_refused_in_a_later_one(world: World) -> None:
    tap = Tap()
    world.run(tap)
    old = [a.receipt for a in tap.answers]
    world.open()
    begin(world.parties)
    with pytest.raises(PeerError):
        world.parties[BANK].handle(Request(2, "toy.tell", tuple(old[:2]), ()))


def test_receipts_of_an_earlier_epoch_are_refused_in_a_later_one(hand: Hand) -> None:
    hand.step(2)
    world, run = hand.world, hand.parties[BANK].run
    parties = world.open()
    begin(parties, run, 2)
    with pytest.raises(PeerError, match="another epoch"):
        parties[BANK].handle(Request(2, "toy.tell", tuple(hand.receipts), ()))


def test_messages_of_an_earlier_epoch_are_refused_in_a_later_one(hand: Hand) -> None:
    hand.step(3)
    old = hand.bodies[2, SHOP]
    world, run = hand.world, hand.parties[BANK].run
    world.open()
    begin(world.parties, run, 2)
    again = Hand(world, run, epoch=2)
    again.step(3)
    ((_, honest),) = again.requests()
    with pytest.raises(PeerError):
        world.parties[SHOP].handle(replace(honest, inbox=(old,)))


# ------------------------------------------------------------------------------------------- epochs


def _hellos(parties: Mapping[Name, Party], run: bytes = NEW_RUN, epoch: int = 1) -> dict[Name, Hello]:
    return {n: p.hello(Invitation(run, epoch)) for n, p in parties.items()}


def test_an_epoch_is_opened_with_the_hellos_of_all(world: World) -> None:
    parties = world.open()
    hellos = _hellos(parties)
    for dropped in parties:
        for name in set(parties) - {dropped}:
            parties[name].hello(Invitation(NEW_RUN, 1))
        rest = tuple(h for n, h in hellos.items() if n != dropped)
        for name in set(parties) - {dropped}:
            with pytest.raises(PeerError):
                parties[name].open_epoch(Opening(rest, ()))


def test_an_epoch_is_not_opened_with_an_older_hello_of_oneself(world: World) -> None:
    parties = world.open()
    old = _hellos(parties)
    _hellos(parties)
    with pytest.raises(PeerError, match="another hello"):
        parties[BANK].open_epoch(Opening(tuple(old.values()), ()))


@pytest.mark.parametrize("size", [-1, 1, 1 << 40, 1 << 70])
def test_a_peer_that_counter_signed_more_than_there_is_says_so_in_vain(world: World, size: int) -> None:
    parties = world.open()
    hellos = _hellos(parties)
    lying = replace(hellos[SHOP], heads=((str(BANK), size),))
    if 0 <= size < 1 << 64:
        lying = replace(lying, signature=world.identities[SHOP].sign(lying.signed_bytes()))
    with pytest.raises(PeerError):
        parties[BANK].open_epoch(Opening(tuple((hellos | {SHOP: lying}).values()), ()))


@pytest.mark.parametrize(
    "lie",
    [{"heads": (("bank", -1),)}, {"heads": (("bank", 1 << 70),)}, {"party": "nobody"}, {"version": "\ud800"}],
)
def test_a_hello_that_nobody_signed_ends_the_run_at_the_coordinator_in_one_line(
    lie: Any, world: World
) -> None:
    def reply(name: Name, message: Ask, told: Told) -> Told:
        return replace(told, **lie) if isinstance(told, Hello) and name == SHOP else told

    with pytest.raises(PeerError, match="shop: its hello is not signed with its pinned key"):
        world.run(Tap(reply=reply))


def test_an_old_hello_of_a_peer_leads_to_an_epoch_in_which_nothing_is_understood(world: World) -> None:
    """The shop's hello of an invitation before is shown to the bank: validly signed, of the same run and number."""
    parties = world.open()
    old = _hellos(parties)
    new = _hellos(parties)
    deceived = Opening(tuple((new | {SHOP: old[SHOP]}).values()), ())
    parties[BANK].open_epoch(deceived)
    for name in (SHOP, TELECOM, DEALER):
        parties[name].open_epoch(Opening(tuple(new.values()), ()))
    receipt = parties[DEALER].handle(Request(0, "toy.tell", (), ())).receipt
    second = parties[TELECOM].handle(Request(1, "toy.tell", (receipt,), ())).receipt
    with pytest.raises(PeerError):
        parties[BANK].handle(Request(2, "toy.tell", (receipt, second), ()))


def test_prekeys_swapped_between_hellos_are_refused(world: World) -> None:
    parties = world.open()
    hellos = _hellos(parties)
    swapped = hellos | {SHOP: replace(hellos[SHOP], prekey=hellos[TELECOM].prekey)}
    with pytest.raises(PeerError):
        parties[BANK].open_epoch(Opening(tuple(swapped.values()), ()))


def test_an_opening_works_once_for_each_invitation(world: World) -> None:
    parties = world.open()
    opening = Opening(tuple(_hellos(parties).values()), ())
    parties[BANK].open_epoch(opening)
    with pytest.raises(PeerError, match="not invited"):
        parties[BANK].open_epoch(opening)


def test_nothing_of_an_epoch_is_answered_once_another_was_opened_or_tried(hand: Hand) -> None:
    hand.step(2)
    parties = hand.parties
    run = parties[BANK].run
    ((_, request),) = hand.requests()
    hellos = _hellos(parties, run, 2)
    with pytest.raises(PeerError):
        parties[BANK].open_epoch(Opening(tuple(hellos.values())[:-1], ()))
    with pytest.raises(PeerError, match="no epoch is open"):
        parties[BANK].handle(request)


def test_a_party_that_said_hello_counter_signs_nothing_more_of_the_epoch_before(tmp_path: Path) -> None:
    """Its hello says what it counter-signed last: were that no longer so, it would accuse honest peers of a fork."""

    def witnessed(call: Caller, contract: Contract) -> Announced:
        witness(call, contract)
        checkpoint(call, contract)
        told = call(BANK, TELL)
        witness(call, contract)
        return told.public.value

    world = toy_world(tmp_path, witnessed)
    world.open()
    hand = Hand(world, begin(world.parties))
    hand.step(3)
    run, receipts = hand.parties[BANK].run, tuple(hand.receipts)
    early = hand.parties[SHOP].hello(Invitation(run, 2))
    with pytest.raises(PeerError, match="no epoch is open"):
        hand.step(3)
    others = {n: hand.parties[n].hello(Invitation(run, 2)) for n in (BANK, DEALER)}
    opening = Opening((early, *others.values()), receipts)
    assert {p.open_epoch(opening) for p in hand.parties.values()} == {run}


@pytest.mark.parametrize("epoch", [-1, 0, 1, 2])
def test_an_epoch_that_is_not_later_than_all_before_is_refused(epoch: int, hand: Hand) -> None:
    world, run = hand.world, hand.parties[BANK].run
    parties = world.open()
    begin(parties, run, 2)
    with pytest.raises(PeerError, match="not new"):
        world.open()[BANK].hello(Invitation(run, epoch))


@pytest.mark.parametrize("run,epoch", [(NEW_RUN, 2), (NEW_RUN, 0), (b"r" * 32, 1)])
def test_a_new_run_begins_with_epoch_one_and_only_a_new_run(run: bytes, epoch: int, world: World) -> None:
    with pytest.raises(PeerError, match="not new"):
        world.open()[BANK].hello(Invitation(run, epoch))


def test_more_resumes_than_the_contract_allows_are_refused(hand: Hand) -> None:
    world, run = hand.world, hand.parties[BANK].run
    begin(world.open(), run, 4)
    with pytest.raises(PolicyRefused, match="resumes"):
        world.open()[BANK].hello(Invitation(run, 5))


def test_more_runs_than_the_contract_allows_are_refused(world: World) -> None:
    for _ in range(3):
        begin(world.open())
    with pytest.raises(PolicyRefused, match="all were used"):
        begin(world.open())


def test_two_runs_of_one_contract_are_never_open_at_once(world: World) -> None:
    """Two processes of each party: the second may say hello, and opens nothing while the first lives."""
    first = dict(world.open())
    world.parties = {}
    run = begin(first)
    second = world.open()
    for attempt in (NEW_RUN, run):
        hellos = _hellos(second, attempt, 1 if attempt == NEW_RUN else 2)
        for name in second:
            with pytest.raises(PolicyRefused, match="under way"):
                second[name].open_epoch(Opening(tuple(hellos.values()), ()))
    for party in first.values():
        party.release()
    begin(second, run, 2)


def test_a_party_that_is_invited_to_a_second_run_gives_up_the_first(hand: Hand) -> None:
    hand.step(2)
    ((_, request),) = hand.requests()
    begin(hand.parties)
    with pytest.raises(PeerError):
        hand.parties[BANK].handle(request)


# ------------------------------------------------------------------------------------------- going back


def _killed_after(world: World, requests: int) -> bytes:
    from tests.engine import Killed

    with pytest.raises(Killed):
        world.run(Tap(stop_after=requests))
    return bytes.fromhex((world.folder / "coordinator" / "run.txt").read_text().split()[0])


@pytest.mark.parametrize("requests", range(1, 16))
def test_a_run_that_is_killed_after_any_request_comes_to_the_same_end(requests: int, world: World) -> None:
    _killed_after(world, requests)
    assert world.run(resume=True) == Announced(7)


def _copy(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _put_back(files: Mapping[Path, bytes], folder: Path) -> None:
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        path.unlink()
    for path, data in files.items():
        path.write_bytes(data)


def test_a_rolled_back_run_folder_cannot_open_its_epoch_again(world: World) -> None:
    """Journals, logs and receipts are restored to what they were; the stores outside of it remember."""
    run = _killed_after(world, 11)
    folders = [world.folder / "coordinator", *(world.folder_of(n) / "journal" for n in ALL)]
    kept = [_copy(f) for f in folders]
    begin(world.open(), run, 2)
    world.kill()
    for files, folder in zip(kept, folders, strict=True):
        _put_back(files, folder)
    with pytest.raises(PeerError, match="refused at"):
        world.run(resume=True)


def test_a_party_rolled_back_with_its_store_cannot_bring_its_peers_back(world: World) -> None:
    """Everything of the bank is restored: it would say hello to epoch 2 again, its peers do not."""
    run = _killed_after(world, 11)
    kept = _copy(world.folder_of(BANK))
    begin(world.open(), run, 2)
    world.kill()
    _put_back(kept, world.folder_of(BANK))
    parties = world.open()
    parties[BANK].hello(Invitation(run, 2))
    for name in (SHOP, TELECOM, DEALER):
        with pytest.raises(PeerError, match="not new"):
            parties[name].hello(Invitation(run, 2))


def test_a_rolled_back_peer_cannot_rejoin_an_old_epoch(world: World) -> None:
    """The coordinator shows the rolled-back bank the peers' old hellos, which lack its new one."""
    run = _killed_after(world, 11)
    kept = _copy(world.folder_of(BANK))
    old = _hellos(world.open(), run, 2)
    world.kill()
    _put_back(kept, world.folder_of(BANK))
    bank = world.open()[BANK]
    bank.hello(Invitation(run, 2))
    with pytest.raises(PeerError, match="another hello"):
        bank.open_epoch(Opening(tuple(old.values()), ()))


def test_receipts_that_do_not_lead_to_a_common_checkpoint_are_refused(hand: Hand) -> None:
    hand.step(6)
    world, run = hand.world, hand.parties[BANK].run
    for count in (1, 3, 4, 8):
        parties = world.open()
        hellos = _hellos(parties, run, 2)
        with pytest.raises(PeerError):
            parties[BANK].open_epoch(Opening(tuple(hellos.values()), tuple(hand.receipts[:count])))
        parties[BANK]._store.put(f"epoch/{run.hex()}", b"1")  # so that one world is enough for all counts


def test_checkpoints_that_were_swapped_on_disk_are_not_taken_for_each_other(world: World) -> None:
    """Both decrypt: only the transcript in them says which one belongs to the receipts."""
    _killed_after(world, 15)
    early, late = sorted((world.folder_of(BANK) / "journal").glob("*.sealed"))
    one, other = early.read_bytes(), late.read_bytes()
    early.write_bytes(other)
    late.write_bytes(one)
    with pytest.raises(PeerError):
        world.run(resume=True)


def test_receipts_that_tell_another_story_than_the_checkpoint_are_refused(hand: Hand) -> None:
    """The coordinator owns every key but the bank's and makes up a past in which the dealer said something else."""
    hand.step(5)
    world, run = hand.world, hand.parties[BANK].run
    probe = Hand(world, run)
    story: list[Receipt] = []
    for offset in range(2):
        true = hand.receipts[offset]
        lie = wire.encode(Announced(99)) if offset == 0 else true.public
        from fedmkt.protocol.turns import request_digest

        asked = request_digest(run, 1, offset, true.step, probe.follower.transcript, [])
        story.append(forged(true, world, run, probe.follower.transcript, public=lie, request=asked))
        probe.follower.advance(story[-1:])
    parties = world.open()
    hellos = _hellos(parties, run, 2)
    with pytest.raises(PeerError):
        parties[BANK].open_epoch(Opening(tuple(hellos.values()), (*story, *hand.receipts[2:])))


# ------------------------------------------------------------------------------------------- what leaves a step


def _misbehaving(
    run: Callable[[Turn, Inbox[Nothing]], Outcome[Number, PublicValue]], **options: object
) -> Script:
    step = Step("toy.odd", run, Announced, **options)  # type: ignore[arg-type,type-var]

    def script(call: Caller, contract: Contract) -> Announced:
        return call(BANK, step).public.value  # type: ignore[return-value]

    return script


def _asked(folder: Path, script: Script, disclosures: tuple[str, ...] = ("SetSize",)) -> tuple[World, Party]:
    world = toy_world(folder, script, disclosures=disclosures)
    begin(world.open())
    return world, world.parties[BANK]


ODD = Request(0, "toy.odd", (), ())
SIZE = SetSize(to=EVERYONE, low=0, high=10)


def test_a_step_that_reveals_what_it_did_not_declare_is_stopped(tmp_path: Path) -> None:
    script = _misbehaving(lambda turn, inbox: Outcome(Announced(1), send={SHOP: Number(1)}, reveals=(SIZE,)))
    _, bank = _asked(tmp_path, script)
    with pytest.raises(ValueError, match="did not declare"):
        bank.handle(ODD)


def test_a_step_that_reveals_what_the_contract_does_not_allow_is_stopped(tmp_path: Path) -> None:
    size = ListSize(to=SHOP, rows=3)
    script = _misbehaving(lambda turn, inbox: Outcome(Announced(1), reveals=(size,)), reveals=(ListSize,))
    _, bank = _asked(tmp_path, script)
    with pytest.raises(PolicyRefused, match="ListSize"):
        bank.handle(ODD)


def test_a_step_that_reveals_to_somebody_outside_of_the_contract_is_stopped(tmp_path: Path) -> None:
    size = SetSize(to="mallory", low=0, high=10)
    script = _misbehaving(lambda turn, inbox: Outcome(Announced(1), reveals=(size,)), reveals=(SetSize,))
    _, bank = _asked(tmp_path, script)
    with pytest.raises(PolicyRefused, match="mallory"):
        bank.handle(ODD)


def test_nothing_is_revealed_before_the_logs_were_counter_signed(tmp_path: Path) -> None:
    script = _misbehaving(lambda turn, inbox: Outcome(Announced(1), reveals=(SIZE,)), reveals=(SetSize,))
    world, bank = _asked(tmp_path, script)
    with pytest.raises(PolicyRefused, match="counter-signed"):
        bank.handle(ODD)
    assert not any(r["type"] == "value.revealed" for r in lines(world, BANK))


REVEAL = Step(
    "toy.reveal", lambda turn, inbox: Outcome(Announced(1), reveals=(SIZE,)), Announced, reveals=(SetSize,)
)


def test_each_release_needs_a_counter_signature_of_its_own(tmp_path: Path) -> None:
    def twice(call: Caller, contract: Contract) -> Announced:
        witness(call, contract)
        call(BANK, REVEAL)
        return call(BANK, REVEAL).public.value  # type: ignore[return-value]

    tap = Tap()
    world = toy_world(tmp_path, twice)
    with pytest.raises(PolicyRefused):
        world.run(tap)
    assert tap.requests[-2].told == tap.answers[-1]
    assert tap.requests[-1].told == Refusal("PolicyRefused", "toy.reveal")


def test_a_counter_signature_does_not_outlive_its_epoch(tmp_path: Path) -> None:
    def after_witness(call: Caller, contract: Contract) -> Announced:
        witness(call, contract)
        checkpoint(call, contract)
        return call(BANK, REVEAL).public.value  # type: ignore[return-value]

    world = toy_world(tmp_path, after_witness)
    _killed_after(world, 6)
    with pytest.raises(PolicyRefused):
        world.run(resume=True)


def test_a_release_between_counter_signatures_is_logged_and_let_through(tmp_path: Path) -> None:
    def one(call: Caller, contract: Contract) -> Announced:
        witness(call, contract)
        told = call(BANK, REVEAL).public.value
        close(call, contract)
        return told  # type: ignore[return-value]

    world = toy_world(tmp_path, one)
    assert world.run() == Announced(1)
    assert sum(r["type"] == "value.revealed" for r in lines(world, BANK)) == 1


def test_a_public_value_of_another_class_than_declared_is_stopped(tmp_path: Path) -> None:
    _, bank = _asked(tmp_path, _misbehaving(lambda turn, inbox: Outcome(Silent(), send={SHOP: Number(1)})))
    with pytest.raises(ValueError, match="tells something else"):
        bank.handle(ODD)


@pytest.mark.parametrize("reader", ["mallory", "bank", ""])
def test_a_message_to_oneself_or_to_a_stranger_is_stopped(reader: str, tmp_path: Path) -> None:
    script = _misbehaving(lambda turn, inbox: Outcome(Announced(1), send={Name(reader): Number(1)}))
    _, bank = _asked(tmp_path, script)
    with pytest.raises(ValueError, match="sends to"):
        bank.handle(ODD)


def test_a_message_that_its_reader_does_not_expect_is_refused(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Text(Message):
        value: str

    read_text = Step("toy.text", lambda turn, inbox: Outcome(Announced(1)), Announced, reads=(Text,))

    def script(call: Caller, contract: Contract) -> Announced:
        told = call(BANK, TELL)
        return call(SHOP, read_text, told.to(SHOP)).public.value  # type: ignore[arg-type,return-value]

    with pytest.raises(PeerError):
        toy_world(tmp_path, script).run()


# ------------------------------------------------------------------------------------------- exceptions

RAISED: list[Callable[[str], Exception]] = [
    ValueError, KeyError, TypeError, IndexError, ZeroDivisionError, OverflowError, RuntimeError, AssertionError,
    UnicodeError, OSError, MemoryError, RecursionError, PeerError, DataError, PolicyRefused,
]  # fmt: skip


@pytest.mark.parametrize("error", RAISED, ids=lambda e: getattr(e, "__name__", "error"))
def test_nothing_of_an_errors_text_leaves_the_party_for(
    error: Callable[[str], Exception], tmp_path: Path
) -> None:
    def fail(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Number, PublicValue]:
        raise error(PRIVATE)

    tap = Tap()
    world = toy_world(tmp_path, _misbehaving(fail))
    with pytest.raises(Exception) as caught:
        world.run(tap)
    told = tap.passed[-1].told
    assert isinstance(told, Refusal) and told.step == "toy.odd"
    assert PRIVATE.encode() not in wire.encode(told)
    assert PRIVATE not in str(caught.value) + getattr(caught.value, "hint", "")
    assert lines(world, BANK)[-1]["type"] == "run.aborted"
    if (
        error is not PolicyRefused
    ):  # which names its rule in the party's own log, and its rules hold no values
        assert PRIVATE.encode() not in everything_on_disk(world)


def test_a_step_that_failed_is_not_tried_again_in_its_epoch(tmp_path: Path) -> None:
    def fail(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Number, PublicValue]:
        raise ValueError(PRIVATE)

    _, bank = _asked(tmp_path, _misbehaving(fail))
    for match in (PRIVATE, "no epoch is open"):
        with pytest.raises(ValueError if match == PRIVATE else PeerError, match=match):
            bank.handle(ODD)


# ------------------------------------------------------------------------------------------- the log


def test_what_was_sent_is_in_the_log_before_it_leaves(hand: Hand) -> None:
    hand.step(2)
    (answer,) = hand.ask()
    sent = {r["body"]["sha256"] for r in lines(hand.world, BANK) if r["type"] == "message.sent"}  # type: ignore[index]
    assert sent == {e.digest.hex() for e in answer.envelopes}


def test_an_answer_that_cannot_be_logged_does_not_leave(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    hand.step(2)
    bank = hand.parties[BANK]
    bank._log.release()
    told = serve(bank, hand.requests()[0][1])
    assert isinstance(told, Refusal)


def test_logs_hold_no_content_of_messages(world: World) -> None:
    world.run()
    text = b"".join((world.folder_of(n) / "log" / "log.jsonl").read_bytes() for n in (*ALL, DEALER))
    assert wire.encode(Number(7)) not in text and b'"value"' not in text


# ------------------------------------------------------------------------------------------- keys in the contract


def _signed_by(world: World, identities: Mapping[Name, Identity]) -> SignedContract:
    contract = world.contract
    made = {n: sign(contract, n, i) for n, i in identities.items()}
    return SignedContract(contract=contract, signatures=made)


def test_a_contract_signed_with_every_key_is_not_yet_a_pinned_one(tmp_path: Path) -> None:
    """The coordinator puts its own second key in the shop's place, and signs for the shop (redteam 2.2)."""
    from fedmkt.config.settings import PartyConfig
    from fedmkt.party.policy import Policy
    from tests.engine import START, _toy_policy

    world = toy_world(tmp_path, exchange, names=ALL)
    settings: PartyConfig = _toy_policy(world.signed, BANK)
    mallory = Identity(b"\x77" * 32)
    parties = tuple(
        p.model_copy(update={"key": mallory.public.hex()}) if p.name == SHOP else p
        for p in world.contract.parties
    )
    swapped = world.contract.model_copy(update={"parties": parties})
    identities = {**world.identities, SHOP: mallory}
    signatures = {n: sign(swapped, n, i) for n, i in identities.items()}
    with pytest.raises(PolicyRefused, match="not the pinned one"):
        Policy(settings).check_contract(SignedContract(contract=swapped, signatures=signatures), START)
    Policy(settings).check_contract(_signed_by(world, world.identities), START)
