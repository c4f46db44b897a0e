"""Many small random jobs, each against the centralised optimum and a floating-point twin of the training."""

import json
import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedmkt.config.files import parse_job
from fedmkt.contract.agreement import Limits
from fedmkt.contract.model_terms import ModelTerms
from fedmkt.errors import FedmktError
from fedmkt.learn import glm
from fedmkt.party.node import open_data
from fedmkt.protocol.layout import WEIGHT_BITS
from fedmkt.protocol.linear.gram import MAX_SCALE, inverse_products
from fedmkt.protocol.linear.logistic import momentum
from fedmkt.ring.fixed import decode, reconstruct
from fedmkt.ring.sigmoid import series
from fedmkt.simulation.compare import Side, load_side

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """One random job: what it was, and how far the joint model is from the centralised optimum.

    per_column : responders among the train rows for each prepared column
    auc_gap, all_gap : |AUC - AUC of the optimum| on the held-out rows, and on held-out and train rows together
    weight_error : |w - w*| / |w*|; twin_error : the same for the passes in floating point
    fixed_error : |w - twin| / |w*|
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


def write_random_job(seed: int, folder: Path, min_events: int) -> tuple[Path, dict[str, object]]:
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
    shift = np.quantile(
        random.logistic(size=4000)[:, None]
        + np.interp(random.random((4000, 1)), np.linspace(0, 1, rows), np.sort(signal)),
        1 - rate,
    )
    label = (signal + random.logistic(size=rows) > shift).astype(int)
    label[:8] = [0, 1] * 4
    tables["bank"]["y"] = label
    text = [f'name = "seed-{seed}"\npurpose = "tests"\n']
    ids = np.array([f"person {i}" for i in range(rows)])
    for name in names:
        extra = tables[name].sample(n=int(random.integers(0, 60)), random_state=seed)
        frame = pd.concat(
            [tables[name].assign(id=ids), extra.assign(id=[f"{name} {i}" for i in range(len(extra))])]
        )
        frame.sample(frac=1, random_state=seed).to_csv(
            folder / f"{name}.csv", index=False, float_format="%.17g"
        )
        head = "[bank]" if name == "bank" else "[[partners]]"
        grouped = '["group"]' if "group" in frame else "[]"
        text.append(
            f'{head}\nname = "{name}"\norganisation = "The {name}"\nfile = "{name}.csv"\nid = "id"\nid_kind = "raw"\n'
            f"numbers = {json.dumps(numbers[name])}\ncategories = {grouped}\n"
            + ('label = "y"\n' if name == "bank" else "")
        )
    support = int(random.choice([5, 20, 50]))
    text.append(f"[model]\npenalty = {penalty!r}\n")
    text.append(f"[limits]\nmin_list = 100\nmin_common = 100\nmin_support = {support}\n")
    text.append(f"min_events = {min_events}\n")
    job = folder / "job.toml"
    job.write_text("\n".join(text))
    drawn = {
        "rows": rows,
        "partners": partners,
        "rate": float(label.mean()),
        "penalty": penalty,
        "kinds": " ".join(sorted(kinds)),
    }
    return job, drawn


_KINDS = (
    "normal",
    "normal",
    "shared",
    "copy",
    "nearly",
    "constant",
    "rare",
    "tiny",
    "huge",
    "heavy",
    "skewed",
    "whole",
)


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


def run_seed(seed: int, min_events: int = Limits().min_events) -> Finding:
    """Run one random job to its end in memory and compare it with optimum and twin."""
    from tests.engine import world_of

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job, drawn = write_random_job(seed, folder, min_events)
        config = parse_job(job.read_text(), str(job))
        tables = {p.name: open_data(p, folder) for p in config.parties}
        world = world_of(config, folder / "run", tables, seed)
        try:
            world.run()
        except FedmktError as error:
            return Finding(seed=seed, columns=0, refused=f"{type(error).__name__}: {error}", **drawn)  # type: ignore[arg-type]
        sides = [
            load_side(folder / "run" / "parties" / p.name / "model", tables[p.name]) for p in config.parties
        ]
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
    for done in range(model.iterations):
        gradient = white.T @ (sine_sigmoid(white @ w, model.period) - y) + stiff * w
        w, before = w - solver @ gradient + momentum(done, model.iterations) * (w - before), w
    return w


def sine_sigmoid(z: Array, period: int) -> Array:
    """Evaluate the sine series that stands for the sigmoid, in floating point."""
    angle = 2 * np.pi * z / period
    return 0.5 + sum(c / 2**16 * np.sin((k + 1) * angle) for k, c in enumerate(series(period).coefficients))


def seeds(count: int = 200, first: int = 1) -> list[Finding]:
    """Run random jobs on two processes until `count` were not refused, at most four times as many.

    Prints every finding as one line of JSON, then the distribution; returns those off by more than 0.002 AUC.
    """
    context = multiprocessing.get_context("spawn")
    found: list[Finding] = []
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        for start in range(first, first + 4 * count, 20):
            if sum(not f.refused for f in found) >= count:
                break
            for finding in pool.map(run_seed, range(start, start + 20)):
                if sum(not f.refused for f in found) < count:
                    print(json.dumps(asdict(finding)), flush=True)
                    found.append(finding)
    done = [f for f in found if not f.refused]
    for name in ("auc_gap", "all_gap", "weight_error", "twin_error", "fixed_error"):
        values = np.array([getattr(f, name) for f in done])
        print(
            f"{name}: max {values.max():.2g}, 99 % {np.quantile(values, 0.99):.2g}, median {np.median(values):.2g}"
        )
    print(f"{len(done)} of {len(found)} ran; refused: {sorted(f.refused for f in found if f.refused)}")
    return [f for f in done if max(f.auc_gap, f.all_gap) > 0.002]
