"""Audited deals: after a run, its dealer's part is computed again and compared with what was sent, word for word.

Computes: every message that the dealer of a finished run had to send. A dealer chooses nothing: all masks come from the
seeds that it shares with each party, so each correction follows from these seeds, the contract and the public values
before it, which stand in the receipts that all signed. Takes part: an auditor whom the contract names, after the run.

| who | learns |
|---|---|
| auditor | the seeds of the run's epochs, contract, receipts, logs; no message between parties, so no value |
| dealer, parties | from the auditor's statement whether all was dealt as it had to be |

Against: any dealer that sends anything else, once or often, as soon as one audit follows; it cannot know beforehand
which runs are audited, and its commitments keep it to the seeds that it used. Also a party that says it got another
message. Not against: dealer and receiver together, who may log what they like of messages between the two; a stop
before the run's end. An auditor together with a party can read what the dealer and that party could.

Marks: a sent and a received message is logged with HMAC-SHA256 (RFC 2104) of its plain bytes, where it stands in front,
under a key derived from the reader's seed: a plain hash of a correction of one word could be guessed.
Letters: `seed` of a party and epoch, `commitment` to it, `mark` of a message.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from fedmkt.contract.agreement import AuditorTerms, Contract
from fedmkt.contract.canonical import digest
from fedmkt.crypto.prg import Random, derive
from fedmkt.crypto.seal import Envelope, Pieces, Place, Prekey, open_sealed, seal
from fedmkt.crypto.sign import Identity
from fedmkt.protocol import wire
from fedmkt.protocol.core import Call, Inbox, Message, Name, Script, State, Turn, dealer
from fedmkt.protocol.session import AddressedMasks
from fedmkt.protocol.turns import Follower, Receipt

Seeds = Mapping[Name, bytes]
"""The seed that the dealer shares with each party in one epoch."""


def commitment(seed: bytes) -> bytes:
    """Return what binds to a seed and tells nothing of it."""
    return derive(seed, b"fedmkt dealer seed commitment v1\n")


def mark_key(seed: bytes) -> bytes:
    """Return the key of the marks of all messages from the dealer to the party with this seed."""
    return derive(seed, b"fedmkt deal mark v1\n")


def mark(key: bytes, index: int, step: str, plain: Pieces) -> bytes:
    """Mark one message of the dealer; `key` : of its reader."""
    state = hmac.new(key, index.to_bytes(8, "big") + _framed(step.encode()), hashlib.sha256)
    for piece in plain:
        state.update(piece)
    return state.digest()


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def unsealing_key(auditor: Identity) -> Prekey:
    """Return the key that opens what is sealed to an auditor: its public half is `seal_key` of the contract."""
    return Prekey(derive(auditor.secret_bytes(), b"fedmkt auditor unsealing key v1\n"))


def auditor_terms(name: str, organisation: str, auditor: Identity) -> AuditorTerms:
    """Write what a job has in [auditor] for this key; ValueError for a name or an organisation that is none."""
    seal_key = unsealing_key(auditor).public.hex()
    return AuditorTerms(name=name, organisation=organisation, key=auditor.public.hex(), seal_key=seal_key)


def seal_seed(
    contract: Contract, run: bytes, epoch: int, epoch_id: bytes, party: Name, seed: bytes, identity: Identity,
    random: Random,
) -> Envelope:  # fmt: skip
    """Seal a party's own seed for the contract's auditor, bound to contract, run, epoch and party."""
    auditor = _auditor(contract)
    place = _place(contract, run, epoch, epoch_id, party)
    return seal(seed, place, identity, bytes.fromhex(auditor.seal_key), random)


def open_seed(
    contract: Contract, run: bytes, epoch: int, epoch_id: bytes, party: Name, sealed: Envelope, key: Prekey
) -> bytes:
    """Return a party's seed; ValueError unless that party sealed it for this run and epoch."""
    public = bytes.fromhex(contract.party(party).key)
    return bytes(open_sealed(sealed, _place(contract, run, epoch, epoch_id, party), public, key))


def _place(contract: Contract, run: bytes, epoch: int, epoch_id: bytes, party: Name) -> Place:
    reader = _auditor(contract).name
    return Place(digest(contract), run, epoch_id, "deals", epoch, "deals.seed", party, reader, b"")


def _auditor(contract: Contract) -> AuditorTerms:
    if contract.auditor is None:
        raise ValueError("the contract names no auditor")
    return contract.auditor


@dataclass(frozen=True)
class Dealt:
    """One message as the dealer had to send it. envelope : digest of what was sent; size : plain bytes."""

    epoch: int
    index: int
    step: str
    reader: Name
    envelope: bytes
    mark: bytes
    size: int

    @property
    def where(self) -> str:
        """Name it."""
        return f"epoch {self.epoch}, call {self.index}, {self.step}, to {self.reader}"


