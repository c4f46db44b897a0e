"""Trees of splits by bins, in parts: what each owner of columns holds, and what the holder of the label holds.

Nodes are numbered: 0 is the root, 2k + 1 and 2k + 2 are the left and the right child of k. A column of `bins`
bins holds 0 .. bins - 1 for values in their order and `bins` for missing. Rows up to a split's bin go left; the
missing go to the side that was learned.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fedmkt.compiled import compiled, readable
from fedmkt.learn.glm import sigmoid

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Nodes = NDArray[np.int32]
Trend = Literal[-1, 0, 1]

MAX_DEPTH: Final = 12


@dataclass(frozen=True)
class Column:
    """One binned column; trend : +1 if the score must not fall along its bins, -1 if it must not rise."""

    name: str
    owner: str
    trend: Trend = 0


@dataclass(frozen=True, eq=False)
class Table:
    """Binned columns over the same rows; values : (columns, n) uint8, 0 .. bins, where `bins` is missing."""

    columns: tuple[Column, ...]
    values: NDArray[np.uint8]
    bins: int

    def __post_init__(self) -> None:
        if not 1 <= self.bins <= 255:
            raise ValueError(f"{self.bins} bins; 1 to 255 fit a byte beside the missing one")
        if self.values.dtype != np.uint8 or self.values.shape[:-1] != (len(self.columns),):
            raise ValueError(f"values are {self.values.shape} {self.values.dtype}, not (columns, n) uint8")
        if self.values.size and int(self.values.max()) > self.bins:
            raise ValueError(f"a bin above {self.bins}, which is the missing one")
        if len({(c.owner, c.name) for c in self.columns}) != len(self.columns):
            raise ValueError("two columns of one owner have the same name")

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.values.shape[1])


@dataclass(frozen=True)
class Decision:
    """What the owner of a column holds of a split: rows whose bin is at most `bin` go left."""

    node: int
    column: str
    bin: int
    missing_left: bool


@dataclass(frozen=True)
class Part:
    """The decisions of one owner, tree by tree."""

    owner: str
    bins: int
    trees: tuple[tuple[Decision, ...], ...]

    def to_json(self) -> str:
        """Text that `from_json` turns into an equal part."""
        return _text(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Part":
        """Inverse of `to_json`; ValueError for anything else."""
        return _part(text)


@dataclass(frozen=True)
class Tree:
    """Who splits which node, and what the leaves add to the score; both in the order of the nodes."""

    owners: tuple[tuple[int, str], ...]
    leaves: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Outline:
    """What the holder of the label holds: the trees without any threshold; base : the score before them."""

    base: float
    trees: tuple[Tree, ...]

    def to_json(self) -> str:
        """Text that `from_json` turns into an equal outline, bit for bit."""
        return _text(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Outline":
        """Inverse of `to_json`; ValueError for anything else."""
        return _outline(text)


@dataclass(frozen=True)
class Model:
    """An outline and the parts of all owners, which in a joint model lie at different places."""

    outline: Outline
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if any(len(part.trees) != len(self.outline.trees) for part in self.parts):
            raise ValueError("a part has not as many trees as the outline")
        for t, tree in enumerate(self.outline.trees):
            held = sorted((d.node, part.owner) for part in self.parts for d in part.trees[t])
            if held != sorted(tree.owners):
                raise ValueError(f"the parts of tree {t} do not hold the splits that its outline names")


def goes_left(values: NDArray[np.uint8], bins: int, bin: int, missing_left: bool) -> Bools:
    """Tell which rows of a column (n,) go left."""
    left = values <= bin
    if missing_left:
        left |= values == bins
    return left


def children(node_of_row: Nodes, nodes: Sequence[int], sides: Bools) -> Nodes:
    """Move the rows of the split `nodes` to their children; sides : (splits, n) bool, true = left."""
    if sides.shape != (len(nodes), len(node_of_row)):
        raise ValueError(f"sides are {sides.shape} for {len(nodes)} splits of {len(node_of_row)} rows")
    out = node_of_row.copy()
    if len(nodes):
        place = np.full(2 ** (MAX_DEPTH + 1), -1, dtype=np.int32)
        place[np.asarray(nodes)] = np.arange(len(nodes), dtype=np.int32)
        _move(readable(place), readable(sides), out)
    return out


def sides_of(part: Part, tree: int, table: Table) -> dict[int, Bools]:
    """Tell for each node of a tree that `part` splits which rows of its owner's table would go left there."""
    places = {c.name: i for i, c in enumerate(table.columns) if c.owner == part.owner}
    if table.bins != part.bins or not {d.column for d in part.trees[tree]} <= places.keys():
        raise ValueError(f"the table is not binned as the part of {part.owner!r} needs it")
    return {
        d.node: goes_left(table.values[places[d.column]], part.bins, d.bin, d.missing_left)
        for d in part.trees[tree]
    }


