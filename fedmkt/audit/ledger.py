"""The ledger of messages: every sealed envelope that logs name, once, with who sent and who read it; pure.

A message is known by run, epoch, sender, reader and the digest of its sealed bytes. Its sender's log says at which
step and number it left and with how many bytes, its reader's log that it came. Where both logs are there the two
must say the same; a message may be missing at its reader only in an epoch that was given up, after the sender's last
checkpoint (the rule of `fedmkt.audit.verify`). Where one of the two logs is not there, nothing is compared.

The messages by which heads of logs are cosigned stand beside the logs, unsigned and without epoch.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from fedmkt.audit.records import Json, Record

SENT = "message.sent"
RECEIVED = "message.received"
Seen = Literal["matched", "not matched", "lost", "one log"]
"""lost : sent in an epoch that was given up, and not read; one log : the other side's log is not here."""
Kind = Literal["protocol", "heads"]


class Line(NamedTuple):
    """What stands beside a log, in the order of its writing."""

    run: str
    type: str
    body: Mapping[str, Json]


@dataclass(frozen=True)
class Message:
    """One sealed envelope. number, step : of the call that sent it, step "" where the sender's log is not here.

    revealed : kinds of what the sender revealed to the reader in that call, by its log.
    """

    run: str
    epoch: int
    number: int
    step: str
    sender: str
    reader: str
    digest: str
    size: int
    kind: Kind
    seen: Seen
    revealed: tuple[str, ...] = ()

    @property
    def stage(self) -> str:
        """The first word of the step; of all heads of logs `witness`, whatever they rode with."""
        if self.kind == "heads":
            return "witness"
        return self.step.partition(".")[0] or "(not in this log)"


@dataclass(frozen=True)
class Mismatch:
    """A message of which two logs do not say the same; `why` is one sentence."""

    run: str
    epoch: int
    number: int
    step: str
    sender: str
    reader: str
    digest: str
    why: str

    def __str__(self) -> str:
        """Name the message so that both sides find it in their logs."""
        step = f", step {self.step}" if self.step else ""
        return (
            f"run {self.run[:16]}, epoch {self.epoch}, number {self.number}{step}, {self.sender} to "
            f"{self.reader}, sha256 {self.digest}: {self.why}"
        )


@dataclass(frozen=True)
class Told:
    """A value that a call revealed without a message to its reader: it stands in the call's receipt."""

    run: str
    number: int
    step: str
    sender: str
    reader: str
    what: str


@dataclass(frozen=True)
class Total:
    """Messages and bytes of one line of a table, and how often each kind was revealed with them."""

    messages: int
    size: int
    revealed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Ledger:
    """All messages, run by run, what did not match, what was told without one. logs : whose logs were there."""

    logs: tuple[str, ...]
    messages: tuple[Message, ...]
    mismatches: tuple[Mismatch, ...]
    told: tuple[Told, ...] = ()

    @property
    def matched(self) -> int:
        """How many messages both logs name alike."""
        return sum(m.seen == "matched" for m in self.messages)

    @property
    def lost(self) -> int:
        """How many were sent in epochs that were given up, and not read."""
        return sum(m.seen == "lost" for m in self.messages)

    @property
    def comparable(self) -> int:
        """How many had to match."""
        return self.matched + len(self.mismatches)

    @property
    def size(self) -> int:
        """The bytes of all sealed envelopes."""
        return sum(m.size for m in self.messages)

    def of_run(self, run: str) -> "Ledger":
        """Keep the messages of one run."""
        return Ledger(
            self.logs,
            tuple(m for m in self.messages if m.run == run),
            tuple(m for m in self.mismatches if m.run == run),
            tuple(t for t in self.told if t.run == run),
        )

    def totals(
        self, *by: Literal["sender", "reader", "kind", "stage", "step"]
    ) -> dict[tuple[str, ...], Total]:
        """Add up by attributes of a message, in the order in which they first occur."""
        found: dict[tuple[str, ...], list[Message]] = {}
        for message in self.messages:
            found.setdefault(tuple(getattr(message, name) for name in by), []).append(message)
        return {key: _total(messages) for key, messages in found.items()}


