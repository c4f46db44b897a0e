"""The frames of the hub, version 1: what each byte means, and nothing about who sends it when.

A frame is one gRPC message. Integers are big-endian. Every frame begins with four bytes: kind, source,
destination (numbers of members; HUB is the hub itself) and flags.

  frame      from    after the four bytes
  CHALLENGE  hub     32 random bytes, the hub's certificate (DER)
  JOIN       client  version, session (16), signature (64), members in order (empty unless it opens the session)
  WELCOME    hub     version, own number, largest message, largest chunk, heartbeat (ms), members, who is there
  UP, DOWN   hub     - (the source is the member; DOWN with the flag LEFT: it said goodbye)
  BEAT       both    - (I am still here)
  LEAVE      client  - (goodbye; from the member that opened the session it ends the session)
  HELLO      member  the state of one end of a link, see `Hello`
  ACK        member  tag, next expected position, credit
  DATA       member  tag, position, next expected position, credit, size of the whole message, bytes

The last three are relayed unread, apart from the first four bytes and the declared size of a message.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

VERSION = 1
HUB = 255
"""The number that stands for the hub itself."""
MAX_MEMBERS = 64
SESSION_BYTES = 16
CHALLENGE_BYTES = 32
INCARNATION_BYTES = 8
SIGNATURE_BYTES = 64
LARGEST_CHUNK = 8 << 20
SHORTEST_BEAT_MS, LONGEST_BEAT_MS = 10, 15_000
"""What a client lets a hub choose: with no pause between heartbeats it would do nothing else."""
METHOD = "/fedmkt.Hub/Link"
"""The one gRPC method: a stream of frames each way."""

HUB_SAYS = "hub: "
"""What the text of a stream's end begins with if it is the hub's own, and not gRPC's."""

_DOMAIN = b"fedmkt hub join v1\n"
_HEAD = struct.Struct(">BBBB")
_HELLO = struct.Struct(">BBBBIQQII8s8s")
_ACK = struct.Struct(">BBBBIQQ")
_DATA = struct.Struct(">BBBBIQQQQ")
_WELCOME = struct.Struct(">BBQIIB")

HEAD_SIZE = _HEAD.size
DATA_SIZE = _DATA.size
"""Bytes before the content of a DATA frame; a multiple of 8, so that arrays inside stay aligned."""


class Kind(IntEnum):
    """What a frame is."""

    CHALLENGE = 1
    JOIN = 2
    WELCOME = 3
    UP = 4
    DOWN = 5
    BEAT = 6
    LEAVE = 7
    HELLO = 16
    ACK = 17
    DATA = 18


RELAYED = frozenset((Kind.HELLO, Kind.ACK, Kind.DATA))
LEFT = 1
"""Flag of DOWN: the member said goodbye and will not come back."""
START = 1
"""Flag of DATA: the first frame of a message."""
RESEND = 1
"""Flag of HELLO: a frame was missing, so ask where to go on from."""


@dataclass(frozen=True)
class Head:
    """The four bytes that every frame begins with."""

    kind: int
    source: int
    destination: int
    flags: int


@dataclass(frozen=True)
class Join:
    """A client's answer to the challenge: which session, the proof, and the members if it opens the session."""

    session: bytes
    signature: bytes
    members: tuple[str, ...]


@dataclass(frozen=True)
class Welcome:
    """The hub's answer to a good proof. `here` says for every member whether it is connected."""

    me: int
    message_bytes: int
    chunk_bytes: int
    heartbeat_ms: int
    members: tuple[str, ...]
    here: tuple[bool, ...]


@dataclass(frozen=True)
class Hello:
    """The state of one end of a link.

    expected : the position that it waits for. credit : the position up to which it has room.
    question : not 0, asks for a Hello whose `echo` is this number. known : incarnation of the reader as the
    writer knows it, or zeros.
    """

    source: int
    destination: int
    flags: int
    expected: int
    credit: int
    question: int
    echo: int
    incarnation: bytes
    known: bytes


@dataclass(frozen=True)
class Ack:
    """What one end of a link received and has room for."""

    source: int
    destination: int
    tag: int
    expected: int
    credit: int


@dataclass(frozen=True)
class DataHead:
    """What stands before the content of a DATA frame; `total` is the size of the whole message."""

    flags: int
    tag: int
    position: int
    expected: int
    credit: int
    total: int


def proof(challenge: bytes, session: bytes, name: str, certificate_digest: bytes) -> bytes:
    """Return what a member signs with its identity key to join a session at one hub, once."""
    if (len(challenge), len(session), len(certificate_digest)) != (CHALLENGE_BYTES, SESSION_BYTES, 32):
        raise ValueError("a part of the proof has a wrong length")
    # All but the name have fixed lengths, so no two proofs share their bytes.
    return _DOMAIN + challenge + session + certificate_digest + name.encode()


def tag_of(incarnation: bytes) -> int:
    """Shorten an incarnation to what every frame of a link repeats."""
    return int.from_bytes(incarnation[:4], "big")


def read_head(frame: bytes) -> Head:
    """Read the first four bytes; ValueError if there are fewer."""
    if len(frame) < HEAD_SIZE:
        raise ValueError("a frame is shorter than its head")
    return Head(frame[0], frame[1], frame[2], frame[3])


def plain(kind: Kind, source: int = HUB, destination: int = HUB, flags: int = 0) -> bytes:
    """Write a frame that is nothing but its head."""
    return _HEAD.pack(kind, source, destination, flags)