def leaf_of_rows(tree: Tree, sides: Mapping[int, Bools], rows: int) -> Nodes:
    """Send rows down a tree by the sides of all its splits: (n,) the node of each row's leaf."""
    node_of_row = np.zeros(rows, dtype=np.int32)
    for nodes in by_depth(node for node, _ in tree.owners):
        node_of_row = children(node_of_row, nodes, np.stack([sides[node] for node in nodes]))
    return node_of_row


def linear_predictor(model: Model, tables: Mapping[str, Table]) -> Floats:
    """Return the scores (log odds) of rows, (n,); tables : by owner, each with that owner's columns."""
    rows = {table.rows for table in tables.values()}
    if len(rows) != 1:
        raise ValueError("the tables of the owners do not have the same number of rows")
    scores = np.full(rows.pop(), model.outline.base)
    for t, tree in enumerate(model.outline.trees):
        all_sides: dict[int, Bools] = {}
        for part in model.parts:
            if part.trees[t]:
                all_sides |= sides_of(part, t, tables[part.owner])
        nodes, values = (np.array(x) for x in zip(*tree.leaves, strict=True))
        scores += by_node(nodes, values)[leaf_of_rows(tree, all_sides, len(scores))]
    return scores


def predict(model: Model, tables: Mapping[str, Table]) -> Floats:
    """Return the probability of label 1 per row, (n,); tables : by owner."""
    return sigmoid(linear_predictor(model, tables))


def by_depth(nodes: Iterable[int]) -> list[list[int]]:
    """Sort nodes into the levels of a tree, the root's first."""
    levels: dict[int, list[int]] = {}
    for node in sorted(nodes):
        levels.setdefault((node + 1).bit_length(), []).append(node)
    return list(levels.values())


def by_node(nodes: NDArray[np.integer], values: Floats) -> Floats:
    """Lay values out by the number of their node; 0 where there is none."""
    table = np.zeros(int(nodes.max()) + 1)
    table[nodes] = values
    return table


def _text(raw: dict[str, object]) -> str:
    return json.dumps(raw, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _part(text: str) -> Part:
    try:
        raw = json.loads(text)
        trees = tuple(
            tuple(Decision(d["node"], d["column"], d["bin"], d["missing_left"]) for d in tree)
            for tree in raw["trees"]
        )
        part = Part(raw["owner"], raw["bins"], trees)
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("not the part of a model") from error
    decisions = [d for tree in trees for d in tree]
    if not (
        set(raw) == {"owner", "bins", "trees"}
        and isinstance(part.owner, str)
        and _is_whole(part.bins, 1, 255)
        and all(
            _is_node(d.node)
            and isinstance(d.column, str)
            and _is_whole(d.bin, 0, part.bins - 1)
            and isinstance(d.missing_left, bool)
            for d in decisions
        )
        and all(len({d.node for d in tree}) == len(tree) for tree in trees)
    ):
        raise ValueError("not the part of a model")
    return part


def _outline(text: str) -> Outline:
    try:
        raw = json.loads(text)
        trees = tuple(
            Tree(
                tuple((node, owner) for node, owner in tree["owners"]),
                tuple((node, _number(value)) for node, value in tree["leaves"]),
            )
            for tree in raw["trees"]
        )
        if set(raw) != {"base", "trees"}:
            raise KeyError
        outline = Outline(_number(raw["base"]), trees)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError("not the outline of a model") from error
    if not all(map(_is_tree, trees)):
        raise ValueError("not the outline of a model")
    return outline


def _is_tree(tree: Tree) -> bool:
    split, leaves = [node for node, _ in tree.owners], [node for node, _ in tree.leaves]
    if not all(_is_node(node) for node in (*split, *leaves)):
        return False
    # Each split has two children, and each node but the root a parent.
    expected = sorted({0, *(2 * node + side for node in split for side in (1, 2))})
    return sorted((*split, *leaves)) == expected and all(isinstance(owner, str) for _, owner in tree.owners)


def _number(value: object) -> float:
    if not isinstance(value, float) or not np.isfinite(value):
        raise TypeError
    return value


def _is_node(value: object) -> bool:
    return _is_whole(value, 0, 2 ** (MAX_DEPTH + 1) - 2)


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


@compiled
def _move(place: Nodes, sides: Bools, node_of_row: Nodes) -> None:
    for i in range(len(node_of_row)):
        split = place[node_of_row[i]]
        if split >= 0:
            node_of_row[i] = 2 * node_of_row[i] + (1 if sides[split, i] else 2)
