"""Long tests of a simulated run, in full: `python -m tests.simulation.long kills|seeds|inputs [how many]`.

kills   kill -9 of real processes at random moments and at every round boundary, resumed until they end
seeds   many small random jobs, each against the centralised optimum and a floating-point twin of the training
inputs  malformed CSV, Parquet and TOML files through the command line

The suite runs a short form of each; the files `test_*.py` beside this one hold the claims.
"""

import contextlib
import io
import itertools
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedmkt.audit.verify import verify_run
from fedmkt.config import parse_job
from fedmkt.contract import ModelTerms
from fedmkt.errors import FedmktError
from fedmkt.learn import glm
from fedmkt.party import node
from fedmkt.party.handle import Party
from fedmkt.party.node import open_data
from fedmkt.party.store import Store
from fedmkt.protocol.linear import WEIGHT_BITS
from fedmkt.protocol.logistic import MAX_SCALE, MOMENTUM, inverse_products
from fedmkt.protocol.session import Request
from fedmkt.ring.fixed import decode, reconstruct
from fedmkt.ring.sigmoid import series
from fedmkt.simulation.compare import Side, load_side
from fedmkt.simulation.run import simulate
from fedmkt.simulation.world import generate, write_world
from fedmkt.transport import memory
from fedmkt.transport.driver import Ask, Told

Array = NDArray[np.float64]
ROOT = Path(__file__).resolve().parents[2]

# ------------------------------------------------------------------------------------------ seeds


@dataclass(frozen=True)
class Finding:
    """One random job: what it was, and how far the joint model is from the centralised optimum.

    per_column : responders among the train rows for each prepared column
    auc_gap, all_gap : |AUC - AUC of the optimum| on the held-out rows, and on held-out and train rows together
    weight_error : |w - w*| / |w*|; twin_error : the same for the passes in floating point; fixed_error : |w - twin| / |w*|
    refused : why the run was refused, if it was
    """

    seed: int
    rows: int
    columns: int
    partners: int
    rate: float
    penalty: float
    kinds: str
    per_column: float = 0.0
    auc_gap: float = 0.0
    all_gap: float = 0.0
    weight_error: float = 0.0
    twin_error: float = 0.0
    fixed_error: float = 0.0
    refused: str = ""


def auc(label: Array, score: Array) -> float:
    """Return the area under the ROC curve by ranks (Mann and Whitney), ties halved."""
    ranks = pd.Series(score).rank().to_numpy()
    ones = label == 1
    n1, n0 = int(ones.sum()), int((~ones).sum())
    return float((ranks[ones].sum() - n1 * (n1 + 1) / 2) / (n1 * n0)) if n1 and n0 else 0.5


