from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fedmkt.contract.agreement import Contract, Limits
from fedmkt.crypto.seal import Envelope
from fedmkt.errors import (
    AuditError,
    ConfigError,
    DataError,
    FedmktError,
    PeerError,
    PolicyRefused,
    TransportError,
)
from fedmkt.party.handle import Party
from fedmkt.protocol import wire
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Message,
    Name,
    Nothing,
    Outcome,
    PublicValue,
    State,
    Step,
    Turn,
    ask,
    inbox_of,
    to_all,
)
from fedmkt.protocol.session import Answer, Farewell, Hello, Invitation, Opening, Request
from fedmkt.protocol.turns import Receipt
from fedmkt.protocol.witness import checkpoint
from fedmkt.transport.driver import (
    Ask,
    Coordinator,
    Endpoint,
    NotStored,
    Opened,
    Parted,
    Progress,
    Refusal,
    Told,
    last_epoch,
    serve,
)
from tests.engine import BANK, DEALER, SHOP, Killed, Tap, World, toy_world

PRIVATE = "customer-4711"


@dataclass(frozen=True)
class Number(Message):
    value: int


@dataclass(frozen=True)
class Sum(PublicValue):
    value: int


@dataclass(frozen=True)
class Carried(State):
    value: int


def _say(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Number, Sum]:
    peers = [Name(s.name) for s in turn.contract.signers if s.name != turn.me]
    return Outcome(Sum(0), send=to_all(peers, Number(len(turn.me))), keep=(Carried(len(turn.me)),))


def _add(turn: Turn, inbox: Inbox[Number]) -> Outcome[Nothing, Sum]:
    return Outcome(Sum(sum(m.value for m in inbox.every(Number)) + turn.recall(Carried).value))


SAY = Step("toy.say", _say, Sum)
ADD = Step("toy.add", _add, Sum, reads=(Number,))


def both_add(call: Caller, contract: Contract) -> Sum:
    """Bank and shop tell each other a number in one round and add them in the next; twice, checkpoints between."""
    total = Sum(0)
    for _ in range(2):
        said = call.all([ask(p, SAY) for p in (BANK, SHOP)])
        added = call.all([ask(p, ADD, *inbox_of(said, p)) for p in (BANK, SHOP)])
        total = Sum(total.value + added[0].public.value.value)
        checkpoint(call, contract)
    return total


TOTAL = Sum(2 * (len(BANK) + len(SHOP)))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return toy_world(tmp_path, both_add, limits=Limits(max_resumes=3, max_runs=3))


def coordinator(world: World, endpoints: Mapping[Name, Endpoint], **more: object) -> Coordinator:
    return Coordinator(world.contract, world.script, endpoints, world.folder / "coordinator", **more)  # type: ignore[arg-type]


def receipts_file(world: World) -> Path:
    return world.folder / "coordinator" / "receipts.bin"


# ------------------------------------------------------------------------------------------- the honest run


def test_a_round_is_sent_to_all_before_any_answer_is_awaited(world: World) -> None:
    story: list[str] = []

    class Watched(Future[Told]):
        def __init__(self, name: Name) -> None:
            super().__init__()
            self.name = name

        def result(self, timeout: float | None = None) -> Told:
            assert timeout == 9.0
            story.append(f"wait {self.name}")
            return super().result(timeout)

    @dataclass
    class Watching:
        name: Name
        party: Party

        def send(self, message: Ask) -> Future[Told]:
            if isinstance(message, Request) and message.step == "toy.say":
                story.append(f"send {self.name}")
            future = Watched(self.name)
            future.set_result(serve(self.party, message))
            return future

    endpoints = {n: Watching(n, p) for n, p in world.open().items()}
    assert coordinator(world, endpoints, deadline=9.0).run() == TOTAL
    at = story.index("send bank")
    assert story[at : at + 4] == ["send bank", "send shop", "wait bank", "wait shop"]
    world.kill()


def test_a_party_gets_its_own_envelopes_only_and_every_receipt_once(world: World) -> None:
    tap = Tap()
    world.run(tap)
    for name in (BANK, SHOP, DEALER):
        mine = [p.message for p in tap.passed if p.to == name]
        assert all(e.reader == name for m in mine if isinstance(m, Request) for e in m.inbox)
        shown = [r.index for m in mine if isinstance(m, Request) for r in m.news]
        assert shown == list(range(len(shown)))


def test_what_the_coordinator_keeps_holds_no_envelope(world: World) -> None:
    tap = Tap()
    world.run(tap)
    kept = b"".join(p.read_bytes() for p in (world.folder / "coordinator").iterdir())
    assert tap.envelopes and not any(part[:32] in kept for e in tap.envelopes for part in e.parts)