class WrongDeal(ValueError):
    """The receipts themselves show that the dealer answered otherwise than it had to."""


Look = Callable[[str, int, Name, Message], None]
"""Is shown a message that was dealt again: step, call, reader, message."""


def unseen(step: str, index: int, reader: Name, message: Message) -> None:
    """Look at nothing."""


def deal_again(
    script: Script,
    contract: Contract,
    run: bytes,
    receipts: Sequence[Receipt],
    seeds: Mapping[int, Seeds],
    look: Look = unseen,
) -> Iterator[Dealt]:
    """Run every step of the dealer again, in order, and give what it had to send until the run closes.

    receipts : of the run until then, as all signed them; seeds : by epoch. look : is shown each message. PeerError
    where the receipts are not a run of this script, ValueError where they end elsewhere or seeds are missing.
    """
    # All of them first: nobody is accused on receipts that others may have written.
    check_receipts(script, contract, run, receipts)
    marks = {epoch: {p: mark_key(s) for p, s in of.items()} for epoch, of in seeds.items()}
    follower = _started(script, contract, run, receipts)
    again, at = _Dealer(contract, run, follower, seeds), 0
    while at < len(receipts):
        size = len(follower.round)
        for call, receipt in zip(follower.round, receipts[at : at + size], strict=False):
            if call.party != dealer(contract):
                continue
            sent = again.answer(call, receipt)
            parts = {reader: (envelope, length) for reader, envelope, length in receipt.parts}
            for reader, message in sent.items():
                look(call.step.name, receipt.index, reader, message)
                pieces = wire.encode_pieces(message)
                long = sum(memoryview(p).nbytes for p in pieces)
                key = marks[receipt.epoch][reader]
                found = Dealt(
                    receipt.epoch, receipt.index, call.step.name, reader, parts.get(reader, (b"", 0))[0],
                    mark(key, receipt.index, call.step.name, pieces), long,
                )  # fmt: skip
                if parts.pop(reader, (b"", -1))[1] != long:
                    raise WrongDeal(f"{found.where}: the dealer sent a message of another length, or none")
                yield found
            if parts:
                raise WrongDeal(f"call {receipt.index}, {call.step.name}: the dealer sent one more message")
        after = receipts[at + size].epoch if at + size < len(receipts) else None
        follower.advance(receipts[at : at + size], next_epoch=after, vouched=range(len(receipts)))
        at += size


def check_receipts(script: Script, contract: Contract, run: bytes, receipts: Sequence[Receipt]) -> None:
    """Check that all signed these receipts and that they lead to a run's close; PeerError, ValueError if not."""
    follower = _started(script, contract, run, receipts)
    follower.replay(receipts)
    if not follower.round or not all(call.step.closes for call in follower.round):
        raise ValueError("the receipts do not lead to the close of the run")


def _started(script: Script, contract: Contract, run: bytes, receipts: Sequence[Receipt]) -> Follower:
    keys = {Name(s.name): bytes.fromhex(s.key) for s in contract.signers}
    follower = Follower(script, contract, run, keys, receipts[-1].epoch if receipts else 1)
    follower.start(receipts[0].epoch if receipts else 1)
    return follower


class _Dealer:
    """The dealer's states, which live for one epoch each."""

    def __init__(
        self, contract: Contract, run: bytes, follower: Follower, seeds: Mapping[int, Seeds]
    ) -> None:
        self._contract = contract
        self._run = run
        self._follower = follower
        self._masks = {epoch: AddressedMasks(of, draws_again=True) for epoch, of in seeds.items()}
        self._epoch = 0
        self._states: dict[type[State], State] = {}

    def answer(self, call: Call[Any, Any], receipt: Receipt) -> Mapping[Name, Message]:
        if receipt.epoch not in self._masks:
            raise ValueError(f"no seeds of epoch {receipt.epoch}")
        if call.inbox:
            raise ValueError(f"{call.step.name}: the dealer is sent messages there, which nobody kept")
        if receipt.epoch != self._epoch:
            self._epoch, self._states = receipt.epoch, {}
        turn = Turn(
            dealer(self._contract), self._contract, self._run, receipt.epoch, _no_random,
            self._masks[receipt.epoch], {}, self._states, self._follower.publics,
        )  # fmt: skip
        outcome = call.step.run(turn, Inbox(()))
        for kind in outcome.forget:
            self._states.pop(kind, None)
        self._states |= {type(state): state for state in outcome.keep}
        if wire.encode(outcome.public) != receipt.public:
            raise WrongDeal(f"call {receipt.index}, {call.step.name}: the dealer told another public value")
        sent: Mapping[Name, Message] = outcome.send
        return sent


def _no_random(length: int) -> NoReturn:
    raise ValueError("a dealer that draws random bytes of its own cannot be audited")
