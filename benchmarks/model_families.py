"""The families that `benchmarks.models` compares, each with the plain models that one organisation would train.

A family is one entry of FAMILIES. A plain model sees both parties' columns of the same rows in one place.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.model_worlds import Sections, Target
from fedmkt.config import JobConfig
from fedmkt.party.node import local_states
from fedmkt.party.table import Table
from fedmkt.protocol.prepare import Columns
from fedmkt.simulation.compare import load_side

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pooled:
    """The rows and columns of a finished run in one place, as no real run has them.

    train, held_out : both parties' raw columns, named party.column; categories are texts or None
    """

    config: JobConfig
    folder: Path
    tables: Mapping[str, Table]
    train: pd.DataFrame
    held_out: pd.DataFrame
    y: Array
    y_held_out: Array

    @property
    def numbers(self) -> list[str]:
        """The columns that hold numbers."""
        return [f"{p.name}.{n}" for p in self.config.parties for n in p.numbers]

    @property
    def categories(self) -> list[str]:
        """The columns that hold categories."""
        return [f"{p.name}.{n}" for p in self.config.parties for n in p.categories]

    def prepared(self) -> tuple[Array, Array]:
        """Return train and held-out rows as the parties of a linear family prepared them."""
        sides = [load_side(model_folder(self.folder, n), t) for n, t in self.tables.items()]
        train, held_out = ([getattr(s, part) for s in sides] for part in ("train", "held_out"))
        return np.concatenate(train, axis=1), np.concatenate(held_out, axis=1)


def model_folder(run: Path, party: str) -> Path:
    """Where a party of a simulated run keeps its part of the model."""
    return run / "parties" / party / "model"


def pool(config: JobConfig, folder: Path, tables: Mapping[str, Table]) -> Pooled:
    """Put the columns of all parties side by side, on the rows that the run trained and measured on."""
    frames: dict[str, dict[str, object]] = {"train": {}, "held_out": {}}
    labels: dict[str, Array] = {}
    for name, table in tables.items():
        columns = next(s for s in local_states(table) if isinstance(s, Columns))
        for part, frame in frames.items():
            rows = np.load(model_folder(folder, name) / f"{part}.npy", allow_pickle=False)
            frame |= {f"{name}.{n}": v[rows] for n, v in columns.numbers.items()}
            frame |= {f"{name}.{n}": np.asarray(v, object)[rows] for n, v in columns.categories.items()}
            if columns.label is not None:
                labels[part] = columns.label[rows]
    train, held_out = (pd.DataFrame(frame) for frame in frames.values())
    return Pooled(config, folder, tables, train, held_out, labels["train"], labels["held_out"])


Fitted = Callable[[], Array]
"""A trained plain model: gives its predictions on the held-out rows."""


@dataclass(frozen=True)
class Plain:
    """A plain model; `begin` makes its input ready, what it returns trains. module : a package that it needs."""

    name: str
    begin: Callable[[Pooled], Callable[[], Fitted]]
    module: str = "sklearn"

    @property
    def is_there(self) -> bool:
        """Whether its package is installed."""
        return find_spec(self.module) is not None


@dataclass(frozen=True)
class Entry:
    """One row of the comparison for each data set.

    sections : of the job.toml; targets : by data set, where the answer yes or no is not what is predicted;
    most_rows : of the invented data
    """

    name: str
    sections: Sections
    plain: tuple[Plain, ...]
    targets: Mapping[str, Target] = field(default_factory=dict)
    most_rows: int = 1_000_000


def _logistic(pooled: Pooled) -> Callable[[], Fitted]:
    from sklearn.linear_model import LogisticRegression

    x, x_held_out = pooled.prepared()
    model = LogisticRegression(C=1 / pooled.config.model.penalty, max_iter=1000)

    def fit() -> Fitted:
        model.fit(x, pooled.y)
        return lambda: np.asarray(model.predict_proba(x_held_out)[:, 1])

    return fit


LOGISTIC = Plain("scikit-learn LogisticRegression", _logistic)

FAMILIES = (Entry("logistic", {"model": {"kind": "logistic"}}, (LOGISTIC,)),)
"""What is compared, in the order of the table."""
