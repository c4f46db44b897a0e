"""What an intersection costs on this machine: two processes, one for each party, and this one as coordinator.

The processes run the very steps of the main job, sealed, logged and checked as anywhere else, on invented
phone numbers; what they find is compared with the plain intersection of both lists. A short intersection
goes first in the same processes, so that loading and compiling kernels is not counted.
"""

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Self

import numpy as np

from fedmkt.config.drafts import draft_contract
from fedmkt.config.job import JobConfig
from fedmkt.contract.signatures import SignedContract, sign
from fedmkt.crypto.sign import Identity
from fedmkt.errors import ConfigError, FedmktError, PeerError, TransportError
from fedmkt.party.node import Sources
from fedmkt.protocol import wire
from fedmkt.protocol.alignment.items import NO_ROW, Rows
from fedmkt.protocol.alignment.psi import engine_name
from fedmkt.protocol.core import Name
from fedmkt.simulation.bench_side import BANK, PARTNER, Lists, Ready, Spent, Trial, psi_alone
from fedmkt.simulation.progress import Progress
from fedmkt.simulation.run import watcher
from fedmkt.transport.driver import Coordinator
from fedmkt.transport.memory import MemoryEndpoint
from fedmkt.transport.pipe import PipeEndpoint, read_letter

MOST_ROWS = 100_000_000
DEADLINE = 3600.0
SIDE = "fedmkt.simulation.bench_side"
_SIDES = (BANK, PARTNER)


@dataclass(frozen=True)
class SideCosts:
    """What one process spent: user and system CPU seconds, and its largest resident size in 10^6 bytes."""

    cpu_s: float
    peak_mb: float


@dataclass(frozen=True)
class PsiCosts:
    """What one intersection cost.

    wall_s : from the first message to the last. bytes : sealed messages of both sides, and their public values.
    ids_per_s : ids of both lists by wall second.
    """

    receiver: SideCosts
    sender: SideCosts
    wall_s: float
    bytes: int
    ids_per_s: float

    def to_json(self) -> dict[str, object]:
        """Return what `--json` prints."""
        return asdict(self)


def measure_psi(
    rows: int,
    engine: str = "auto",
    sender_rows: int | None = None,
    overlap: float = 0.5,
    cold: bool = False,
    progress: Progress | None = None,
    deadline: float = DEADLINE,
    seed: int = 1,
) -> PsiCosts:
    """Run one intersection of invented lists in two processes, check it and return its costs.

    rows, sender_rows : of the bank and of the partner, who has as many if None. overlap : share of the shorter
    list that stands on both. cold : without the short intersection before. deadline : seconds for all of it.
    Raises ConfigError for a value that cannot be, TransportError after the deadline.
    """
    lists = invent(rows, rows if sender_rows is None else sender_rows, overlap, seed)
    with tempfile.TemporaryDirectory(prefix="fedmkt-bench-") as folder:
        trials = [_prepare(Path(folder) / "measured", engine, lists)]
        if not cold:
            same = engine_name(trials[0].signed.contract, lists.sizes)
            trials.insert(0, _prepare(Path(folder) / "rehearsal", same, _rehearsal(same, lists)))
        with _Sides(Path(folder), [t.folder for t in trials], deadline) as sides:
            costs = [sides.measure(trial, progress) for trial in trials]
    return costs[-1]


def invent(rows: int, sender_rows: int, overlap: float, seed: int = 1) -> Lists:
    """Size two lists; ConfigError if they cannot be of this size or have nobody in common."""
    for option, value in (("rows", rows), ("sender-rows", sender_rows)):
        if not 1 <= value <= MOST_ROWS:
            raise ConfigError(f"{option} = {value}: accepted: 1 to {MOST_ROWS:,}")
    common = round(overlap * min(rows, sender_rows)) if 0 < overlap <= 1 else 0
    if not common:
        raise ConfigError(f"overlap = {overlap}: accepted: above 0, at most 1, with somebody in common")
    return Lists(rows, sender_rows, common, seed)


