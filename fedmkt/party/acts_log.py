"""The acts of an organisation on disk: `state/acts.jsonl`, mode 0600, a hashed line for each (`fedmkt.audit.acts`)."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from fedmkt.audit.acts import Act, Actor, Chain, read_chain
from fedmkt.audit.records import Json, timestamp

ACTS_FILE: Final = "acts.jsonl"


class ActsLog:
    """Appends to the chain; every line is on disk before `say` returns. Several processes may write.

    All acts are verified before the first line, and again once the file is not as this log left it.
    """

    def __init__(self, state: Path, clock: Callable[[], datetime]) -> None:
        self._path = state / ACTS_FILE
        self._clock = clock
        self._left: _Facts | None = None
        self._count, self._head = 0, ""

    def chain(self) -> Chain:
        """Read and verify all acts; AuditError names the line that was changed."""
        return read_acts(self._path.parent)

    def say(self, actor: Actor, act: str, body: Mapping[str, Json]) -> None:
        """Write one act; AuditError if the chain so far does not verify: nothing is put upon a broken one."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _facts(file) != self._left:
                self._verify(file)
            line = Act(
                self._count, timestamp(self._clock()), actor.record(), act, dict(body), self._head
            ).line()
            self._left = None
            _write_all(file, line + b"\n")
            os.fsync(file)
            self._count, self._head = self._count + 1, hashlib.sha256(line).hexdigest()
            self._left = _facts(file)
        finally:
            os.close(file)

    def _verify(self, file: int) -> None:
        """Verify what stands there, and take away what a crash left of a last line."""
        with os.fdopen(os.dup(file), "rb") as reader:
            data = reader.read()
        whole = data.rfind(b"\n") + 1
        chain = read_chain(data[:whole])
        if whole < len(data):
            os.ftruncate(file, whole)
        self._count, self._head = len(chain.acts), chain.head


_Facts = tuple[int, int, int, int, int]


def _facts(file: int) -> _Facts:
    """Return what changes with whatever is written to a file, by whomever: nobody but root can set the last one."""
    found = os.fstat(file)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_acts(state: Path) -> Chain:
    """Read and verify the acts in an organisation's folder of state; none where nothing was written yet."""
    try:
        data = (state / ACTS_FILE).read_bytes()
    except FileNotFoundError:
        data = b""
    # What a crash left of a last line is no act: nothing followed it.
    return read_chain(data[: data.rfind(b"\n") + 1])


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