def write_random_job(seed: int, folder: Path) -> tuple[Path, dict[str, object]]:
    """Write a job with one or two partners whose columns are as awkward as real ones; returns what was drawn."""
    random = np.random.default_rng(seed)
    rows = int(random.integers(600, 1501))
    partners = int(random.integers(1, 3))
    penalty = float(np.exp(random.uniform(np.log(0.1), np.log(10))))
    rate = float(np.exp(random.uniform(np.log(0.02), np.log(0.5))))
    names = ["bank", "shop", "telecom"][: 1 + partners]
    tables, numbers, kinds, signal = {}, {}, set(), np.zeros(rows)
    shared = random.standard_normal((rows, 3))
    for name in names:
        table: dict[str, object] = {}
        for j in range(int(random.integers(2, 8))):
            kind = str(random.choice(_KINDS))
            values = _column(kind, random, shared, list(table.values()))
            spread = values.std()
            if spread > 0:
                z = np.clip((values - values.mean()) / spread, -4, 4)
                signal += random.normal() * float(random.choice([0.0, 0.4, 1.2])) * z
            kinds.add(kind)
            table[f"x{j}"] = values
        numbers[name] = list(table)
        if random.random() < 0.6:
            levels = random.choice(["a", "b", "c", "d", "e"], size=rows, p=[0.4, 0.3, 0.15, 0.1, 0.05])
            table["group"] = levels
            signal += 0.8 * (levels == "a")
        frame = pd.DataFrame(table)
        if random.random() < 0.5:
            frame.loc[random.random(rows) < 0.15, "x0"] = np.nan
        tables[name] = frame
    shift = np.quantile(random.logistic(size=4000)[:, None] + np.interp(random.random((4000, 1)), np.linspace(0, 1, rows), np.sort(signal)), 1 - rate)
    label = (signal + random.logistic(size=rows) > shift).astype(int)
    label[:8] = [0, 1] * 4
    tables["bank"]["y"] = label
    text = [f'name = "seed-{seed}"\npurpose = "tests"\n']
    ids = np.array([f"person {i}" for i in range(rows)])
    for name in names:
        extra = tables[name].sample(n=int(random.integers(0, 60)), random_state=seed)
        frame = pd.concat([tables[name].assign(id=ids), extra.assign(id=[f"{name} {i}" for i in range(len(extra))])])
        frame.sample(frac=1, random_state=seed).to_csv(folder / f"{name}.csv", index=False, float_format="%.17g")
        head = "[bank]" if name == "bank" else "[[partners]]"
        grouped = '["group"]' if "group" in frame else "[]"
        text.append(
            f'{head}\nname = "{name}"\norganisation = "The {name}"\nfile = "{name}.csv"\nid = "id"\nid_kind = "raw"\n'
            f"numbers = {json.dumps(numbers[name])}\ncategories = {grouped}\n" + ('label = "y"\n' if name == "bank" else "")
        )
    support = int(random.choice([5, 20, 50]))
    text.append(f"[model]\npenalty = {penalty!r}\n")
    text.append(f"[limits]\nmin_list = 100\nmin_common = 100\nmin_support = {support}\n")
    job = folder / "job.toml"
    job.write_text("\n".join(text))
    drawn = {"rows": rows, "partners": partners, "rate": float(label.mean()), "penalty": penalty, "kinds": " ".join(sorted(kinds))}
    return job, drawn


_KINDS = ("normal", "normal", "shared", "copy", "nearly", "constant", "rare", "tiny", "huge", "heavy", "skewed", "whole")


def _column(kind: str, random: np.random.Generator, shared: Array, before: Sequence[object]) -> Array:
    rows = len(shared)
    own = random.standard_normal(rows)
    last = np.asarray(before[-1], dtype=float) if before else own
    made = {
        "normal": lambda: own,
        "shared": lambda: shared[:, 0] + 0.3 * own,  # correlated between parties
        "copy": lambda: 2.0 * shared[:, 1] + 1.0,  # the same column at several parties
        "nearly": lambda: last + 1e-6 * (np.abs(last).max() + 1) * own,  # collinear within a party
        "constant": lambda: np.full(rows, 7.25),
        "rare": lambda: (random.random(rows) < 0.03).astype(float),
        "tiny": lambda: 1e-12 * own,
        "huge": lambda: 1e15 * (own + 3),
        "heavy": lambda: random.standard_cauchy(rows),
        "skewed": lambda: np.exp(2.5 * own),
        "whole": lambda: random.integers(0, 4, rows).astype(float),
    }
    return np.asarray(made[kind](), dtype=float)


def run_seed(seed: int) -> Finding:
    """Run one random job to its end in memory and compare it with optimum and twin."""
    from tests.engine import world_of

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job, drawn = write_random_job(seed, folder)
        config = parse_job(job.read_text(), str(job))
        tables = {p.name: open_data(p, folder) for p in config.parties}
        world = world_of(config, folder / "run", tables, seed)
        try:
            world.run()
        except FedmktError as error:
            return Finding(seed=seed, columns=0, refused=f"{type(error).__name__}: {error}", **drawn)  # type: ignore[arg-type]
        sides = [load_side(folder / "run" / "parties" / p.name / "model", tables[p.name]) for p in config.parties]
        return _finding(seed, drawn, sides, config.model)


