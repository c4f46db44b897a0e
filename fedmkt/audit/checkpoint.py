"""Signed heads of a log: C2SP tlog-checkpoint, signed-note and tlog-cosignature, as bytes.

A checkpoint is three lines: origin, number of leaves, root (RFC 6962). The log's owner signs it as a
note; others add cosignatures, which say that at a time this was the largest head they had seen, and that
it only appends to what they had seen before.

Where the contract asks for it, each signs twice, with Ed25519 and below it with ML-DSA-44 (tlog-cosignature type 6,
also under the own log). A public key is then both, one after the other, and one signature without the other is none.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass

from fedmkt.crypto.second import SECOND_SIGNATURE_BYTES, SecondKey, verify_second
from fedmkt.crypto.sign import KEY_BYTES, SIGNATURE_BYTES, Identity, verify

NOTE = 0x01
COSIGNATURE = 0x04
SECOND = 0x06
ID_BYTES = 4
TIME_BYTES = 8
MAX_SIGNATURES = 64


@dataclass(frozen=True)
class Checkpoint:
    """The state of a log: its origin, its number of leaves, the 32-byte root over them."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True)
class SignatureLine:
    """One signature line of a note: the key's name, its 4-byte id, and what follows."""

    name: str
    key_id: bytes
    value: bytes

    def __bytes__(self) -> bytes:
        """Encode the line, newline included."""
        return f"— {self.name} {base64.b64encode(self.key_id + self.value).decode()}\n".encode()


@dataclass(frozen=True)
class Note:
    """A text that ends in a newline, and the signature lines below it."""

    text: bytes
    lines: tuple[SignatureLine, ...]

    def __bytes__(self) -> bytes:
        """Encode text, empty line, signature lines."""
        return self.text + b"\n" + b"".join(bytes(line) for line in self.lines)


def log_origin(contract_digest: bytes, party: str) -> str:
    """Name the log that a party keeps for runs under a contract."""
    return f"fedmkt/{contract_digest.hex()}/{party}"


def body(origin: str, size: int, root: bytes) -> bytes:
    """Write the text of a checkpoint."""
    if not origin or not origin.isprintable() or size < 0 or len(root) != 32:
        raise ValueError("a checkpoint has a printable origin, a size from 0 and a root of 32 bytes")
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n".encode()


def parse_body(text: bytes) -> Checkpoint:
    """Read the text of a checkpoint; ValueError unless it is exactly the text that `body` writes."""
    lines = text.decode().split("\n")
    if len(lines) != 4 or not (lines[1].isascii() and lines[1].isdigit() and len(lines[1]) <= 18):
        raise ValueError("a checkpoint has three lines: origin, size, root")
    checkpoint = Checkpoint(lines[0], int(lines[1]), _from_base64(lines[2]))
    if body(checkpoint.origin, checkpoint.size, checkpoint.root) != text:
        raise ValueError("the checkpoint is not in canonical form")
    return checkpoint


def key_id(name: str, kind: int, public: bytes) -> bytes:
    """Name a key within notes, 4 bytes; a hint for finding the key, no proof of anything."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:ID_BYTES]


def sign_note(text: bytes, name: str, identity: Identity, second: SecondKey | None = None) -> bytes:
    """Sign a text as a note of one signature, or the text of a checkpoint with a second key too."""
    _check_name(name)
    lines = [SignatureLine(name, key_id(name, NOTE, identity.public), identity.sign(text))]
    if second is not None:
        lines.append(_second_line(text, 0, name, second))  # no time: it says nothing about what was seen when
    return bytes(Note(text, tuple(lines)))


def cosign(text: bytes, time: int, name: str, identity: Identity, second: SecondKey | None = None) -> bytes:
    """Cosign the text of a checkpoint at `time` (POSIX seconds); returns the line to add to its note, or two."""
    _check_name(name)
    if not 0 < time < 1 << 63:
        raise ValueError("the time of a cosignature is in POSIX seconds")
    value = time.to_bytes(TIME_BYTES, "big") + identity.sign(_cosigned(text, time))
    first = bytes(SignatureLine(name, key_id(name, COSIGNATURE, identity.public), value))
    return first if second is None else first + bytes(_second_line(text, time, name, second))


def _second_line(text: bytes, time: int, name: str, second: SecondKey) -> SignatureLine:
    value = time.to_bytes(TIME_BYTES, "big") + second.sign(cosigned_message(text, time, name))
    return SignatureLine(name, key_id(name, SECOND, second.public), value)


def cosigned_message(text: bytes, time: int, name: str) -> bytes:
    """Encode what a second key signs: tlog-cosignature's `cosigned_message` over the whole tree of a checkpoint."""
    head = parse_body(text)
    opaque = [len(data).to_bytes(1, "big") + data for data in (name.encode(), head.origin.encode())]
    start, end = bytes(8), head.size.to_bytes(8, "big")
    stamp = time.to_bytes(TIME_BYTES, "big")
    return b"".join([b"subtree/v1\n\0", opaque[0], stamp, opaque[1], start, end, head.root])