def write_challenge(challenge: bytes, certificate: bytes) -> bytes:
    """Write a CHALLENGE."""
    return plain(Kind.CHALLENGE) + challenge + certificate


def read_challenge(frame: bytes) -> tuple[bytes, bytes]:
    """Return the random bytes and the certificate of a CHALLENGE."""
    end = HEAD_SIZE + CHALLENGE_BYTES
    if read_head(frame).kind != Kind.CHALLENGE or len(frame) <= end:
        raise ValueError("not a challenge")
    return frame[HEAD_SIZE:end], frame[end:]


def write_join(join: Join) -> bytes:
    """Write a JOIN."""
    return plain(Kind.JOIN) + bytes([VERSION]) + join.session + join.signature + _write_names(join.members)


def read_join(frame: bytes) -> Join:
    """Read a JOIN; ValueError if it is none, or of another version."""
    if read_head(frame).kind != Kind.JOIN or frame[HEAD_SIZE : HEAD_SIZE + 1] != bytes([VERSION]):
        raise ValueError("not a join of this version")
    session = HEAD_SIZE + 1
    signature = session + SESSION_BYTES
    names = signature + SIGNATURE_BYTES
    members, end = _read_names(frame, names)
    if end != len(frame):
        raise ValueError("a join has bytes left over")
    return Join(frame[session:signature], frame[signature:names], members)


def write_welcome(welcome: Welcome) -> bytes:
    """Write a WELCOME."""
    fixed = _WELCOME.pack(
        VERSION,
        welcome.me,
        welcome.message_bytes,
        welcome.chunk_bytes,
        welcome.heartbeat_ms,
        len(welcome.here),
    )
    return plain(Kind.WELCOME) + fixed + _write_names(welcome.members) + bytes(welcome.here)


def read_welcome(frame: bytes) -> Welcome:
    """Read a WELCOME; ValueError if it is none, or of another version."""
    if read_head(frame).kind != Kind.WELCOME or len(frame) < HEAD_SIZE + _WELCOME.size:
        raise ValueError("not a welcome")
    version, me, message, chunk, beat, count = _WELCOME.unpack_from(frame, HEAD_SIZE)
    members, at = _read_names(frame, HEAD_SIZE + _WELCOME.size)
    here = frame[at:]
    if version != VERSION or not len(members) == count == len(here) or me >= count:
        raise ValueError("not a welcome of this version")
    if not 0 < chunk <= LARGEST_CHUNK or not SHORTEST_BEAT_MS <= beat <= LONGEST_BEAT_MS:
        raise ValueError("a welcome with limits that no hub of ours has")
    return Welcome(me, message, chunk, beat, members, tuple(b == 1 for b in here))


def write_hello(hello: Hello) -> bytes:
    """Write a HELLO."""
    return _HELLO.pack(
        Kind.HELLO, hello.source, hello.destination, hello.flags, tag_of(hello.incarnation), hello.expected,
        hello.credit, hello.question, hello.echo, hello.incarnation, hello.known,
    )  # fmt: skip


def read_hello(frame: bytes) -> Hello:
    """Read a HELLO."""
    if len(frame) != _HELLO.size:
        raise ValueError("a hello has a wrong length")
    _, source, destination, flags, _, expected, credit, question, echo, own, known = _HELLO.unpack(frame)
    return Hello(source, destination, flags, expected, credit, question, echo, own, known)


def write_ack(ack: Ack) -> bytes:
    """Write an ACK."""
    return _ACK.pack(Kind.ACK, ack.source, ack.destination, 0, ack.tag, ack.expected, ack.credit)


def read_ack(frame: bytes) -> Ack:
    """Read an ACK."""
    if len(frame) != _ACK.size:
        raise ValueError("an acknowledgement has a wrong length")
    _, source, destination, _, tag, expected, credit = _ACK.unpack(frame)
    return Ack(source, destination, tag, expected, credit)


def write_data_head(source: int, destination: int, head: DataHead) -> bytes:
    """Write what stands before the content of a DATA frame."""
    return _DATA.pack(
        Kind.DATA,
        source,
        destination,
        head.flags,
        head.tag,
        head.position,
        head.expected,
        head.credit,
        head.total,
    )


def read_data_head(frame: bytes) -> DataHead:
    """Read what stands before the content of a DATA frame."""
    if len(frame) < DATA_SIZE:
        raise ValueError("a data frame is shorter than its head")
    _, _, _, flags, tag, position, expected, credit, total = _DATA.unpack_from(frame)
    return DataHead(flags, tag, position, expected, credit, total)


def _write_names(names: Sequence[str]) -> bytes:
    raw = [name.encode() for name in names]
    if len(raw) > MAX_MEMBERS or any(not 0 < len(r) < 256 for r in raw):
        raise ValueError(f"a session has at most {MAX_MEMBERS} members, with names of 1 to 255 bytes")
    return bytes([len(raw)]) + b"".join(bytes([len(r)]) + r for r in raw)


def _read_names(frame: bytes, at: int) -> tuple[tuple[str, ...], int]:
    """Return the names that begin at `at`, and where they end."""
    if at >= len(frame) or frame[at] > MAX_MEMBERS:
        raise ValueError("a frame has no list of members")
    names = []
    count, at = frame[at], at + 1
    for _ in range(count):
        if at >= len(frame) or not frame[at] or at + 1 + frame[at] > len(frame):
            raise ValueError("a list of members is cut short")
        names.append(frame[at + 1 : at + 1 + frame[at]].decode())  # UnicodeDecodeError is a ValueError
        at += 1 + frame[at]
    return tuple(names), at
