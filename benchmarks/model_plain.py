"""Plain models beside the joint ones: what one organisation would train that had both parties' columns."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedmkt.config.job import JobConfig
from fedmkt.contract.files import from_toml
from fedmkt.learn.bins import Binning
from fedmkt.party.node import local_states
from fedmkt.party.table import Table
from fedmkt.protocol.core import Name
from fedmkt.protocol.prepare import Columns
from fedmkt.protocol.trees.sides.tree_growth import Draws, settings_of
from fedmkt.protocol.trees.tree_columns import table_of
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


def _logistic(pooled: Pooled) -> Callable[[], Fitted]:
    from sklearn.linear_model import LogisticRegression

    x, x_held_out = pooled.prepared()
    model = LogisticRegression(C=1 / pooled.config.model.penalty, max_iter=1000)
    return _probabilities(model, x, pooled.y, x_held_out)


def _splines(pooled: Pooled) -> Callable[[], Fitted]:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, SplineTransformer

    splines = make_pipeline(
        SimpleImputer(add_indicator=True),
        SplineTransformer(n_knots=8, knots="quantile", extrapolation="linear"),
    )
    levels = OneHotEncoder(min_frequency=50, handle_unknown="infrequent_if_exist")
    columns = make_column_transformer((splines, pooled.numbers), (levels, pooled.categories))
    model = make_pipeline(columns, LogisticRegression(C=1 / pooled.config.model.penalty, max_iter=1000))
    return _probabilities(model, pooled.train, pooled.y, pooled.held_out)


def _boosted(pooled: Pooled) -> Callable[[], Fitted]:
    """Grow the run's own trees on the pooled bins, with the random numbers that the bank drew."""
    from fedmkt.learn import boosting, trees

    folder = pooled.folder
    contract = from_toml((folder / "contract.toml").read_text(), str(folder / "contract.toml")).contract
    headers = {n: json.loads((model_folder(folder, n) / "model.json").read_text()) for n in pooled.tables}
    found: dict[str, dict[str, trees.Table]] = {"train": {}, "held_out": {}}
    for name, table in pooled.tables.items():
        columns = next(s for s in local_states(table) if isinstance(s, Columns))
        binning = Binning.from_json(json.dumps(headers[name]["binning"], separators=(",", ":")))
        for part, tables in found.items():
            rows = np.load(model_folder(folder, name) / f"{part}.npy", allow_pickle=False)
            tables[name] = table_of(contract, Name(name), binning, columns, rows)
    parts = list(found["train"].values())
    together = trees.Table(
        tuple(c for p in parts for c in p.columns), np.concatenate([p.values for p in parts]), parts[0].bins
    )
    draws = Draws(bytes.fromhex(headers[pooled.config.bank.name]["draws"]))
    rows, settings = boosting.Labelled(together, pooled.y), settings_of(contract)

    def fit() -> Fitted:
        model = boosting.fit(rows, settings, draws).model
        return lambda: trees.predict(model, found["held_out"])

    return fit


def _grown(pooled: Pooled) -> Callable[[], Fitted]:
    from sklearn.ensemble import HistGradientBoostingClassifier

    trees = pooled.config.trees
    model = HistGradientBoostingClassifier(
        max_iter=trees.trees, max_depth=trees.depth, learning_rate=trees.rate, l2_regularization=trees.penalty,
        min_samples_leaf=trees.min_rows, max_bins=pooled.config.bins.count, max_leaf_nodes=None,
        categorical_features="from_dtype", early_stopping=False, random_state=1,
    )  # fmt: skip
    return _probabilities(model, _typed(pooled.train, pooled), pooled.y, _typed(pooled.held_out, pooled))


def _xgboost(pooled: Pooled) -> Callable[[], Fitted]:
    from xgboost import XGBClassifier

    trees = pooled.config.trees
    model = XGBClassifier(
        n_estimators=trees.trees, max_depth=trees.depth, learning_rate=trees.rate, reg_lambda=trees.penalty,
        max_bin=pooled.config.bins.count, tree_method="hist", enable_categorical=True, random_state=1,
    )  # fmt: skip
    return _probabilities(model, _typed(pooled.train, pooled), pooled.y, _typed(pooled.held_out, pooled))


def _typed(rows: pd.DataFrame, pooled: Pooled) -> pd.DataFrame:
    """Give the categories the levels of the train rows; another level is a missing value."""
    levels = {c: pd.CategoricalDtype(sorted(pooled.train[c].dropna().unique())) for c in pooled.categories}
    return rows.astype(levels)


class _Classifier(Protocol):
    def fit(self, x: object, y: Array) -> object: ...
    def predict_proba(self, x: object) -> Array: ...


def _probabilities(model: _Classifier, x: object, y: Array, x_held_out: object) -> Callable[[], Fitted]:
    def fit() -> Fitted:
        model.fit(x, y)
        return lambda: np.asarray(model.predict_proba(x_held_out)[:, 1], np.float64)

    return fit


def _ridge(pooled: Pooled) -> Callable[[], Fitted]:
    from sklearn.linear_model import Ridge

    x, x_held_out = pooled.prepared()
    return _values(Ridge(alpha=pooled.config.model.penalty), x, pooled.y, x_held_out)


def _counts(pooled: Pooled) -> Callable[[], Fitted]:
    from sklearn.linear_model import PoissonRegressor

    x, x_held_out = pooled.prepared()
    # Its loss is a mean over rows; the joint one is a sum, of labels in units of their mean.
    alpha = pooled.config.model.penalty * float(pooled.y.mean()) / len(x)
    return _values(PoissonRegressor(alpha=alpha, max_iter=1000, tol=1e-6), x, pooled.y, x_held_out)


class _Regressor(Protocol):
    def fit(self, x: Array, y: Array) -> object: ...
    def predict(self, x: Array) -> Array: ...


def _values(model: _Regressor, x: Array, y: Array, x_held_out: Array) -> Callable[[], Fitted]:
    def fit() -> Fitted:
        model.fit(x, y)
        return lambda: np.asarray(model.predict(x_held_out), np.float64)

    return fit


BOOSTED = Plain("learn.boosting", _boosted, "fedmkt")
LOGISTIC = Plain("scikit-learn LogisticRegression", _logistic)
SPLINES = Plain("scikit-learn SplineTransformer", _splines)
GROWN = Plain("scikit-learn HistGradientBoosting", _grown)
RIDGE = Plain("scikit-learn Ridge", _ridge)
COUNTS = Plain("scikit-learn PoissonRegressor", _counts)
XGBOOST = Plain("xgboost", _xgboost, "xgboost")