def parse_note(note: bytes) -> Note:
    """Split a note; ValueError unless it is UTF-8 in the one form that `bytes(Note)` writes."""
    if any(byte < 0x20 and byte != 0x0A for byte in note):
        raise ValueError("a note has no control characters")
    note.decode()
    text, empty, rest = note.rpartition(b"\n\n")
    if not empty or not text or not rest.endswith(b"\n"):
        raise ValueError("a note has a text, an empty line and signature lines")
    lines = rest[:-1].split(b"\n")
    if len(lines) > MAX_SIGNATURES:
        raise ValueError(f"a note has at most {MAX_SIGNATURES} signatures")
    return Note(text + b"\n", tuple(parse_line(line + b"\n") for line in lines))


def parse_line(line: bytes) -> SignatureLine:
    """Read one signature line; ValueError unless it is in the one form that `bytes(SignatureLine)` writes."""
    parts = line.decode().removesuffix("\n").split(" ")
    if len(parts) != 3 or parts[0] != "—":
        raise ValueError("a signature line is a dash, a name and base64")
    _check_name(parts[1])
    data = _from_base64(parts[2])
    parsed = SignatureLine(parts[1], data[:ID_BYTES], data[ID_BYTES:])
    if bytes(parsed) != line or not parsed.value:
        raise ValueError("the signature line is not in canonical form")
    return parsed


def verify_note(note: bytes, name: str, public: bytes) -> Note:
    """Demand the signature of this key, once; signatures of other keys are left alone, as the format says.

    public : 32 bytes, or with a second key after them, whose signature is then demanded too.
    """
    parsed = parse_note(note)
    own = signatures_of(parsed, name, public)
    if len(own) != 1 + (len(public) > KEY_BYTES):
        raise ValueError(f"the note has {len(own)} signatures of {name}, {_needed(public)} needed")
    verify(public[:KEY_BYTES], own[0].value, parsed.text)
    for line in own[1:]:
        _verify_second(line, 0, parsed.text, name, public)
    return parsed


def signatures_of(note: Note, name: str, public: bytes) -> tuple[SignatureLine, ...]:
    """Find the lines with which a note's owner signed, in the order of its keys."""
    kinds = [(NOTE, public[:KEY_BYTES]), (SECOND, public[KEY_BYTES:])][: 1 + (len(public) > KEY_BYTES)]
    ids = [key_id(name, kind, key) for kind, key in kinds]
    return tuple(line for i in ids for line in note.lines if (line.name, line.key_id) == (name, i))


def verify_cosignature(text: bytes, lines: bytes, name: str, public: bytes) -> int:
    """Demand that `lines` are the cosignature of this key under this text; returns its time, POSIX seconds.

    public : 32 bytes, or with a second key after them; then there are two lines, of one time.
    """
    first, *more = (parse_line(line) for line in lines.splitlines(keepends=True))
    if (first.name, first.key_id) != (name, key_id(name, COSIGNATURE, public[:KEY_BYTES])):
        raise ValueError(f"the line is no cosignature of {name}")
    if len(first.value) != TIME_BYTES + SIGNATURE_BYTES:
        raise ValueError("the cosignature has another length")
    if len(more) != (len(public) > KEY_BYTES):
        raise ValueError(f"{1 + len(more)} signatures of {name}, {_needed(public)} needed")
    time = int.from_bytes(first.value[:TIME_BYTES], "big")
    verify(public[:KEY_BYTES], first.value[TIME_BYTES:], _cosigned(text, time))
    for line in more:
        _verify_second(line, time, text, name, public)
    return time


def _verify_second(line: SignatureLine, time: int, text: bytes, name: str, public: bytes) -> None:
    second = public[KEY_BYTES:]
    if (line.name, line.key_id) != (name, key_id(name, SECOND, second)):
        raise ValueError(f"the line is no second signature of {name}")
    if len(line.value) != TIME_BYTES + SECOND_SIGNATURE_BYTES or not line.value.startswith(
        time.to_bytes(TIME_BYTES, "big")
    ):
        raise ValueError("the second signature has another length or time")
    verify_second(second, line.value[TIME_BYTES:], cosigned_message(text, time, name))


def _needed(public: bytes) -> str:
    return "two are" if len(public) > KEY_BYTES else "one is"


def _cosigned(text: bytes, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n".encode() + text


def _check_name(name: str) -> None:
    if not name or "+" in name or any(char.isspace() for char in name):
        raise ValueError("a key name has no space and no plus sign")


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