def _finding(seed: int, drawn: dict[str, object], sides: list[Side], model: ModelTerms) -> Finding:
    train, held_out = (np.hstack([getattr(s, n) for s in sides]) for n in ("train", "held_out"))
    y, y_held = sides[0].label_train, sides[0].label_held_out
    assert y is not None and y_held is not None
    central = glm.fit_logistic(train, y, model.penalty)
    best = np.append(central.intercept, central.coefficients)
    # The optimum is checked by its own equations, not by the solver that found it.
    residual = glm.predict(central, train) - y
    slope = np.append(residual.sum(), train.T @ residual + model.penalty * central.coefficients)
    assert np.abs(slope).max() < 1e-6 * len(y), "no optimum"
    joint = unwhiten(decode(reconstruct([s.share for s in sides]), WEIGHT_BITS), sides)
    twin = unwhiten(twin_weights(sides, y, model), sides)
    both, labels = np.vstack([train, held_out]), np.append(y, y_held)
    size = np.linalg.norm(best)
    return Finding(
        seed=seed,
        columns=train.shape[1],
        per_column=float(y.sum() / train.shape[1]),
        auc_gap=abs(auc(y_held, held_out @ joint[1:]) - auc(y_held, held_out @ best[1:])),
        all_gap=abs(auc(labels, both @ joint[1:]) - auc(labels, both @ best[1:])),
        weight_error=float(np.linalg.norm(joint - best) / size),
        twin_error=float(np.linalg.norm(twin - best) / size),
        fixed_error=float(np.linalg.norm(joint - twin) / size),
        **drawn,  # type: ignore[arg-type]
    )


def unwhiten(white: Array, sides: Sequence[Side]) -> Array:
    """Turn the intercept and the whitened weights into those of the prepared columns."""
    parts, at = [white[:1]], 1
    for side in sides:
        parts.append(side.transform @ white[at : at + len(side.spread)])
        at += len(side.spread)
    return np.concatenate(parts)


