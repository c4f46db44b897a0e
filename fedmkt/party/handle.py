"""`Party.handle`: the one place where steps meet the world.

Is it this step's turn, open the messages, ask the policy, run the step, log, seal the reply. Protocols cannot
forget any of it, because they do not do it. An answer is kept until the next round shows that it arrived;
asked again for the same request a party returns the same sealed bytes, asked another request under a used
number it refuses. An epoch lives as long as this object: its keys are in memory only, so after a restart
nothing of it can be answered.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedmkt import __version__
from fedmkt.audit.records import Json
from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.crypto.prg import Random
from fedmkt.crypto.seal import SUITE, Envelope, Place, Prekey, open_sealed, seal
from fedmkt.crypto.sign import Identity, fingerprint
from fedmkt.errors import PeerError, PolicyRefused
from fedmkt.party.audit_log import AuditLog
from fedmkt.party.budget_guard import Reads, reserving
from fedmkt.party.controls.code import installed_code
from fedmkt.party.deal_records import DealRecords
from fedmkt.party.events import RIDER, Event, answered, failed, received, sent, spent
from fedmkt.party.journal import Journal
from fedmkt.party.notary import LogNotary
from fedmkt.party.policy import Policy, shows_a_size
from fedmkt.party.refusals import check_invitation, check_match, check_outcome
from fedmkt.party.store import Store
from fedmkt.protocol import wire
from fedmkt.protocol.core import (
    Call,
    Inbox,
    M,
    Message,
    Name,
    Outcome,
    S,
    Script,
    Sealed,
    State,
    Turn,
    data_parties,
    dealer,
    everyone,
)
from fedmkt.protocol.linear.links import constants_digest
from fedmkt.protocol.session import (
    NEW_RUN,
    AddressedMasks,
    Answer,
    Epoch,
    Farewell,
    Hello,
    Invitation,
    Opening,
    Request,
    agree,
    dealer_seed,
    say_hello,
)
from fedmkt.protocol.turns import Follower, Receipt, request_digest
from fedmkt.protocol.witness import Rider


@dataclass(frozen=True)
class DataSeen(State):
    """Digest of the own data that a run began with: rows are known by their numbers, so others would not fit."""

    digest: bytes


@dataclass
class _Live:
    """What exists while an epoch lives, in memory only."""

    epoch: Epoch
    prekey: Prekey
    masks: AddressedMasks
    follower: Follower
    answers: dict[int, tuple[bytes, Answer]]
    receipts: list[Receipt]
    counted: bool = False


class Party:
    """One participant of one contract: a party with data, or the dealer without any.

    count_list : told the run before its first size is shown; it may refuse, and says what to log first.
    deals : what is kept for the contract's auditor.
    """

    def __init__(
        self,
        me: Name,
        contract: Contract,
        script: Script,
        identity: Identity,
        policy: Policy | None,
        log: AuditLog,
        journal: Journal,
        store: Store,
        random: Random,
        local: Sequence[State] = (),
        data: bytes = b"",
        finish: "Callable[[Party], list[Event]]" = lambda _: [],
        count_list: Callable[[str], Sequence[Event]] = lambda _: [],
        deals: DealRecords | None = None,
    ) -> None:
        self.me = me
        self.contract = contract
        self._script = script
        self._identity = identity
        self._policy = policy
        self._log = log
        self._journal = journal
        self._store = store
        self._random = random
        self._local = {type(s): s for s in local}
        self._data = data
        self._finish = finish
        self._count_list = count_list
        self._deals = deals or DealRecords(contract, me, None, identity, random)
        self._keys = {Name(s.name): bytes.fromhex(s.key) for s in contract.signers}
        self._digest = digest(contract)  # once: every envelope names it
        self._notary = LogNotary(me, log, self._keys, store, self._digest.hex())
        self._states: dict[type[State], State] = {}
        self._hello: tuple[Hello, Prekey] | None = None
        self._live: _Live | None = None
        self._broken = False

    def hello(self, invitation: Invitation) -> Hello:
        """Answer an invitation to an epoch; refuses one that is not later than all it has seen of this run."""
        check_invitation(self.me, self.contract, self._store, invitation)
        # What the hello says of the logs must stay true until the next epoch: nothing of the one before is answered.
        self._end_epoch()
        prekey = Prekey(self._random(32))
        self._journal.run = invitation.run
        held = self._journal.held() if invitation.run != NEW_RUN else ()
        hello = say_hello(
            self.contract,
            invitation,
            self._identity,
            self.me,
            self._random(32),
            prekey,
            held,
            self._notary.seen(),
            _version(self.contract),
        )
        self._hello = (hello, prekey)
        return hello

    def open_epoch(self, opening: Opening) -> bytes:
        """Begin an epoch with everybody's hellos; at a resume go back to the common checkpoint. Returns the run id."""
        if self._hello is None:
            raise PeerError(f"{self.me}: was not invited")
        mine, prekey = self._hello
        self._hello = None
        # Whatever happens from here on, nothing of the epoch before is answered any more.
        self._end_epoch()
        epoch = agree(self.contract, opening.hellos, self._keys, mine)
        self._store.begin_run(epoch.run.hex(), digest(self.contract).hex(), self.contract.limits.max_runs)
        self._store.raise_epoch(epoch.run.hex(), epoch.number)
        self._log.run = epoch.run.hex()
        self._journal.run = epoch.run
        self._notary.begin(opening.hellos)
        follower = Follower(self._script, self.contract, epoch.run, self._keys, epoch.number)
        follower.start(opening.receipts[0].epoch if opening.receipts else epoch.number)
        self._states = dict(self._local) | {DataSeen: DataSeen(self._data)}
        follower.replay(opening.receipts)
        if opening.receipts and follower.last_round not in epoch.checkpoints:
            raise PeerError("coordinator: the receipts do not lead to a common checkpoint")
        if self._is_data_party:
            self._restore(follower)
        seeds = self._seeds(prekey, epoch)
        masks = AddressedMasks(seeds, draws_again=not self._is_data_party)
        sealed = self._deals.begin(epoch, seeds)
        self._live = _Live(epoch, prekey, masks, follower, {}, [*opening.receipts])
        self._broken = False
        event = "run.started" if mine.run == NEW_RUN else "run.resumed"
        # Whose keys signed the hellos of this epoch: messages are sealed under these alone.
        peers: dict[str, Json] = {
            name: fingerprint(key) for name, key in self._keys.items() if name != self.me
        }
        self._log.append_all(
            [
                (event, {"epoch": epoch.number}),
                ("session.opened", {"peers": peers, "suite": SUITE}),
                ("epoch.started", {"epoch": epoch.number, "id": epoch.id.hex()}),
                *sealed,
            ]
        )
        return epoch.run

    def _end_epoch(self) -> None:
        if self._live is not None:
            self._live.prekey.erase()
        self._live = None

    def _restore(self, follower: Follower) -> None:
        """Go back to the checkpoint that the receipts lead to; without receipts the script begins anew."""
        at = follower.last_round
        if at >= 0:
            snapshot, states = self._journal.load(at)
            if follower.round_starts[at] != snapshot.transcript:
                raise PeerError("coordinator: the receipts tell another story than the checkpoint")
            if states.get(DataSeen) != DataSeen(self._data):
                raise PolicyRefused("the data are not those that the run began with: start a new run")
            self._states |= states
        if f"closing/{follower.run.hex()}" in self._store and at != max(self._journal.held(), default=-1):
            raise PeerError(
                "coordinator: goes back behind the last checkpoint of a run that was about to close"
            )
        self._journal.drop_after(at)

    def farewell(self, farewell: Farewell) -> bytes:
        """Erase the journal once the receipts show that the script came to its end; returns the run id.

        Until then every party can go back to its last checkpoint. May be asked again, also after a restart.
        """
        if self._live is not None and not self._broken:
            self._catch_up(self._live, farewell.receipts)
            self._live.prekey.erase()
            follower = self._live.follower
        else:
            follower = Follower(self._script, self.contract, farewell.run, self._keys, 0)
            follower.start(farewell.receipts[0].epoch if farewell.receipts else 0)
            follower.replay(farewell.receipts)
        if not follower.finished or not self._store.highest_epoch(follower.run.hex()):
            raise PeerError("coordinator: says farewell before the script's end, or to a run that never was")
        self._store.put(f"closed/{follower.run.hex()}", b"yes")
        if self._journal.run in (NEW_RUN, follower.run):
            self._journal.close()
        return follower.run

    @property
    def _is_data_party(self) -> bool:
        return self.me in data_parties(self.contract)

    def _seeds(self, prekey: Prekey, epoch: Epoch) -> dict[Name, bytes]:
        if self._is_data_party:
            return {self.me: dealer_seed(prekey, epoch.prekeys[dealer(self.contract)], epoch.id, self.me)}
        return {p: dealer_seed(prekey, epoch.prekeys[p], epoch.id, p) for p in data_parties(self.contract)}

    def handle(self, request: Request) -> Answer:
        """Answer one call of the script, at most once; whatever goes wrong is logged and ends the epoch."""
        live = self._live
        if live is None or self._broken:
            raise PeerError(f"{self.me}: no epoch is open")
        try:
            return self._answer(live, request)
        except Exception as error:
            self._abort(live, request, error)
            raise

    def _abort(self, live: _Live, request: Request, error: Exception) -> None:
        self._broken = True
        live.prekey.erase()
        events = list(failed(request, error))
        with contextlib.suppress(OSError, ValueError):  # the disk may be full, the log closed by that
            self._log.append_all(events)

    def _answer(self, live: _Live, request: Request) -> Answer:
        self._catch_up(live, request.news)
        digests = [e.digest for e in request.inbox]
        asked = request_digest(
            live.epoch.run, live.epoch.number, request.index, request.step, live.follower.transcript, digests
        )
        if request.index in live.answers:
            known, answer = live.answers[request.index]
            if known != asked:
                raise PeerError(f"coordinator: call {request.index} was answered for another request")
            return answer
        call = live.follower.expected(request.index, self.me)
        if call.step.name != request.step or [s.digest for s in (*call.inbox, *call.riders)] != digests:
            raise PeerError(f"coordinator: call {request.index} is {call.step.name}, not {request.step[:64]}")
        at = len(call.inbox)
        riders = self._open_all(live, call.riders, request.inbox[at:], (Rider,), RIDER)
        lines = self._notary.take(riders)
        inbox = Inbox(self._open_all(live, call.inbox, request.inbox[:at], call.step.reads))
        reads = Reads(self._store)
        outcome = self._run(live, call, inbox, reads)
        envelopes = self._seal_all(live, call, request.index, outcome.send)
        self._commit(live, call, request, outcome, asked, envelopes, reads)
        # Only now: the head covers that the messages of this very answer were sent.
        heads = self._notary.show(call.step.shows(self.contract)) if call.step.shows else {}
        told = {
            p: Rider(heads.get(p), lines.get(p)) for p in everyone(self.contract) if p in heads or p in lines
        }
        riding = self._seal_all(live, call, request.index, told, RIDER)
        self._log.append_beside(
            [*received(call.riders, request.inbox[at:]), *sent(request.index, RIDER + call.step.name, riding)]
        )
        answer = self._sign(live, call, request.index, asked, outcome, envelopes, riding)
        live.answers[request.index] = (asked, answer)
        return answer

    def _catch_up(self, live: _Live, news: Sequence[Receipt]) -> None:
        before = live.follower.index
        fresh = [r for r in news if r.index >= before]
        if any(r.epoch != live.epoch.number for r in fresh):
            raise PeerError("coordinator: a receipt of another epoch")
        live.follower.replay(fresh, own={i: answer.receipt for i, (_, answer) in live.answers.items()})
        live.receipts += fresh
        for index in [i for i in live.answers if i < live.follower.index]:
            del live.answers[index]

    def _place(
        self, live: _Live, index: int, step: str, sender: str, reader: str, transcript: bytes
    ) -> Place:
        return Place(
            self._digest, live.epoch.run, live.epoch.id, self._script.__name__, index, step,
            sender, reader, transcript,
        )  # fmt: skip

    def _open_all(
        self, live: _Live, messages: Sequence[Sealed[Any]], envelopes: Sequence[Envelope],
        reads: Sequence[type[M]], prefix: str = "",
    ) -> tuple[tuple[Name, M], ...]:  # fmt: skip
        pairs = zip(messages, envelopes, strict=True)
        return tuple(self._open(live, s.index, e, reads, prefix) for s, e in pairs)

    def _open(
        self, live: _Live, index: int, envelope: Envelope, reads: Sequence[type[M]], prefix: str
    ) -> tuple[Name, M]:
        sender = Name(envelope.sender)
        step, transcript = live.follower.made_at(index)
        made_by = prefix + step
        place = self._place(live, index, made_by, sender, self.me, transcript)
        try:
            plain = open_sealed(envelope, place, self._keys[sender], live.prekey)
            if not prefix:
                self._deals.note(envelope, index, step, [plain])
            return sender, wire.decode(plain, *reads)
        except (ValueError, KeyError) as error:
            where = f"{envelope.sender[:31]}: {made_by}: message {envelope.digest.hex()[:16]}"
            raise PeerError(f"{where} is refused: {error}") from None

    def _run(self, live: _Live, call: Call[Any, Any], inbox: Inbox[Any], reads: Reads) -> Outcome[Any, Any]:
        turn = Turn(
            self.me, self.contract, live.epoch.run, live.epoch.number, self._random, live.masks,
            reads, self._states, live.follower.publics,
        )  # fmt: skip
        outcome = call.step.run(turn, inbox)
        check_match(self.me, self.contract, self._policy, outcome, self._states)
        check_outcome(call, outcome, self.contract, self._policy, self._notary.witnessed)
        if not live.counted and any(shows_a_size(d) for d in outcome.reveals):
            if counted := self._count_list(live.epoch.run.hex()):
                self._log.append_all(counted)
            live.counted = True
        return outcome

    def _seal_all(
        self,
        live: _Live,
        call: Call[Any, Any],
        index: int,
        messages: Mapping[Name, Message],
        prefix: str = "",
    ) -> tuple[Envelope, ...]:
        envelopes = []
        for reader, message in messages.items():
            if reader not in everyone(self.contract) or reader == self.me:
                raise ValueError(f"{call.step.name} sends to {reader}")
            step, transcript = prefix + call.step.name, live.follower.transcript
            place = self._place(live, index, step, self.me, reader, transcript)
            prekey = live.epoch.prekeys[reader]
            plain = wire.encode_pieces(message)
            envelopes.append(seal(plain, place, self._identity, prekey, self._random))
            if not prefix:
                self._deals.note(envelopes[-1], index, step, plain)
        return tuple(envelopes)

    def _sign(
        self, live: _Live, call: Call[Any, Any], index: int, asked: bytes, outcome: Outcome[Any, Any],
        envelopes: tuple[Envelope, ...], riding: tuple[Envelope, ...],
    ) -> Answer:  # fmt: skip
        parts, riders = (tuple((e.reader, e.digest, e.length) for e in es) for es in (envelopes, riding))
        public = wire.encode(outcome.public)
        receipt = Receipt(
            index, live.epoch.number, self.me, call.step.name, asked, public, parts, riders, b""
        )
        signature = self._identity.sign(receipt.signed_bytes(live.epoch.run, live.follower.transcript))
        return Answer(replace(receipt, signature=signature), (*envelopes, *riding))

    def _commit(
        self, live: _Live, call: Call[Any, Any], request: Request, outcome: Outcome[Any, Any], asked: bytes,
        envelopes: Sequence[Envelope], reads: Reads,
    ) -> None:  # fmt: skip
        """Keep state and write the log, synced, before the answer may leave."""
        most = self.contract.limits.max_epsilon
        with reserving(self._store, reads.seen, outcome.remember, most, self.me):
            if outcome.spends:
                # Before the store has it: after a crash between the two it is in the log twice, rather than never.
                self._log.append_all([*spent(call, request, outcome)])
            for key, value in outcome.remember.items():
                self._store.put(key, value)
        for kind in outcome.forget:
            self._states.pop(kind, None)
        for state in outcome.keep:
            self._states[type(state)] = state
        if call.step.closes:
            self._deals.keep_receipts(live.epoch, live.receipts)
        finished = self._finish(self) if call.step.closes else []
        if call.step.saves:
            self._journal.save(request.index, live.follower.index, live.follower.transcript, self._states)
        if call.step.logged:
            events = self._deals.marked(answered(call, request, outcome, asked, envelopes))
            self._log.append_all([*finished, *events])
        if call.step.closes:
            self._store.put(f"closing/{live.epoch.run.hex()}", b"yes")
        if outcome.reveals:
            self._notary.release()

    def release(self) -> None:
        """Let go of the contract's lock and the log's file, as the end of the process would."""
        self._store.release()
        self._log.release()

    def recall(self, kind: type[S]) -> S:
        """Return what the party holds of a kind of state, for its own files."""
        found = self._states.get(kind)
        if not isinstance(found, kind):
            raise ValueError(f"{self.me} has no {kind.__name__}")
        return found

    def holds(self, kind: type[State]) -> bool:
        """Tell whether the party holds a kind of state."""
        return kind in self._states

    @property
    def run(self) -> bytes:
        """The run under way."""
        return self._live.epoch.run if self._live else NEW_RUN


def _version(contract: Contract) -> str:
    """Name the code and the public constants that multiply shares: all participants must have the same ones."""
    terms = contract.governance
    pinned = f" code {installed_code()[:32]}" if terms is not None and terms.code is not None else ""
    return f"{__version__} constants {constants_digest(contract).hex()[:32]}{pinned}"
