"""A party's own append-only log on disk, with signed heads that its peers cosign.

A folder holds four files: `log.jsonl`, one record per line, on disk before `append` returns;
`checkpoint.txt`, the last signed head, with cosignatures once they came; `peers.json`, the last head of
each peer that this party cosigned; `witness.jsonl`, the messages by which heads are cosigned. No head can
cover these, so they stand beside the log, unsigned; the two together name every message that left or came.
First records that the contract no longer keeps are removed by `prune`: their hashes stay, in `pruned.hashes`.
Records say that messages were exchanged; what a party does locally with what it has, no log can show.
"""

import base64
import fcntl
import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from fedmkt.audit import checkpoint
from fedmkt.audit.records import Json, Record, canonical, leaf, read_leaf, timestamp
from fedmkt.crypto.second import SecondKey
from fedmkt.crypto.sign import Identity
from fedmkt.crypto.tree import EMPTY_ROOT, HASH_BYTES, Tree, verify_consistency
from fedmkt.errors import AuditError
from fedmkt.party.clock import WatchedClock
from fedmkt.party.journal import write_atomically

LOG = "log.jsonl"
CHECKPOINT = "checkpoint.txt"
PEERS = "peers.json"
WITNESS = "witness.jsonl"
PRUNED = "pruned.hashes"


N = TypeVar("N", bound=str)
"""The name of a participant."""