class _Key(NamedTuple):
    run: str
    epoch: int
    sender: str
    reader: str
    digest: str


class _Facts(NamedTuple):
    number: int
    size: int
    step: str
    revealed: tuple[str, ...]


_Revealed = dict[tuple[str, int, int], list[tuple[str, str, str]]]
"""By run, epoch and number of the call: reader, kind and step."""


@dataclass(frozen=True)
class _Side:
    """What logs say: settled are messages that must have been read, by the sender's own log.

    steps : of calls, by run, epoch and number, whoever's log says it.
    """

    sent: dict[_Key, _Facts] = field(default_factory=dict)
    received: dict[_Key, _Facts] = field(default_factory=dict)
    settled: set[_Key] = field(default_factory=set)
    told: list[Told] = field(default_factory=list)
    steps: dict[tuple[str, int, int], str] = field(default_factory=dict)


def ledger(
    logs: Mapping[str, Sequence[Record]], beside: Mapping[str, Sequence[Line]] | None = None
) -> Ledger:
    """Match what logs say was sent with what they say was received; ValueError for a record without its fields.

    logs : the records of each signer whose log is there. beside : the lines beside these logs.
    """
    protocol, heads = _Side(), _Side()
    for name, records in logs.items():
        _read_log(protocol, name, records)
    for name, lines in (beside or {}).items():
        for line in lines:
            _read_message(heads, name, line.type, line.run, 0, line.body, ())
    here = _here(logs)
    messages, mismatches = _match(protocol, "protocol", here)
    more, wrong = _match(heads, "heads", here)
    place = {run: place for place, run in enumerate(_runs(logs))}
    messages = sorted(
        messages + more, key=lambda m: (place.get(m.run, -1), m.kind != "protocol", m.epoch, m.number)
    )
    mismatches = sorted(
        mismatches + wrong, key=lambda m: (place.get(m.run, -1), m.epoch == 0, m.epoch, m.number)
    )
    return Ledger(tuple(logs), tuple(messages), tuple(mismatches), tuple(protocol.told))


@dataclass(frozen=True)
class _Here:
    """Whose logs are here; of logs whose first records expired only what they still have of a run."""

    names: frozenset[str]
    pruned: Mapping[str, frozenset[str]]

    def has(self, name: str, run: str) -> bool:
        return name in self.names and (name not in self.pruned or run in self.pruned[name])


def _here(logs: Mapping[str, Sequence[Record]]) -> _Here:
    pruned = {
        name: frozenset(r.run for r in records)
        for name, records in logs.items()
        if records and records[0].seq
    }
    return _Here(frozenset(logs), pruned)


def _runs(logs: Mapping[str, Sequence[Record]]) -> Iterable[str]:
    return dict.fromkeys(r.run for records in logs.values() for r in records if r.run)


def _read_log(side: _Side, name: str, records: Iterable[Record]) -> None:
    epochs = dict[str, int]()
    revealed: _Revealed = {}
    for r in records:
        epoch = epochs.get(r.run, 0)
        match r.body:
            case {"step": str(step), "index": int(index)}:
                side.steps.setdefault((r.run, epoch, index), step)
        if r.type == "epoch.started":
            epochs[r.run] = _number(r.body, "epoch")
        elif r.type == "value.revealed":
            told = (_text(r.body, "to"), _text(r.body, "kind"), _text(r.body, "step"))
            revealed.setdefault((r.run, epoch, _number(r.body, "index")), []).append(told)
        elif r.type in ("checkpoint.saved", "run.completed"):
            # Who saves or completes has the receipts of all rounds before: all was read.
            side.settled.update(k for k in side.sent if (k.run, k.epoch, k.sender) == (r.run, epoch, name))
        elif r.type in (SENT, RECEIVED):
            place = (r.run, epoch, _number(r.body, "index"))
            _read_message(side, name, r.type, r.run, epoch, r.body, revealed.get(place, ()))
    side.told.extend(_told(side, name, revealed))


