"""The acts of an organisation on disk: `state/acts.jsonl`, mode 0600, a hashed line for each (`fedmkt.audit.acts`)."""

import fcntl
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from fedmkt.audit.acts import Act, Actor, Chain, read_chain
from fedmkt.audit.records import Json, timestamp

ACTS_FILE: Final = "acts.jsonl"


class ActsLog:
    """Appends to the chain; every line is on disk before `say` returns. Several processes may write."""

    def __init__(self, state: Path, clock: Callable[[], datetime]) -> None:
        self._path = state / ACTS_FILE
        self._clock = clock

    def chain(self) -> Chain:
        """Read and verify all acts; AuditError names the line that was changed."""
        return read_acts(self._path.parent)

    def say(self, actor: Actor, act: str, body: Mapping[str, Json]) -> None:
        """Write one act; AuditError if the chain so far does not verify: nothing is put upon a broken one."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            chain = self.chain()
            whole = self._path.read_bytes().rfind(b"\n") + 1
            if whole < os.fstat(file).st_size:
                os.ftruncate(file, whole)
            line = Act(len(chain.acts), timestamp(self._clock()), actor.record(), act, dict(body), chain.head)
            _write_all(file, line.line() + b"\n")
            os.fsync(file)
        finally:
            os.close(file)


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