def test_costs_are_counted_by_round_party_and_stage(world: World) -> None:
    seen: list[int] = []
    tap = Tap()
    endpoints = {n: tap.endpoint(n, p) for n, p in world.open().items()}
    driver = coordinator(world, endpoints, watch=lambda costs: seen.append(costs.rounds))
    driver.run()
    costs: Progress = driver.progress
    assert seen == list(range(1, costs.rounds + 1))
    sealed = {n: sum(e.size for e in tap.envelopes if e.sender == n) for n in (BANK, SHOP)}
    assert all(costs.bytes_sent[n] >= sealed[n] > 0 for n in sealed)
    assert "toy" in costs.seconds and all(s >= 0 for s in costs.seconds.values())
    world.kill()


def test_everybody_is_told_farewell_with_all_receipts_and_only_at_the_end(world: World) -> None:
    tap = Tap()
    world.run(tap)
    last = tap.passed[-3:]
    assert {p.to for p in last} == {BANK, SHOP, DEALER}
    assert all(isinstance(p.message, Farewell) and isinstance(p.told, Parted) for p in last)
    assert not any(isinstance(p.message, Farewell) for p in tap.passed[:-3])
    assert {len(p.message.receipts) for p in last if isinstance(p.message, Farewell)} == {len(tap.answers)}


# ------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("branch", "kind"),
    [
        ("DataError", DataError),
        ("PolicyRefused", PolicyRefused),
        ("PeerError", PeerError),
        ("TransportError", TransportError),
        ("AuditError", PeerError),
        ("SystemExit", PeerError),
        ("no such branch", PeerError),
    ],
)
def test_a_refusal_ends_the_run_with_its_branch(branch: str, kind: type[FedmktError], world: World) -> None:
    def reply(name: Name, message: Ask, told: Told) -> Told:
        return Refusal(branch, "toy.add") if isinstance(message, Request) and name == SHOP else told

    with pytest.raises(kind, match=r"shop .* at toy\.add") as caught:
        world.run(Tap(reply=reply))
    assert type(caught.value) in (kind, NotStored)


@pytest.mark.parametrize("told", [Opened(b"x"), Parted(b"x")])
@pytest.mark.parametrize("kind", [Invitation, Opening, Request, Farewell])
def test_an_answer_to_another_question_is_refused(kind: type[Ask], told: Told, world: World) -> None:
    def reply(name: Name, message: Ask, honest: Told) -> Told:
        return told if name == SHOP and isinstance(message, kind) else honest

    if isinstance(told, Parted) and kind is Farewell:
        assert world.run(Tap(reply=reply)) == TOTAL  # nothing hangs on what is said at parting
        return
    with pytest.raises(PeerError):
        world.run(Tap(reply=reply))


def test_a_party_that_does_not_answer_is_an_error_at_the_deadline(world: World) -> None:
    @dataclass
    class Silence:
        def send(self, message: Ask) -> Future[Told]:
            return Future()

    tap = Tap()
    endpoints: dict[Name, Endpoint] = {n: tap.endpoint(n, p) for n, p in world.open().items()}
    with pytest.raises(TransportError, match="shop: hello: no answer within 0 s"):
        coordinator(world, endpoints | {SHOP: Silence()}, deadline=0.05).run()
    world.kill()


def test_an_envelope_that_its_receipt_does_not_name_goes_no_further(world: World) -> None:
    passed: list[Envelope] = []

    def reply(name: Name, message: Ask, told: Told) -> Told:
        if isinstance(told, Answer) and told.receipt.step == "toy.say" and name == BANK:
            changed = tuple(replace(e, ephemeral=bytes(32)) for e in told.envelopes)
            passed.extend(changed)
            return Answer(told.receipt, changed)
        return told

    tap = Tap(reply=reply)
    with pytest.raises(PeerError, match=r"bank: toy\.say: a message is not the one in its receipt"):
        world.run(tap)
    assert passed and not any(p.message.inbox for p in tap.requests if isinstance(p.message, Request))


def test_parties_that_open_different_runs_are_noticed(world: World) -> None:
    def reply(name: Name, message: Ask, told: Told) -> Told:
        return Opened(b"another") if name == SHOP and isinstance(told, Opened) else told

    with pytest.raises(PeerError, match="different runs"):
        world.run(Tap(reply=reply))


def test_two_coordinators_never_work_on_one_run(world: World) -> None:
    def change(name: Name, message: Ask) -> Ask:
        if isinstance(message, Opening):
            with pytest.raises(ConfigError, match="another process"):
                coordinator(world, {}).run()
        return message

    assert world.run(Tap(change=change)) == TOTAL


