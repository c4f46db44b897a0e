"""Where every byte went that a tap saw between a party and its coordinator, kind by kind.

    account = account_of_hub(tap.connections, "bank")
    account.remainder("up") == 0

Nothing is found by subtraction: each layer is read to its last byte by a reader of its own, each reader says how
many bytes its kinds took, and only the remainder is a difference. `HubAccount.passed` are the sealed envelopes as
they were on the wire, to be compared with the party's `ledger_of`. The front's port is in `front_accounting`.
"""

import json
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Literal

from fedmkt.crypto.seal import Envelope
from fedmkt.protocol import wire
from fedmkt.protocol.session import Answer, Farewell, Hello, Opening, Request
from fedmkt.protocol.turns import Receipt
from fedmkt.transport.driver import ASKS, REPLIES
from fedmkt.transport.hub_frames import (
    DATA_SIZE,
    START,
    Kind,
    read_ack,
    read_data_head,
    read_head,
    read_hello,
)
from tests.deploy.wire_tap import (
    FRAME_HEAD,
    GRPC_PREFIX,
    PREFACE,
    TLS13_OVERHEAD,
    Connection,
    Flow,
    read_grpc,
    read_head_fields,
    read_http2,
)

Way = Literal["up", "down"]
WAYS: tuple[Way, Way] = ("up", "down")
_LAYERS = ("TLS", "HTTP/2", "HTTP/1.1", "gRPC", "hub", "letters", "wire", "Flower", "sealed", "ours")
_SEALED = "sealed"
WITNESS = "witness/"
"""How the steps begin whose messages stand beside the log, since no head can cover them."""
_COORDINATOR = 0
_LETTER = struct.Struct(">B7xQ")
_LETTERS = {1: "asks", 2: "replies", 3: "goodbyes"}


@dataclass
class Account:
    """Bytes by kind and way; `seen` is what the tap counted, `pieces` how many there were of a kind."""

    seen: Counter[Way] = field(default_factory=Counter)
    sizes: dict[str, Counter[Way]] = field(default_factory=dict)
    pieces: dict[str, Counter[Way]] = field(default_factory=dict)

    def add(self, kind: str, way: Way, size: int, pieces: int = 1) -> None:
        """Book bytes of a kind."""
        self.sizes.setdefault(kind, Counter())[way] += size
        self.pieces.setdefault(kind, Counter())[way] += pieces

    def booked(self, way: Way) -> int:
        """Return all bytes that have a kind."""
        return sum(size[way] for size in self.sizes.values())

    def remainder(self, way: Way) -> int:
        """Return the bytes that were seen and have no kind."""
        return self.seen[way] - self.booked(way)

    def lines(self) -> list[str]:
        """Show it as a table."""
        head = f"{'':64}{'up':>8}{'bytes':>11}{'down':>8}{'bytes':>11}"
        kinds = sorted(self.sizes, key=lambda kind: _LAYERS.index(kind.partition(":")[0]))
        rows = [
            f"{kind:64}" + "".join(f"{self.pieces[kind][way]:8}{self.sizes[kind][way]:11}" for way in WAYS)
            for kind in kinds
            if any(self.sizes[kind].values()) or any(self.pieces[kind].values())
        ]
        last = [
            f"{name:64}" + "".join(f"{'':8}{number(way):11}" for way in WAYS)
            for name, number in (
                ("all kinds", self.booked),
                ("TCP bytes that the tap saw", lambda way: self.seen[way]),
                ("remainder", self.remainder),
            )
        ]
        return [head, *rows, "-" * len(head), *last]

    def add_tls(self, flow: Flow, way: Way) -> None:
        """Book what the records of TLS add to what they hold."""
        self.seen[way] += flow.tcp
        self.add("TLS: handshakes, with the certificates", way, flow.handshake)
        self.add(f"TLS: heads and tags of records, {TLS13_OVERHEAD} each", way, flow.heads, flow.records)
        self.add("TLS: alerts", way, flow.alerts, bool(flow.alerts))


# ------------------------------------------------------------------------------------------- the hub


Ledger = Counter[tuple[str, str, int]]
"""Messages of one way: peer, digest and size."""


@dataclass(frozen=True)
class Sealed:
    """An envelope as it passed; `peer` is its other end, `step` the one that made it."""

    peer: str
    step: str
    digest: str
    size: int


@dataclass
class _Link:
    """The messages that one end of a link sends, put together from its DATA frames."""

    expected: int = 0
    content: bytearray = field(default_factory=bytearray)


