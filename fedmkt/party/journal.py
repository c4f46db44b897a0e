"""A party's checkpoints on its own disk, encrypted with a key that is erased when the run has ended.

A checkpoint holds the durable state after one call. The two latest are kept: a kill between two parties'
writes leaves at least one that all hold. Files are written beside their place, synced, then renamed.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedmkt.crypto.prg import Random
from fedmkt.errors import AuditError
from fedmkt.protocol import wire
from fedmkt.protocol.core import State

_KEPT = 2


@dataclass(frozen=True)
class Snapshot:
    """One checkpoint: the call that it stands after, the transcript before its round, states by class name."""

    index: int
    round_start: int
    transcript: bytes
    states: dict[str, bytes]


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file so that a reader sees the old or the new content, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    # In a folder that others can write to, a link in this place would lead our bytes elsewhere.
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        if not mode & 0o077:
            os.fchmod(descriptor, mode)  # a leftover of a killed process keeps the mode that it had
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Journal:
    """Encrypted checkpoints of one run in one folder; the key lies in the party's store."""

    def __init__(self, folder: Path, key_file: Path, random: Random) -> None:
        self._folder = folder
        self._key_file = key_file
        self._random = random
        self.run = b""
        """The run whose checkpoints these are; those of another run do not open."""

    def held(self) -> tuple[int, ...]:
        """Return the round starts of the checkpoints that can be opened, oldest first."""
        if not self._key_file.exists():
            return ()
        return tuple(at for at in self._written() if self._is_whole(at))

    def _written(self) -> list[int]:
        return sorted(int(p.stem) for p in self._folder.glob("*.sealed") if p.stem.isdecimal())

    def _is_whole(self, round_start: int) -> bool:
        try:
            self._open(round_start)
        except AuditError:
            return False
        return True

    def save(
        self, index: int, round_start: int, transcript: bytes, states: Mapping[type[State], State]
    ) -> None:
        """Write a checkpoint of all durable states and drop all but the two latest."""
        kept = {k.__name__: wire.encode(v) for k, v in states.items() if k.durable}
        nonce = self._random(12)
        sealed = ChaCha20Poly1305(self._key()).encrypt(
            nonce, wire.encode(Snapshot(index, round_start, transcript, kept)), self.run
        )
        write_atomically(self._path(round_start), nonce + sealed)
        for old in self._written()[:-_KEPT]:
            self._path(old).unlink()

    def load(self, round_start: int) -> tuple[Snapshot, dict[type[State], State]]:
        """Read a checkpoint back; AuditError if it is missing or was changed."""
        snapshot = self._open(round_start)
        classes = {c.__name__: c for c in _subclasses(State)}
        return snapshot, {classes[n]: wire.decode(b, classes[n]) for n, b in snapshot.states.items()}

    def _open(self, round_start: int) -> Snapshot:
        try:
            data = self._path(round_start).read_bytes()
            return wire.decode(
                ChaCha20Poly1305(self._key()).decrypt(data[:12], data[12:], self.run), Snapshot
            )
        except (OSError, InvalidTag, ValueError):
            raise AuditError(f"checkpoint {round_start} was changed or belongs to another key") from None

    def _path(self, round_start: int) -> Path:
        return self._folder / f"{round_start:08d}.sealed"

    def drop_after(self, round_start: int) -> None:
        """Remove checkpoints of an abandoned epoch, later than the one that the run resumed from.

        -1 stands for a run that begins anew: nothing of an earlier one is left.
        """
        for later in [at for at in self._written() if at > round_start]:
            self._path(later).unlink()

    def close(self) -> None:
        """Erase the key and the checkpoints: what they held cannot be opened again."""
        for path in [*self._folder.glob("*.sealed"), *self._folder.glob("*.sealed.new")]:
            path.unlink()
        if self._key_file.exists():
            write_atomically(self._key_file, bytes(32))
            self._key_file.unlink()

    def _key(self) -> bytes:
        if not self._key_file.exists():
            write_atomically(self._key_file, self._random(32))
        return self._key_file.read_bytes()


def _subclasses(base: type[State]) -> list[type[State]]:
    return [c for s in base.__subclasses__() for c in (s, *_subclasses(s))]
