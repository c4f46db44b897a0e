"""Runs scripts and steps in one place and without sealing, so that a test sees every message and every state.

    caller = PlainCaller(contract, local)            `local` : the states that a party has from its own files
    psi(caller, contract)                            any script, or any single step
    caller.states[name], caller.sent, caller.told    what each party holds, every message, every public value

`joint_data` makes a contract and people whom all parties share; `start_aligned` does for a caller what the
intersection would have done. Messages are encoded and decoded on their way, as everywhere.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedmkt.contract.agreement import AlignTerms, Contract, Limits, PartyTerms, ScoreTerms, Signer
from fedmkt.contract.model_terms import AdditiveTerms, ModelTerms
from fedmkt.crypto.prg import SeededRandom, derive
from fedmkt.privacy.disclosure import DEFAULT, Disclosure
from fedmkt.protocol import wire
from fedmkt.protocol.alignment.align import Split, split
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.alignment.psi import Aligned, Customers, Overlap, band
from fedmkt.protocol.core import (
    Call,
    Inbox,
    Message,
    Name,
    Public,
    PublicValue,
    Reply,
    Sealed,
    State,
    Step,
    Turn,
    data_parties,
    dealer,
    everyone,
)
from fedmkt.protocol.layout import FIT, WEIGHT_BITS, Layout, Stage, layout
from fedmkt.protocol.linear import gram, logistic, multiply, predictor, scoring, weighted_gram
from fedmkt.protocol.linear import range as range_
from fedmkt.protocol.linear.predictor import Weights
from fedmkt.protocol.prepare import (
    Columns,
    Prepared,
    Shape,
    prepare_columns,
    prepared_rows,
    read_fitted,
    real,
)
from fedmkt.protocol.session import AddressedMasks

BANK, SHOP, TELECOM, DEALER = Name("bank"), Name("shop"), Name("telecom"), Name("coordinator")


class Left(Exception):
    """A party left the run here."""


@dataclass(frozen=True)
class Sent:
    """One message on its way: `round` counts rounds from 0."""

    round: int
    step: str
    sender: Name
    reader: Name
    data: bytes
    message: Message


@dataclass(frozen=True)
class Told:
    """One public value."""

    round: int
    step: str
    party: Name
    value: PublicValue


@dataclass
class PlainCaller:
    """A `Caller` that runs every step itself; `change` may replace a message on its way."""

    contract: Contract
    local: Mapping[Name, Sequence[State]]
    seed: int = 0
    stores: Mapping[Name, dict[str, bytes]] = field(default_factory=dict)
    change: Callable[[Sent], Message] = lambda sent: sent.message
    leaves: Callable[[Name, str], bool] = lambda party, step: False
    epoch: int = 1
    run: bytes = bytes(32)
    sent: list[Sent] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    revealed: list[tuple[str, Disclosure]] = field(default_factory=list)
    rounds: int = 0

    def __post_init__(self) -> None:
        names = everyone(self.contract)
        self.states: dict[Name, dict[type[State], State]] = {
            n: {type(s): s for s in self.local.get(n, ())} for n in names
        }
        self.publics: dict[tuple[Name, type[PublicValue]], PublicValue] = {}
        self.stores = {n: self.stores.get(n, {}) for n in names}
        secret = self.seed.to_bytes(8, "big")
        seeds = {p: derive(secret, b"dealer seed " + p.encode()) for p in data_parties(self.contract)}
        self.masks = {p: AddressedMasks({p: s}, draws_again=False) for p, s in seeds.items()}
        self.masks[dealer(self.contract)] = AddressedMasks(seeds, draws_again=True)
        self._random = {n: SeededRandom(secret + n.encode()) for n in names}
        self._index = 0

    def turn(self, party: Name) -> Turn:
        """Make what a step at `party` may use now."""
        return Turn(
            party, self.contract, self.run, self.epoch, self._random[party], self.masks[party],
            self.stores[party], self.states[party], self.publics,
        )  # fmt: skip

    def __call__(self, party: Name, step: Step[Any, Any, Any], *inbox: Sealed[Any]) -> Reply[Any, Any]:
        (reply,) = self.all([Call(party, step, inbox)])
        return reply

    def both(self, calls: Sequence[Any], others: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        replies = self.all([*calls, *others])
        return replies[: len(calls)], replies[len(calls) :]

    def all(self, calls: Sequence[Call[Any, Any]]) -> list[Reply[Any, Any]]:
        replies = [self._answer(call) for call in calls]
        for call, reply in zip(calls, replies, strict=True):
            self.publics[call.party, call.step.tells] = reply.public.value
        self.rounds += 1
        return replies

    def _answer(self, call: Call[Any, Any]) -> Reply[Any, Any]:
        if self.leaves(call.party, call.step.name):
            raise Left(f"{call.party} at {call.step.name}")
        assert all(s.reader == call.party for s in call.inbox)
        opened = tuple((s.sender, wire.decode(s.body, *call.step.reads)) for s in call.inbox)
        outcome = call.step.run(self.turn(call.party), Inbox(opened))
        assert {type(d) for d in outcome.reveals} <= set(call.step.reveals)
        states = self.states[call.party]
        for kind in outcome.forget:
            states.pop(kind, None)
        states.update({type(s): s for s in outcome.keep})
        self.stores[call.party].update(outcome.remember)
        self.revealed += [(call.step.name, d) for d in outcome.reveals]
        self.told.append(Told(self.rounds, call.step.name, call.party, outcome.public))
        sealed = {reader: self._send(call, reader, m) for reader, m in outcome.send.items()}
        self._index += 1
        return Reply(sealed, Public(outcome.public, call.party))

    def _send(self, call: Call[Any, Any], reader: Name, message: Message) -> Sealed[Any]:
        sent = Sent(self.rounds, call.step.name, call.party, reader, wire.encode(message), message)
        sent = Sent(sent.round, sent.step, sent.sender, sent.reader, sent.data, self.change(sent))
        data = wire.encode(sent.message)
        self.sent.append(Sent(sent.round, sent.step, sent.sender, sent.reader, data, sent.message))
        return Sealed(self._index, call.party, reader, bytes(32), data)

    def recall(self, party: Name, kind: type[Any]) -> Any:
        """Return a state that a party holds."""
        return self.states[party][kind]

    def seen_by(self, reader: Name) -> list[Sent]:
        """Return the messages to one reader."""
        return [s for s in self.sent if s.reader == reader]

    def shapes(self) -> dict[Name, Shape]:
        """Return what the parties published about their matrices."""
        return {p: self.publics[p, Shape] for p in data_parties(self.contract)}  # type: ignore[misc]

    def columns(self) -> dict[Name, int]:
        """Return the published numbers of columns."""
        return {p: s.columns for p, s in self.shapes().items()}

    @property
    def overlap(self) -> Overlap:
        """The published bands."""
        found = self.publics[data_parties(self.contract)[0], Overlap]
        assert isinstance(found, Overlap)
        return found

    def layout(self, stage: Stage = FIT) -> Layout:
        """Return the layout of a stage."""
        return layout(self.contract, self.overlap, self.columns(), stage)


def contract_of(
    parties: int = 2,
    columns: Sequence[int] = (4, 3, 3),
    model: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    scores: Mapping[str, Any] | None = None,
    disclosures: Sequence[str] = DEFAULT,
    categories: Mapping[Name, Sequence[str]] | None = None,
    align: Mapping[str, Any] | None = None,
    additive: Mapping[str, Any] | None = None,
    family: str = "toys",
) -> Contract:
    """Make a contract of a bank and one or two partners; numbers are called x0, x1, ..."""
    names = (BANK, SHOP, TELECOM)[:parties]
    terms = tuple(
        PartyTerms(
            name=n, organisation=f"The {n}", key=f"{i + 1:02x}" * 32, role="bank" if n == BANK else "partner",
            id_kind="raw", numbers=tuple(f"x{j}" for j in range(columns[i])),
            categories=tuple((categories or {}).get(n, ())), label="y" if n == BANK else None,
        )
        for i, n in enumerate(names)
    )  # fmt: skip
    start = datetime(2030, 1, 1, tzinfo=UTC)
    smallest = {"min_list": 20, "min_common": 20, "min_support": 20, "min_events": 0}
    return Contract(
        name="toy", purpose="tests", family=family, created=start,
        expires=start + timedelta(days=30), coordinator=Signer(name=DEALER, organisation="Notary", key="ee" * 32),
        parties=terms, model=ModelTerms(**(model or {})), limits=Limits(**(smallest | dict(limits or {}))),
        scores=ScoreTerms(**(scores or {})), align=AlignTerms(**(align or {})),
        additive=AdditiveTerms(**(additive or {})), disclosures=tuple(disclosures),
    )  # fmt: skip


@dataclass
class JointData:
    """People whom all parties share, each party's rows in an order of its own.

    x : each party's numbers, (n, d), in the order of `ids`; order : each party's row of each person.
    """

    contract: Contract
    ids: list[str]
    x: dict[Name, NDArray[np.float64]]
    y: NDArray[np.float64]
    order: dict[Name, NDArray[np.int64]]
    local: dict[Name, tuple[State, ...]]


def joint_data(
    contract: Contract, n: int = 1200, seed: int = 1, signal: float = 1.0, rate: float = -1.2, labelled: float = 0.85
) -> JointData:  # fmt: skip
    """Draw numbers, some of them skewed and correlated across parties, and a label that depends on all."""
    random = np.random.default_rng(seed)
    common = random.standard_normal(n)
    x, z = {}, np.full(n, rate)
    for terms in contract.parties:
        d = len(terms.numbers)
        values = random.standard_normal((n, d)) + 0.5 * common[:, None]
        z += signal * (values @ random.normal(0, 1, d)) / np.sqrt(d)
        values[:, 0] = np.exp(0.7 * values[:, 0])
        x[Name(terms.name)] = values
    y = (random.random(n) < 1 / (1 + np.exp(-z))).astype(np.float64)
    y[random.random(n) >= labelled] = np.nan
    return place(contract, [f"person-{i:06d}" for i in range(n)], x, y, random)


def place(
    contract: Contract, ids: list[str], x: dict[Name, NDArray[np.float64]], y: NDArray[np.float64],
    random: np.random.Generator,
) -> JointData:  # fmt: skip
    """Give each party its own rows in a random order."""
    order, local = {}, {}
    for party in data_parties(contract):
        order[party] = random.permutation(len(ids))
        local[party] = local_states(contract, party, order[party], ids, x[party], y)
    return JointData(contract, ids, x, y, order, local)


def local_states(
    contract: Contract, party: Name, order: NDArray[np.int64], ids: Sequence[str], x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> tuple[State, ...]:  # fmt: skip
    """Make a party's own list and columns; order[i] is its row of person i."""
    person = np.argsort(order)
    label = y[person] if party == contract.bank.name else None
    numbers = {f"x{j}": np.ascontiguousarray(x[person, j]) for j in range(x.shape[1])}
    labelled = None if label is None else ~np.isnan(label)
    return (Customers(tuple(ids[i] for i in person), labelled), Columns(numbers, {}, label))