@dataclass
class HubAccount(Account):
    """What a party and the hub said to each other."""

    party: str = ""
    sent: list[Sealed] = field(default_factory=list)
    received: list[Sealed] = field(default_factory=list)
    frames: Counter[Way] = field(default_factory=Counter)
    """Bytes of the hub's frames: what party and hub count for themselves."""
    told: Counter[tuple[int, str, str, str]] = field(default_factory=Counter)
    """What the party's receipts say in clear: number, step and digest of the call, kind of the public value."""
    heads: dict[Way, list[tuple[str, str]]] = field(default_factory=lambda: {"up": [], "down": []})
    """Names and values in the heads of gRPC's calls."""
    _links: dict[tuple[Way, int], _Link] = field(default_factory=dict)
    _made: dict[tuple[str, str], str] = field(default_factory=dict)

    def read(self, connection: Connection) -> None:
        """Book one connection."""
        for way, flow in zip(WAYS, (connection.up, connection.down), strict=True):
            self.add_tls(flow, way)
            if flow.plain:
                self._read_http2(bytes(flow.plain), way)

    def _read_http2(self, plain: bytes, way: Way) -> None:
        if way == "up":
            self.add("HTTP/2: preface", way, len(PREFACE))
        found = list(read_http2(plain, is_client=way == "up"))
        for frame in found:
            if frame.kind == "DATA":
                self.add("HTTP/2: heads of DATA", way, FRAME_HEAD)
            else:
                self.add(f"HTTP/2: {frame.kind}", way, FRAME_HEAD + len(frame.content))
            if frame.kind == "HEADERS":
                self.heads[way] += read_head_fields(frame.content)
        for message in read_grpc(found):
            self.add("gRPC: prefixes", way, GRPC_PREFIX)
            self.frames[way] += len(message)
            self.read_frame(message, way)

    def read_frame(self, frame: bytes, way: Way) -> None:
        """Book one frame of the hub."""
        head = read_head(frame)
        kind = Kind(head.kind)
        if kind != Kind.DATA:
            if kind in (Kind.HELLO, Kind.ACK):
                (read_hello if kind == Kind.HELLO else read_ack)(frame)  # of exactly the declared fields
            elif kind in (Kind.BEAT, Kind.UP, Kind.DOWN, Kind.LEAVE) and len(frame) != 4:
                raise ValueError("a frame without content has one")
            self.add(f"hub: {kind.name}", way, len(frame))
            return
        if (head.destination if way == "up" else head.source) != _COORDINATOR:
            raise ValueError("a message between two parties")
        data = read_data_head(frame)
        link = self._links.setdefault((way, data.tag), _Link())
        if data.position != link.expected:
            self.add("hub: DATA, sent again", way, len(frame))
            return
        self.add("hub: heads of DATA", way, DATA_SIZE)
        link.expected += len(frame)
        if bool(data.flags & START) != (not link.content):
            raise ValueError("the frames of two messages are mixed")
        link.content += frame[DATA_SIZE:]
        if len(link.content) == data.total:
            letter, link.content = bytes(link.content), bytearray()
            self.read_letter(letter, way)

    def read_letter(self, letter: bytes, way: Way) -> None:
        """Book one message of a link."""
        kind, _ = _LETTER.unpack_from(letter)
        self.add(f"letters: heads of {_LETTERS[kind]}", way, _LETTER.size)
        body = letter[_LETTER.size :]
        if kind == 3:
            if body:
                raise ValueError("a goodbye has a content")
            return
        value = wire.decode(body, *(REPLIES if way == "up" else ASKS))
        # What can be encoded to the same bytes has no room for anything but its declared fields.
        if wire.encode(value) != body:
            raise ValueError("a letter has another form than ours")
        before = len(self.sealed(way))
        self._note_envelopes(value, way)
        for name, size, pieces in sizes_of(body, value):
            if name != _SEALED:
                self.add(name, way, size, pieces)
        for envelope in self.sealed(way)[before:]:
            where = "beside the log" if envelope.step.startswith(WITNESS) else "in the log"
            self.add(f"{_SEALED}: envelopes {where}", way, envelope.size)

    def _note_envelopes(self, value: object, way: Way) -> None:
        if isinstance(value, Request | Opening | Farewell):
            receipts = value.news if isinstance(value, Request) else value.receipts
            self._made |= {(r.party, d.hex()): r.step for r in receipts for _, d, _ in r.parts}
            self._made |= {(r.party, d.hex()): WITNESS + r.step for r in receipts for _, d, _ in r.riders}
        if isinstance(value, Answer):
            step = value.receipt.step
            told = value.receipt
            self.told[told.index, step, told.request.hex(), _kind_of(told.public)] += 1
            riders = {digest for _, digest, _ in told.riders}
            self.sent += [
                Sealed(e.reader, (WITNESS if e.digest in riders else "") + step, e.digest.hex(), e.size)
                for e in value.envelopes
            ]
        if isinstance(value, Request):
            for e in value.inbox:
                if e.reader != self.party:
                    raise ValueError("an envelope for somebody else")
                made = self._made[e.sender, e.digest.hex()]  # no envelope without a signed receipt
                self.received.append(Sealed(e.sender, made, e.digest.hex(), e.size))

    def sealed(self, way: Way) -> list[Sealed]:
        """Return the envelopes of one way."""
        return self.sent if way == "up" else self.received

    def passed(self, way: Way, is_witness: bool) -> "Ledger":
        """Return what the party's log, or the file beside it, must hold."""
        found = [s for s in self.sealed(way) if s.step.startswith(WITNESS) == is_witness]
        return Counter((s.peer, s.digest, s.size) for s in found)


