"""A linear joint model's exact scores beside a centralised model's, in a simulation.

Reads all parties' model folders and tables, reconstructs the weights from their shares and trains the
centralised model on the same prepared columns, rows and penalty. The passes of the joint training are made
once more in clear arithmetic: nothing in a run shows how it converges, and nothing may.
"""

import json
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmkt.config.job import JobConfig
from fedmkt.contract.model_terms import ModelTerms
from fedmkt.errors import ConfigError
from fedmkt.learn import glm
from fedmkt.learn.additive import Additive
from fedmkt.learn.factors import Units, products, units
from fedmkt.learn.woe import WoeColumns
from fedmkt.party.node import local_states
from fedmkt.party.table import Table
from fedmkt.protocol.layout import WEIGHT_BITS
from fedmkt.protocol.linear.gram import MAX_SCALE
from fedmkt.protocol.linear.logistic import momentum
from fedmkt.protocol.linear.targets import known_rows
from fedmkt.protocol.prepare import RIDGE, Columns, prepared_rows, read_fitted, weighed, with_known
from fedmkt.report.summary import ConvergencePoint
from fedmkt.ring.fixed import decode, reconstruct
from fedmkt.simulation.comparison import Comparison

Array = NDArray[np.float64]
_PLAIN = ModelTerms()


@dataclass(frozen=True)
class Side:
    """One party's prepared columns for train and held-out rows, and how its whitened weights map back.

    factors : its bases of pairs with another party, for the same rows. is_white : as the products of pairs are not.
    """

    train: Array
    held_out: Array
    transform: Array
    spread: Array
    share: NDArray[np.uint64]
    known_train: glm.Rows | None
    known_held_out: glm.Rows | None
    factors: tuple[tuple[Units, Units], ...] = ()
    is_white: bool = True

    @property
    def label_train(self) -> Array | None:
        """The bank's labels of the train rows."""
        return None if self.known_train is None else self.known_train.y

    @property
    def label_held_out(self) -> Array | None:
        """The bank's labels of the held-out rows."""
        return None if self.known_held_out is None else self.known_held_out.y


def load_side(folder: Path, table: Table, bank: Path | None = None, model: ModelTerms = _PLAIN) -> Side:
    """Read one party's model folder and prepare its columns again.

    model : says how much the bank's rows count; by default all alike.
    bank : the bank's folder where the match was hidden: only there stands which of a partner's rows are common.
    """
    try:
        header = json.loads((folder / "model.json").read_text())
        names = ("train", "held_out", "transform", "spread", "share")
        train, held_out, transform, spread, share = (
            np.load(folder / f"{name}.npy", allow_pickle=False) for name in names
        )
        if bank is not None:
            held_out = train[np.load(bank / "held_out_slots.npy", allow_pickle=False)]
            train = train[np.load(bank / "train_slots.npy", allow_pickle=False)]
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: {error.strerror}", "give the folder of a finished run"
        ) from None
    fitted = read_fitted(json.dumps(header["preparation"]))
    columns = next(s for s in local_states(table) if isinstance(s, Columns))
    if (folder / "known.npy").exists():
        columns = with_known(columns, np.load(folder / "known.npy", allow_pickle=False))
    if "evidence" in header:
        columns = weighed(columns, WoeColumns.from_json(json.dumps(header["evidence"])))
    known, known_held_out = (
        None if columns.label is None else known_rows(model, columns, rows) for rows in (train, held_out)
    )
    return Side(
        prepared_rows(fitted, columns, train),
        prepared_rows(fitted, columns, held_out),
        transform,
        spread,
        share,
        known,
        known_held_out,
        tuple(
            (units(f, columns.numbers[f.name][train]), units(f, columns.numbers[f.name][held_out]))
            for f in (fitted.factors if isinstance(fitted, Additive) else ())
        ),
    )


def compare(config: JobConfig, folder: Path, tables: dict[str, Table]) -> Comparison:
    """Reconstruct the joint weights from all shares; train the centralised model on the same columns and rows."""
    folders = {p.name: folder / "parties" / p.name / "model" for p in config.parties}
    bank = folders[config.bank.name] if config.align.hidden else None
    sides = [
        load_side(f, tables[name], bank if name != config.bank.name else None, config.model)
        for name, f in folders.items()
    ]
    known, test = sides[0].known_train, sides[0].known_held_out
    if known is None or test is None:
        raise ValueError("the first party has no label")
    sides, kind = [_lengthened(s, len(known.y), len(test.y)) for s in sides], config.model.link
    shares, sides = [s.share for s in sides], with_pairs(config, sides)
    penalty = read_penalty(folders[config.bank.name], config.model)
    scale = glm.standard_units(kind, known)
    known, label = scale.rows(known), test.y
    offset = scale.offsets(test.offset)
    white = decode(reconstruct(shares), WEIGHT_BITS)
    intercept, weights = float(white[0]), np.concatenate(_unwhiten(white[1:], sides))
    central = glm.fit(kind, np.concatenate([s.train for s in sides], axis=1), known, penalty)
    held_out = np.concatenate([s.held_out for s in sides], axis=1)
    ours, best = np.append(weights, intercept), np.append(central.coefficients, central.intercept)
    return Comparison(
        label,
        scale.labels(glm.predict(glm.Weights(intercept, weights), held_out, kind, offset)),
        scale.labels(glm.predict(central, held_out, kind, offset)),
        float(np.linalg.norm(ours - best) / np.linalg.norm(best)),
        # Where training began, at an earlier model or one of another penalty, only the parties know.
        ()
        if config.model.start or config.model.penalties
        else retrace(sides, known, config.model, config.align.hidden),
        _events(kind, known) / len(weights),
    )


