"""Real processes that are ended by SIGKILL, resumed, and compared with runs that nobody interrupted."""

import contextlib
import functools
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedmkt.audit.verify import verify_run
from fedmkt.config.files import parse_job
from fedmkt.config.job import JobConfig
from fedmkt.party import node
from fedmkt.party.handle import Party
from fedmkt.party.node import open_data
from fedmkt.party.store import Store
from fedmkt.protocol.layout import WEIGHT_BITS
from fedmkt.protocol.session import Request
from fedmkt.ring.fixed import decode, reconstruct
from fedmkt.simulation.compare import load_side, with_pairs
from fedmkt.simulation.run import simulate
from fedmkt.simulation.world import generate, write_world
from fedmkt.transport import memory
from fedmkt.transport.driver import Ask, Told
from tests.simulation.seeds import Array, auc, unwhiten

ROOT = Path(__file__).resolve().parents[2]


def victim(where: str, arguments: Sequence[str]) -> int:
    """Run a command of fedmkt and end this process by SIGKILL at the n-th event of a kind: "serve:17".

    serve : a participant has answered a message, nobody knows yet; the name of a step, or "opening" or "farewell",
    stands for answers to these only. write : half of an addition to a log or to the
    receipts is on disk. replace : a file is written beside its place. unlink : a file is about to be removed.
    """
    from fedmkt.cli.app import main as command

    kind, _, number = where.rpartition(":")
    patch_to_kill(kind, int(number))
    return command(list(arguments))


def on_a_full_disk(limit: int, arguments: Sequence[str]) -> int:
    """Run a command of fedmkt in a process whose files cannot grow beyond `limit` bytes."""
    from fedmkt.cli.app import main as command

    # Only now: a library that is imported above unpacks itself into a file.
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return command(list(arguments))


