"""Faults at a whole deployment on loopback, and what became of the runs under way.

    python -m tests.deploy.faults kills|network|cuts|disk|clock|pairs [how many] [seed] [first case of kills]

One line of JSON for each case and a table at the end; exit 1 if any case ended badly. Good endings are two: the
run goes on, by itself or after `fedmkt run --resume`, and ends `done` with the model of an undisturbed run; or it
ends `failed` with one clear line, the right exit code and logs that verify. All cases share one deployment, in
which a proxy stands between each party and the coordinator's front and hub.
"""

import contextlib
import hashlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

from fedmkt.audit.verify import VerifyError, verify_run
from fedmkt.contract.files import from_toml
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder
from fedmkt.deploy.operate import start_run
from fedmkt.deploy.places import place_of
from fedmkt.deploy.runs import RunFolder, RunStatus
from fedmkt.errors import ConfigError
from fedmkt.party.node import open_data
from fedmkt.protocol import wire
from fedmkt.protocol.layout import WEIGHT_BITS
from fedmkt.protocol.turns import Receipt
from fedmkt.ring.fixed import decode, reconstruct
from fedmkt.simulation.compare import load_side
from tests.deploy.deployment import COORDINATOR, FEDMKT, ROOT, Deployment, fedmkt
from tests.engine import job_config
from tests.simulation.seeds import auc, unwhiten
from tests.transport.fault_proxy import FaultProxy, random_faults

LONGEST = 360.0
"""Seconds after which a run hangs that has not ended: a connection is given up after 90, a run 150 + 60 later."""
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
    faults: int = 1
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
    proxies = {n: (FaultProxy(("127.0.0.1", it.front)), FaultProxy(("127.0.0.1", it.hub))) for n in it.names}
    it.dialled = {n: (front.port, hub.port) for n, (front, hub) in proxies.items()}
    return it, proxies