def start_aligned(data: JointData, seed: int = 0, **options: Any) -> PlainCaller:
    """Make a caller that stands where the intersection and the split leave a run, then prepare the columns."""
    caller = PlainCaller(data.contract, data.local, seed=seed, **options)
    has_label = ~np.isnan(data.y)
    people = np.random.default_rng(seed).permutation(len(data.ids))
    with_label, without = people[has_label[people]], people[~has_label[people]]
    bands = Overlap(*band(len(with_label), 10), *band(len(without), 10))
    for party, order in data.order.items():
        caller.states[party][Aligned] = Aligned(
            _padded(order[with_label], bands.labelled_high), _padded(order[without], bands.unlabelled_high)
        )
    caller.publics[data_parties(data.contract)[0], Overlap] = bands
    split(caller, data.contract)
    prepare_columns(caller, data.contract)
    return caller


def _padded(rows: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    out = np.full(length, NO_ROW, np.int64)
    out[: len(rows)] = rows
    return out


Shares = dict[tuple[str, int], dict[Name, NDArray[np.uint64]]]


def record_rounded(monkeypatch: pytest.MonkeyPatch) -> Shares:
    """Record the shares of every value that goes into a rounding: by label and count, then by party."""
    seen: Shares = {}

    def recording(original: Callable[..., Any]) -> Callable[..., Any]:
        def open_masked(turn: Turn, label: str, count: int, share: Any, block: int = 0) -> Any:
            seen.setdefault((label, count), {})[turn.me] = share.copy()
            return original(turn, label, count, share, block)

        return open_masked

    for module in (gram, logistic, multiply, predictor, range_, scoring, weighted_gram):
        monkeypatch.setattr(module, "open_masked", recording(module.open_masked))
    return seen


def total(shares: Mapping[Name, NDArray[np.uint64]]) -> NDArray[np.int64]:
    """Add up shares and read them as signed integers."""
    added = sum(shares.values(), np.zeros(1, np.uint64))
    return np.asarray(added, dtype=np.uint64).view(np.int64)


def chi_square(data: bytes | NDArray[Any]) -> float:
    """How far bytes are from uniform, in standard deviations of the statistic (about normal, mean 0)."""
    raw = np.frombuffer(bytes(data) if isinstance(data, bytes) else data.tobytes(), np.uint8)
    counts = np.bincount(raw, minlength=256)
    expected = len(raw) / 256
    return float((((counts - expected) ** 2 / expected).sum() - 255) / np.sqrt(2 * 255))


def reconstructed_weights(caller: PlainCaller) -> NDArray[np.float64]:
    """Add up all parties' shares of the weights: intercept, then whitened columns."""
    shares = {p: caller.recall(p, Weights).w for p in data_parties(caller.contract)}
    return total(shares) / 2.0**WEIGHT_BITS


def prepared_matrix(
    caller: PlainCaller, rows_of: Callable[[Split], NDArray[np.int64]], white: bool = False
) -> Any:
    """Put all parties' prepared columns side by side for some real rows, whitened or not."""
    sides = []
    for party in data_parties(caller.contract):
        prepared, columns = caller.recall(party, Prepared), caller.recall(party, Columns)
        fitted = read_fitted(prepared.preparation)
        x = prepared_rows(fitted, columns, real(rows_of(caller.recall(party, Split))))
        sides.append(x @ prepared.transform if white else x)
    return np.concatenate(sides, axis=1)


def unwhitened(caller: PlainCaller, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn intercept and whitened weights into those of the prepared columns."""
    at, found = 1, [weights[:1]]
    for party in data_parties(caller.contract):
        transform = caller.recall(party, Prepared).transform
        found.append(transform @ weights[at : at + len(transform)])
        at += len(transform)
    return np.concatenate(found)


def labels(caller: PlainCaller, rows_of: Callable[[Split], NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return the bank's labels of some real rows."""
    bank = data_parties(caller.contract)[0]
    found: NDArray[np.float64] = caller.recall(bank, Columns).label[real(rows_of(caller.recall(bank, Split)))]
    return found
