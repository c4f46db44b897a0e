"""What a protocol is made of: messages, steps and scripts.

A step is a pure typed function at one party. A script is a plain function that calls steps in order through
a `Caller`; it passes sealed messages on unread and may branch on declared public values only. The types make
a wrong wiring an error of mypy: a step accepts only `Sealed[In]` of what it reads, and a masked opening can
never be a public value.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, NewType, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.crypto.prg import Random
from fedmkt.privacy.disclosure import Disclosure

Name = NewType("Name", str)
"""A participant of the contract: the bank, a partner, or the dealer."""

Words = NDArray[np.uint64]
HalfWords = NDArray[np.uint32]


class Message:
    """What one step sends to one reader; subclasses are frozen dataclasses that `wire` can encode."""


class PublicValue:
    """What one step tells everybody, the coordinator included; subclasses are frozen dataclasses."""


class State:
    """What a party remembers between steps, one object per class.

    `durable` state is in every checkpoint. State of one epoch (masks, openings, masked matrices) and data
    that are read from the party's own files again are not.
    """

    durable: ClassVar[bool] = True
    by_row: ClassVar[tuple[str, ...]] = ()
    """Fields that are, or hold, arrays with the rows of a stage on their last axis (`row_blocks`)."""


@dataclass(frozen=True)
class Nothing(Message):
    """An empty message: a turn without content."""


@dataclass(frozen=True)
class Silent(PublicValue):
    """No public value."""


A = TypeVar("A")


@dataclass(frozen=True)
class Masked(Generic[A]):
    """A value plus a uniform mask: means nothing alone. Travels sealed from party to party, never in clear."""

    words: A


V = TypeVar("V", bound=PublicValue)
V_co = TypeVar("V_co", bound=PublicValue, covariant=True)
M_co = TypeVar("M_co", bound=Message, covariant=True)
In = TypeVar("In", bound=Message)
In_co = TypeVar("In_co", bound=Message, covariant=True)
In_contra = TypeVar("In_contra", bound=Message, contravariant=True)
Out = TypeVar("Out", bound=Message)
Out_co = TypeVar("Out_co", bound=Message, covariant=True)
Out2 = TypeVar("Out2", bound=Message)
V2 = TypeVar("V2", bound=PublicValue)
S = TypeVar("S", bound=State)
M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Sealed(Generic[M_co]):
    """A message that only its reader can open; the script passes it on. `body` is opaque to scripts."""

    index: int
    sender: Name
    reader: Name
    digest: bytes
    body: object = None


@dataclass(frozen=True)
class Public(Generic[V_co]):
    """A public value, signed by the party that made it."""

    value: V_co
    by: Name


@dataclass(frozen=True)
class Reply(Generic[Out_co, V_co]):
    """What a call returns to the script: sealed messages, by reader, and one public value."""

    sealed: Mapping[Name, Sealed[Out_co]]
    public: Public[V_co]

    def to(self, reader: Name) -> Sealed[Out_co]:
        """Return the message for `reader`."""
        return self.sealed[reader]


@dataclass(frozen=True)
class Inbox(Generic[In_co]):
    """The messages a step was given, opened, in the order of the script."""

    messages: tuple[tuple[Name, In_co], ...] = ()

    def one(self, sender: Name, kind: type[M]) -> M:
        """Return the only message of this kind from this sender; ValueError if there is none or several."""
        found = self.every(kind, sender)
        if len(found) != 1:
            raise ValueError(f"expected one {kind.__name__} from {sender}, got {len(found)}")
        return found[0]

    def every(self, kind: type[M], sender: Name | None = None) -> list[M]:
        """Return all messages of a kind, optionally of one sender only."""
        return [m for s, m in self.messages if isinstance(m, kind) and sender in (None, s)]

    def by_sender(self, kind: type[M]) -> dict[Name, M]:
        """Return the messages of a kind by sender; ValueError if a sender sent two."""
        pairs = [(s, m) for s, m in self.messages if isinstance(m, kind)]
        if len(dict(pairs)) != len(pairs):
            raise ValueError(f"a sender sent two {kind.__name__}")
        return dict(pairs)


class Masks(Protocol):
    """Mask streams that a party shares with the dealer, by address; one address is drawn once."""

    def words(
        self, of: Name, label: str, count: int, shape: tuple[int, ...] | int, *, to: str = "", block: int = 0
    ) -> Words:
        """Return uniform 64-bit words of the stream shared by the dealer and party `of`."""
        ...

    def half_words(
        self, of: Name, label: str, count: int, shape: tuple[int, ...] | int, *, to: str = "", block: int = 0
    ) -> HalfWords:
        """Return uniform 32-bit words of the stream shared by the dealer and party `of`."""
        ...


@dataclass(frozen=True)
class Turn:
    """All that a step may use besides its messages."""

    me: Name
    contract: Contract
    run: bytes
    epoch: int
    random: Random
    masks: Masks
    store: Mapping[str, bytes]
    states: Mapping[type[State], State]
    publics: Mapping[tuple[Name, type[PublicValue]], PublicValue]

    def published(self, kind: type[V], by: Name) -> V:
        """Return the latest public value of a kind that `by` signed; ValueError if there is none."""
        found = self.publics.get((by, kind))
        if not isinstance(found, kind):
            raise ValueError(f"{by} has published no {kind.__name__}")
        return found

    def recall(self, kind: type[S]) -> S:
        """Return what an earlier step kept; ValueError if it kept none."""
        found = self.states.get(kind)
        if not isinstance(found, kind):
            raise ValueError(f"{self.me} has no {kind.__name__} yet")
        return found

    def has(self, kind: type[State]) -> bool:
        """Tell whether an earlier step kept this kind of state."""
        return kind in self.states

    @property
    def parties(self) -> tuple[Name, ...]:
        """All parties that hold data, the bank first."""
        return data_parties(self.contract)

    @property
    def others(self) -> tuple[Name, ...]:
        """All parties that hold data but this one."""
        return tuple(p for p in self.parties if p != self.me)

    @property
    def first(self) -> bool:
        """Tell whether this is the party that adds public constants to shares and gets the dealer's corrections."""
        return self.me == self.parties[0]


