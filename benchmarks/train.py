"""Joint training against scikit-learn's lbfgs on the pooled matrix, in one process and the same minute.

Tables are built in memory and the rows are aligned already: only the witness, the preparation and the fit
run, each party on its own thread, sealed and logged as anywhere else. Prints wall, CPU seconds and peak
memory as JSON.

    python -m benchmarks.train --rows 1000000 --columns 50 --iterations 12
"""

import argparse
import json
import resource
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmkt.audit.checkpoint import log_origin
from fedmkt.config.drafts import draft_contract
from fedmkt.config.job import JobConfig
from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.contract.signatures import SignedContract, sign
from fedmkt.crypto.prg import SeededRandom
from fedmkt.crypto.sign import Identity
from fedmkt.learn import prepare
from fedmkt.party.audit_log import AuditLog
from fedmkt.party.handle import Party
from fedmkt.party.journal import Journal
from fedmkt.party.policy import Policy
from fedmkt.party.store import Store
from fedmkt.protocol.alignment.align import Split, padded_rows
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import (
    Caller,
    Inbox,
    Name,
    Nothing,
    Outcome,
    Script,
    State,
    Step,
    Turn,
    ask,
    data_parties,
)
from fedmkt.protocol.layout import WEIGHT_BITS
from fedmkt.protocol.linear.bounds import check_bounds
from fedmkt.protocol.linear.logistic import fit
from fedmkt.protocol.linear.predictor import Weights
from fedmkt.protocol.prepare import Columns, Prepared, prepare_columns
from fedmkt.protocol.witness import witness
from fedmkt.ring.fixed import decode, reconstruct
from fedmkt.simulation.run import party_settings
from fedmkt.transport.driver import Coordinator, Progress
from fedmkt.transport.memory import MemoryEndpoint

Array = NDArray[np.float64]
PARTIES = ("bank", "partner")


@dataclass(frozen=True)
class Rows(State):
    """How many customers the parties share: what the intersection would have left behind."""

    durable = False
    count: int


def _announce(turn: Turn, inbox: Inbox[Nothing]) -> Outcome[Nothing, Overlap]:
    """Publish the band as the intersection would, and keep the rows as the split would: all of them train."""
    n = turn.recall(Rows).count
    high = labelled_high(n, turn.contract)
    train = np.full(padded_rows(high, 1 - turn.contract.model.test_fraction), NO_ROW, dtype=np.int64)
    train[:n] = np.arange(n)
    none = np.empty(0, np.int64)
    return Outcome(Overlap(high - 1, high, 0, 0), keep=(Split(train, none, none),))


ANNOUNCE = Step("bench.announce", _announce, Overlap)


def labelled_high(rows: int, contract: Contract) -> int:
    """Return the smallest band whose padded training rows hold `rows`."""
    share = 1 - contract.model.test_fraction
    low, high = rows, 2 * rows + 100
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if padded_rows(middle, share) >= rows else (middle + 1, high)
    return low


def train_only(call: Caller, contract: Contract) -> Overlap:
    """Run the part of the main job between alignment and scoring."""
    witness(call, contract)
    told = call.all([ask(p, ANNOUNCE) for p in data_parties(contract)])
    overlap = told[0].public.value
    shapes = prepare_columns(call, contract)
    check_bounds(contract, overlap, shapes)
    fit(call, contract, overlap, {p: s.columns for p, s in shapes.items()})
    return overlap


def make_tables(rows: int, columns: int, seed: int) -> dict[str, Columns]:
    """Draw correlated normal columns at both parties and a label with a joint signal, one in eight yes."""
    rng = np.random.default_rng(seed)
    factors = [rng.standard_normal(rows) for _ in range(3)]
    z = np.full(rows, -2.3)
    numbers: dict[str, dict[str, Array]] = {p: {} for p in PARTIES}
    for party in PARTIES:
        for j in range(columns):
            column = rng.standard_normal(rows)
            column += rng.normal(0, 0.5) * factors[j % 3]
            z += rng.normal(0, 1 / np.sqrt(columns)) * column
            numbers[party][f"x{j:02d}"] = column
    label = (rng.random(rows) < 1 / (1 + np.exp(-z))).astype(np.float64)
    return {p: Columns(numbers[p], {}, label if p == "bank" else None) for p in PARTIES}


