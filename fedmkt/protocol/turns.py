"""Lock step: each party follows the script itself and so knows the only call that it may accept.

Every finished call leaves a signed `Receipt`. A party is shown the receipts of the rounds since its last
turn, checks their signatures, chains them into a transcript hash, and lets its own copy of the script
advance. The hash stands in every envelope, so a coordinator that tells two parties different things is caught
at the next message from one to the other (protocols.md section 7).

It stands under every receipt too. A party signs a transcript only with its own receipts in it as it made them, so
its last signature among the receipts shown vouches for all of its earlier ones: only that one is verified.
"""

import hashlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from greenlet import greenlet

from fedmkt.contract.agreement import Contract
from fedmkt.crypto.sign import verify
from fedmkt.errors import PeerError
from fedmkt.protocol import wire
from fedmkt.protocol.core import Call, Name, Out, Public, PublicValue, Reply, Script, Sealed, Silent, V

EMPTY_TRANSCRIPT = bytes(32)
_NONE: Mapping[int, "Receipt"] = {}
_SILENT = wire.encode(Silent())


@dataclass(frozen=True)
class Receipt:
    """One finished call, signed by the party that answered it. Holds no secret: the coordinator sees it."""

    index: int
    epoch: int
    party: str
    step: str
    request: bytes
    public: bytes
    parts: tuple[tuple[str, bytes, int], ...]
    riders: tuple[tuple[str, bytes, int], ...]
    signature: bytes

    def signed_bytes(self, run: bytes, transcript: bytes) -> bytes:
        """Return what the signature covers: the receipt, its run and the transcript before its round."""
        head = f"fedmkt receipt v2\n{self.index}\n{self.epoch}\n{len(self.parts)}\n".encode()
        names = _framed(self.party.encode()) + _framed(self.step.encode())
        fixed = _framed(head) + names + _framed(run) + _framed(transcript) + _framed(self.request)
        # The signer chose all of it: without the lengths, one signature could be read as two different receipts.
        sent = (*self.parts, *self.riders)
        parts = b"".join(_framed(r.encode()) + _framed(d) + n.to_bytes(8, "big") for r, d, n in sent)
        return fixed + _framed(self.public) + parts

    def check(
        self, run: bytes, transcript: bytes, keys: Mapping[Name, bytes], vouched: bool = False
    ) -> bytes:
        """Return the signed bytes; PeerError unless the named party signed them. vouched : it is known to have."""
        try:
            signed = self.signed_bytes(run, transcript)
            if not vouched:
                verify(keys[Name(self.party)], self.signature, signed)
            return signed
        except (ValueError, KeyError, OverflowError):
            raise PeerError(
                f"{self.party}: {self.step}: receipt {self.index} is not signed by {self.party}"
            ) from None


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def request_digest(
    run: bytes, epoch: int, index: int, step: str, transcript: bytes, inbox: Sequence[bytes]
) -> bytes:
    """Return the digest that identifies one request: a call index is used for one digest only."""
    head = f"fedmkt request v1\n{epoch}\n{index}\n{len(inbox)}\n".encode()
    parts = (head, step.encode(), run, transcript, *inbox)
    return hashlib.sha256(b"".join(map(_framed, parts))).digest()


def chain(transcript: bytes, signed: Sequence[bytes]) -> bytes:
    """Extend the transcript hash by one round: by the signed bytes of its receipts."""
    state = hashlib.sha256(b"fedmkt transcript v1\n" + transcript)
    for receipt in signed:
        state.update(hashlib.sha256(receipt).digest())
    return state.digest()


