"""How a run begins and resumes: epochs, and the messages between coordinator and party.

An epoch is the span of one set of masks and keys. Every participant contributes 32 fresh bytes and a fresh
prekey at the start and at every resume; all masks derive from them, so nothing of an earlier epoch can be
opened or masked again (protocols.md section 0).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.crypto.prg import Address, derive, half_words, words
from fedmkt.crypto.seal import Envelope, Prekey
from fedmkt.crypto.sign import Identity, verify
from fedmkt.errors import PeerError
from fedmkt.protocol.core import HalfWords, Name, Words, data_parties, everyone
from fedmkt.protocol.turns import Receipt

NEW_RUN = b""


@dataclass(frozen=True)
class Invitation:
    """The coordinator asks for an epoch of a run; `run` is empty for a new one."""

    run: bytes
    epoch: int


@dataclass(frozen=True)
class Hello:
    """A participant's part of an epoch: nonce, prekey and the checkpoints it holds; signed.

    heads : of whose log how many records it counter-signed last; what a peer shows next must continue these
    """

    contract: bytes
    run: bytes
    epoch: int
    party: str
    nonce: bytes
    prekey: bytes
    checkpoints: tuple[int, ...]
    heads: tuple[tuple[str, int], ...]
    version: str
    signature: bytes

    def signed_bytes(self) -> bytes:
        """Return what the signature covers."""
        numbers = ",".join(map(str, self.checkpoints))
        head = f"fedmkt hello v2\n{self.version}\n{self.party}\n{self.epoch}\n{numbers}\n".encode()
        heads = b"".join(_framed(name.encode()) + size.to_bytes(8, "big") for name, size in self.heads)
        return b"".join(map(_framed, (head, self.contract, self.run, self.nonce, self.prekey, heads)))


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@dataclass(frozen=True)
class Opening:
    """The coordinator passes on all hellos, and at a resume the receipts up to the common checkpoint."""

    hellos: tuple[Hello, ...]
    receipts: tuple[Receipt, ...]


@dataclass(frozen=True)
class Farewell:
    """The coordinator shows that the script came to its end: receipts that lead there, after those seen."""

    run: bytes
    receipts: tuple[Receipt, ...]


@dataclass(frozen=True)
class Request:
    """One call: which, the receipts of the rounds that the party has not seen yet, its messages, then its riders."""

    index: int
    step: str
    news: tuple[Receipt, ...]
    inbox: tuple[Envelope, ...]


@dataclass(frozen=True)
class Answer:
    """What a party returns: the receipt, one envelope for each reader, and those that ride to its next call."""

    receipt: Receipt
    envelopes: tuple[Envelope, ...]


@dataclass(frozen=True)
class Epoch:
    """One agreed epoch; `checkpoints` are those that all parties with data hold."""

    run: bytes
    number: int
    id: bytes
    prekeys: Mapping[Name, bytes]
    checkpoints: frozenset[int]


def say_hello(
    contract: Contract,
    invitation: Invitation,
    identity: Identity,
    me: Name,
    nonce: bytes,
    prekey: Prekey,
    checkpoints: Sequence[int],
    heads: Mapping[Name, int],
    version: str,
) -> Hello:
    """Make a participant's signed part of an epoch."""
    hello = Hello(
        digest(contract),
        invitation.run,
        invitation.epoch,
        me,
        nonce,
        prekey.public,
        tuple(checkpoints),
        tuple((str(name), size) for name, size in heads.items()),
        version,
        b"",
    )
    return replace(hello, signature=identity.sign(hello.signed_bytes()))


def check_signed(name: Name, hello: Hello, keys: Mapping[Name, bytes]) -> None:
    """Raise PeerError unless the named participant signed this hello as its own."""
    try:
        if hello.party != name:
            raise ValueError("says hello as another participant")
        verify(keys[name], hello.signature, hello.signed_bytes())
    except (ValueError, OverflowError):
        raise PeerError(f"{name}: its hello is not signed with its pinned key") from None


