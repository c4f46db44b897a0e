"""The coordinator's side of a run: drive the script, carry sealed messages, keep the receipts.

It sees what a relay sees: who calls whom, sizes, times and public values. How a request reaches a party is an
`Endpoint`: in memory, or over Flower. What goes wrong at a party comes back as a `Refusal`: the branch of the error
tree and the step, never a text or a value.
"""

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from fedmkt.contract import Contract
from fedmkt.crypto.seal import Envelope
from fedmkt.errors import DataError, FedmktError, PeerError, PolicyRefused, TransportError
from fedmkt.party.handle import Party
from fedmkt.protocol import wire
from fedmkt.protocol.core import Call, Name, PublicValue, Script, everyone
from fedmkt.protocol.session import NEW_RUN, Answer, Hello, Invitation, Opening, Request
from fedmkt.protocol.turns import Follower, Receipt

_BRANCHES = {c.__name__: c for c in (DataError, PolicyRefused, PeerError)}


@dataclass(frozen=True)
class Refusal:
    """A party ended the run: which branch of the error tree, at which step."""

    branch: str
    step: str


@dataclass(frozen=True)
class Opened:
    """A party opened an epoch of this run."""

    run: bytes


Ask = Invitation | Opening | Request
Told = Hello | Opened | Answer | Refusal
T = TypeVar("T", Hello, Opened, Answer)


class Endpoint(Protocol):
    """A way to one participant; `send` returns at once."""

    def send(self, message: Ask) -> "Future[Told]":
        """Deliver one message and promise the reply."""
        ...


def serve(party: Party, message: Ask) -> Told:
    """Answer one message at a party; errors become refusals without any text of theirs."""
    step = message.step if isinstance(message, Request) else type(message).__name__.lower()
    try:
        if isinstance(message, Invitation):
            return party.hello(message)
        if isinstance(message, Opening):
            return Opened(party.open_epoch(message))
        return party.handle(message)
    except FedmktError as error:
        return Refusal(type(error).__name__, step)
    except ValueError:
        return Refusal("PeerError", step)


@dataclass
class Progress:
    """What a run cost so far, for display and for the summary."""

    rounds: int = 0
    bytes_sent: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    step: str = ""
    rows: int = 0