class _Port:
    """The `Caller` that a followed script sees: every round is handed out to whoever drives the script."""

    def __init__(self, follower: "Follower") -> None:
        self._follower = follower

    @property
    def epoch(self) -> int:
        return self._follower.epoch

    def __call__(self, party: Name, step: Any, *inbox: Sealed[Any]) -> Reply[Any, Any]:
        (reply,) = self.all([Call(party, step, inbox)])
        return reply

    def all(self, calls: Sequence[Call[Out, V]]) -> list[Reply[Out, V]]:
        replies: list[Reply[Out, V]] = self._follower.hand_out(list(calls))
        return replies

    def both(self, calls: Sequence[Any], others: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        replies = self.all([*calls, *others])
        return replies[: len(calls)], replies[len(calls) :]


class Follower:
    """One script, driven round by round. The coordinator drives it with real replies, a party with receipts."""

    def __init__(
        self, script: Script, contract: Contract, run: bytes, keys: Mapping[Name, bytes], epoch: int
    ) -> None:
        self.run = run
        self.epoch = epoch
        self.transcript = EMPTY_TRANSCRIPT
        self.index = 0
        self.last_round = -1
        self.round_starts: dict[int, bytes] = {}
        self.round: list[Call[Any, Any]] = []
        self.result: PublicValue | None = None
        self.publics: dict[tuple[Name, type[PublicValue]], PublicValue] = {}
        self._made: dict[int, tuple[str, bytes]] = {}
        self._riding: dict[Name, tuple[Sealed[Any], ...]] = {}
        self._keys = keys
        self._live_epoch = epoch
        self._script = script
        self._contract = contract
        self._greenlet: greenlet | None = None

    def start(self, first_epoch: int) -> None:
        """Run the script up to its first round."""
        self.epoch = first_epoch
        self._greenlet = greenlet(self._run_script)
        self._take(self._greenlet.switch())

    def _run_script(self) -> None:
        self.result = self._script(_Port(self), self._contract)

    def hand_out(self, calls: list[Call[Any, Any]]) -> Any:
        """Give the round to the driver and sleep until its replies are there (called by the script's side)."""
        driver = greenlet.getcurrent().parent
        if driver is None:
            raise ValueError("the script was not started")
        return driver.switch(calls)

    def _take(self, handed: object) -> None:
        """Hand out a round; what rides to a party goes with its next call, in the order in which it was sent."""
        calls: list[Call[Any, Any]] = handed if isinstance(handed, list) else []
        self.round = [replace(c, riders=self._riding.pop(c.party, ())) for c in calls]

    @property
    def finished(self) -> bool:
        """Tell whether the script has returned."""
        return self._greenlet is not None and self._greenlet.dead

    def advance(
        self,
        receipts: Sequence[Receipt],
        bodies: Sequence[Mapping[Name, object]] = (),
        next_epoch: int | None = None,
        vouched: Container[int] = (),
    ) -> None:
        """Close the current round with its receipts, checked, and run the script up to the next round.

        bodies : the envelopes themselves, which only the coordinator has. vouched : numbers of the receipts whose
        signatures need no look, for a reason of the caller's (`replay`)
        """
        if len(receipts) != len(self.round) or not receipts:
            raise PeerError(
                f"coordinator: round at call {self.index} has {len(self.round)} calls, got {len(receipts)} receipts"
            )
        replies, signed = [], []
        for offset, (call, receipt) in enumerate(zip(self.round, receipts, strict=True)):
            index = self.index + offset
            if (receipt.index, receipt.party, receipt.step) != (index, call.party, call.step.name):
                raise PeerError(
                    f"coordinator: call {index} is {call.step.name} at {call.party}, the receipt says otherwise"
                )
            signed.append(receipt.check(self.run, self.transcript, self._keys, index in vouched))
            expected = request_digest(
                self.run,
                receipt.epoch,
                index,
                call.step.name,
                self.transcript,
                [s.digest for s in (*call.inbox, *call.riders)],
            )
            if receipt.request != expected:
                raise PeerError(f"{call.party}: {call.step.name}: call {index} answers another request")
            held = bodies[offset] if bodies else {}
            try:
                reply = _reply(call, receipt, held)
            except ValueError as error:
                raise PeerError(
                    f"{call.party}: {call.step.name}: its public value is refused: {error}"
                ) from None
            self.publics[call.party, call.step.tells] = reply.public.value
            replies.append(reply)
        self.round_starts[self.index] = self.transcript
        for receipt in receipts:
            self._made[receipt.index] = (receipt.step, self.transcript)
            sender = Name(receipt.party)
            for reader, digest, _ in receipt.riders:
                rider = Sealed[Any](receipt.index, sender, Name(reader), digest)
                self._riding[rider.reader] = (*self._riding.get(rider.reader, ()), rider)
        self.last_round = self.index
        self.transcript = chain(self.transcript, signed)
        self.index += len(receipts)
        before, self.epoch = self.epoch, self._live_epoch if next_epoch is None else next_epoch
        if self.epoch != before:
            self._riding = {}  # the keys that could open it ended with their epoch
        if self._greenlet is None:
            raise ValueError("the script was not started")
        try:
            self._take(self._greenlet.switch(replies))
        except (LookupError, ArithmeticError, ValueError) as error:
            # Only a party's public values and messages can lead the script here.
            raise PeerError(
                f"coordinator: the script cannot go on after call {self.index - 1}: {error}"
            ) from None

    def replay(self, receipts: Sequence[Receipt], own: Mapping[int, Receipt] = _NONE) -> None:
        """Advance through as many finished rounds as the receipts hold; PeerError if a round is incomplete.

        own : receipts that the follower's own party made, by number: it must be shown these very ones. Of each other
        party the last signature is verified: it covers the transcript, and with it all that the party signed before.
        """
        for receipt in receipts:
            if own.get(receipt.index, receipt) != receipt:
                raise PeerError(
                    f"coordinator: receipt {receipt.index} is not the one that {receipt.party} made"
                )
        last = {receipt.party: receipt.index for receipt in receipts}.values()
        vouched = {r.index for r in receipts if r.index in own or r.index not in last}
        at = 0
        try:
            while at < len(receipts):
                size = len(self.round)
                after = receipts[at + size].epoch if at + size < len(receipts) else None
                self.advance(receipts[at : at + size], next_epoch=after, vouched=vouched)
                at += size
        except BaseException:
            # It may have followed receipts whose signatures are not known yet: no call is expected, nor an end reached.
            self.round, self._greenlet = [], None
            raise

    def made_at(self, index: int) -> tuple[str, bytes]:
        """Return step and transcript under which the messages of a finished call were sealed."""
        return self._made[index]

    def expected(self, index: int, party: Name) -> Call[Any, Any]:
        """Return the call with this index; PeerError unless it stands in the current round and is for `party`."""
        offset = index - self.index
        if not 0 <= offset < len(self.round):
            raise PeerError(f"coordinator: call {index} is not in the current round")
        call = self.round[offset]
        if call.party != party:
            raise PeerError(f"coordinator: call {index} is for {call.party}, not for {party}")
        return call


def _reply(call: Call[Any, Any], receipt: Receipt, held: Mapping[Name, object]) -> Reply[Any, Any]:
    sealed = {
        Name(reader): Sealed[Any](
            receipt.index, Name(receipt.party), Name(reader), digest, held.get(Name(reader))
        )
        for reader, digest, _ in receipt.parts
    }
    return Reply(sealed, Public(_public(receipt.public, call.step.tells), call.party))


def _public(data: bytes, kind: type[V]) -> V | Silent:
    # Most steps tell nothing, and every participant reads every receipt.
    return Silent() if kind is Silent and data == _SILENT else wire.decode(data, kind)