class Lab:
    """One deployment, and the model of its undisturbed run."""

    def __init__(
        self,
        folder: Path,
        rows: tuple[int, int, int] = (10000, 11000, 9000),
        iterations: int = 4,
        every: int = 2,
        auc_bound: float = 1e-5,
    ) -> None:
        """auc_bound : with few rows one pair of them that changes places is more than the usual bound."""
        self.auc_bound = auc_bound
        job_config(folder / "data", rows=rows, iterations=iterations, checkpoint_every=every)
        self.it, self.proxies = proxied(folder, folder / "data" / "job.toml")
        self.tables = {p.name: open_data(p, folder / "data") for p in self.it.job.parties}
        self.reference: Model | None = None
        self.rounds: list[str] = []
        self.usual = 0.0
        self.first = 1
        self.usual_bytes: dict[str, int] = {}

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

    def places(self, signed: Path | None = None) -> dict[str, Path]:
        """Return everybody's folder of a contract."""
        contract = from_toml((signed or self.it.contract).read_text(), "contract").contract
        folders: dict[str, PartyFolder | CoordinatorFolder] = {COORDINATOR: self.home}
        folders |= {n: PartyFolder(self.it.place(n)) for n in self.it.names}
        return {n: place_of(f, contract).private for n, f in folders.items()}

    def refer(self) -> None:
        """Make the undisturbed run that all others are compared with."""
        finding, run = self.watch("undisturbed", None)
        if finding.wrong:
            raise AssertionError(finding)
        self.usual = finding.seconds
        self.reference = self.model()
        self.rounds = [r.step for r in receipts_of(run)]
        for name, (_, hub) in self.proxies.items():
            self.usual_bytes[name] = min(hub.seen.values())

    def second_contract(self) -> Path:
        """Sign a second contract of the same family."""
        home, text = self.it.place(COORDINATOR), (self.it.folder / "job.toml").read_text()
        job, signed = self.it.folder / "second.toml", self.it.contract.with_name("second.toml")
        job.write_text(text.replace(f'name = "{self.it.job.name}"', 'name = "second"', 1))
        if "family = " not in text:
            family = self.it.job.family or self.it.job.name
            job.write_text(f'family = "{family}"\n' + job.read_text())
        keys = [f"{n}={self.it.place(n) / f'{n}.request'}" for n in self.it.names]
        keys.append(f"{COORDINATOR}={self.it.key(COORDINATOR)}")
        fedmkt("contract", "new", job, *(a for k in keys for a in ("--key", k)), "--out", signed)
        for name in (*self.it.names, COORDINATOR):
            fedmkt("contract", "sign", signed, "--dir", self.it.place(name), "--yes")
        assert home in signed.parents
        return signed

    def forget_models(self, contract: Path) -> None:
        """Remove what the contract's last run left, and the count of releases."""
        for place in self.places(contract).values():
            shutil.rmtree(place / "model", ignore_errors=True)
        self._forget_releases()

    def model(self, contract: Path | None = None) -> Model:
        """Reconstruct the joint model that the parties wrote last."""
        places = self.places(contract)
        sides = [load_side(places[n] / "model", self.tables[n]) for n in self.it.names]
        weights = unwhiten(decode(reconstruct([s.share for s in sides]), WEIGHT_BITS), sides)
        train, held_out = (np.hstack([getattr(s, n) for s in sides]) for n in ("train", "held_out"))
        y, y_held = sides[0].label_train, sides[0].label_held_out
        assert y is not None and y_held is not None
        # Of all rows: with fewer a single pair that changes places would be more than what is allowed.
        return Model(weights, auc(np.append(y, y_held), np.vstack([train, held_out]) @ weights[1:]))

    def watch(
        self,
        case: str,
        fault: "Callable[[], str] | None",
        when: "Callable[[RunFolder, int], bool]" = lambda run, rounds: True,
        heal: Callable[[], None] = lambda: None,
    ) -> tuple[Finding, RunFolder]:
        """Run the contract, let `fault` happen when `when` says so, wait for the end and judge it.

        A run that failed is taken up with --resume after `heal`, as its operator would.
        """
        self.forget_models(self.it.contract)
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
            heal()
            self.calm()
            start_run(self.home, self.it.contract, resume=True)
            status, _ = self._follow(run, finding, None, when)
            finding.ending += f", then {status.state}"
            if status.state != "done":
                finding.wrong.append(f"after --resume: {status.error}")
        heal()
        if status.state == "done":
            finding.wrong += self._judge_logs(run, is_done=True)
            self.judge_model(finding, self.it.contract)
        finding.epochs = status.epoch
        self._judge_rounds(finding, run)
        return finding, run

    def _forget_releases(self) -> None:
        """Empty the ledgers of released scores: they last for a few runs, and we make many."""
        bank = " ".join(self.it.job.parties[0].organisation.casefold().split())
        for name in self.it.names[1:]:
            for column in self.it.job.party(name).columns:
                key = f"functionals/{bank}/{column}"
                path = self.it.place(name) / "state" / "store" / hashlib.sha256(key.encode()).hexdigest()[:32]
                path.unlink(missing_ok=True)

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

    def judge_model(self, finding: Finding, contract: Path) -> None:
        """Compare the model that a contract's run left with that of the undisturbed run."""
        try:
            model = self.model(contract)
        except ConfigError as error:
            finding.wrong.append(f"done, but {error}")
            return
        if self.reference is None:
            return
        expected = self.reference
        error = np.linalg.norm(model.weights - expected.weights) / np.linalg.norm(expected.weights)
        finding.weights = max(finding.weights, float(error))
        finding.auc = max(finding.auc, abs(model.auc - expected.auc))
        if finding.weights > 1e-3:
            finding.wrong.append(f"weights differ by {finding.weights:.2g}")
        if finding.auc > self.auc_bound:
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
                left += [
                    p
                    for n in ("*.sealed", "journal.key")
                    for place in places.values()
                    for p in place.rglob(n)
                ]
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

    def restart(self, name: str, python: Path) -> None:
        """End a participant's programs, and start them with another Python."""
        process = self.it.ups[name]
        process.terminate()
        process.wait(30)
        role = "coordinator" if name == COORDINATOR else "party"
        log = (self.it.folder / f"{name}.up.log").open("ab")
        config = self.it.place(name) / f"{role}.toml"
        line = [str(python), "-m", "fedmkt", role, "up", "--config", str(config)]
        self.it.ups[name] = subprocess.Popen(line, cwd=ROOT, stdout=log, stderr=log)
        log.close()

    def said(self, name: str) -> list[str]:
        """Return what `status` says of a participant's programs."""
        role = "coordinator" if name == COORDINATOR else "party"
        config = self.it.place(name) / f"{role}.toml"
        line = [*FEDMKT, role, "status", "--config", str(config)]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60).stdout.splitlines()

    def preflight(self, name: str, whose: str, python: Path) -> list[str]:
        """Return what a party's preflight says, made with the Python of that participant."""
        line = [str(python) if name == whose else sys.executable, "-m", "fedmkt", "preflight"]
        done = subprocess.run(
            [*line, "--config", str(self.it.place(name) / "party.toml")],
            cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("ok")]

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
    drawn, seen = random.Random(seed), list[str]()
    for who, what, stage in planned_kills(lab.it.names, count, drawn):
        kill = Kill(lab, who, what, stage, drawn)
        if len(seen := [*seen, kill.name]) < lab.first:
            continue
        finding, _ = lab.watch(kill.name, kill, kill.when)
        lab.calm()
        yield finding


