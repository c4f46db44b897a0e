"""What rides with the messages of a run: heads of logs, and counter-signatures under them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fedmkt.audit import checkpoint as notes
from fedmkt.contract.agreement import Contract, Limits
from fedmkt.crypto.seal import Envelope
from fedmkt.errors import PeerError, PolicyRefused
from fedmkt.party.audit_log import CHECKPOINT, LOG, WITNESS
from fedmkt.privacy.disclosure import SetSize
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Message,
    Name,
    Nothing,
    Outcome,
    Reply,
    Silent,
    Step,
    Turn,
    ask,
    data_parties,
)
from fedmkt.protocol.witness import checkpoint, close, countersign, showing, witness, witness_all
from tests.engine import BANK, DEALER, SHOP, TELECOM, Hand, Killed, Tap, World, begin, toy_world

ALL = (BANK, SHOP, TELECOM)
Toy = Callable[[Caller, Contract], None]


def _say(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Silent]:
    return Outcome(Silent(), send={p: Nothing() for p in turn.others})


def _reveal(turn: Turn, inbox: Inbox[Message]) -> Outcome[Nothing, Silent]:
    return Outcome(Silent(), reveals=(SetSize(to=turn.others[0], low=0, high=10),))


SAY = Step("toy.say", _say, Silent)
READ: Step[Nothing, Nothing, Silent] = Step(
    "toy.read", lambda turn, inbox: Outcome(Silent()), Silent, (Nothing,)
)
REVEAL: Step[Nothing, Nothing, Silent] = Step("toy.reveal", _reveal, Silent, reveals=(SetSize,))


def world_of(folder: Path, toy: Toy, names: tuple[Name, ...] = (BANK, SHOP)) -> World:
    def script(call: Caller, contract: Contract) -> Silent:
        toy(call, contract)
        return Silent()

    return toy_world(folder, script, names=names, limits=Limits(max_resumes=3, max_runs=3))


def is_refused(folder: Path, toy: Toy, names: tuple[Name, ...] = (BANK, SHOP)) -> bool:
    tap = Tap()
    try:
        world_of(folder, toy, names).run(tap)
    except PolicyRefused:
        assert tap.requests[-1].message.step == "toy.reveal"  # type: ignore[union-attr]
        return True
    return False


def cosigned(world: World, name: Name) -> tuple[int, list[str]]:
    """How many records the head of a party's log on disk covers, and who signed it."""
    note = notes.parse_note((world.folder_of(name) / "log" / CHECKPOINT).read_bytes())
    return notes.parse_body(note.text).size, [line.name for line in note.lines]


def records(world: World, name: Name, file: str = LOG) -> list[bytes]:
    return (world.folder_of(name) / "log" / file).read_bytes().splitlines()


# ------------------------------------------------------------------------------------------- what allows a release


def test_one_turn_of_the_peer_between_a_head_and_a_release_is_enough(tmp_path: Path) -> None:
    def toy(call: Caller, contract: Contract) -> None:
        call(SHOP, READ, call(BANK, showing(SAY)).to(SHOP))
        call(BANK, REVEAL)

    assert not is_refused(tmp_path, toy)


def test_a_head_that_nobody_signed_allows_no_release(tmp_path: Path) -> None:
    def toy(call: Caller, contract: Contract) -> None:
        call(BANK, showing(SAY))
        call(BANK, REVEAL)

    assert is_refused(tmp_path, toy)


@pytest.mark.parametrize("signers", [(SHOP,), (TELECOM,), (SHOP, TELECOM)])
def test_a_release_waits_for_the_signatures_of_all_others(signers: tuple[Name, ...], tmp_path: Path) -> None:
    def toy(call: Caller, contract: Contract) -> None:
        call(BANK, showing(SAY))
        countersign(call, signers)
        call(BANK, REVEAL)

    assert is_refused(tmp_path, toy, ALL) == (len(signers) < 2)


def test_a_head_from_before_a_release_allows_no_second_one(tmp_path: Path) -> None:
    """The signatures come after the first release, but are of a head from before it."""

    def toy(call: Caller, contract: Contract) -> None:
        witness(call, contract)
        call(BANK, showing(SAY))
        call(BANK, REVEAL)
        countersign(call, [SHOP])
        call(BANK, REVEAL)

    assert is_refused(tmp_path, toy)


def test_a_release_may_show_the_head_that_allows_the_next(tmp_path: Path) -> None:
    def toy(call: Caller, contract: Contract) -> None:
        witness(call, contract)
        for _ in range(3):
            call(BANK, showing(REVEAL))
            countersign(call, [SHOP])

    assert not is_refused(tmp_path, toy)