def job(columns: int, iterations: int, test_fraction: float) -> JobConfig:
    """Describe the job; its files are never read."""
    names = [f"x{j:02d}" for j in range(columns)]
    common = {"file": "-", "id": "id", "id_kind": "raw", "numbers": names}
    return JobConfig.model_validate(
        {
            "name": "bench",
            "purpose": "benchmark",
            "bank": {"name": "bank", "organisation": "Bank", "label": "y", **common},
            "partners": [{"name": "partner", "organisation": "Partner", **common}],
            "model": {"iterations": iterations, "test_fraction": test_fraction},
            "limits": {"min_events": 0},
        }
    )


def open_parties(
    config: JobConfig, tables: dict[str, Columns], folder: Path, seed: int, script: Script
) -> dict[str, Party]:
    """Open all participants as a simulation does, with tables from memory."""
    names = [*PARTIES, config.coordinator.name]
    random = {n: SeededRandom(f"{seed}/{n}".encode().ljust(32)) for n in names}
    identities = {n: Identity.generate(random[n]) for n in names}
    now = datetime.now(UTC) - timedelta(minutes=1)
    contract = draft_contract(config, {n: i.public for n, i in identities.items()}, now)
    signed = SignedContract(
        contract=contract, signatures={n: sign(contract, n, i) for n, i in identities.items()}
    )
    found = {}
    for name in names:
        policy = Policy(party_settings(config, signed, name))
        policy.check_contract(signed, datetime.now(UTC))
        place = folder / name
        log = AuditLog(
            place / "log", log_origin(digest(contract), name), identities[name], _now, "", name, digest(contract)
        )  # fmt: skip
        local: tuple[State, ...] = ()
        if name in tables:
            local = (tables[name], Rows(len(next(iter(tables[name].numbers.values())))))
        found[name] = Party(
            Name(name), contract, script, identities[name], policy, log,
            Journal(place / "journal", place / "journal.key", random[name]), Store(place / "store"),
            random[name], local,
        )  # fmt: skip
    return found


def _now() -> datetime:
    return datetime.now(UTC)


class Clock:
    """Wall seconds per step, from the coordinator's rounds."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}
        self.prepared = 0.0
        self._last = time.perf_counter()

    def __call__(self, costs: Progress) -> None:
        """Add the time since the last round to the step of this one."""
        now = time.perf_counter()
        self.steps[costs.step] = self.steps.get(costs.step, 0.0) + now - self._last
        self._last = now
        if costs.step == "prepare.fit":
            self.prepared = now


def train_jointly(
    config: JobConfig, tables: dict[str, Columns], seed: int, script: Script = train_only
) -> tuple[dict[str, Party], dict[str, object]]:
    """Train the joint model and return the parties with what it cost."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        parties = open_parties(config, tables, Path(folder), seed, script)
        contract = next(iter(parties.values())).contract
        endpoints = {Name(n): MemoryEndpoint(p) for n, p in parties.items()}
        coordinator = Coordinator(contract, script, endpoints, Path(folder) / "coordinator", watch=clock)
        before, cpu = time.perf_counter(), time.process_time()
        try:
            coordinator.run()
        finally:
            for endpoint in endpoints.values():
                endpoint.close()
        end = time.perf_counter()
        used = time.process_time() - cpu
    costs = coordinator.progress
    return parties, {
        "wall_s": end - before, "cpu_s": used, "fit_wall_s": end - clock.prepared, "rounds": costs.rounds,
        "bytes": costs.bytes_sent, "steps": dict(sorted(clock.steps.items(), key=lambda kv: -kv[1])),
    }  # fmt: skip


