"""What only a simulation can show: the joint model's exact scores beside a centralised model's.

Reads all parties' model folders and tables, reconstructs the weights from their shares and trains the centralised
model on the same prepared columns, rows and penalty.
"""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmkt.config import JobConfig
from fedmkt.contract import SignedContract, digest
from fedmkt.crypto.prg import Random, SeededRandom
from fedmkt.learn import glm, metrics, prepare
from fedmkt.party.node import local_states
from fedmkt.party.table import Table
from fedmkt.protocol.linear import WEIGHT_BITS
from fedmkt.protocol.pipeline import Finished
from fedmkt.protocol.prepare import Columns, prepared_rows
from fedmkt.ring.fixed import decode, reconstruct
from fedmkt.transport.driver import Progress

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """One party's prepared columns for train and held-out rows, and how its whitened weights map back."""

    train: Array
    held_out: Array
    transform: Array
    label_train: Array | None
    label_held_out: Array | None


def load_side(folder: Path, table: Table) -> Side:
    """Read one party's model folder and prepare its columns again."""
    header = json.loads((folder / "model.json").read_text())
    fitted = prepare.Preparation.from_json(json.dumps(header["preparation"]))
    columns = next(s for s in local_states(table) if isinstance(s, Columns))
    train, held_out = (np.load(folder / f"{n}.npy", allow_pickle=False) for n in ("train", "held_out"))
    label = columns.label
    return Side(
        prepared_rows(fitted, columns, train),
        prepared_rows(fitted, columns, held_out),
        np.load(folder / "transform.npy", allow_pickle=False),
        None if label is None else label[train],
        None if label is None else label[held_out],
    )


@dataclass(frozen=True)
class Comparison:
    """Joint and centralised model on the same held-out rows, from exact scores."""

    label: Array
    joint: Array
    centralised: Array
    weight_error: float


def compare(config: JobConfig, folder: Path, tables: dict[str, Table]) -> Comparison:
    """Reconstruct the joint weights from all shares; train the centralised model on the same prepared columns."""
    places = [folder / "parties" / p.name / "model" for p in config.parties]
    sides = [load_side(place, tables[p.name]) for place, p in zip(places, config.parties, strict=True)]
    white = decode(reconstruct([np.load(p / "share.npy", allow_pickle=False) for p in places]), WEIGHT_BITS)
    intercept, weights = white[0], _unwhiten(white[1:], sides)
    train = np.concatenate([s.train for s in sides], axis=1)
    held_out = np.concatenate([s.held_out for s in sides], axis=1)
    label_train, label = sides[0].label_train, sides[0].label_held_out
    if label_train is None or label is None:
        raise ValueError("the first party has no label")
    central = glm.fit_logistic(train, label_train, config.model.penalty)
    reference = np.concatenate([[central.intercept], central.coefficients])
    error = float(np.linalg.norm(np.concatenate([[intercept], weights]) - reference) / np.linalg.norm(reference))
    joint = glm.predict(glm.Weights(intercept, weights), held_out)
    return Comparison(label, joint, glm.predict(central, held_out), error)


def _unwhiten(white: Array, sides: list[Side]) -> Array:
    at, found = 0, []
    for side in sides:
        width = len(side.transform)
        found.append(side.transform @ white[at : at + width])
        at += width
    return np.concatenate(found)


def summarise(
    config: JobConfig, signed: SignedContract, layout: "object", tables: dict[str, Table], outcome: Finished,
    costs: Progress, seconds: dict[str, float], seed: int | None,
) -> dict[str, object]:  # fmt: skip
    """Collect the facts of a finished run."""
    folder: Path = layout.folder  # type: ignore[attr-defined]
    random: Random = secrets.token_bytes if seed is None else SeededRandom(seed.to_bytes(16, "big"))
    scores = np.load(folder / "parties" / config.bank.name / "model" / "scores.npz", allow_pickle=False)
    held = scores["held_out"]
    y = scores["label"][held]
    rounded = scores["units"][held] / 10.0 ** int(scores["decimals"])
    exact = compare(config, folder, tables)
    models = {
        "bank": metrics.evaluate(y, scores["bank_only"][held], random),
        "joint": metrics.evaluate(y, rounded, random),
        "joint_exact": metrics.evaluate(exact.label, exact.joint, random),
        "centralised": metrics.evaluate(exact.label, exact.centralised, random),
    }
    overlap = outcome.overlap
    return {
        "run": str(folder),
        "contract": digest(signed.contract).hex(),
        "common": {
            "band": [overlap.labelled_low + overlap.unlabelled_low, overlap.labelled_high + overlap.unlabelled_high],
            "exact": _exact_common(folder, config),
        },
        "models": {n: _figures(m) for n, m in models.items()},
        "lift": models["joint"].top_lift,
        "weight_error": exact.weight_error,
        "seconds": {k: round(v, 3) for k, v in seconds.items()},
        "bytes": costs.bytes_sent,
        "rounds": costs.rounds,
        "simulated": True,
        "seed": seed,
    }


def _exact_common(folder: Path, config: JobConfig) -> int:
    place = folder / "parties" / config.bank.name / "model"
    return sum(len(np.load(place / f"{n}.npy", allow_pickle=False)) for n in ("train", "held_out", "unlabelled"))


def _figures(found: metrics.Metrics) -> dict[str, object]:
    return {
        "auc": found.auc, "auc_low": found.auc_low, "auc_high": found.auc_high, "ks": found.ks, "brier": found.brier,
        "log_loss": found.log_loss, "lift": found.top_lift, "rows": found.rows, "responders": found.responders,
    }  # fmt: skip