def agree(contract: Contract, hellos: Sequence[Hello], keys: Mapping[Name, bytes], mine: Hello) -> Epoch:
    """Check the hellos of all participants and derive run id, epoch id and resume point; PeerError if one is off."""
    by_name = {Name(h.party): h for h in hellos}
    if set(by_name) != set(everyone(contract)) or len(hellos) != len(by_name):
        raise PeerError("coordinator: hellos are not exactly those of the contract's participants")
    if by_name[Name(mine.party)] != mine:
        raise PeerError("coordinator: passed on another hello than mine")
    for name, hello in by_name.items():
        if hello.version != mine.version:
            raise PeerError(f"{name}: runs fedmkt {hello.version}, {mine.party} runs {mine.version}")
        if (hello.contract, hello.run, hello.epoch) != (mine.contract, mine.run, mine.epoch):
            raise PeerError(f"{name}: says hello for another contract, run or epoch")
        check_signed(name, hello, keys)
    run = mine.run or new_run_id(contract, hellos)
    joint = _joint(contract, hellos)
    epoch_id = hashlib.sha256(b"fedmkt epoch v1\n" + run + mine.epoch.to_bytes(8, "big") + joint).digest()
    prekeys = {n: h.prekey for n, h in by_name.items()}
    return Epoch(run, mine.epoch, epoch_id, prekeys, common_checkpoints(contract, hellos))


def new_run_id(contract: Contract, hellos: Sequence[Hello]) -> bytes:
    """Return the id of a run that begins with these hellos, one of each participant."""
    return hashlib.sha256(b"fedmkt run v1\n" + digest(contract) + _joint(contract, hellos)).digest()


def _joint(contract: Contract, hellos: Sequence[Hello]) -> bytes:
    by_name = {Name(h.party): h for h in hellos}
    ordered = [by_name[n] for n in everyone(contract)]
    return hashlib.sha256(b"".join(h.signed_bytes() + h.signature for h in ordered)).digest()


def common_checkpoints(contract: Contract, hellos: Sequence[Hello]) -> frozenset[int]:
    """Return the checkpoints that all parties with data hold, each by the number of its round's first call."""
    held = {Name(h.party): frozenset(h.checkpoints) for h in hellos}
    return frozenset.intersection(*(held[p] for p in data_parties(contract)))


def dealer_seed(prekey: Prekey, peer: bytes, epoch_id: bytes, party: Name) -> bytes:
    """Derive the seed that the dealer and `party` share in this epoch; it exists in their memories only."""
    return derive(prekey.exchange(peer), b"fedmkt dealer seed v1\n" + party.encode(), salt=epoch_id)


class AddressedMasks:
    """Masks by address. A party draws each address once; the dealer, who opens nothing, may draw again."""

    def __init__(self, seeds: Mapping[Name, bytes], draws_again: bool) -> None:
        self._seeds = seeds
        self._drawn: set[tuple[Name, bytes]] | None = None if draws_again else set()

    def words(
        self, of: Name, label: str, count: int, shape: tuple[int, ...] | int, *, to: str = "", block: int = 0
    ) -> Words:
        """Return uniform 64-bit words of the stream shared by the dealer and party `of`."""
        return words(self._key(of, Address(label, count, block, of, to)), shape)

    def half_words(
        self, of: Name, label: str, count: int, shape: tuple[int, ...] | int, *, to: str = "", block: int = 0
    ) -> HalfWords:
        """Return uniform 32-bit words of the stream shared by the dealer and party `of`."""
        return half_words(self._key(of, Address(label, count, block, of, to)), shape)

    def _key(self, of: Name, address: Address) -> bytes:
        where = bytes(address)
        if self._drawn is not None:
            if (of, where) in self._drawn:
                raise ValueError(f"mask {address.label} {address.count} is drawn a second time")
            self._drawn.add((of, where))
        return derive(self._seeds[of], b"fedmkt mask v1\n" + where)

    def __repr__(self) -> str:
        return "AddressedMasks(hidden)"