def read_penalty(folder: Path, model: ModelTerms) -> float:
    """Return the penalty of the model in a folder: the job's, or the one that was chosen."""
    return float(json.loads((folder / "model.json").read_text()).get("penalty", model.penalty))


def _events(kind: str, known: glm.Rows) -> float:
    """Count what `limits.min_events` is about."""
    if kind == "logistic":
        return float(min(known.y.sum(), (1 - known.y).sum()))
    return float((known.y > 0).sum() if kind == "poisson" else len(known.y))


def with_pairs(config: JobConfig, sides: list[Side]) -> list[Side]:
    """Add the products of all pairs of two parties as if a party of their own had them; `sides` : of all parties."""
    if not config.additive.across:
        return sides
    left = {party.name: iter(side.factors) for party, side in zip(config.parties, sides, strict=True)}
    pairs = [[next(left[party]) for party, _ in pair] for pair in config.additive.across]
    train, held_out = (np.concatenate([products(a[i], b[i]) for a, b in pairs], axis=1) for i in (0, 1))
    width, no_share = train.shape[1], np.empty(0, np.uint64)
    shared = Side(train, held_out, np.eye(width), np.ones(width), no_share, None, None, is_white=False)
    return [*sides, shared]


def _lengthened(side: Side, train: int, held_out: int) -> Side:
    """Give a partner rows of zeros for the bank's other customers, where all of them take part: they come last."""
    return replace(side, train=_with_zeros(side.train, train), held_out=_with_zeros(side.held_out, held_out))


def _with_zeros(x: Array, n: int) -> Array:
    return np.concatenate([x, np.zeros((n - len(x), x.shape[1]))])


def retrace(
    sides: list[Side], known: glm.Rows, model: ModelTerms, hidden: bool = False
) -> tuple[ConvergencePoint, ...]:
    """Make the passes of the joint training again in floating point: mean loss and step of each.

    sides : the bank first; hidden : a party's own block of the Gram matrix is computed too. A twin of
    `protocol.logistic`, on its whitened columns; link and inverse are exact here. A descent that runs off, as that of
    counts may with few rows, ends with its last finite step; a loss that is not finite there is not known.
    """
    n, null = len(known.y), glm.fit_null(model.link, known)
    stiff = model.penalty / np.square(np.concatenate([s.spread for s in sides]))
    ridge = RIDGE * stiff / n
    solver = _inverse(sides, model.gram_rows, ridge, hidden) * (min(MAX_SCALE, 1 / null.curvature) / n)
    before = np.zeros(1 + len(stiff))
    before[0] = null.intercept
    w, points = before, []
    for k in range(1, model.iterations + 1):
        with np.errstate(over="ignore", invalid="ignore"):
            mean = glm.mean_label(model.link, _predictor(w, sides) + known.offset)
            residual = known.weight * (mean - known.y)
            parts = [s.transform.T @ (s.train.T @ residual) for s in sides]
            gradient = np.concatenate([[residual.sum()], *parts])
            gradient[1:] += stiff * w[1:]
            w, before = w - solver @ gradient + momentum(k - 1, model.iterations) * (w - before), w
            change = float(np.linalg.norm(w - before) / np.linalg.norm(w))
            loss = glm.mean_loss(model.link, known, _predictor(w, sides) + known.offset)
        if not np.isfinite(change):
            break
        points.append(ConvergencePoint(k, float(loss) if np.isfinite(loss) else None, change))
    return tuple(points)


def _inverse(sides: list[Side], gram_rows: int, ridge: Array, hidden: bool) -> Array:
    """Invert the Gram matrix of the whitened columns: unit blocks of the parties, products between them.

    ridge : (d,), on the diagonal of a party's own block where that is a product too: if the match is hidden, or if
    its columns are not white.
    """
    ends = np.cumsum([1, *(len(s.spread) for s in sides)])
    a = np.eye(ends[-1])
    if hidden:
        white = np.concatenate([s.train[:gram_rows] @ s.transform for s in sides], axis=1)
        white = np.concatenate([np.ones((len(white), 1)), white], axis=1)
        return np.asarray(
            np.linalg.inv(white.T @ white / len(white) + np.diag(np.append(0.0, ridge))), np.float64
        )
    for i, j in combinations(range(len(sides)), 2):
        left, right = sides[i].train[:gram_rows], sides[j].train[:gram_rows]
        block = sides[i].transform.T @ (left.T @ right / len(left)) @ sides[j].transform
        a[ends[i] : ends[i + 1], ends[j] : ends[j + 1]] = block
        a[ends[j] : ends[j + 1], ends[i] : ends[i + 1]] = block.T
    for i, side in enumerate(sides):
        if not side.is_white:
            own, some = slice(ends[i], ends[i + 1]), side.train[:gram_rows]
            a[own, own] = some.T @ some / len(some) + np.diag(ridge[own.start - 1 : own.stop - 1])
            # Products have a mean, other than all columns beside the constant.
            a[0, own] = a[own, 0] = some.mean(axis=0)
    return np.asarray(np.linalg.inv(a), dtype=np.float64)


def _predictor(w: Array, sides: list[Side]) -> Array:
    z = np.full(len(sides[0].train), w[0])
    for side, part in zip(sides, _unwhiten(w[1:], sides), strict=True):
        z += side.train @ part
    return z


def _unwhiten(white: Array, sides: list[Side]) -> list[Array]:
    """Turn weights of whitened columns into those of the prepared ones, side by side."""
    at, found = 0, []
    for side in sides:
        width = len(side.transform)
        found.append(side.transform @ white[at : at + width])
        at += width
    return found