def account_of_hub(connections: Sequence[Connection], party: str) -> HubAccount:
    """Account for the connections of a party to the hub, in the order in which they were made."""
    account = HubAccount(party=party)
    for connection in connections:
        account.read(connection)
    return account


def ledger_of(lines: bytes, way: Way) -> Ledger:
    """Read the messages of one way from `log.jsonl` or `witness.jsonl`."""
    event, peer = ("message.sent", "to") if way == "up" else ("message.received", "from")
    records = [json.loads(line) for line in lines.splitlines()]
    bodies = [record["body"] for record in records if record["type"] == event]
    return Counter((body[peer], body["sha256"], body["bytes"]) for body in bodies)


def told_by(lines: bytes) -> Counter[tuple[int, str, str, str]]:
    """Read from `log.jsonl` what a party told in clear, as `HubAccount.told`."""
    records = [json.loads(line) for line in lines.splitlines()]
    bodies = [record["body"] for record in records if record["type"] == "step.completed"]
    return Counter((body["index"], body["step"], body["request"], body["tells"]) for body in bodies)


# The fields of the wire, version 1, by what they are.
_ENVELOPE = {"parts", "ephemeral", "signature"}
_PUBLIC = [f.name for f in fields(Receipt)].index("public")
_PUNCTUATION = "wire: header lengths, JSON's punctuation, padding"


def sizes_of(body: bytes, value: object) -> Iterator[tuple[str, int, int]]:
    """Say for an encoded message what its bytes are: kind, bytes, pieces; together exactly `len(body)`.

    The header is read as the JSON that it is, next to the decoded message: every field of a message is a text in
    the header, or a place in it and bytes behind it.
    """
    length = int.from_bytes(body[:4], "big")
    text = body[4 : 4 + length].decode()
    header = json.loads(text)
    outer = _text({**header, "b": None}) - len("null")
    yield _PUNCTUATION, 4 + length - len(text.rstrip(" ")) + outer, 1
    yield from _sizes(header["b"], value, _name(type(value).__name__))


def _sizes(node: object, value: object, name: str) -> Iterator[tuple[str, int, int]]:
    if is_dataclass(value):
        parts, names = node["d"], [f.name for f in fields(value)]  # type: ignore[index]
        yield _PUNCTUATION, len('{"d":[]}') + len(parts) - 1, 0
        kind = type(value).__name__
        if isinstance(value, Envelope):
            yield from _envelope_sizes(dict(zip(names, parts, strict=True)), value)
            return
        if isinstance(value, Receipt):
            public = f"wire: receipts: public values: {_kind_of(value.public)}"
            yield "wire: receipts, without public values", sum(map(_leaf, parts)) - _leaf(parts[_PUBLIC]), 1
            yield public, _leaf(parts[_PUBLIC]), 1
            return
        if isinstance(value, Hello):
            yield _name(kind), 0, 1
        for part, field_name in zip(parts, names, strict=True):
            yield from _sizes(part, getattr(value, field_name), _name(kind))
    elif isinstance(value, tuple) and value and is_dataclass(value[0]):
        yield _PUNCTUATION, 2 + len(value) - 1, 0
        for part, item in zip(node, value, strict=True):  # type: ignore[call-overload]
            yield from _sizes(part, item, name)
    else:
        yield name, _leaf(node), 0


def _envelope_sizes(parts: dict[str, object], envelope: Envelope) -> Iterator[tuple[str, int, int]]:
    yield _SEALED, envelope.size, 1
    inside = sum(_leaf(parts[name]) for name in _ENVELOPE)
    yield "wire: of sealed envelopes: hexadecimal, JSON, padding", inside - envelope.size, 1
    outside = sum(_leaf(part) for name, part in parts.items() if name not in _ENVELOPE)
    yield "wire: of sealed envelopes: sender, reader, length", outside, 1


def _leaf(node: object) -> int:
    """Return the bytes of a field: its text, and the padded array that it stands for."""
    size = _text(node)
    for item in node if isinstance(node, list) else [node]:
        if isinstance(item, dict) and "a" in item:
            itemsize = int(item["a"][1:] or 1) if item["a"] != "B" else 1
            count = 1
            for side in item["s"]:
                count *= side
            size += -(-count * itemsize // 8) * 8
    return size


def _text(node: object) -> int:
    return len(json.dumps(node, sort_keys=True, separators=(",", ":")))


def _name(kind: str) -> str:
    return (
        "wire: hellos (nonces, prekeys, versions, signatures)"
        if kind == "Hello"
        else f"wire: fields of {kind}"
    )


def _kind_of(public: bytes) -> str:
    return str(json.loads(public[4 : 4 + int.from_bytes(public[:4], "big")])["t"])
