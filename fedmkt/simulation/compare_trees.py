"""Boosted trees of a joint run beside the same ones grown on the pooled table, in a simulation.

Reads all parties' model folders and tables, puts outline and parts together, and trains `learn.boosting` on all
columns with the random numbers that the bank drew. In mode `sides` both models are the same where the run was right;
in mode `totals`, whose rounding nobody knows, they differ by it and by trees that no partner had a split in; in mode
`nothing` by it and by what is rounded on shares.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmkt.config.job import JobConfig
from fedmkt.contract.agreement import Contract
from fedmkt.contract.files import from_toml
from fedmkt.errors import ConfigError
from fedmkt.learn import boosting, trees
from fedmkt.learn.bins import Binning
from fedmkt.learn.trees import Bools, Model, Outline, Part
from fedmkt.party.node import local_states
from fedmkt.party.outputs import LEAF_SHARES
from fedmkt.party.table import Table
from fedmkt.protocol.core import Name
from fedmkt.protocol.prepare import Columns
from fedmkt.protocol.trees.nothing import blind_growth
from fedmkt.protocol.trees.sides import tree_growth
from fedmkt.protocol.trees.sides.tree_growth import Draws
from fedmkt.protocol.trees.totals import shared_cells
from fedmkt.protocol.trees.totals.shared_gradients import value_of
from fedmkt.protocol.trees.tree_columns import table_of
from fedmkt.report.summary import ConvergencePoint
from fedmkt.simulation.comparison import Comparison

Array = NDArray[np.float64]

_SETTINGS = {
    "sides": tree_growth.settings_of,
    "totals": shared_cells.settings_of,
    "nothing": blind_growth.settings_of,
}


@dataclass(frozen=True)
class TreeSide:
    """One party's bins for train and held-out rows, its part of the model, and the rest of its model.json.

    validates : (n,), which train rows say when to stop, or None
    """

    train: trees.Table
    held_out: trees.Table
    part: Part
    validates: Bools | None
    label_train: Array | None
    label_held_out: Array | None
    header: dict[str, object]
    leaf_shares: NDArray[np.uint32] | None


def compare(config: JobConfig, folder: Path, tables: dict[str, Table]) -> Comparison:
    """Put the joint model together from its parts; grow the same trees on the pooled table."""
    contract = from_toml((folder / "contract.toml").read_text(), str(folder / "contract.toml")).contract
    sides = [
        load_side(contract, p.name, folder / "parties" / p.name / "model", tables[p.name])
        for p in config.parties
    ]
    bank = sides[0]
    if contract.align.join == "left":
        sides = [
            bank,
            *(_joined(s, *_known(folder / "parties" / config.bank.name / "model")) for s in sides[1:]),
        ]
    if bank.label_train is None or bank.label_held_out is None:
        raise ValueError("the first party has no label")
    outline = with_leaves(Outline.from_json(compact(bank.header["outline"])), sides)
    joint = Model(outline, tuple(s.part for s in sides))
    draws = Draws(bytes.fromhex(str(bank.header["draws"])))
    pooled = boosting.Labelled(_pooled([s.train for s in sides]), bank.label_train)
    rows = boosting.divided(pooled, bank.validates)
    held = rows.held or boosting.Labelled(_pooled([s.held_out for s in sides]), bank.label_held_out)
    central = boosting.fit(rows.train, _SETTINGS[contract.trees.reveal](contract), draws, held)
    points = tuple(ConvergencePoint(k, loss, 0.0) for k, loss in enumerate(central.losses, start=1))
    held_out = {p.name: s.held_out for p, s in zip(config.parties, sides, strict=True)}
    return Comparison(
        bank.label_held_out,
        trees.predict(joint, held_out),
        trees.predict(central.model, held_out),
        None,
        points,
        None,
    )


def load_side(contract: Contract, name: str, folder: Path, table: Table) -> TreeSide:
    """Read one party's model folder and put its rows into bins again; ConfigError where a file is missing."""
    try:
        header = json.loads((folder / "model.json").read_text())
        rows = [np.load(folder / f"{rows}.npy", allow_pickle=False) for rows in ("train", "held_out")]
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: {error.strerror}", "give the folder of a finished run"
        ) from None
    columns = next(s for s in local_states(table) if isinstance(s, Columns))
    binning = Binning.from_json(compact(header["binning"]))
    train, held_out = (table_of(contract, Name(name), binning, columns, r) for r in rows)
    y = [None if columns.label is None else columns.label[r] for r in rows]
    validates = np.load(folder / "validates.npy", allow_pickle=False) if contract.trees.patience else None
    shares = folder / LEAF_SHARES
    leaves = np.load(shares, allow_pickle=False) if shares.exists() else None
    return TreeSide(
        train, held_out, Part.from_json(compact(header["part"])), validates, y[0], y[1], header, leaves
    )


def _known(folder: Path) -> tuple[Bools, Bools]:
    """Tell which of the bank's train and held-out rows its partner has."""
    known, train, held_out = (
        np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("known", "train", "held_out")
    )
    return known[train], known[held_out]


def _joined(side: TreeSide, train: Bools, held_out: Bools) -> TreeSide:
    """Give a partner's tables the rows that only the bank has: all of their values are missing."""
    return replace(side, train=_placed(side.train, train), held_out=_placed(side.held_out, held_out))


def _placed(table: trees.Table, known: Bools) -> trees.Table:
    values = np.full((len(table.columns), len(known)), table.bins, np.uint8)
    values[:, known] = table.values
    return trees.Table(table.columns, values, table.bins)


def with_leaves(outline: Outline, sides: list[TreeSide]) -> Outline:
    """Add the parties' shares of the leaves up, where nobody has their values."""
    shares = [s.leaf_shares for s in sides if s.leaf_shares is not None]
    if not shares:
        return outline
    values = value_of(sum(shares[1:], shares[0]))
    grown = [
        replace(tree, leaves=tuple((node, v) for (node, _), v in zip(tree.leaves, row, strict=True)))
        for tree, row in zip(outline.trees, values.tolist(), strict=True)
    ]
    return replace(outline, trees=tuple(grown))


def compact(value: object) -> str:
    """Write JSON as the parts of a model are written."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def _pooled(parts: list[trees.Table]) -> trees.Table:
    columns = tuple(column for part in parts for column in part.columns)
    return trees.Table(columns, np.concatenate([part.values for part in parts]), parts[0].bins)
