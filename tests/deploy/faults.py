"""Faults at a whole deployment on loopback, and what became of the runs under way.

    python -m tests.deploy.faults kills|network|disk|clock|pairs [how many] [seed]

One line of JSON for each case and a table at the end; exit 1 if any case ended badly. Good endings are two: the
run goes on, by itself or after `fedmkt run --resume`, and ends `done` with the model of an undisturbed run; or it
ends `failed` with one clear line, the right exit code and logs that verify. All cases share one deployment, in
which a proxy stands between each party and the coordinator's front and hub.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from fedmkt.audit.verify import VerifyError, verify_run
from fedmkt.contract import from_toml
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder
from fedmkt.deploy.operate import start_run
from fedmkt.deploy.places import place_of
from fedmkt.deploy.runs import RunFolder, RunStatus
from fedmkt.errors import ConfigError, FedmktError
from fedmkt.party.node import open_data
from fedmkt.protocol import wire
from fedmkt.protocol.layout import WEIGHT_BITS
from fedmkt.protocol.turns import Receipt
from fedmkt.ring.fixed import decode, reconstruct
from fedmkt.simulation.compare import load_side
from tests.deploy.deployment import COORDINATOR, Deployment
from tests.engine import job_config
from tests.simulation.seeds import auc, unwhiten
from tests.transport.fault_proxy import FaultProxy

LONGEST = 300.0
"""Seconds after which a run that has not ended hangs: joining 120, a connection given up 90, and what is left."""
_LOOK = 0.01


@dataclass(frozen=True)
class Model:
    """What a finished run is compared by: weights of the prepared columns, exact AUC."""

    weights: np.ndarray
    auc: float


@dataclass
class Finding:
    """One case: what was done where, how the run ended, and what is wrong about it.

    pause : the longest time without progress after the fault. late : how much longer the run took than an
    undisturbed one. redone : rounds that were made twice; epochs : attempts that got as far as an epoch.
    """

    case: str
    at: str = ""
    ending: str = ""
    error: str = ""
    exit_code: int = 0
    epochs: int = 0
    seconds: float = 0.0
    pause: float = 0.0
    redone: int = 0
    weights: float = 0.0
    auc: float = 0.0
    wrong: list[str] = field(default_factory=list)


def proxied(folder: Path, job: Path) -> tuple[Deployment, dict[str, tuple[FaultProxy, FaultProxy]]]:
    """Make a deployment whose parties reach front and hub through proxies of their own."""
    it = Deployment(folder, job)
    proxies = {
        n: (FaultProxy(("127.0.0.1", it.front)), FaultProxy(("127.0.0.1", it.hub))) for n in it.names
    }
    it.dialled = {n: (front.port, hub.port) for n, (front, hub) in proxies.items()}
    return it, proxies


class Lab:
    """One deployment, and the model of its undisturbed run."""

    def __init__(
        self, folder: Path, rows: tuple[int, int, int] = (3000, 3600, 2400), iterations: int = 4, every: int = 2
    ) -> None:
        job_config(folder / "data", rows=rows, iterations=iterations, checkpoint_every=every)
        self.it, self.proxies = proxied(folder, folder / "data" / "job.toml")
        self.tables = {p.name: open_data(p, folder / "data") for p in self.it.job.parties}
        self.reference: Model | None = None
        self.rounds: list[str] = []
        self.usual = 0.0

    def __enter__(self) -> Self:
        began = time.monotonic()
        self.it.__enter__()
        print(f"up after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.it.__exit__(kind, error, trace)
        for proxy in itertools.chain(*self.proxies.values()):
            proxy.close()

    @property
    def home(self) -> CoordinatorFolder:
        """The coordinator's folder."""
        return CoordinatorFolder(self.it.place(COORDINATOR))

    def places(self) -> dict[str, Path]:
        """Return everybody's folder of the contract."""
        contract = from_toml(self.it.contract.read_text(), "contract").contract
        folders: dict[str, PartyFolder | CoordinatorFolder] = {COORDINATOR: self.home}
        folders |= {n: PartyFolder(self.it.place(n)) for n in self.it.names}
        return {n: place_of(f, contract).private for n, f in folders.items()}

    def refer(self) -> None:
        """Make the undisturbed run."""
        began = time.monotonic()
        finding, run = self.watch("undisturbed", None)
        if finding.wrong:
            raise AssertionError(finding)
        self.usual = time.monotonic() - began
        self.reference = self.model()
        self.rounds = [r.step for r in receipts_of(run)]
        again, _ = self.watch("undisturbed again", None)
        self.usual = again.seconds
        print(json.dumps(asdict(again)), flush=True)

    def model(self) -> Model:
        """Reconstruct the joint model that the parties wrote last."""
        places = self.places()
        sides = [load_side(places[n] / "model", self.tables[n]) for n in self.it.names]
        weights = unwhiten(decode(reconstruct([s.share for s in sides]), WEIGHT_BITS), sides)
        held_out, label = np.hstack([s.held_out for s in sides]), sides[0].label_held_out
        assert label is not None
        return Model(weights, auc(label, held_out @ weights[1:]))

    def watch(
        self,
        case: str,
        fault: "Callable[[], str] | None",
        when: "Callable[[RunFolder, int], bool]" = lambda run, rounds: True,
        resumes: bool = True,
    ) -> tuple[Finding, RunFolder]:
        """Run the contract, let `fault` happen when `when` says so, wait for the end and judge it.

        resumes : a run that failed is taken up with --resume, as its operator would.
        """
        for place in self.places().values():
            shutil.rmtree(place / "model", ignore_errors=True)
        finding = Finding(case)
        began = time.monotonic()
        run = start_run(self.home, self.it.contract)
        status, pause = self._follow(run, finding, fault, when)
        finding.pause = round(pause, 1)
        finding.seconds = round(time.monotonic() - began, 1)
        finding.ending, finding.error, finding.exit_code = status.state, status.error, status.exit_code
        self._judge_end(finding, status)
        if status.state in ("failed", "stopped"):
            finding.wrong += self._judge_logs(run, is_done=False)
            if resumes:
                began = time.monotonic()
                self.calm()
                start_run(self.home, self.it.contract, resume=True)
                status, _ = self._follow(run, finding, None, when)
                finding.ending += f", then {status.state}"
                if status.state != "done":
                    finding.wrong.append(f"after --resume: {status.error}")
        if status.state == "done":
            finding.wrong += self._judge_logs(run, is_done=True)
            self._judge_model(finding)
        finding.epochs = status.epoch
        self._judge_rounds(finding, run)
        return finding, run

    def _follow(
        self, run: RunFolder, finding: Finding, fault: "Callable[[], str] | None",
        when: "Callable[[RunFolder, int], bool]",
    ) -> tuple[RunStatus, float]:  # fmt: skip
        until = time.monotonic() + LONGEST
        moved, mark, pause = time.monotonic(), (0, 0), 0.0
        happened = fault is None
        while time.monotonic() < until:
            now, found = time.monotonic(), _mark(run)
            if found != mark:
                mark, moved = found, now
            elif happened and fault is not None:
                pause = max(pause, now - moved)
            if not happened and when(run, rounds_of(run)):
                assert fault is not None
                steps = [r.step for r in receipts_of(run)]
                finding.at = f"{len(steps)} {steps[-1] if steps else 'join'}; {fault()}"
                happened, moved = True, time.monotonic()
            status = run.status()
            if status.has_ended:
                if not happened:
                    finding.at = "never"
                return status, pause
            time.sleep(_LOOK)
        return run.status(), pause

    def _judge_end(self, finding: Finding, status: RunStatus) -> None:
        if not status.has_ended:
            finding.wrong.append(f"hangs: {status.state} at {status.step} after {LONGEST:.0f} s")
        elif status.state == "failed" and (
            not status.error or "\n" in status.error or "fault in fedmkt" in status.error
            or status.exit_code not in range(2, 8)
        ):  # fmt: skip
            finding.wrong.append("no clear line, or another exit code than those of the error tree")

    def _judge_model(self, finding: Finding) -> None:
        try:
            model = self.model()
        except ConfigError as error:
            finding.wrong.append(f"done, but {error}")
            return
        if self.reference is None:
            return
        expected = self.reference
        error = np.linalg.norm(model.weights - expected.weights) / np.linalg.norm(expected.weights)
        finding.weights, finding.auc = float(error), abs(model.auc - expected.auc)
        if finding.weights > 1e-3:
            finding.wrong.append(f"weights differ by {finding.weights:.2g}")
        if finding.auc > 1e-5:
            finding.wrong.append(f"AUC differs by {finding.auc:.2g}")

    def _judge_logs(self, run: RunFolder, is_done: bool) -> list[str]:
        """Verify the logs of all; what a process that was killed left half-written shows here too."""
        wrong = []
        places = self.places()
        until = time.monotonic() + 20  # the parties may still be writing down how it ended
        while True:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                shutil.copy(run.contract, folder / "contract.toml")
                for party, place in places.items():
                    shutil.copytree(place / "log", folder / "logs" / party)
                try:
                    report = verify_run(folder)
                    number = run_number(run)
                    outcome = next((r.outcome for r in report.runs if r.run == number), "unknown")
                    wrong = [] if not is_done or outcome == "completed" else [f"the logs say {outcome}"]
                except VerifyError as error:
                    wrong = [f"logs: {error}"]
            left = [p for place in places.values() for p in place.rglob("*.new")]
            left += list(run.root.rglob("*.new"))
            if is_done:
                left += [p for n in ("*.sealed", "journal.key") for place in places.values() for p in place.rglob(n)]
            wrong += [f"left over: {p.parent.name}/{p.name}" for p in left]
            if not wrong or time.monotonic() > until:
                return wrong
            time.sleep(1)

    def _judge_rounds(self, finding: Finding, run: RunFolder) -> None:
        """See how much was done twice: never what lies before a party's last checkpoint but one."""
        number = run_number(run)
        for name, place in self.places().items():
            if name == COORDINATOR:
                continue
            saved: list[int] = []
            last, epoch = -1, 0
            for line in (place / "log" / "log.jsonl").read_text().splitlines():
                record = json.loads(line)
                if record["run"] != number:
                    continue
                kind, body = record["type"], record["body"]
                if kind == "epoch.started":
                    epoch = body["epoch"]
                    is_first = True
                elif kind == "checkpoint.saved":
                    saved.append(body["index"])
                elif kind == "step.completed":
                    if is_first and epoch > 1:
                        finding.redone = max(finding.redone, last - body["index"] + 1)
                        if len(saved) >= 2 and body["index"] <= saved[-2]:
                            finding.wrong.append(f"{name}: went back behind its last checkpoint but one")
                        saved = [s for s in saved if s < body["index"]]
                    is_first, last = False, body["index"]

    def calm(self, seconds: float = 120.0) -> None:
        """Wait until all programs of all run again; what was killed with its supervisor is started."""
        for name in (COORDINATOR, *self.it.names):
            if self.it.ups[name].poll() is not None:
                self.it.up(name)
        until = time.monotonic() + seconds
        for name in (COORDINATOR, *self.it.names):
            while not self._is_healthy(name):
                if time.monotonic() > until:
                    raise AssertionError((name, self.it.status(name)))
                time.sleep(0.3)

    def _is_healthy(self, name: str) -> bool:
        try:
            found = json.loads((self.it.place(name) / "state" / "status.json").read_text())
        except (OSError, ValueError):
            return False
        return found["state"] == "healthy" and found["pid"] == self.it.ups[name].pid