def _rehearsal(engine: str, lists: Lists) -> Lists:
    """Size the short intersection: long enough for every kernel, short where an engine has none."""
    most = 1 << 8 if engine == "oprf" else 1 << 16
    rows, sender_rows = min(most, lists.rows), min(most, lists.sender_rows)
    return Lists(rows, sender_rows, max(1, min(rows, sender_rows) // 2))


def _prepare(folder: Path, engine: str, lists: Lists) -> Trial:
    config = _job(engine, lists)
    names = [*_SIDES, config.coordinator.name]
    sources = Sources.of(None, "bench")
    identities = {n: Identity.generate(sources.random) for n in names}
    contract = draft_contract(config, {n: i.public for n, i in identities.items()}, sources.clock())
    signatures = {n: sign(contract, n, i) for n, i in identities.items()}
    trial = Trial(folder, config, SignedContract(contract=contract, signatures=signatures), lists)
    trial.write(identities)
    return trial


def _job(engine: str, lists: Lists) -> JobConfig:
    """Describe the job; its files are never read."""
    common = {"file": "-", "id": "id", "id_kind": "phone", "numbers": ["x"]}
    return JobConfig.model_validate(
        {
            "name": "bench",
            "purpose": "benchmark",
            "bank": {"name": BANK, "organisation": "Bank", "label": "y", **common},
            "partners": [{"name": PARTNER, "organisation": "Partner", **common}],
            "align": {"engine": engine},
            "limits": {"min_list": 1, "min_common": 1, "max_list": max(lists.rows, lists.sender_rows)},
        }
    )


class _Sides:
    """Both parties' processes: started together, asked over pipes, ended with the block or at the deadline."""

    def __init__(self, folder: Path, trials: Sequence[Path], deadline: float) -> None:
        self._folder = folder
        self._deadline = deadline
        self._is_late = False
        self._trials = trials
        self._processes: dict[Name, subprocess.Popen[bytes]] = {}
        self._timer = threading.Timer(deadline, self._end_late)

    def __enter__(self) -> Self:
        try:
            for name in _SIDES:
                self._processes[name] = self._start(name)
        except BaseException:
            self.__exit__()
            raise
        self._timer.start()
        return self

    def _start(self, name: Name) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", SIDE, name, *map(str, self._trials)]
        with self._errors(name).open("wb") as errors:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )  # fmt: skip

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        for process in self._processes.values():
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def _end_late(self) -> None:
        self._is_late = True
        self._end()

    def _end(self) -> None:
        for process in self._processes.values():
            process.kill()

    def _errors(self, name: Name) -> Path:
        return self._folder / f"{name}.errors"

    def measure(self, trial: Trial, progress: Progress | None) -> PsiCosts:
        """Run one trial to its end, check what the sides found and return what it cost."""
        try:
            for name in _SIDES:
                wire.decode(read_letter(self._pipes(name)[1]), Ready)
            wall, sent = self._run(trial, progress)
            spent = {n: wire.decode(read_letter(self._pipes(n)[1]), Spent) for n in _SIDES}
        except FedmktError as error:
            if self._is_late:
                raise TransportError(
                    f"no result within {self._deadline:.0f} s", "take fewer rows, or a longer --deadline"
                ) from None
            error.hint = self._last_words() or error.hint
            raise
        check(trial.lists, spent[BANK].rows, spent[PARTNER].rows)
        receiver, sender = (SideCosts(spent[n].cpu_s, spent[n].peak_mb) for n in _SIDES)
        return PsiCosts(receiver, sender, wall, sent, (trial.lists.rows + trial.lists.sender_rows) / wall)

    def _run(self, trial: Trial, progress: Progress | None) -> tuple[float, int]:
        """Drive the script; return its wall seconds and the bytes that both sides sent."""
        contract = trial.signed.contract
        dealer = MemoryEndpoint(trial.open_party(Name(contract.coordinator.name)))
        ends: dict[Name, PipeEndpoint | MemoryEndpoint] = {
            n: PipeEndpoint(n, *self._pipes(n)) for n in _SIDES
        }
        ends[Name(contract.coordinator.name)] = dealer
        coordinator = Coordinator(
            contract, psi_alone, ends, trial.folder / "coordinator", self._deadline, watcher(progress)
        )
        before = time.perf_counter()
        try:
            coordinator.run()
            wall = time.perf_counter() - before
        except BaseException:
            self._end()  # closing the pipes would wait for the steps under way
            raise
        finally:
            for end in ends.values():
                end.close()
        return wall, sum(coordinator.progress.bytes_sent[n] for n in _SIDES)

    def _pipes(self, name: Name) -> tuple[IO[bytes], IO[bytes]]:
        """Return what the side reads from and what it writes to."""
        process = self._processes[name]
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process was started without pipes")
        return process.stdin, process.stdout

    def _last_words(self) -> str:
        lines = [line for n in _SIDES for line in self._errors(n).read_text(errors="replace").splitlines()]
        return lines[-1] if lines else ""


def check(lists: Lists, bank_rows: Rows, partner_rows: Rows) -> None:
    """PeerError unless both sides name exactly the common customers, in one order: the plain set operation."""
    ours, theirs = lists.numbers(BANK), lists.numbers(PARTNER)
    found, same = bank_rows != NO_ROW, partner_rows != NO_ROW
    if not np.array_equal(found, same):
        raise PeerError("bench: the sides found different numbers of customers")
    named = ours[bank_rows[found]]
    if not np.array_equal(named, theirs[partner_rows[same]]):
        raise PeerError("bench: the sides found different customers")
    if not np.array_equal(np.sort(named), np.intersect1d(ours, theirs, assume_unique=True)):
        raise PeerError("bench: not the customers that stand on both lists")