def data_parties(contract: Contract) -> tuple[Name, ...]:
    """Return the parties that hold data, the bank first, then the partners in the contract's order."""
    bank = [p.name for p in contract.parties if p.role == "bank"]
    return tuple(Name(n) for n in bank + [p.name for p in contract.parties if p.role != "bank"])


def dealer(contract: Contract) -> Name:
    """Return the participant that makes masks and holds no data."""
    return Name(contract.coordinator.name)


def everyone(contract: Contract) -> tuple[Name, ...]:
    """Return all participants: the parties that hold data, then the dealer."""
    return (*data_parties(contract), dealer(contract))


@dataclass(frozen=True)
class Spending:
    """What a run takes of a privacy budget, over all contracts: (epsilon, delta) for `to`, and all so far with it."""

    to: Name
    mechanism: str
    epsilon: float
    delta: float
    total: float

    def record(self) -> dict[str, str]:
        """Return the body of its audit record, fractions as text."""
        numbers = {"epsilon": self.epsilon, "delta": self.delta, "total": self.total}
        return {"to": self.to, "mechanism": self.mechanism} | {k: f"{v:.6g}" for k, v in numbers.items()}


@dataclass(frozen=True)
class Outcome(Generic[Out_co, V_co]):
    """What a step returns: messages by reader, one public value, new state, what it revealed and spent for it.

    `remember` goes to the party's persistent store, which outlives the run.
    """

    public: V_co
    send: Mapping[Name, Out_co] = field(default_factory=dict)
    keep: tuple[State, ...] = ()
    forget: tuple[type[State], ...] = ()
    reveals: tuple[Disclosure, ...] = ()
    remember: Mapping[str, bytes] = field(default_factory=dict)
    spends: tuple[Spending, ...] = ()


@dataclass(frozen=True)
class Step(Generic[In_contra, Out_co, V_co]):
    """One pure function at one party; `reads` are the messages it accepts, `reveals` all that it may disclose."""

    name: str
    run: Callable[[Turn, Inbox[In_contra]], Outcome[Out_co, V_co]] = field(repr=False)
    tells: type[V_co]
    reads: tuple[type[Message], ...] = ()
    reveals: tuple[type[Disclosure], ...] = ()
    saves: bool = False
    """The party writes a checkpoint after this step."""
    shows: Callable[[Contract], tuple[Name, ...]] | None = None
    """To whom the party shows its log head after this step, for them to counter-sign (`witness`)."""
    logged: bool = True
    """False for a turn of `witness`, which computes nothing."""
    closes: bool = False
    """The run is complete with this step: the party writes its files, nothing but a last witness follows."""


@dataclass(frozen=True)
class Call(Generic[Out_co, V_co]):
    """One request of a round: who, which step, which messages."""

    party: Name
    step: Step[Any, Out_co, V_co]
    inbox: tuple[Sealed[Any], ...]
    riders: tuple[Sealed[Any], ...] = ()
    """What came with earlier answers for this party's log (`witness.Rider`); no script handles it."""


def ask(party: Name, step: Step[In, Out, V], *inbox: Sealed[In]) -> Call[Out, V]:
    """Prepare a call for a round of several."""
    return Call(party, step, inbox)


class Caller(Protocol):
    """How a script reaches the parties; the same script runs over every implementation."""

    @property
    def epoch(self) -> int:
        """The span of masks that the next call belongs to; grows by one at every resume."""
        ...

    def __call__(self, party: Name, step: Step[In, Out, V], *inbox: Sealed[In]) -> Reply[Out, V]:
        """Call one step."""
        ...

    def all(self, calls: Sequence[Call[Out, V]]) -> list[Reply[Out, V]]:
        """Call steps that do not depend on each other: one round."""
        ...

    def both(
        self, calls: Sequence[Call[Out, V]], others: Sequence[Call[Out2, V2]]
    ) -> tuple[list[Reply[Out, V]], list[Reply[Out2, V2]]]:
        """Call two kinds of steps in one round."""
        ...


Script = Callable[[Caller, Contract], PublicValue]
"""A protocol seen from above; `contract` fixes everything that it does not learn from public values."""


def to_all(readers: Sequence[Name], message: M) -> dict[Name, M]:
    """Address the same message to each reader."""
    return dict.fromkeys(readers, message)


def inbox_of(replies: Sequence[Reply[Out, PublicValue]], reader: Name) -> tuple[Sealed[Out], ...]:
    """Collect what a round sent to `reader`."""
    return tuple(_addressed(replies, reader))


def _addressed(replies: Sequence[Reply[Out, PublicValue]], reader: Name) -> Iterator[Sealed[Out]]:
    for reply in replies:
        if reader in reply.sealed:
            yield reply.sealed[reader]