class Broken:
    """A party whose every answer fails."""

    me = "bank"

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def hello(self, message: object) -> Hello:
        raise self.error

    open_epoch = handle = farewell = hello


@pytest.mark.parametrize(
    ("error", "branch"),
    [
        (PolicyRefused(PRIVATE, PRIVATE), "PolicyRefused"),
        (DataError(PRIVATE), "DataError"),
        (PeerError(PRIVATE), "PeerError"),
        (AuditError(PRIVATE), "AuditError"),
        (ValueError(PRIVATE), "PeerError"),
        (KeyError(PRIVATE), "PeerError"),
        (OSError(28, PRIVATE), "TransportError"),
    ],
)
@pytest.mark.parametrize(
    ("message", "step"),
    [
        (Invitation(b"", 1), "invitation"),
        (Opening((), ()), "opening"),
        (Farewell(b"", ()), "farewell"),
        (Request(3, "toy.add", (), ()), "toy.add"),
    ],
)
def test_what_goes_wrong_at_a_party_is_told_as_branch_and_step_only(
    message: Ask, step: str, error: Exception, branch: str
) -> None:
    told = serve(Broken(error), message)  # type: ignore[arg-type]
    assert told == Refusal(branch, step)
    assert PRIVATE.encode() not in wire.encode(told)


# ------------------------------------------------------------------------------------------- the files of a run


def stop(world: World, after: int) -> None:
    with pytest.raises(Killed):
        world.run(Tap(stop_after=after))
    world.kill()


def test_the_receipts_on_disk_are_those_of_the_answers(world: World) -> None:
    tap = Tap()
    world.run(tap)
    framed = [wire.encode(a.receipt) for a in tap.answers]
    assert receipts_file(world).read_bytes() == b"".join(len(f).to_bytes(4, "big") + f for f in framed)


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 200])
def test_a_last_receipt_that_is_cut_short_is_left_out_at_a_resume(cut: int, world: World) -> None:
    stop(world, 9)
    path = receipts_file(world)
    path.write_bytes(path.read_bytes()[:-cut])
    assert world.run(resume=True) == TOTAL


def flip_body(data: bytes) -> bytes:
    """Change a byte within the second receipt's signed content."""
    first = 4 + int.from_bytes(data[:4], "big")
    receipt = wire.decode(
        data[first + 4 : first + 4 + int.from_bytes(data[first : first + 4], "big")], Receipt
    )
    changed = wire.encode(replace(receipt, request=bytes(32)))
    return data[: first + 4] + changed + data[first + 4 + len(changed) :]


@pytest.mark.parametrize(
    "change", [flip_body, lambda data: data[:4] + b"\xff" * 20 + data[24:]], ids=["content", "header"]
)
def test_receipts_that_were_changed_are_found_at_a_resume(
    change: Callable[[bytes], bytes], world: World
) -> None:
    stop(world, 9)
    path = receipts_file(world)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(AuditError, match="changed") as caught:
        world.run(resume=True)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "zz 1", f"{'ab' * 32} 0", f"{'ab' * 32} one", f"{'ab' * 31} 1", "1"])
def test_a_changed_note_of_the_epoch_is_found(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.txt").write_text(text)
    with pytest.raises(AuditError, match="was changed"):
        last_epoch(tmp_path)


def test_a_folder_without_a_run_has_none(tmp_path: Path) -> None:
    assert last_epoch(tmp_path) == (b"", 0)


def test_the_epoch_is_on_disk_before_anybody_opens_it(world: World) -> None:
    seen: list[int] = []

    def change(name: Name, message: Ask) -> Ask:
        if isinstance(message, Opening):
            seen.append(last_epoch(world.folder / "coordinator")[1])
        return message

    with pytest.raises(Killed):
        world.run(Tap(change=change, stop_after=8))
    assert world.run(Tap(change=change), resume=True) == TOTAL
    assert seen == [1, 1, 1, 2, 2, 2]


def test_more_resumes_than_the_contract_allows_are_not_even_asked_for(world: World) -> None:
    for _ in range(4):
        with pytest.raises(Killed):
            world.run(Tap(stop_after=1), resume=(world.folder / "coordinator" / "run.txt").exists())
    tap = Tap()
    with pytest.raises(PolicyRefused, match="allows 3 resumes"):
        world.run(tap, resume=True)
    assert not tap.passed


@pytest.mark.parametrize("requests", [0, 1, 5, 6, 7, 11])
def test_a_run_stopped_anywhere_comes_to_the_same_end(requests: int, world: World) -> None:
    stop(world, requests)
    assert world.run(resume=True) == TOTAL