def _mark(run: RunFolder) -> tuple[int, int]:
    try:
        found = (run.receipts / "receipts.bin").stat()
    except OSError:
        return 0, 0
    return found.st_ino, found.st_size


def receipts_of(run: RunFolder) -> list[Receipt]:
    """Read the coordinator's receipts while they are written."""
    try:
        data = (run.receipts / "receipts.bin").read_bytes()
    except OSError:
        return []
    found, at = [], 0
    while at + 4 <= len(data) and at + 4 + (size := int.from_bytes(data[at : at + 4], "big")) <= len(data):
        found.append(wire.decode(data[at + 4 : at + 4 + size], Receipt))
        at += 4 + size
    return found


def rounds_of(run: RunFolder) -> int:
    """Count the coordinator's receipts."""
    try:
        data = (run.receipts / "receipts.bin").read_bytes()
    except OSError:
        return 0
    count, at = 0, 0
    while at + 4 <= len(data) and at + 4 + (size := int.from_bytes(data[at : at + 4], "big")) <= len(data):
        count, at = count + 1, at + 4 + size
    return count


def run_number(run: RunFolder) -> str:
    """Return the run's id, hexadecimal; empty if it never opened an epoch."""
    path = run.receipts / "run.txt"
    return path.read_text().split()[0] if path.exists() else ""