def _told(side: _Side, name: str, revealed: _Revealed) -> Iterable[Told]:
    carried = {(k.run, k.epoch, f.number, k.reader) for k, f in side.sent.items() if k.sender == name}
    for (run, epoch, number), values in revealed.items():
        readers = {key[3] for key in carried if key[:3] == (run, epoch, number)}
        for to, kind, step in values:
            if not (readers if to == "all" else to in readers):
                yield Told(run, number, step, name, to, kind)


def _read_message(
    side: _Side,
    name: str,
    event: str,
    run: str,
    epoch: int,
    body: Mapping[str, Json],
    revealed: Iterable[tuple[str, str, str]],
) -> None:
    number, size, digest = _number(body, "index"), _number(body, "bytes"), _text(body, "sha256")
    if event == SENT:
        reader, step = _text(body, "to"), _text(body, "step")
        kinds = tuple(kind for to, kind, _ in revealed if to in ("all", reader))
        side.sent[_Key(run, epoch, name, reader, digest)] = _Facts(number, size, step, kinds)
    elif event == RECEIVED:
        key = _Key(run, epoch, _text(body, "from"), name, digest)
        side.received[key] = _Facts(number, size, "", ())


def _match(side: _Side, kind: Kind, here: _Here) -> tuple[list[Message], list[Mismatch]]:
    messages, mismatches = list[Message](), list[Mismatch]()
    by_number = {(k.run, k.epoch, k.sender, k.reader, f.number): k for k, f in side.sent.items()}
    for key in dict.fromkeys([*side.sent, *side.received]):
        sent, received = side.sent.get(key), side.received.get(key)
        facts = sent or received
        assert facts is not None  # the key came from one of the two
        why = ""
        sender_here, reader_here = here.has(key.sender, key.run), here.has(key.reader, key.run)
        if sent is None and sender_here:
            other = by_number.get((key.run, key.epoch, key.sender, key.reader, facts.number))
            why = f"{key.reader} received it, the log of {key.sender} does not show it"
            why += f" but sha256 {other.digest} under that number" if other is not None else ""
        elif sent is not None and received is not None and sent[:2] != received[:2]:
            why = (
                f"{key.sender} sent {sent.size} bytes as number {sent.number}, {key.reader} received "
                f"{received.size} bytes as number {received.number}"
            )
        elif received is None and reader_here and key in side.settled:
            why = f"{key.sender} sent it, the log of {key.reader} does not show it"
        if why:
            step = facts.step or side.steps.get((key.run, key.epoch, facts.number), "")
            place = (key.run, key.epoch, facts.number, step, key.sender, key.reader, key.digest)
            mismatches.append(Mismatch(*place, why))
        if sent is not None or not sender_here:
            seen = _seen(sent, received, sender_here and reader_here)
            messages.append(_message(key, facts, kind, seen))
    return messages, mismatches


def _seen(sent: _Facts | None, received: _Facts | None, both_here: bool) -> Seen:
    if sent is not None and received is not None:
        return "matched" if sent[:2] == received[:2] else "not matched"
    return "lost" if both_here else "one log"


def _message(key: _Key, facts: _Facts, kind: Kind, seen: Seen) -> Message:
    place = (key.run, key.epoch, facts.number, facts.step, key.sender, key.reader, key.digest)
    return Message(*place, facts.size, kind, seen, facts.revealed)


def _total(messages: Sequence[Message]) -> Total:
    revealed = Counter(kind for m in messages for kind in m.revealed)
    return Total(len(messages), sum(m.size for m in messages), dict(revealed))


def _number(body: Mapping[str, Json], name: str) -> int:
    value = body.get(name)
    if not isinstance(value, int):
        raise ValueError(f"a record of a message without the number {name!r}")
    return value


def _text(body: Mapping[str, Json], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise ValueError(f"a record of a message without the text {name!r}")
    return value
