"""The coordinator's folder of a run: what was asked, how far it is, how it ended.

`runs/NAME-N/` holds the signed contract, the coordinator's receipts, `status.json` and `run.log`; nothing in
it is secret, and nothing of a party's data can be.
"""

import json
import logging
import re
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from fedmkt.contract.canonical import digest
from fedmkt.contract.files import from_toml, to_toml
from fedmkt.contract.signatures import SignedContract
from fedmkt.deploy.folders import read_text
from fedmkt.errors import ConfigError
from fedmkt.party.journal import write_atomically

State = Literal["submitted", "running", "done", "failed", "stopped"]
ENDED = ("done", "failed", "stopped")
_LONGEST_TEXT = 1000
_NAME = re.compile(r"\A[a-z0-9][a-z0-9-]{0,80}-[1-9][0-9]{0,5}\Z")


@dataclass(frozen=True)
class RunStatus:
    """How far a run is. number : Flower's of its latest attempt. seed : of a rehearsal, never of a real run.

    overlap : of a run that counts common customers: partner, band and rate of each pair.
    taken_up : how often it went on in another process without being asked to.
    """

    run: str
    contract: str
    state: State = "submitted"
    number: int = 0
    process: int = 0
    epoch: int = 0
    step: str = ""
    rounds: int = 0
    bytes_sent: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    common_band: tuple[int, int] | None = None
    overlap: tuple[dict[str, object], ...] = ()
    error: str = ""
    exit_code: int = 0
    seed: int | None = None
    taken_up: int = 0
    began: float = 0.0
    updated: float = 0.0

    @property
    def has_ended(self) -> bool:
        """Whether nothing will happen any more unless somebody asks for it."""
        return self.state in ENDED


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run at the coordinator."""

    root: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.root.name

    @property
    def contract(self) -> Path:
        """The signed contract."""
        return self.root / "contract.toml"

    @property
    def approvals(self) -> Path:
        """Who approved the contract, as signed statements."""
        return self.root / "approvals"

    @property
    def receipts(self) -> Path:
        """The folder of the coordinator's receipts."""
        return self.root / "coordinator"

    @property
    def log(self) -> Path:
        """What happened, for people."""
        return self.root / "run.log"

    @property
    def stop(self) -> Path:
        """Exists once somebody asked the run to stop."""
        return self.root / "stop"

    @property
    def _status(self) -> Path:
        return self.root / "status.json"

    def signed(self) -> SignedContract:
        """Read the contract."""
        return from_toml(read_text(self.contract), str(self.contract))

    def status(self) -> RunStatus:
        """Read the status; ConfigError if it is not what was written here."""
        try:
            found = json.loads(read_text(self._status))
            band = found["common_band"]
            pairs = tuple(found.get("overlap", ()))
            return RunStatus(
                **found | {"common_band": None if band is None else (band[0], band[1]), "overlap": pairs}
            )
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"{self._status}: was changed") from None

    def write(self, status: RunStatus) -> None:
        """Write the status down."""
        written = asdict(replace(status, updated=time.time(), error=printable(status.error)))
        write_atomically(self._status, json.dumps(written, indent=1).encode(), mode=0o644)


def new_run(runs: Path, signed: SignedContract, seed: int | None) -> RunFolder:
    """Make the folder of a new run: the contract's name and the next number."""
    runs.mkdir(parents=True, exist_ok=True)
    taken = [int(f.name.rpartition("-")[2]) for f in runs_of(runs, signed.contract.name)]
    number = max(taken, default=0) + 1
    while True:
        folder = RunFolder(runs / f"{signed.contract.name}-{number}")
        try:
            folder.root.mkdir()
            break
        except FileExistsError:  # somebody else's command was quicker
            number += 1
    write_atomically(folder.contract, to_toml(signed).encode(), mode=0o644)
    folder.write(
        RunStatus(run=folder.name, contract=digest(signed.contract).hex(), seed=seed, began=time.time())
    )
    return folder


def all_runs(runs: Path) -> list[RunFolder]:
    """List the runs, oldest first; what is no run is left out."""
    found = [RunFolder(p) for p in runs.iterdir()] if runs.is_dir() else []
    whole = [f for f in found if _NAME.match(f.name) and (f.root / "status.json").exists()]
    return sorted(whole, key=lambda f: (f.status().began, f.name))


def runs_of(runs: Path, contract: str) -> list[RunFolder]:
    """List the runs of the contracts with this name."""
    return [f for f in all_runs(runs) if f.name.rpartition("-")[0] == contract]


def find_run(runs: Path, name: str) -> RunFolder:
    """Find a run by its name; ConfigError names those that exist."""
    if _NAME.match(name) and (runs / name / "status.json").exists():
        return RunFolder(runs / name)
    latest = [f.name for f in all_runs(runs)[-5:]]
    raise ConfigError(f"{name[:80]!r} is no run here", f"the latest are: {', '.join(latest) or 'none yet'}")


def is_worker(process: int) -> bool:
    """Say whether this process is one that serves runs: numbers of processes are used again."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" and b"fedmkt.deploy.worker" in Path(f"/proc/{process}/cmdline").read_bytes()
    except (OSError, IndexError):
        return False


def began(process: int) -> str:
    """Say when a process began, in a word that no other process with its number has, not even after a restart."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        return ""


def printable(text: str) -> str:
    """Make one line of bounded length of a text that may be another organisation's."""
    shown = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
    return "".join(c if c.isprintable() else " " for c in shown)


class _OneLine(logging.Formatter):
    """What happened is one line: a text of the other side cannot add lines of its own, or draw on a screen."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Write the message without control characters."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: object) -> str:
        """Write a traceback, whose last lines quote what they were given."""
        return "\n".join(map(printable, super().formatException(ei).split("\n")))  # type: ignore[arg-type]


def log_to_stderr() -> None:
    """Say what fedmkt says on standard error, which the supervisor writes down, and of others only their warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(name)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("fedmkt").setLevel(logging.INFO)


def log_to(path: Path) -> logging.Handler:
    """Send what fedmkt says from here on to a file too; returns the handler, to be removed again."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_OneLine("%(asctime)s %(message)s"))
    logger = logging.getLogger("fedmkt")
    logger.addHandler(handler)
    return handler