# ----------------------------------------------------------------------------------------------- network

_PER_RUN = 12
_BLACKOUTS = (60.0, 5.0)
_ENDS = {"hub": (1,), "front": (0,), "front and hub": (0, 1)}


class Storm:
    """Planned faults at byte offsets of one run's connections, on the way to the hub and to the front."""

    def __init__(self, lab: Lab, count: int, drawn: random.Random) -> None:
        self._lab = lab
        self._count = count
        self._drawn = drawn
        self.name = f"{count} faults in the byte streams"

    def when(self, run: RunFolder, rounds: int) -> bool:
        """Say whether it is time: from the beginning."""
        return True

    def __call__(self) -> str:
        """Plan the faults; most of them on the way to the hub, where nearly all bytes go."""
        for number in range(self._count):
            name = self._drawn.choice(self._lab.it.names)
            is_front = number % 4 == 0
            proxy = self._lab.proxies[name][0 if is_front else 1]
            last = 20_000 if is_front else int(0.8 * self._lab.usual_bytes[name])
            proxy.plan(random_faults(self._drawn.randrange(1 << 30), 1, 200, last, longest=3.0))
        return f"planned {self._count}"

    def count(self) -> int:
        """Forget what has not happened; returns how many faults did."""
        return self._count - sum(p.forget() for p in itertools.chain(*self._lab.proxies.values()))


class Blackout:
    """The network between some parties and front, hub or both is away for a while: silently, or by refusal."""

    def __init__(
        self,
        lab: Lab,
        seconds: float,
        at: int,
        names: Sequence[str],
        ends: str,
        how: Literal["freeze", "refuse"],
    ) -> None:
        self._seconds = seconds
        self._at = at
        self._proxies = [lab.proxies[n][i] for n in names for i in _ENDS[ends]]
        self._how = how
        word = "silent" if how == "freeze" else "refused"
        self.name = f"{ends} {word} for {seconds:.0f} s at {', '.join(names)}"

    @staticmethod
    def draw(lab: Lab, seconds: float, drawn: random.Random) -> "Blackout":
        """Choose when, for whom, which end and how."""
        at = drawn.randint(0, int(0.9 * len(lab.rounds)))
        names = drawn.choice([[n] for n in lab.it.names] + [list(lab.it.names)])
        ends = drawn.choice(["hub", "hub", "front", "front and hub"])
        return Blackout(lab, seconds, at, names, ends, drawn.choice(("freeze", "refuse")))

    def when(self, run: RunFolder, rounds: int) -> bool:
        """Say whether it is time."""
        return rounds >= self._at

    def __call__(self) -> str:
        """Begin; a timer ends it."""
        for proxy in self._proxies:
            getattr(proxy, self._how)()
        threading.Timer(self._seconds, self._end).start()
        return self._how

    def _end(self) -> None:
        for proxy in self._proxies:
            proxy.heal()

    def count(self) -> int:
        """Return how many connections' ways were cut off."""
        return len(self._proxies)