# ------------------------------------------------------------------------------------------------- kills

STAGES = ("join", "psi", "split", "prepare", "fit early", "fit late", "score", "close")
_PROGRAMS = {
    "worker": "fedmkt.deploy.worker",
    "superlink": "flower-superlink",
    "hub": "fedmkt.deploy.serve hub",
    "front": "fedmkt.deploy.serve front",
    "supernode": "flower-supernode",
    "executor": "fedmkt.deploy.executor",
}


def stage_range(rounds: Sequence[str], stage: str) -> tuple[int, int]:
    """Return between which numbers of receipts a stage lies in an undisturbed run."""
    if stage == "join":
        return 0, 0
    fit = [i for i, step in enumerate(rounds) if step.startswith("fit")]
    middle = (fit[0] + fit[-1]) // 2
    if stage == "close":
        return rounds.index("run.close") + 1, len(rounds)
    if stage.startswith("fit"):
        found = [i for i in fit if (i < middle) == (stage == "fit early")]
    else:
        found = [i for i, step in enumerate(rounds) if step.startswith(stage)]
    return found[0] + 1, found[-1] + 1


class Kill:
    """SIGKILL of one program of one participant at a random moment of a stage."""

    def __init__(self, lab: Lab, who: str, what: str, stage: str, drawn: random.Random) -> None:
        self._lab = lab
        self._who, self._what = who, what
        self._at = drawn.randint(*stage_range(lab.rounds, stage))
        self._delay = drawn.uniform(0.0, 8.0) if stage == "join" else 0.0
        self._since = 0.0
        self.name = f"{who} {what} at {stage}"

    def when(self, run: RunFolder, rounds: int) -> bool:
        """Say whether it is time."""
        if self._at:
            return rounds >= self._at
        if not run.log.exists() and run.status().state == "submitted":
            return False
        self._since = self._since or time.monotonic()
        return time.monotonic() - self._since > self._delay or rounds > 0

    def __call__(self) -> str:
        """Kill; says how many processes that were."""
        it = self._lab.it
        if self._what == "up":
            it.ups[self._who].kill()
            it.ups[self._who].wait()
            threading.Timer(1.0, it.up, (self._who,)).start()
            return "killed 1"
        found = [n for n, command in it.processes(self._who) if _PROGRAMS[self._what] in command]
        for number in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        return f"killed {len(found)}"