class AuditLog:
    """The log of one party in one run; opening a folder that has one continues it.

    `clock` gives the time of records and cosignatures; `run` may be set once the parties agreed on it.
    second : the second keys of all signers, by name, where the contract asks for heads that are signed twice.
    steady : as in WatchedClock.
    """

    def __init__(
        self,
        folder: Path,
        origin: str,
        identity: Identity,
        clock: Callable[[], datetime],
        run: str,
        party: str,
        contract_digest: bytes,
        second: Mapping[str, bytes] = MappingProxyType({}),
        steady: Callable[[], float] | None = None,
    ) -> None:
        self.run = run
        self.party = party
        self._folder = folder
        self._origin = origin
        self._identity = identity
        self._second = SecondKey(identity) if second else None
        self._seconds = second
        self._clock = clock
        self._watched = WatchedClock(clock, steady)
        self._contract = contract_digest.hex()
        self._tree = Tree()
        self._pruned = 0
        self._note: checkpoint.Note | None = None
        self._beside = -1
        folder.mkdir(parents=True, exist_ok=True)
        cut = self._load()
        self._peers = self._load_peers()
        self._file = _open_shared(folder / LOG)
        _sync_folder(folder)
        if cut:
            self.append("log.cut", {"bytes": cut})

    @property
    def size(self) -> int:
        """The number of records."""
        return self._tree.size

    def append(self, event: str, body: Mapping[str, Json]) -> Record:
        """Write one record; it is on disk when this returns."""
        return self.append_all([(event, body)])[0]

    def append_all(self, events: Sequence[tuple[str, Mapping[str, Json]]]) -> list[Record]:
        """Write several records with one wait for the disk; all are checked before any is written.

        If the clock was set since the last record, a record of its own says so first.
        """
        moment, step = self._watched.look()
        now, before = timestamp(moment), [("clock.stepped", {"seconds": step})] if step else []
        records = [
            Record(self.size + i, now, self.party, self.run, event, self._contract, body)
            for i, (event, body) in enumerate([*before, *events])
        ]
        leaves = [leaf(record) for record in records]
        self._write(b"".join(data + b"\n" for data in leaves))
        for data in leaves:
            self._grow(data)
        return records[len(before) :]

    def append_beside(self, events: Sequence[tuple[str, Mapping[str, Json]]]) -> None:
        """Write what no head can cover beside the log: canonical lines with run, type and body."""
        if not events:
            return
        lines = [canonical({"run": self.run, "type": e, "body": body}) + b"\n" for e, body in events]
        if self._beside < 0:
            self._beside = os.open(self._folder / WITNESS, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            size = os.fstat(self._beside).st_size
            if size and os.pread(self._beside, 1, size - 1) != b"\n":
                lines.insert(0, b"\n")  # the last line was cut in a crash: it is no record
        _write_all(self._beside, b"".join(lines))

    def head(self) -> bytes:
        """Sign the log as it is now and remember it on disk; a signed log is never shorter again."""
        text = checkpoint.body(self._origin, self.size, self._tree.root())
        if self._note is None or self._note.text != text:
            note = checkpoint.sign_note(text, self.party, self._identity, self._second)
            write_atomically(self._folder / CHECKPOINT, note)
            self._note = checkpoint.parse_note(note)
        return bytes(checkpoint.Note(self._note.text, self._own_lines(self._note)))

    def _own_lines(self, note: checkpoint.Note) -> tuple[checkpoint.SignatureLine, ...]:
        return note.lines[: 1 + (self._second is not None)]

    def _key(self, name: str, key: bytes) -> bytes:
        return key + self._seconds.get(name, b"")

    def extension(self, size: int) -> list[bytes]:
        """Prove to a peer who cosigned `size` records that the log now only appended to them."""
        return self._tree.consistency_proof(size, self.size)

    def peer_size(self, peer_name: str) -> int:
        """How many records of this peer's log were cosigned here last; 0 if none were."""
        return self._last_seen(peer_name).size

    def cosign(
        self, heads: Mapping[N, tuple[bytes, Sequence[bytes]]], keys: Mapping[N, bytes]
    ) -> dict[N, bytes]:
        """Cosign the heads of peers; AuditError unless signed and, by its proof, an extension of the last one.

        heads : note and proof by name. They are remembered on disk before the cosignatures are returned.
        """
        lines = {name: self._cosign(name, keys[name], *head) for name, head in heads.items()}
        text = json.dumps(self._peers, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        write_atomically(self._folder / PEERS, text.encode() + b"\n")
        # All of them, not the last alone: they tell later between which heads a log was changed (`audit.locate`).
        self.append_beside([("head.cosigned", {"of": n, "note": _first_signed(heads[n][0])}) for n in heads])
        return lines

    def _cosign(self, peer_name: str, peer_key: bytes, peer_note: bytes, proof: Sequence[bytes]) -> bytes:
        try:
            peer_key = self._key(peer_name, peer_key)
            note = checkpoint.verify_note(peer_note, peer_name, peer_key)
            head = checkpoint.parse_body(note.text)
        except ValueError as error:
            raise AuditError(f"head of {peer_name}: {error}") from None
        self._check_extends(peer_name, head, proof)
        time = int(self._clock().timestamp())
        line = checkpoint.cosign(note.text, time, self.party, self._identity, self._second)
        own = checkpoint.signatures_of(note, peer_name, peer_key)
        self._peers[peer_name] = {
            "cosignature": line.decode(),
            "note": bytes(checkpoint.Note(note.text, own)).decode(),
        }
        return line

    def add_cosignatures(self, lines: Mapping[N, bytes], keys: Mapping[N, bytes]) -> int:
        """Add peers' cosignatures to the last head, on disk too; return its size.

        AuditError unless each peer sent its own. `lines` : by who sent it. `keys` : public key of every signer, by
        name; all but the owner must cosign.
        """
        if self._note is None:
            raise ValueError("there is no head to cosign yet")
        if wrong := sorted(set(lines) ^ (set(keys) - {self.party})):
            raise AuditError(
                f"log of {self.party}: cosignatures missing or not asked for: {', '.join(wrong)}"
            )
        for sender, line in lines.items():
            try:
                checkpoint.verify_cosignature(self._note.text, line, sender, self._key(sender, keys[sender]))
            except ValueError as error:
                raise AuditError(f"log of {self.party}: cosignature from {sender}: {error}") from None
        ordered = [
            e for n in sorted(lines) for e in map(checkpoint.parse_line, lines[n].splitlines(keepends=True))
        ]
        self._note = checkpoint.Note(self._note.text, (*self._own_lines(self._note), *ordered))
        write_atomically(self._folder / CHECKPOINT, bytes(self._note))
        return checkpoint.parse_body(self._note.text).size

    def claim(self) -> None:
        """Let nobody else write here until it is released; AuditError if another process has the log open."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AuditError(f"{self._folder / LOG}: in use, nothing can be changed now") from None

    def prune(self, below: int, days: int) -> None:
        """Remove the first records, which the contract keeps no longer than `days`; all proofs stay as they are.

        Logged before it is done, as a record of no run. below : how many, more than were removed before and no more
        than the last head covers. AuditError if another process has the log open.
        """
        signed = checkpoint.parse_body(self._note.text).size if self._note else 0
        if not self._pruned < below <= signed:
            raise ValueError(f"{below} records cannot go: {self._pruned} went before, {signed} are signed")
        self.claim()
        self.run = ""
        self.append("retention.expired", {"below": below, "days": days})
        path = self._folder / LOG
        kept = path.read_bytes().split(b"\n", below - self._pruned)[-1]
        # Hashes first: whoever opens the folder after a crash in between finds too many of them, never too few.
        write_atomically(self._folder / PRUNED, self._tree.hashes(0, 0, below))
        write_atomically(path, kept)
        self._pruned = below
        self.release()
        self._file = _open_shared(path)

    def close(self) -> bytes:
        """Write `checkpoint.txt` with all cosignatures and return it; the head must cover every record."""
        if self._note is None or checkpoint.parse_body(self._note.text).size != self.size:
            raise ValueError("sign the head and have it cosigned before closing")
        write_atomically(self._folder / CHECKPOINT, bytes(self._note))
        self.release()
        return bytes(self._note)

    def release(self) -> None:
        """Let go of the file without a word, as a crash would."""
        for file in (self._file, self._beside):
            if file >= 0:
                os.close(file)
        self._file = self._beside = -1

    def _write(self, data: bytes) -> None:
        if self._file < 0:
            raise ValueError("the log is closed")
        try:
            _write_all(self._file, data)
            os.fsync(self._file)
        except OSError:
            # Half a line may be on disk: only opening the folder again may continue this log.
            self.release()
            raise

    def _grow(self, data: bytes) -> None:
        self._tree.append(data)

    def _load(self) -> int:
        path = self._folder / LOG
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        self._load_pruned(whole)
        for seq, line in enumerate(whole.split(b"\n")[:-1], start=self._pruned):
            self._check_line(seq, line)
            self._grow(line)
        self._load_head()
        if len(whole) < len(data):
            write_atomically(path, whole)
        return len(data) - len(whole)

    def _load_pruned(self, data: bytes) -> None:
        """Take the hashes of removed records for leaves; hashes of records that are still here are dropped."""
        path = self._folder / PRUNED
        hashes = path.read_bytes() if path.exists() else b""
        try:
            first = read_leaf(data.partition(b"\n")[0]).seq if hashes else 0
        except ValueError as error:
            raise AuditError(f"{self._folder / LOG}: line 1: {error}") from None
        if first * HASH_BYTES > len(hashes):
            raise AuditError(f"{path}: {len(hashes)} bytes, the first record that is left is number {first}")
        if first * HASH_BYTES < len(hashes):
            write_atomically(path, hashes[: first * HASH_BYTES])
        for i in range(first):
            self._tree.append_hash(hashes[i * HASH_BYTES : (i + 1) * HASH_BYTES])
        self._pruned = first

    def _check_line(self, seq: int, line: bytes) -> None:
        try:
            record = read_leaf(line)
        except ValueError as error:
            raise AuditError(f"{self._folder / LOG}: line {seq + 1}: {error}") from None
        if (record.seq, record.party, record.contract) != (seq, self.party, self._contract):
            raise AuditError(f"{self._folder / LOG}: line {seq + 1}: not record {seq} of this log")
        self._watched.seen(record.time)

    def _load_head(self) -> None:
        path = self._folder / CHECKPOINT
        if not path.exists():
            return
        try:
            note = checkpoint.verify_note(path.read_bytes(), self.party, self._own_key())
            head = checkpoint.parse_body(note.text)
        except ValueError as error:
            raise AuditError(f"{path}: {error}") from None
        if head.origin != self._origin or head.size > self.size:
            raise AuditError(f"{path}: signed {head.size} records of {head.origin}, the log has {self.size}")
        if self._tree.root(head.size) != head.root:
            raise AuditError(f"{path}: the log was changed below its signed head of {head.size} records")
        self._note = note

    def _load_peers(self) -> dict[str, dict[str, str]]:
        path = self._folder / PEERS
        if not path.exists():
            return {}
        try:
            peers = json.loads(path.read_bytes())
            for peer in peers.values():
                note = checkpoint.parse_note(peer["note"].encode())
                own = self._own_key()
                checkpoint.verify_cosignature(note.text, peer["cosignature"].encode(), self.party, own)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise AuditError(f"{path}: not the heads that {self.party} cosigned") from None
        return dict(peers)

    def _own_key(self) -> bytes:
        return self._identity.public + (self._second.public if self._second else b"")

    def _last_seen(self, peer_name: str) -> checkpoint.Checkpoint:
        if peer_name not in self._peers:
            return checkpoint.Checkpoint("", 0, EMPTY_ROOT)
        return _head_of(self._peers[peer_name]["note"])

    def _check_extends(self, peer: str, head: checkpoint.Checkpoint, proof: Sequence[bytes]) -> None:
        last = self._last_seen(peer)
        origin = checkpoint.log_origin(bytes.fromhex(self._contract), peer)
        if head.origin != origin:
            raise AuditError(f"log of {peer}: origin {head.origin}, it must be {origin}")
        if head.size < last.size:
            raise AuditError(f"log of {peer}: {head.size} records, {last.size} were signed before")
        try:
            verify_consistency(last.size, head.size, last.root, head.root, proof)
        except ValueError as error:
            shown = base64.b64encode(head.root).decode()
            raise AuditError(f"log of {peer}: head {shown} does not extend the last one: {error}") from None


def _first_signed(note: bytes) -> str:
    """Leave of a note that was verified its text and its first line, the owner's Ed25519 signature."""
    text, _, lines = note.decode().partition("\n\n")
    return f"{text}\n\n{lines.partition(chr(10))[0]}\n"


@functools.lru_cache(maxsize=64)
def _head_of(note: str) -> checkpoint.Checkpoint:
    """Read the head in a signed note: the last one of each peer is asked for several times in each witness."""
    return checkpoint.parse_body(checkpoint.parse_note(note.encode()).text)


def _open_shared(path: Path) -> int:
    """Open a log to append; as long as it is open nobody removes records from it."""
    while True:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        fcntl.flock(file, fcntl.LOCK_SH)
        if os.fstat(file).st_ino == os.stat(path).st_ino:
            return file
        os.close(file)  # another file took its place while we waited


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
