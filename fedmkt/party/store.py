"""What a party remembers across runs: small values in files, written atomically, for their owner only.

Protection that resets with each run is none: the highest epoch of each run, the number of runs of each
contract and the ledgers live here, outside of any run folder.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fedmkt.errors import AuditError, PolicyRefused
from fedmkt.party.journal import write_atomically


class Store(Mapping[str, bytes]):
    """A folder of named values; names are hashed into file names, so any text is a name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held = -1
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _path(self, name: str) -> Path:
        return self._folder / hashlib.sha256(name.encode()).hexdigest()[:32]

    def put(self, name: str, value: bytes) -> None:
        """Remember a value; on disk when this returns."""
        write_atomically(self._path(name), name.encode() + b"\n" + value)

    def forget(self, name: str) -> None:
        """Remove a value, if it is there."""
        self._path(name).unlink(missing_ok=True)

    def __getitem__(self, name: str) -> bytes:
        try:
            head, end, value = self._path(name).read_bytes().partition(b"\n")
        except FileNotFoundError:
            raise KeyError(name) from None
        if head + end != name.encode() + b"\n":
            raise _damaged(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return (_first_line(p) for p in sorted(self._folder.iterdir()) if p.suffix == "")

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def highest_epoch(self, run: str) -> int:
        """Return the highest epoch of a run that was ever opened here; 0 for an unknown run."""
        value = self.get(f"epoch/{run}", b"0")
        if not (value.isdigit() and len(value) < 20):
            raise _damaged(f"epoch/{run}")
        return int(value)

    def raise_epoch(self, run: str, epoch: int) -> None:
        """Remember that an epoch was opened; a folder rolled back cannot open it again."""
        self.put(f"epoch/{run}", str(epoch).encode())

    def begin_run(self, run: str, contract: str, max_runs: int) -> None:
        """Count a run of a contract and hold the contract's lock; a resumed run is counted once.

        PolicyRefused over the contract's number of runs, or while another run of it is under way.
        """
        self._lock(contract)
        runs = self._runs(f"runs/{contract}")
        if run in runs:
            return
        if len(runs) >= max_runs:
            self.release()
            raise PolicyRefused(f"the contract allows {max_runs} runs, all were used")
        self.put(f"runs/{contract}", json.dumps([*runs, run]).encode())

    def _runs(self, name: str) -> list[str]:
        try:
            runs = json.loads(self.get(name, b"[]"))
        except (ValueError, RecursionError):
            raise _damaged(name) from None
        if not isinstance(runs, list) or any(not isinstance(run, str) for run in runs):
            raise _damaged(name)
        return runs

    def _lock(self, contract: str) -> None:
        self.release()
        descriptor = os.open(self._folder / f"{contract[:32]}.lock", os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise PolicyRefused("another run of this contract is under way") from None
        self._held = descriptor

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Let no other process of ours read and write the values of this name meanwhile."""
        descriptor = os.open(self._folder / f"{name}.lock", os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Let the next run of the contract begin; the system does it when the process ends."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        try:
            return file.readline().rstrip(b"\n").decode()
        except UnicodeDecodeError:
            raise _damaged(path.name) from None


def _damaged(name: str) -> AuditError:
    return AuditError(f"store: {name}: not as it was written", "restore the store from a backup")
