"""The coordinator's side of a run: drive the script, carry sealed messages, keep the receipts.

It sees what a relay sees: who calls whom, sizes, times and public values. How a request reaches a party is an
`Endpoint`: in memory, or over Flower. What goes wrong at a party comes back as a `Refusal`: the branch of the
error tree and the step, never a text or a value.
"""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from fedmkt.contract.agreement import Contract
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
from fedmkt.party.journal import write_atomically
from fedmkt.protocol import wire
from fedmkt.protocol.core import Name, PublicValue, Script, everyone
from fedmkt.protocol.session import (
    NEW_RUN,
    Answer,
    Farewell,
    Hello,
    Invitation,
    Opening,
    Request,
    check_signed,
    common_checkpoints,
    new_run_id,
)
from fedmkt.protocol.turns import Follower, Receipt

_BRANCHES = {c.__name__: c for c in (DataError, PolicyRefused, PeerError)}
_LOGGER = logging.getLogger("fedmkt.party")


@dataclass(frozen=True)
class Refusal:
    """A party ended the run: which branch of the error tree, at which step."""

    branch: str
    step: str


@dataclass(frozen=True)
class Opened:
    """A party opened an epoch of this run."""

    run: bytes


@dataclass(frozen=True)
class Parted:
    """A party saw the end of this run and erased its journal."""

    run: bytes


Ask = Invitation | Opening | Request | Farewell
Told = Hello | Opened | Answer | Parted | Refusal
ASKS = (Invitation, Opening, Request, Farewell)
"""What a participant must be able to read off a wire."""
REPLIES = (Hello, Opened, Answer, Parted, Refusal)
"""What the coordinator must be able to read off a wire."""
RESTARTED = "restarted"
"""In place of a step: the participant's process began anew and knows no epoch."""
T = TypeVar("T", Hello, Opened, Answer, Parted)
_RUN = "run.txt"


class NotStored(TransportError):
    """A participant could not write or read its files: to go on at once would end the same way."""


class Endpoint(Protocol):
    """A way to one participant; `send` returns at once."""

    def send(self, message: Ask) -> "Future[Told]":
        """Deliver one message and promise the reply."""
        ...


def reason_of(error: OSError) -> str:
    """Say what the system says about an error: libraries put texts of their own into one, with paths and values."""
    return os.strerror(error.errno) if error.errno else type(error).__name__


def serve(party: Party, message: Ask) -> Told:
    """Answer one message at a party; errors become refusals without any text of theirs.

    What went wrong goes to the party's own log of the program (logger `fedmkt.party`), and stays there.
    """
    step = message.step if isinstance(message, Request) else type(message).__name__.lower()
    try:
        if isinstance(message, Invitation):
            return party.hello(message)
        if isinstance(message, Opening):
            return Opened(party.open_epoch(message))
        if isinstance(message, Farewell):
            return Parted(party.farewell(message))
        return party.handle(message)
    except FedmktError as error:
        _LOGGER.error("%s: %s: %s", party.me, ascii(step[:64])[1:-1], error)
        return Refusal(type(error).__name__, step)
    except OSError as error:
        _LOGGER.error("%s: %s: %s", party.me, ascii(step[:64])[1:-1], reason_of(error))
        return Refusal("TransportError", step)
    except Exception as error:
        _LOGGER.error("%s: %s: %s", party.me, ascii(step[:64])[1:-1], type(error).__name__)
        # Of any kind: its text may hold a private value, and nothing but the branch and the step may travel.
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
        """Run the script to its end, or resume it from the latest checkpoint that all parties hold.

        A killed run is taken up wherever it stopped: before its first checkpoint it begins anew, in a new epoch of
        the same run; after its last call only the farewells are left.
        """
        with contextlib.closing(_RunFile(self._folder)) as state:
            told = self._told_so_far(state) if resume else _Told()
            if told.result is None:
                result = self._run_epoch(state, told)
            else:
                result, self._receipts = told.result, told.receipts
            state.sync()
            self._part(state.run)
        return result

    def _run_epoch(self, state: "_RunFile", told: "_Told") -> PublicValue:
        run, epoch = (state.run, state.epoch + 1) if told.is_known else (NEW_RUN, 1)
        if epoch - 1 > self._contract.limits.max_resumes:
            allowed = self._contract.limits.max_resumes
            raise PolicyRefused(f"the contract allows {allowed} resumes, all were used", "start a new run")
        hellos = self._round({n: Invitation(run, epoch) for n in everyone(self._contract)}, Hello)
        for name, hello in hellos.items():
            check_signed(name, hello, self._keys)
        receipts = told.until(common_checkpoints(self._contract, list(hellos.values())))
        run = run or new_run_id(self._contract, list(hellos.values()))
        # On disk before anybody opens the epoch: its number, and with a seed its masks, are never used again.
        state.begin(run, epoch, receipts)
        opened = self._round(dict.fromkeys(hellos, Opening(tuple(hellos.values()), tuple(receipts))), Opened)
        if {o.run for o in opened.values()} != {run}:
            raise PeerError("coordinator: the parties opened different runs")
        follower = Follower(self._script, self._contract, run, self._keys, epoch)
        follower.start(receipts[0].epoch if receipts else epoch)
        follower.replay(receipts)
        self._receipts = receipts
        self._shown = dict.fromkeys(hellos, len(receipts))
        self._bodies: dict[tuple[Name, bytes], Envelope] = {}
        while not follower.finished:
            self._one_round(follower, state)
        if follower.result is None:
            raise PeerError("coordinator: the script returned nothing")
        return follower.result

    def _told_so_far(self, state: "_RunFile") -> "_Told":
        """Follow the script through the receipts of all rounds that were finished."""
        if state.run == NEW_RUN:
            return _Told()
        receipts = state.receipts()
        probe = Follower(self._script, self._contract, state.run, self._keys, state.epoch + 1)
        probe.start(receipts[0].epoch if receipts else state.epoch + 1)
        ends, at = {}, 0
        while not probe.finished and at + len(probe.round) <= len(receipts):
            after = at + len(probe.round)
            later = receipts[after].epoch if after < len(receipts) else None
            ends[probe.index] = after
            try:
                probe.advance(receipts[at:after], next_epoch=later)
            except (PeerError, ValueError):
                raise AuditError(
                    f"{state.path}: receipt {at + 1} or one soon after it was changed",
                    "this run cannot be resumed: start a new one",
                ) from None
            at = after
        return _Told(True, receipts[:at], ends, probe.result)

    def _part(self, run: bytes) -> None:
        """Tell all participants that the script came to its end; only now they erase what a resume would need."""
        receipts = tuple(self._receipts)
        self._round({n: Farewell(run, receipts) for n in everyone(self._contract)}, Parted)

    def _one_round(self, follower: Follower, state: "_RunFile") -> None:
        started = time.perf_counter()
        requests = []
        for offset, call in enumerate(follower.round):
            news = tuple(self._receipts[self._shown[call.party] :])
            inbox = tuple(self._bodies[call.party, s.digest] for s in (*call.inbox, *call.riders))
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
        used = {(c.party, s.digest) for c in follower.round for s in (*c.inbox, *c.riders)}
        for key in used:
            self._bodies.pop(key, None)
        for call, answer in zip(follower.round, answers, strict=True):
            declared = [(r, d) for r, d, _ in (*answer.receipt.parts, *answer.receipt.riders)]
            for envelope in answer.envelopes:
                if (envelope.reader, envelope.digest) not in declared:
                    raise PeerError(
                        f"{call.party}: {call.step.name}: a message is not the one in its receipt"
                    )
                self._bodies[Name(envelope.reader), envelope.digest] = envelope

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
            at = ascii(told.step[:64])[1:-1]  # the party's own word, which must not draw on our screen
            if told.branch == "TransportError" and told.step == RESTARTED:
                raise TransportError(f"{party} was restarted and has lost its state")
            if told.branch == "TransportError":
                raise NotStored(
                    f"{party} could not write or read its files at {at}",
                    "see that its disk has room and can be written, then go on with --resume",
                )
            branch = _BRANCHES.get(told.branch, PeerError)
            raise branch(f"{party} refused at {at}", f"the log of {party} says which rule or message it was")
        if not isinstance(told, kind):
            raise PeerError(f"{party}: {step}: answered with something else")
        return told