class Coordinator:
    """Runs one script of one contract over endpoints."""

    def __init__(
        self,
        contract: Contract,
        script: Script,
        endpoints: Mapping[Name, Endpoint],
        folder: Path,
        deadline: float = 600.0,
        watch: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._contract = contract
        self._script = script
        self._endpoints = endpoints
        self._folder = folder
        self._deadline = deadline
        self._watch = watch
        self._keys = {Name(s.name): bytes.fromhex(s.key) for s in contract.signers}
        self._receipts: list[Receipt] = []
        self._shown: dict[Name, int] = {}
        self.progress = Progress()

    def run(self, resume: bool = False) -> PublicValue:
        """Run the script to its end, or resume it from the latest checkpoint that all parties hold."""
        state = _RunFile(self._folder)
        run, epoch = (state.run, state.epoch + 1) if resume else (NEW_RUN, 1)
        hellos = self._round({n: Invitation(run, epoch) for n in everyone(self._contract)}, Hello)
        receipts = self._receipts_until(state, hellos, run, epoch) if resume else []
        opening = Opening(tuple(hellos.values()), tuple(receipts))
        opened = self._round(dict.fromkeys(hellos, opening), Opened)
        if len({o.run for o in opened.values()}) != 1:
            raise PeerError("coordinator: the parties opened different runs")
        run = next(iter(opened.values())).run
        follower = Follower(self._script, self._contract, run, self._keys, epoch)
        follower.start(receipts[0].epoch if receipts else epoch)
        follower.replay(receipts)
        state.begin(run, epoch, receipts)
        self._receipts = list(receipts)
        self._shown = dict.fromkeys(hellos, len(receipts))
        self._bodies: dict[tuple[int, str], Envelope] = {}
        with contextlib.closing(state):
            while not follower.finished:
                self._one_round(follower, state)
        if follower.result is None:
            raise PeerError("coordinator: the script returned nothing")
        return follower.result

    def _receipts_until(self, state: "_RunFile", hellos: Mapping[Name, Hello], run: bytes, epoch: int) -> list[Receipt]:
        held = [set(h.checkpoints) for n, h in hellos.items() if n != self._contract.coordinator.name]
        common = set[int].intersection(*held)
        if not common:
            return []
        receipts = state.receipts()
        probe = Follower(self._script, self._contract, run, self._keys, epoch)
        probe.start(receipts[0].epoch if receipts else epoch)
        at = 0
        while probe.index <= max(common):
            size = len(probe.round)
            later = receipts[at + size].epoch if at + size < len(receipts) else None
            probe.advance(receipts[at : at + size], next_epoch=later)
            at += size
        return receipts[:at]

    def _one_round(self, follower: Follower, state: "_RunFile") -> None:
        started = time.perf_counter()
        requests = []
        for offset, call in enumerate(follower.round):
            news = tuple(self._receipts[self._shown[call.party] :])
            inbox = tuple(self._bodies[s.index, call.party] for s in call.inbox)
            requests.append((call, Request(follower.index + offset, call.step.name, news, inbox)))
        waiting = [(call, self._endpoints[call.party].send(request)) for call, request in requests]
        answers = [self._wait(call.party, call.step.name, future, Answer) for call, future in waiting]
        for call in follower.round:
            self._shown[call.party] = len(self._receipts)
        self._keep_bodies(follower, answers)
        step = follower.round[0].step.name
        receipts = [a.receipt for a in answers]
        follower.advance(receipts)
        self._receipts += receipts
        state.append(receipts, sync=any(c.endswith(".save") for c in (r.step for r in receipts)))
        self._count(step, answers, time.perf_counter() - started)

    def _keep_bodies(self, follower: Follower, answers: Sequence[Answer]) -> None:
        used = {(s.index, c.party) for c in follower.round for s in c.inbox}
        for key in used:
            self._bodies.pop(key, None)
        for offset, (call, answer) in enumerate(zip(follower.round, answers, strict=True)):
            declared = {r: d for r, d, _ in answer.receipt.parts}
            for envelope in answer.envelopes:
                if declared.get(envelope.reader) != envelope.digest:
                    raise PeerError(f"{call.party}: {call.step.name}: a message is not the one in its receipt")
                self._bodies[follower.index + offset, envelope.reader] = envelope

    def _count(self, step: str, answers: Sequence[Answer], seconds: float) -> None:
        progress = self.progress
        progress.rounds += 1
        progress.step = step
        stage = step.split(".")[0]
        progress.seconds[stage] = progress.seconds.get(stage, 0.0) + seconds
        for answer in answers:
            size = sum(e.size for e in answer.envelopes) + len(answer.receipt.public)
            party = answer.receipt.party
            progress.bytes_sent[party] = progress.bytes_sent.get(party, 0) + size
        self._watch(progress)

    def _round(self, messages: Mapping[Name, Ask], kind: type[T]) -> dict[Name, T]:
        waiting = {n: self._endpoints[n].send(m) for n, m in messages.items()}
        return {n: self._wait(n, kind.__name__.lower(), f, kind) for n, f in waiting.items()}

    def _wait(self, party: Name, step: str, future: "Future[Told]", kind: type[T]) -> T:
        try:
            told = future.result(timeout=self._deadline)
        except FutureTimeout:
            raise TransportError(f"{party}: {step}: no answer within {self._deadline:.0f} s") from None
        if isinstance(told, Refusal):
            branch = _BRANCHES.get(told.branch, PeerError)
            raise branch(f"{party} refused at {told.step}", f"the log of {party} says which rule or message it was")
        if not isinstance(told, kind):
            raise PeerError(f"{party}: {step}: answered with something else")
        return told


class _RunFile:
    """The coordinator's own record of a run: its id, epoch and receipts. Nothing in it is secret."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "receipts.bin"
        self._head = folder / "run.txt"
        self.run, self.epoch = NEW_RUN, 0
        if self._head.exists():
            run, epoch = self._head.read_text().split()
            self.run, self.epoch = bytes.fromhex(run), int(epoch)
        self._file = -1

    def begin(self, run: bytes, epoch: int, receipts: Sequence[Receipt]) -> None:
        beside = self._head.with_suffix(".new")
        beside.write_text(f"{run.hex()} {epoch}\n")
        os.replace(beside, self._head)
        beside = self._path.with_suffix(".new")
        beside.write_bytes(b"".join(_framed(r) for r in receipts))
        os.replace(beside, self._path)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)

    def append(self, receipts: Sequence[Receipt], sync: bool) -> None:
        os.write(self._file, b"".join(_framed(r) for r in receipts))
        if sync:
            os.fsync(self._file)

    def receipts(self) -> list[Receipt]:
        """Read the receipts back; a last one that is cut short is left out."""
        data, at, found = self._path.read_bytes(), 0, []
        while at + 4 <= len(data):
            size = int.from_bytes(data[at : at + 4], "big")
            if at + 4 + size > len(data):
                break
            found.append(wire.decode(data[at + 4 : at + 4 + size], Receipt))
            at += 4 + size
        return found

    def close(self) -> None:
        os.close(self._file)


def _framed(receipt: Receipt) -> bytes:
    data = wire.encode(receipt)
    return len(data).to_bytes(4, "big") + data
