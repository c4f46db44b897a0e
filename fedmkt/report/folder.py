"""What a folder holds of a run: everything that a simulation left, or what one organisation has of a deployment.

- a simulation, or logs that were collected: `contract.toml`, `logs/NAME/`, in a simulation `parties/NAME/`;
- one organisation: `state/contracts/NAME-DIGEST/` with `contract.toml`, its own `log/` and `model/`; the
  results of an earlier run of the contract lie beside it, in `model-RUN/`.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedmkt.audit.records import read_leaf
from fedmkt.contract.agreement import Contract
from fedmkt.contract.files import from_toml
from fedmkt.contract.signatures import SignedContract
from fedmkt.errors import AuditError, ConfigError

CONTRACT = "contract.toml"
LOG_FILES = ("log.jsonl", "checkpoint.txt", "peers.json", "witness.jsonl", "pruned.hashes")
_HINT = "give the folder that a run wrote, or an organisation's own"
_SHOWN = 5


@dataclass(frozen=True)
class RunFiles:
    """The files of a run. logs : each signer's folder, if there; owner : whose the folder is, "" if all parties'."""

    root: Path
    contract: Contract
    logs: Mapping[str, Path]
    owner: str
    results: Path

    def model(self, party: str) -> Path:
        """Return the folder of a party's model; ConfigError for another's than the owner's."""
        if not self.owner:
            return self.root / "parties" / party / "model"
        if self.owner != party:
            raise ConfigError(
                f"{self.root}: this is the folder of {self.owner}: what is asked for lies with {party} only",
                f"the same command, at {party}",
            )
        return self.results


def find_files(folder: Path) -> RunFiles:
    """Find what a folder holds; ConfigError if it holds nothing of a run, or several contracts."""
    root, results = _root_of(folder)
    contract = read_contract(root)
    own = root / "log"
    if own.is_dir() and not (root / "logs").exists():
        owner = _owner(own / LOG_FILES[0], contract)
        return RunFiles(root, contract, {owner: own}, owner, results)
    return RunFiles(root, contract, {s.name: root / "logs" / s.name for s in contract.signers}, "", root)


def _root_of(folder: Path) -> tuple[Path, Path]:
    """Return the folder that holds the contract, and the one of the results that were meant."""
    if (folder / "model.json").exists() and (folder.parent / CONTRACT).exists():
        return folder.parent, folder
    if (below := folder / "state" / "contracts").is_dir():
        # One that was refused left a log, and no contract.
        found = sorted(
            path for path in below.iterdir() if (path / CONTRACT).exists() and (path / "log").is_dir()
        )
        if not found:
            raise ConfigError(f"{below}: no contract was run here yet")
        if len(found) > 1:
            names = ", ".join(path.name for path in found[:_SHOWN])
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise ConfigError(f"{folder}: {len(found)} contracts: {names}{more}", f"name one: {found[0]}")
        folder = found[0]
    return folder, folder / "model"


def read_contract(root: Path) -> Contract:
    """Read the contract of a run; ConfigError if there is none."""
    return read_signed(root).contract


def read_signed(root: Path) -> SignedContract:
    """Read the contract of a run with its signatures, unchecked; ConfigError if there is none."""
    path = root / CONTRACT
    return from_toml(read_text(path), str(path))


def _owner(path: Path, contract: Contract) -> str:
    first = read_text(path).partition("\n")[0]
    try:
        owner = read_leaf(first.encode()).party
    except ValueError as error:
        raise AuditError(f"{path}: line 1: {error}") from None
    if owner not in {signer.name for signer in contract.signers}:
        raise AuditError(f"{path}: the log of {owner[:40]!r}, who is no signer of the contract beside it")
    return owner


def read_text(path: Path) -> str:
    """Read a file of a run; ConfigError if it is not there, AuditError if it is not text."""
    if path.is_fifo():  # it would wait for a writer
        raise ConfigError(f"{path}: not a plain file", _HINT)
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise AuditError(f"{path}: not UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", _HINT) from None


def read_plain(path: Path, most: int | None = None) -> bytes:
    """Read a plain file of at most so many bytes, by default any: what others sent may hold a link or a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"{path}: not a plain file")
            data = file.read() if most is None else file.read(most + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if most is not None and len(data) > most:
        raise ConfigError(f"{path}: longer than {most:,} bytes")
    return data