# ------------------------------------------------------------------------------------------- what a head covers


def test_a_head_covers_the_messages_of_the_answer_that_it_rides_with(tmp_path: Path) -> None:
    def toy(call: Caller, contract: Contract) -> None:
        call(BANK, showing(SAY))

    world = world_of(tmp_path, toy)
    world.run()
    size, names = cosigned(world, BANK)
    assert size == len(records(world, BANK)) and names == [BANK]
    assert b'"message.sent"' in records(world, BANK)[-1]
    # The rider itself, which no head can cover, stands beside the log.
    (beside,) = [line for line in records(world, BANK, WITNESS) if b"head.cosigned" not in line]
    assert b'"step":"witness/toy.say"' in beside and b'"message.sent"' in beside


def test_heads_that_overtake_their_signatures_continue_one_another(tmp_path: Path) -> None:
    """The shop is shown two heads before its turn, and one more in the very round of its turn."""

    def toy(call: Caller, contract: Contract) -> None:
        witness_all(call, contract)
        for _ in range(3):
            first = call(BANK, showing(SAY))
            call(BANK, showing(SAY))
            call.both([ask(SHOP, READ, first.to(SHOP))], [ask(BANK, showing(SAY))])
            countersign(call, [SHOP])
            call(BANK, REVEAL)
        close(call, contract)

    world = world_of(tmp_path, toy)
    world.run()
    for name in (BANK, SHOP, DEALER):
        size, names = cosigned(world, name)
        assert size == len(records(world, name))
        assert set(names) == {BANK, SHOP, DEALER}


def test_no_script_sees_a_rider(tmp_path: Path) -> None:
    seen: list[Reply[Nothing, Silent]] = []

    def toy(call: Caller, contract: Contract) -> None:
        quiet: Step[Nothing, Nothing, Silent] = Step(
            "toy.quiet", lambda turn, inbox: Outcome(Silent()), Silent
        )
        seen.append(call(BANK, showing(quiet)))

    world_of(tmp_path, toy).run()
    assert seen and all(not reply.sealed for reply in seen)


# ------------------------------------------------------------------------------------------- on their way


def two_riders(call: Caller, contract: Contract) -> Silent:
    """The telecom is called with one message of the bank and two riders, of the bank and of the shop."""
    said = call(BANK, showing(SAY))
    call(SHOP, showing(SAY))
    call(TELECOM, READ, said.to(TELECOM))
    return Silent()


Alter = Callable[[tuple[Envelope, ...]], tuple[Envelope, ...]]
ALTERED: Mapping[str, Alter] = {
    "left out": lambda inbox: inbox[:2],
    "in another order": lambda inbox: (inbox[0], inbox[2], inbox[1]),
    "in place of the message": lambda inbox: (inbox[1], inbox[0], inbox[2]),
    "given twice": lambda inbox: (*inbox, inbox[2]),
    "changed": lambda inbox: (
        *inbox[:2], replace(inbox[2], parts=(bytes([inbox[2].parts[0][0] ^ 1]) + inbox[2].parts[0][1:],))
    ),
    "with another signature": lambda inbox: (*inbox[:2], replace(inbox[2], signature=inbox[1].signature)),
}  # fmt: skip


@pytest.mark.parametrize("how", ALTERED)
def test_a_rider_is_refused(how: str, tmp_path: Path) -> None:
    world = toy_world(tmp_path, two_riders, names=ALL)
    world.open()
    hand = Hand(world, begin(world.parties))
    hand.step(2)
    ((name, honest),) = hand.requests()
    assert name == TELECOM and len(honest.inbox) == 3
    with pytest.raises(PeerError):
        hand.parties[name].handle(replace(honest, inbox=ALTERED[how](honest.inbox)))


def test_riders_end_with_their_epoch(tmp_path: Path) -> None:
    """A head was shown, and nobody called since, when a checkpoint was written and the run killed."""

    def toy(call: Caller, contract: Contract) -> None:
        checkpoint(call, contract)
        call(BANK, showing(SAY))
        call.all([ask(p, showing(SAY)) for p in data_parties(contract)])
        checkpoint(call, contract)
        call(BANK, SAY)
        witness(call, contract)
        call(BANK, REVEAL)

    world = world_of(tmp_path, toy)
    with pytest.raises(Killed):
        world.run(Tap(stop_after=8))
    world.run(resume=True)
    assert sum(b'"value.revealed"' in line for line in records(world, BANK)) == 1