def planned_kills(names: Sequence[str], count: int, drawn: random.Random) -> list[tuple[str, str, str]]:
    """Choose `count` kills: workers at every stage, everything else at some, in a random order."""
    bank, partner = names[0], names[1]
    workers = [(w, "worker", s) for s in STAGES for w in (bank, partner, COORDINATOR)]
    others = [(COORDINATOR, w) for w in ("superlink", "hub", "front", "executor", "up")]
    others += [(n, w) for n in (bank, partner) for w in ("supernode", "executor", "up")]
    rest = [(who, what, stage) for who, what in others for stage in STAGES]
    drawn.shuffle(rest)
    # All programs equally often, before any is taken once more.
    order = list(rest)
    rest.sort(key=lambda k: [r for r in order if r[:2] == k[:2]].index(k))
    drawn.shuffle(workers)
    return [k for pair in itertools.zip_longest(workers, rest) for k in pair if k][:count]


def kills(lab: Lab, count: int, seed: int) -> Iterator[Finding]:
    """Kill programs at all stages."""
    drawn = random.Random(seed)
    for who, what, stage in planned_kills(lab.it.names, count, drawn):
        kill = Kill(lab, who, what, stage, drawn)
        finding, _ = lab.watch(kill.name, kill, kill.when)
        lab.calm()
        yield finding


KINDS: dict[str, Callable[[Lab, int, int], Iterator[Finding]]] = {"kills": kills}


def table(findings: Sequence[Finding], usual: float) -> list[str]:
    """Count the endings and show the worst times."""
    counts = Counter(f.ending + (", badly" if f.wrong else "") for f in findings)
    lines = [f"{number:4d}  {ending}" for ending, number in sorted(counts.items())]
    worst = sorted(findings, key=lambda f: f.pause)[-5:]
    lines += [f"longest pause {f.pause:6.1f} s, whole run {f.seconds:6.1f} s: {f.case}" for f in reversed(worst)]
    lines.append(f"an undisturbed run takes {usual:.1f} s; most rounds made twice: {max(f.redone for f in findings)}")
    return lines


def main(arguments: Sequence[str]) -> int:
    """Run one kind of fault; see the module."""
    if not arguments or arguments[0] not in KINDS:
        print(__doc__)
        return 2
    count = int(arguments[1]) if len(arguments) > 1 else 60
    seed = int(arguments[2]) if len(arguments) > 2 else 1
    keep = Path(os.environ.get("FAULTS_FOLDER") or tempfile.mkdtemp(prefix="faults-"))
    findings: list[Finding] = []
    with Lab(keep) as lab:
        lab.refer()
        for finding in KINDS[arguments[0]](lab, count, seed):
            print(json.dumps(asdict(finding)), flush=True)
            findings.append(finding)
        usual = lab.usual
    print("\n".join(table(findings, usual)))
    bad = [f for f in findings if f.wrong]
    if not bad and "FAULTS_FOLDER" not in os.environ:
        shutil.rmtree(keep)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