def network(lab: Lab, count: int, seed: int) -> Iterator[Finding]:
    """Let `count` faults happen on the way between parties and coordinator, several in one run."""
    drawn = random.Random(seed)
    done = 0
    for number in itertools.count():
        if done >= count or number > count:
            return
        fault: Storm | Blackout
        if number % 4 == 3:
            fault = Blackout.draw(lab, _BLACKOUTS[number // 4 % len(_BLACKOUTS)], drawn)
        else:
            fault = Storm(lab, min(_PER_RUN, count - done), drawn)
        finding, _ = lab.watch(fault.name, fault, fault.when)
        happened = fault.count()
        finding.faults = happened
        done += happened
        lab.calm()
        yield finding


def cuts(lab: Lab, count: int, seed: int) -> Iterator[Finding]:
    """Cut the way to the hub, to the front and to both, in the middle of a run: silent and refused, 60 s and 5 s."""
    drawn = random.Random(seed)
    hows: tuple[Literal["freeze", "refuse"], ...] = ("freeze", "refuse")
    for ends, seconds, how in itertools.islice(itertools.product(_ENDS, _BLACKOUTS, hows), count):
        at = drawn.randint(len(lab.rounds) // 10, len(lab.rounds) // 2)
        fault = Blackout(lab, seconds, at, list(lab.it.names), ends, how)
        finding, _ = lab.watch(fault.name, fault, fault.when)
        lab.calm()
        yield finding


# -------------------------------------------------------------------------------------------------- disk


class FullDisk:
    """A participant's files cannot grow beyond a limit: that of its executor, which its worker inherits.

    As with a full disk a write fails with an error of the system; all else goes on. Before the run, or in it.
    """

    def __init__(self, lab: Lab, who: str, drawn: random.Random) -> None:
        self._lab = lab
        self._who = who
        self._limit = int(10 ** drawn.uniform(2.5, 5.5))
        self._at = drawn.choice([0, drawn.randint(1, len(lab.rounds) - 1)])
        self.name = f"{who}: files up to {self._limit} bytes"

    def when(self, run: RunFolder, rounds: int) -> bool:
        """Say whether it is time."""
        return rounds >= self._at

    def __call__(self) -> str:
        """Set the limit."""
        return f"{self._set(self._limit)} processes"

    def heal(self) -> None:
        """Lift it again."""
        self._set(resource.RLIM_INFINITY)

    def _set(self, limit: int) -> int:
        count = 0
        for number, command in self._lab.it.processes(self._who):
            if "fedmkt.deploy.executor" in command or "fedmkt.deploy.worker" in command:
                with contextlib.suppress(ProcessLookupError):
                    _, hard = resource.prlimit(number, resource.RLIMIT_FSIZE)
                    resource.prlimit(number, resource.RLIMIT_FSIZE, (limit, hard))
                    count += 1
        return count


def disk(lab: Lab, count: int, seed: int) -> Iterator[Finding]:
    """Let the disk of one participant after the other be full, and have room again for the resume."""
    drawn = random.Random(seed)
    for number in range(count):
        fault = FullDisk(lab, (*lab.it.names, COORDINATOR)[number % (1 + len(lab.it.names))], drawn)
        # A coordinator that cannot even write down how a run stands says nothing: room comes by itself then.
        timer = threading.Timer(45.0, fault.heal)
        timer.start()
        finding, _ = lab.watch(fault.name, fault, fault.when, heal=fault.heal)
        timer.cancel()
        lab.calm()
        yield finding


# ------------------------------------------------------------------------------------------------- clock


def shifted_python(folder: Path, hours: float) -> Path:
    """Make an environment whose Python is off by some hours, and whose Flower is that of this one."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / Path(sys.executable).name
    (packages,) = folder.glob("lib/python*/site-packages")
    known = [p for p in sys.path if p.endswith("site-packages")]
    (packages / "known.pth").write_text("\n".join(known) + "\n")
    (packages / "sitecustomize.py").write_text(_SHIFT.format(seconds=hours * 3600))
    for script in ("flower-supernode", "flower-superlink"):
        text = (Path(sys.executable).parent / script).read_text()
        (folder / "bin" / script).write_text(f"#!{python}\n" + text.partition("\n")[2])
        (folder / "bin" / script).chmod(0o755)
    return python


# Only in modules of fedmkt and Flower: extension modules rely on the layout of the real class.
_SHIFT = """
import datetime, importlib.machinery, time, types
_seconds, _time, _time_ns, _real = {seconds}, time.time, time.time_ns, datetime.datetime
time.time = lambda: _time() + _seconds
time.time_ns = lambda: _time_ns() + int(_seconds * 1e9)
class _Meta(type):
    def __instancecheck__(cls, found): return isinstance(found, _real)
class Shifted(_real, metaclass=_Meta):
    @classmethod
    def now(cls, tz=None): return _real.now(tz) + datetime.timedelta(seconds=_seconds)
_module = types.ModuleType("datetime")
vars(_module).update(vars(datetime) | dict(datetime=Shifted))
_exec = importlib.machinery.SourceFileLoader.exec_module
def exec_module(self, module):
    _exec(self, module)
    if module.__name__.split(".")[0] in ("fedmkt", "flwr"):
        for name, value in list(vars(module).items()):
            if value is _real:
                setattr(module, name, Shifted)
            elif value is datetime:
                setattr(module, name, _module)
importlib.machinery.SourceFileLoader.exec_module = exec_module
"""


def clock(lab: Lab, count: int, seed: int) -> Iterator[Finding]:
    """Let a participant's clock be off by an hour: of all its programs, or of all but Flower's own."""
    cases = [
        (who, hours, is_whole) for is_whole in (True, False) for hours in (1.0, -1.0)
        for who in (lab.it.names[1], lab.it.names[0], COORDINATOR)
    ]  # fmt: skip
    for number, (who, hours, is_whole) in enumerate(cases[:count]):
        python = shifted_python(lab.it.folder / f"clock-{number}", hours)
        if not is_whole:
            for script in ("flower-supernode", "flower-superlink"):
                shutil.copy(Path(sys.executable).parent / script, python.parent / script)
        lab.restart(who, python)
        time.sleep(15)
        told = [line for line in lab.said(who) if "clock" in line]
        told += [t for name in lab.it.names for t in lab.preflight(name, who, python) if "clock" in t]

        def heal(who: str = who) -> None:
            lab.restart(who, Path(sys.executable))

        name = f"{who}: {'its clock' if is_whole else 'the clock of our programs'} off by {hours:+.0f} h"
        finding, _ = lab.watch(name, None, heal=heal)
        finding.at = "; ".join(told)
        if not told:
            finding.wrong.append("neither status nor preflight names the clock")
        lab.restart(who, Path(sys.executable))
        lab.calm()
        yield finding


# ------------------------------------------------------------------------------------------------- pairs


def pairs(lab: Lab, count: int, seed: int) -> Iterator[Finding]:
    """Run two contracts at once, and kill something meanwhile."""
    drawn = random.Random(seed)
    other = lab.second_contract()
    for who, what, stage in planned_kills(lab.it.names, count, drawn):
        kill = Kill(lab, who, what, stage, drawn)
        lab.forget_models(other)
        second = start_run(lab.home, other)
        finding, _ = lab.watch(f"two runs at once, {kill.name}", kill, kill.when)
        until = time.monotonic() + LONGEST
        while not second.status().has_ended and time.monotonic() < until:
            time.sleep(0.2)
        status = second.status()
        if status.state == "done":
            lab.judge_model(finding, other)
        else:
            finding.wrong.append(f"the second run: {status.state}: {status.error}")
        lab.calm()
        yield finding


KINDS: dict[str, Callable[[Lab, int, int], Iterator[Finding]]] = {
    "kills": kills,
    "network": network,
    "cuts": cuts,
    "disk": disk,
    "clock": clock,
    "pairs": pairs,
}


def table(findings: Sequence[Finding], usual: float) -> list[str]:
    """Count the endings and show the worst times."""
    counts = Counter[str]()
    for finding in findings:
        counts[finding.ending + (", badly" if finding.wrong else "")] += finding.faults
    lines = [f"{number:4d}  {ending}" for ending, number in sorted(counts.items())]
    worst = sorted(findings, key=lambda f: f.pause)[-5:]
    lines += [
        f"longest pause {f.pause:6.1f} s, whole run {f.seconds:6.1f} s: {f.case}" for f in reversed(worst)
    ]
    lines.append(
        f"an undisturbed run takes {usual:.1f} s; most rounds made twice: {max(f.redone for f in findings)}"
    )
    return lines


def main(arguments: Sequence[str]) -> int:
    """Run one kind of fault; see the module."""
    if not arguments or arguments[0] not in KINDS:
        print(__doc__)
        return 2
    first = int(arguments[3]) if len(arguments) > 3 else 1
    count = int(arguments[1]) if len(arguments) > 1 else 60
    seed = int(arguments[2]) if len(arguments) > 2 else 1
    keep = Path(os.environ.get("FAULTS_FOLDER") or tempfile.mkdtemp(prefix="faults-"))
    findings: list[Finding] = []
    with Lab(keep) as lab:
        lab.first = first
        lab.refer()
        again, _ = lab.watch("undisturbed", None)
        print(json.dumps(asdict(again)), flush=True)
        lab.usual = again.seconds
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
