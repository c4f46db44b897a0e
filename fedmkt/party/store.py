"""What a party remembers across runs: small values in files, written atomically, for their owner only.

Protection that resets with each run is none: the highest epoch of each run, the number of runs of each
contract and the ledgers live here, outside of any run folder.

A file is a line with a version and the SHA-256 of the rest, a line with the name, and the value: one that a disk or a
person damaged is said by its path, and never half understood. Files of before had name and value alone.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fedmkt.errors import AuditError, ConfigError, PolicyRefused
from fedmkt.party.journal import write_atomically

_VERSION = b"\0fedmkt store 2 "


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
        named = name.encode() + b"\n" + value
        write_atomically(self._path(name), b"".join([_first_line(named), named]))

    def forget(self, name: str) -> None:
        """Remove a value, if it is there."""
        self._path(name).unlink(missing_ok=True)

    def __getitem__(self, name: str) -> bytes:
        path = self._path(name)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise KeyError(name) from None
        except OSError as error:
            raise AuditError(f"{path}: {error.strerror}", _HINT) from None
        if data.startswith(_VERSION):
            first, _, data = data.partition(b"\n")
            if first + b"\n" != _first_line(data):
                raise _damaged(path, name)
        named = name.encode() + b"\n"
        if not data.startswith(named):
            raise _damaged(path, name)
        return data.removeprefix(named)

    def __iter__(self) -> Iterator[str]:
        for path in sorted(self._folder.iterdir()):
            if path.suffix == "" and (name := _name_in(path)) is not None:
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def highest_epoch(self, run: str) -> int:
        """Return the highest epoch of a run that was ever opened here; 0 for an unknown run."""
        name, found = f"epoch/{run}", -1
        with contextlib.suppress(ValueError):
            found = int(self.get(name, b"0"))
        if found < 0:
            raise _damaged(self._path(name), name)
        return found

    def raise_epoch(self, run: str, epoch: int) -> None:
        """Remember that an epoch was opened; a folder rolled back cannot open it again."""
        self.put(f"epoch/{run}", str(epoch).encode())

    def runs(self, contract: str) -> list[str]:
        """List the runs of a contract that were begun here."""
        name = f"runs/{contract}"
        try:
            found = json.loads(self.get(name, b"[]"))
        except (ValueError, RecursionError):
            raise _damaged(self._path(name), name) from None
        if not (isinstance(found, list) and all(isinstance(run, str) for run in found)):
            raise _damaged(self._path(name), name)
        return found

    def begin_run(self, run: str, contract: str, max_runs: int) -> None:
        """Count a run of a contract and hold the contract's lock; a resumed run is counted once.

        PolicyRefused over the contract's number of runs, or while another run of it is under way.
        """
        self.hold(contract)
        runs = self.runs(contract)
        if run in runs:
            return
        if len(runs) >= max_runs:
            self.release()
            raise PolicyRefused(f"the contract allows {max_runs} runs, all were used")
        self.put(f"runs/{contract}", json.dumps([*runs, run]).encode())

    def hold(self, contract: str) -> None:
        """Hold a contract's lock till `release`; PolicyRefused while another process holds it."""
        self.release()
        try:
            self._held = self._locked(contract[:32], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PolicyRefused("another run of this contract is under way") from None

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Let no other process of ours read and write the values of this name meanwhile."""
        descriptor = self._locked(name, fcntl.LOCK_EX)
        try:
            yield
        finally:
            os.close(descriptor)

    def _locked(self, name: str, how: int) -> int:
        """Open and lock a file, which the system lets go of however a process ends; BlockingIOError if it is held."""
        descriptor = os.open(self._folder / f"{name}.lock", os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError as error:
            os.close(descriptor)
            text = f"{self._folder}: cannot be locked: {error.strerror}"
            raise ConfigError(text, "keep the folder on a disk of this machine") from None
        return descriptor

    def release(self) -> None:
        """Let the next run of the contract begin; the system does it when the process ends."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1


_HINT = "restore the store from its last backup; what was counted since must not be forgotten"


def _damaged(path: Path, name: str = "") -> AuditError:
    value = f"store: {name}: " if name else ""
    return AuditError(f"{value}not as it was written: {path}", _HINT)


def _first_line(named: bytes) -> bytes:
    return _VERSION + hashlib.sha256(named).hexdigest().encode() + b"\n"


def _name_in(path: Path) -> str | None:
    """Read the name of a value, which is looked at by whoever asks for it; None if it was forgotten meanwhile."""
    try:
        with path.open("rb") as file:
            line = file.readline()
            if line.startswith(_VERSION):
                line = file.readline()
        name = line.rstrip(b"\n").decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        raise _damaged(path) from None
    if not line.endswith(b"\n") or path.name != hashlib.sha256(name.encode()).hexdigest()[:32]:
        raise _damaged(path)
    return name