@dataclass
class _Told:
    """What the coordinator's receipts tell about a run: how far it came, and its result if it ended."""

    is_known: bool = False
    receipts: list[Receipt] = field(default_factory=list)
    ends: Mapping[int, int] = field(default_factory=dict)
    result: PublicValue | None = None

    def until(self, checkpoints: Collection[int]) -> list[Receipt]:
        """Return the receipts up to the latest of these checkpoints whose round is among them."""
        return self.receipts[: max((n for start, n in self.ends.items() if start in checkpoints), default=0)]


class _RunFile:
    """The coordinator's own record of a run: its id, epoch and receipts. Nothing in it is secret.

    One process at a time holds it; ConfigError if another does, or if it is not what was written here.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "receipts.bin"
        self._file = -1
        self._lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise ConfigError(f"{folder.parent}: another process is at work on this run") from None
        self.run, self.epoch = last_epoch(folder)

    def begin(self, run: bytes, epoch: int, receipts: Sequence[Receipt]) -> None:
        """Write down an epoch before it is opened, and cut the receipts to where it begins."""
        self.run, self.epoch = run, epoch
        write_atomically(self.path.parent / _RUN, f"{run.hex()} {epoch}\n".encode(), mode=0o644)
        write_atomically(self.path, b"".join(_framed(r) for r in receipts), mode=0o644)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND)

    def append(self, receipts: Sequence[Receipt], sync: bool) -> None:
        """Add the receipts of one round."""
        view = memoryview(b"".join(_framed(r) for r in receipts))
        while view:
            view = view[os.write(self._file, view) :]
        if sync:
            self.sync()

    def sync(self) -> None:
        """Wait until all receipts are on disk."""
        if self._file >= 0:
            os.fsync(self._file)

    def receipts(self) -> list[Receipt]:
        """Read the receipts back; a last one that is cut short is left out."""
        data, at, found = self.path.read_bytes() if self.path.exists() else b"", 0, []
        while at + 4 <= len(data):
            size = int.from_bytes(data[at : at + 4], "big")
            if at + 4 + size > len(data):
                break
            try:
                found.append(wire.decode(data[at + 4 : at + 4 + size], Receipt))
            except ValueError:
                raise AuditError(
                    f"{self.path}: receipt {len(found) + 1} was changed",
                    "this run cannot be resumed: start a new one",
                ) from None
            at += 4 + size
        return found

    def close(self) -> None:
        """Let go of the files."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1


def last_epoch(folder: Path) -> tuple[bytes, int]:
    """Return run id and number of the latest epoch written down in a coordinator's folder, or NEW_RUN and 0."""
    path = folder / _RUN
    if not path.exists():
        return NEW_RUN, 0
    try:
        run, epoch = path.read_text().split()
        if len(run) != 64 or int(epoch) < 1:
            raise ValueError
        return bytes.fromhex(run), int(epoch)
    except ValueError:
        raise AuditError(f"{path}: was changed", "this run cannot be resumed: start a new one") from None


def _framed(receipt: Receipt) -> bytes:
    data = wire.encode(receipt)
    return len(data).to_bytes(4, "big") + data