def twin_weights(sides: Sequence[Side], y: Array, model: ModelTerms) -> Array:
    """Make the passes of the joint training in floating point; whitened weights, intercept first.

    Its sigmoid is the same series and its inverse made the same way, so what is left is fixed point and rounding.
    """
    n, rate = len(y), float(y.mean())
    white = np.hstack([np.ones((n, 1)), *(s.train @ s.transform for s in sides)])
    stiff = np.concatenate([[0.0], *(model.penalty / s.spread**2 for s in sides)])
    gram = np.eye(white.shape[1])
    ends = np.cumsum([1, *(len(s.spread) for s in sides)])
    for i in range(len(sides)):
        for j in range(len(sides)):
            if i != j:
                p, q = slice(ends[i], ends[i + 1]), slice(ends[j], ends[j + 1])
                gram[p, q] = white[:, p].T @ white[:, q] / n
    inverse = 2 / len(sides) * np.eye(len(gram))
    for _ in range(inverse_products(len(sides)) // 2):  # Newton and Schulz, not to the end
        inverse = inverse @ (2 * np.eye(len(gram)) - gram @ inverse)
    solver = inverse * min(MAX_SCALE, 1 / (rate * (1 - rate))) / n
    w = before = np.zeros(white.shape[1])
    w[0] = np.log(rate / (1 - rate))
    for _ in range(model.iterations):
        gradient = white.T @ (sine_sigmoid(white @ w, model.period) - y) + stiff * w
        w, before = w - solver @ gradient + MOMENTUM * (w - before), w
    return w


def sine_sigmoid(z: Array, period: int) -> Array:
    """Evaluate the sine series that stands for the sigmoid, in floating point."""
    angle = 2 * np.pi * z / period
    return 0.5 + sum(c / 2**16 * np.sin((k + 1) * angle) for k, c in enumerate(series(period).coefficients))


def seeds(count: int = 200, first: int = 1) -> list[Finding]:
    """Run many random jobs on two processes; print every finding as one line of JSON, then the distribution."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        found = []
        for finding in pool.map(run_seed, range(first, first + count)):
            print(json.dumps(asdict(finding)), flush=True)
            found.append(finding)
    done = [f for f in found if not f.refused]
    for name in ("auc_gap", "all_gap", "weight_error", "twin_error", "fixed_error"):
        values = np.array([getattr(f, name) for f in done])
        print(f"{name}: max {values.max():.2g}, 99 % {np.quantile(values, 0.99):.2g}, median {np.median(values):.2g}")
    print(f"{len(done)} of {len(found)} ran; refused: {sorted(f.refused for f in found if f.refused)}")
    return found


# ------------------------------------------------------------------------------------------ kills


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


def model_of(job: Path, out: Path) -> Model:
    """Reconstruct the joint model of a finished run from all shares."""
    config = parse_job(job.read_text(), str(job))
    tables = {p.name: open_data(p, job.parent) for p in config.parties}
    sides = [load_side(out / "parties" / p.name / "model", tables[p.name]) for p in config.parties]
    weights = unwhiten(decode(reconstruct([s.share for s in sides]), WEIGHT_BITS), sides)
    held_out, label = np.hstack([s.held_out for s in sides]), sides[0].label_held_out
    assert label is not None
    key = f"split/{config.family or config.name}"
    parts = tuple(Store(out / "parties" / p.name / "store")[key] for p in config.parties)
    return Model(weights, auc(label, held_out @ weights[1:]), parts)


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
    """Return how far weights (relative) and AUC of exact scores are from those of an uninterrupted run."""
    model = model_of(references.job, out)
    expected = references.like(model.parts)
    error = np.linalg.norm(model.weights - expected.weights) / np.linalg.norm(expected.weights)
    return float(error), abs(model.auc - expected.auc)


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


def small_job(folder: Path, iterations: int = 4, every: int = 2, rows: tuple[int, int, int] = (700, 800, 500)) -> Path:
    """Write a small world and its job."""
    job = write_world(generate(3, *rows), folder, minimum=200)
    text = job.read_text().replace("[model]\n", f"[model]\niterations = {iterations}\ncheckpoint_every = {every}\n")
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
    job = write_world(generate(1), folder / "world")
    references = References(job, folder, seed=7)
    began = time.perf_counter()
    subprocess.run(command("simulate", job, "--out", folder / "timed", "--seed", 7, "--json"), cwd=ROOT, capture_output=True, check=True)
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
        report = {"killed after": [round(m, 2) for m in moments], "weights": weights, "auc": area, "faults": wrong}
        print(json.dumps(report), flush=True)
        shutil.rmtree(out)
    return bad


def _sweep(folder: Path, step: int) -> int:
    job = small_job(folder / "world")
    references = References(job, folder, seed=7)
    references.like()
    bad = 0
    for kind in ("serve", "write", "replace", "unlink"):
        for number in range(1, 100_000, step):
            out = folder / "run"
            call: list[object] = ["simulate", job, "--out", out, "--seed", 7, "--json"]
            if not _forked(lambda: victim(f"{kind}:{number}", [str(c) for c in call])):  # noqa: B023
                print(f"{kind}: killed at {number - step} of them, one in {step}")
                shutil.rmtree(out)
                break
            wrong = []
            if (out / "contract.toml").exists() and not (out / "result.json").exists():
                _forked(lambda: quick([str(c) for c in (*call, "--resume")]))  # noqa: B023
                wrong = faults(out, references)
            if wrong:
                bad += 1
                print(json.dumps({"killed at": f"{kind}:{number}", "faults": wrong}), flush=True)
            shutil.rmtree(out, ignore_errors=True)
    return bad


def quick(arguments: Sequence[str]) -> int:
    """Run a command without its figures, which take longer than a small run."""
    import fedmkt.simulation.results as results
    from fedmkt.cli.app import main as command

    results.write_results = lambda *_: (None, {})  # type: ignore[assignment,return-value]
    return command(arguments)


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


# ------------------------------------------------------------------------------------------ inputs


class Accepted(Exception):
    """A spoilt file was still a good one: the job would begin here."""


def inputs(count: int = 3000) -> int:
    """Spoil good files at random places and run them from the command line; returns how many answers were bad."""
    import fedmkt.simulation.run as run
    from tests.simulation.test_malformed_input import GOOD, JOB, WHOLE, written

    def begin(*_: object) -> NoReturn:
        raise Accepted

    random, codes, bad = np.random.default_rng(5), Counter[int](), 0
    before, run._sign_contract = run._sign_contract, begin
    try:
        for number in range(count):
            kind = ("bank.csv", "bank.parquet", "job.toml")[number % 3]
            text, bank = JOB.encode(), GOOD
            if kind == "job.toml":
                text = spoilt(random, text)
            elif kind == "bank.csv":
                bank = spoilt(random, bank)
            else:
                text, bank = text.replace(b"bank.csv", b"bank.parquet"), spoilt(random, WHOLE)
            with tempfile.TemporaryDirectory() as name:
                job = written(Path(name) / "x", text, bank, "bank.csv" if kind == "job.toml" else kind)
                code, said, left = _answer(job, Path(name))
            codes[code] += 1
            if _is_bad(code, said, left):
                bad += 1
                print(json.dumps({"number": number, "file": kind, "code": code, "said": said, "left": left}), flush=True)
    finally:
        run._sign_contract = before
    print(f"{count} files, exit codes {dict(codes)} (1: still good), {bad} bad answers")
    return bad


def spoilt(random: np.random.Generator, data: bytes) -> bytes:
    """Change, cut, repeat or insert some bytes."""
    for _ in range(int(random.integers(1, 4))):
        at, length = int(random.integers(len(data) + 1)), int(random.integers(1, 30))
        how = random.integers(5)
        if how == 0:
            data = data[:at] + random.bytes(1) + data[at + 1 :]
        elif how == 1:
            data = data[:at] + data[at + length :]
        elif how == 2:
            data = data[:at] + data[at : at + length] + data[at:]
        elif how == 3:
            data = data[:at] + random.bytes(length) + data[at:]
        else:
            data = data[: max(1, at)]
    return data


def _answer(job: Path, folder: Path) -> tuple[int, str, list[str]]:
    from fedmkt.cli.app import main as command

    there, said = set(folder.rglob("*")), io.StringIO()
    with contextlib.redirect_stderr(said):
        code = command(["simulate", str(job), "--out", str(folder / "out")])
    return code, said.getvalue(), [str(p) for p in sorted(set(folder.rglob("*")) - there)]


def _is_bad(code: int, said: str, left: list[str]) -> bool:
    if code == 1 and "unexpected Accepted" in said:
        return bool(left)
    lines = said.splitlines()
    one = len(lines) in (1, 2) and lines[0].startswith("fedmkt: error: ") and "fedmkt: error" not in lines[-1][1:]
    return code not in (2, 3) or not one or "9120000" in said or "Traceback" in said or bool(left)


def main(arguments: Sequence[str]) -> int:
    """Run one of the long tests."""
    if arguments[:1] == ["victim"]:
        return victim(arguments[1], arguments[2:])
    if arguments[:1] == ["full"]:
        return on_a_full_disk(int(arguments[1]), arguments[2:])
    numbers = [int(a) for a in arguments[1:]]
    if arguments[:1] == ["seeds"]:
        seeds(*numbers)
        return 0
    if arguments[:1] == ["kills"]:
        return min(1, kills(*numbers))
    if arguments[:1] == ["inputs"]:
        return min(1, inputs(*numbers))
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