def patch_to_kill(kind: str, number: int) -> None:
    """Make the n-th event of a kind the last thing that this process does."""
    count = itertools.count(1)
    lock = threading.Lock()

    def is_last() -> bool:
        with lock:
            return next(count) == number

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    def before(function: Callable[..., object]) -> Callable[..., object]:
        def patched(*given: object, **options: object) -> object:
            if is_last():
                die()
            return function(*given, **options)

        return patched

    def after(function: Callable[[Party, Ask], Told]) -> Callable[[Party, Ask], Told]:
        def patched(party: Party, message: Ask) -> Told:
            told = function(party, message)
            step = message.step if isinstance(message, Request) else type(message).__name__.lower()
            if kind in ("serve", step) and is_last():
                die()
            return told

        return patched

    def halfway(function: Callable[[int, bytes], int]) -> Callable[[int, bytes], int]:
        def patched(file: int, data: bytes) -> int:
            if is_last():
                function(file, bytes(data)[: len(data) // 2])
                die()
            return function(file, data)

        return patched

    if kind == "write":
        os.write = halfway(os.write)  # type: ignore[assignment]
    elif kind in ("replace", "unlink"):
        setattr(os, kind, before(getattr(os, kind)))
    else:
        memory.serve = after(memory.serve)


def command(*arguments: object) -> list[str]:
    """Return the command line of the pure call."""
    return [sys.executable, "-m", "fedmkt", *map(str, arguments)]


def kill_at(where: str, *arguments: object) -> bool:
    """Run a command in a process that kills itself; tells whether it came to that, or ended before."""
    line = [sys.executable, "-m", "tests.simulation.long", "victim", where, *map(str, arguments)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    if done.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(f"{where}: exit {done.returncode}: {done.stderr[-500:]}")
    return done.returncode != 0


def kill_after(seconds: float, *arguments: object) -> bool:
    """Start a pure call and kill it after some time; tells whether it was still at work."""
    process = subprocess.Popen(
        command(*arguments), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    if process.returncode:
        raise AssertionError(f"exit {process.returncode}: {errors[-500:]}")
    return False


@dataclass(frozen=True)
class Model:
    """What a finished run is compared by: weights of the prepared columns, exact AUC, the split key's parts."""

    weights: Array
    auc: float
    parts: tuple[bytes, ...]
    scores: Array
    label: Array


def model_of(job: Path, out: Path) -> Model:
    """Reconstruct the joint model of a finished run from all shares."""
    config = parse_job(job.read_text(), str(job))
    tables = {p.name: open_data(p, job.parent) for p in config.parties}
    sides = [load_side(out / "parties" / p.name / "model", tables[p.name]) for p in config.parties]
    shares, sides = [s.share for s in sides], with_pairs(config, sides)
    weights = unwhiten(decode(reconstruct(shares), WEIGHT_BITS), sides)
    held_out, label = np.hstack([s.held_out for s in sides]), sides[0].label_held_out
    assert label is not None
    scores = held_out @ weights[1:]
    return Model(weights, auc(label, scores), key_parts(config, out), scores, label)


def key_parts(config: JobConfig, out: Path) -> tuple[bytes, ...]:
    """Return the parts of the key by which a finished run split its rows."""
    key = f"split/{config.family or config.name}"
    return tuple(Store(out / "parties" / p.name / "store")[key] for p in config.parties)


class References:
    """Models of uninterrupted runs, by the split that the killed run made: a split begun anew has a new key."""

    def __init__(self, job: Path, folder: Path, seed: int) -> None:
        self.job = job
        self._folder = folder
        self._seed = seed
        self._known: dict[tuple[bytes, ...], Model] = {}

    def like(self, parts: tuple[bytes, ...] = ()) -> Model:
        """Return the model of an uninterrupted run, with the split of these parts of its key if given."""
        if parts not in self._known:
            out = self._folder / f"reference-{len(self._known)}"
            with _split_of(parts, self.job):
                simulate(self.job, out=out, seed=self._seed)
            self._known[parts] = model_of(self.job, out)
            self._known[self._known[parts].parts] = self._known[parts]
        return self._known[parts]


@contextlib.contextmanager
def _split_of(parts: tuple[bytes, ...], job: Path) -> Iterator[None]:
    """Let the parties of runs within hold these parts of the split key from an earlier contract of the family."""
    config = parse_job(job.read_text(), str(job))
    held = dict(zip((p.name for p in config.parties), parts, strict=True)) if parts else {}

    class Holding(Store):
        def __init__(self, folder: Path) -> None:
            super().__init__(folder)
            if folder.parent.name in held:
                self.put(f"split/{config.family or config.name}", held[folder.parent.name])

    before, node.Store = node.Store, Holding  # type: ignore[misc]
    try:
        yield
    finally:
        node.Store = before  # type: ignore[misc]


def faults(out: Path, references: References) -> list[str]:
    """Return what is wrong with a run that was killed, resumed and has ended; nothing if it is as never killed."""
    found = []
    report = verify_run(out)
    if report.outcome != "completed":
        found.append(f"the logs say {report.outcome}")
    weights, area = difference(out, references)
    if weights > 1e-3:
        found.append(f"weights differ by {weights:.2g}")
    if area > 1e-5:
        found.append(f"AUC differs by {area:.2g}")
    found += [f"half-written: {p.relative_to(out)}" for p in out.rglob("*") if p.suffix == ".new"]
    left = [p for n in ("*.sealed", "journal.key") for p in out.glob(f"parties/*/**/{n}")]
    found += [f"not erased: {p.relative_to(out)}" for p in left]
    return found + repeated_numbers(out)


def difference(out: Path, references: References) -> tuple[float, float]:
    """Return how far weights (relative) and AUC of exact scores are from those of an uninterrupted run.

    Of the AUC only what is more than pairs of rows that lie closer together than any row has moved: these may change
    places by rounding alone.
    """
    model = model_of(references.job, out)
    expected = references.like(model.parts)
    error = np.linalg.norm(model.weights - expected.weights) / np.linalg.norm(expected.weights)
    moved = np.abs(model.scores - expected.scores).max()
    apart = expected.scores[expected.label == 1][:, None] - expected.scores[expected.label == 0]
    return float(error), max(0.0, abs(model.auc - expected.auc) - float((np.abs(apart) <= 2 * moved).mean()))


def repeated_numbers(out: Path) -> list[str]:
    """Look for an epoch that was opened twice, and for sealed bytes that were sent twice."""
    found = []
    for log in out.glob("logs/*/log.jsonl"):
        records = [json.loads(line) for line in log.read_text().splitlines()]
        for event, key in (("epoch.started", "epoch"), ("epoch.started", "id"), ("message.sent", "sha256")):
            values = [(r["body"][key], r["body"].get("to")) for r in records if r["type"] == event]
            if len(set(values)) != len(values):
                found.append(f"{log.parent.name}: {event}: a {key} occurs twice")
    return found


def small_job(
    folder: Path,
    iterations: int = 4,
    every: int = 2,
    rows: tuple[int, int, int] = (700, 800, 500),
    partners: int = 1,
) -> Path:
    """Write a small world and its job; in this one no two people's scores are as close as the weights' noise."""
    job = write_world(generate(4, *rows, partners), folder, minimum=200)
    text = job.read_text().replace(
        "[model]\n", f"[model]\niterations = {iterations}\ncheckpoint_every = {every}\n"
    )
    job.write_text(text.replace("[limits]\n", "[limits]\nmin_support = 20\n"))
    return job


def kills(count: int = 20, step: int = 1) -> int:
    """Kill at `count` random moments, then at every `step`-th event of each kind; returns how many failed."""
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bad += _random_kills(folder / "random", count)
        bad += _sweep(folder / "sweep", step)
    print(f"{bad} failed")
    return bad


def _random_kills(folder: Path, count: int) -> int:
    # Large enough that no two people's scores are as close as the rounding of the weights.
    job = write_world(generate(1, 40_000, 50_000, 24_000), folder / "world")
    references = References(job, folder, seed=7)
    began = time.perf_counter()
    subprocess.run(
        command("simulate", job, "--out", folder / "timed", "--seed", 7, "--json"),
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    whole = time.perf_counter() - began
    draws, bad = np.random.default_rng(11), 0
    for number in range(count):
        out = folder / f"run-{number}"
        call: list[object] = ["simulate", job, "--out", out, "--seed", 7, "--json"]
        moments = []
        while len(moments) < 3:  # as many resumes as the contract allows
            moment = float(draws.uniform(0.5, whole))
            if not kill_after(moment, *call) or (out / "result.json").exists():
                break
            moments.append(moment)
            if not (out / "contract.toml").exists():
                shutil.rmtree(out, ignore_errors=True)
            elif "--resume" not in call:
                call.append("--resume")
        else:
            subprocess.run(command(*call), cwd=ROOT, capture_output=True, check=True)
        wrong = faults(out, references)
        bad += bool(wrong)
        weights, area = difference(out, references)
        report = {
            "killed after": [round(m, 2) for m in moments],
            "weights": weights,
            "auc": area,
            "faults": wrong,
        }
        print(json.dumps(report), flush=True)
        shutil.rmtree(out)
    return bad


def _sweep(folder: Path, step: int) -> int:
    job = small_job(folder / "world")
    references = References(job, folder, seed=7)
    references.like()
    return sum(_sweep_kind(kind, step, job, folder / "run", references) for kind in _KINDS)


_KINDS = ("serve", "write", "replace", "unlink")


def _sweep_kind(kind: str, step: int, job: Path, out: Path, references: References) -> int:
    call = ["simulate", str(job), "--out", str(out), "--seed", "7", "--json"]
    bad = 0
    for number in itertools.count(1, step):
        killed = _forked(functools.partial(quick_victim, f"{kind}:{number}", call))
        wrong = []
        if (out / "contract.toml").exists() and not (out / "result.json").exists():
            _forked(functools.partial(quick, [*call, "--resume"]))
            wrong = faults(out, references)
        shutil.rmtree(out, ignore_errors=True)
        if wrong:
            bad += 1
            print(json.dumps({"killed at": f"{kind}:{number}", "faults": wrong}), flush=True)
        if not killed:
            print(f"{kind}: killed at one in {step} of {number - 1}", flush=True)
            return bad
    return bad


def quick_victim(where: str, arguments: Sequence[str]) -> int:
    """Do the same as `victim`, without figures should it come to the end."""
    _without_figures()
    return victim(where, arguments)


def quick(arguments: Sequence[str]) -> int:
    """Run a command without its figures, which take longer than a small run."""
    from fedmkt.cli.app import main as command

    _without_figures()
    return command(arguments)


def _without_figures() -> None:
    import fedmkt.simulation.results as results

    results.write_results = lambda *_: (None, {})  # type: ignore[assignment,return-value]


def _forked(function: Callable[[], int]) -> bool:
    """Run a function in a process of its own that has everything imported; tells whether it was killed."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            code = function()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise AssertionError(f"exit {os.WEXITSTATUS(status)}")
    return os.WIFSIGNALED(status)