def joint_weights(parties: dict[str, Party]) -> tuple[float, Array]:
    """Reconstruct the weights on the prepared columns from both shares."""
    white = decode(reconstruct([parties[p].recall(Weights).w for p in PARTIES]), WEIGHT_BITS)
    at, found = 1, []
    for party in PARTIES:
        transform = parties[party].recall(Prepared).transform
        found.append(transform @ white[at : at + len(transform)])
        at += len(transform)
    return float(white[0]), np.concatenate(found)


def pooled_matrix(parties: dict[str, Party], tables: dict[str, Columns]) -> Array:
    """Put both parties' prepared columns side by side, (n, 2d)."""
    blocks = []
    for party in PARTIES:
        fitted = prepare.Preparation.from_json(parties[party].recall(Prepared).preparation)
        blocks.append(prepare.transform(fitted, tables[party].numbers, tables[party].categories).values)
    return np.concatenate(blocks, axis=1)


def train_pooled(
    x: Array, y: Array, penalty: float, tolerance: float
) -> tuple[float, Array, dict[str, object]]:
    """Train scikit-learn's lbfgs on the pooled matrix; `tolerance` : its stopping rule."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / penalty, solver="lbfgs", tol=tolerance, max_iter=1000)
    before, cpu = time.perf_counter(), time.process_time()
    model.fit(x, y)
    costs: dict[str, object] = {
        "wall_s": time.perf_counter() - before,
        "cpu_s": time.process_time() - cpu,
        "iterations": int(model.n_iter_[0]),
    }
    return float(model.intercept_[0]), model.coef_[0], costs


def peak_mib() -> float:
    """Return the largest resident size of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(rows: int, columns: int, iterations: int, seed: int, compare: bool) -> dict[str, object]:
    """Measure joint training, then scikit-learn on the pooled matrix."""
    tables = make_tables(rows, columns, seed)
    config = job(columns, iterations, 0.05)
    # Compiles the kernels and imports what is imported late.
    train_jointly(config, make_tables(2000, columns, seed), seed)
    matrices = 2 * rows * columns * 8 / 2**20
    before = peak_mib()
    parties, joint = train_jointly(config, tables, seed)
    peak = peak_mib()
    memory = {"peak_mib": peak, "before_mib": before, "matrices_mib": matrices, "ratio": peak / matrices}
    facts: dict[str, object] = {"rows": rows, "columns": [columns, columns], "joint": joint, "memory": memory}
    if compare:
        facts |= _comparison(parties, tables, joint)
    return facts


def _comparison(
    parties: dict[str, Party], tables: dict[str, Columns], joint: dict[str, object]
) -> dict[str, object]:
    from sklearn.metrics import roc_auc_score

    y = tables["bank"].label
    if y is None:
        raise ValueError("the bank has no label")
    x = pooled_matrix(parties, tables)
    penalty = parties["bank"].contract.model.penalty
    _, _, lbfgs = train_pooled(x, y, penalty, 1e-4)
    intercept, best, exact = train_pooled(x, y, penalty, 1e-9)
    b, w = joint_weights(parties)
    ours, theirs = np.append(w, b), np.append(best, intercept)
    auc_joint, auc_best = roc_auc_score(y, x @ w), roc_auc_score(y, x @ best)
    fit_wall = float(str(joint["fit_wall_s"]))
    return {
        "lbfgs": lbfgs,
        "optimum": exact,
        "times_lbfgs": fit_wall / float(str(lbfgs["wall_s"])),
        "auc": {"joint": auc_joint, "optimum": auc_best, "difference": auc_joint - auc_best},
        "weight_error": float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)),
    }


def main() -> None:
    """Read options, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=50, help="columns of each party")
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-compare", action="store_true", help="leave scikit-learn out")
    options = parser.parse_args()
    facts = measure(options.rows, options.columns, options.iterations, options.seed, not options.no_compare)
    print(json.dumps(facts, indent=1, default=float))


if __name__ == "__main__":
    main()
