"""What the bank learns of the partner's binned columns while boosted trees are grown, in bits per row.

    python -m benchmarks.tree_leak --data bank-full.csv.gz

UCI Bank Marketing (bank-full, `duration` dropped): the bank has the customers' columns, the partner those of its call
centre. The trees are those of the plain twin, which a joint training equals split for split, so the bank's transcript
can be written down from them. Three measures, each beside the joint entropy of the partner's columns:

sides        the bank is told which side every row takes at each of the partner's splits, and knows the splits: the
             entropy of the classes of rows that they make. Exact: nothing else in the transcript tells a row more
totals       the bank knows its own columns, the labels, its own splits, and for every node of every tree how many
             rows of each label are in each bin of each of the partner's columns, more than it is told. It begins with
             the frequencies of the bins, and for each node moves the probabilities of the rows that may be in it
             towards these counts (iterated proportional fitting, rows in a node by as much as they may be in it). A
             stated attack, no bound

Needs pandas. Prints JSON.
"""

import argparse
import json
import time
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedmkt.compiled import kernel
from fedmkt.crypto.prg import SeededRandom
from fedmkt.learn import boosting
from fedmkt.learn.splits import Settings
from fedmkt.learn.trees import Column, Model, Part, Table, Tree, sides_of
from fedmkt.privacy.row_bits import ColumnBins, bits_of_guesses, bits_per_row, entropy, most_from_sides

BANK = ("age", "job", "marital", "education", "default", "balance", "housing", "loan")
Bits = NDArray[np.bool_]
Floats = NDArray[np.float64]


def read(path: str, bins: int) -> tuple[Table, Floats]:
    """Cut numbers into bins of about equal counts; a level of a category is a bin if there are enough bins."""
    frame = pd.read_csv(path, sep=";").drop(columns="duration")
    y = np.asarray(frame.pop("y") == "yes", np.float64)
    values: list[NDArray[np.int64]] = []
    for name in frame:
        column = frame[name]
        if column.dtype.kind in "if":
            edges = np.unique(np.quantile(column, np.arange(1, bins) / bins, method="lower"))
            values.append(np.asarray(np.searchsorted(edges, column), np.int64))
        else:
            # By the share of responders, as an owner that knows them would order it; neighbours share a bin.
            order = pd.Series(y).groupby(column).mean().rank(method="first") - 1
            shared = max(1.0, len(order) / bins)
            values.append(np.asarray(column.map(order) // shared, np.int64))
    columns = tuple(Column(str(name), "bank" if name in BANK else "partner") for name in frame)
    return Table(columns, np.ascontiguousarray(np.stack(values).astype(np.uint8)), bins), y


def walk(model: Model, table: Table) -> tuple[list[Bits], list["Node"]]:
    """List the partner's sides of all rows, and the nodes of all trees."""
    told: list[Bits] = []
    nodes: list[Node] = []
    parts = {part.owner: part for part in model.parts}
    for number, tree in enumerate(model.outline.trees):
        sides = {owner: sides_of(part, number, table) for owner, part in parts.items()}
        nodes += nodes_of(tree, parts["partner"], number, sides, table)
        told += sides["partner"].values()
    return told, nodes


class Node:
    """A node as the bank sees it: rows that its own splits admit, ranges of the partner's columns, rows inside."""

    def __init__(self, own: Bits, low: NDArray[np.int64], high: NDArray[np.int64], inside: Bits) -> None:
        self.own = own
        self.low = low
        self.high = high
        self.inside = inside


def nodes_of(
    tree: Tree, part: Part, number: int, sides: dict[str, dict[int, Bits]], table: Table
) -> list[Node]:
    """Walk down a tree; the partner's columns are counted from 0."""
    names = [c.name for c in table.columns if c.owner == "partner"]
    decisions = {d.node: d for d in part.trees[number]}
    owners, count = dict(tree.owners), len(names)
    whole = np.ones(table.rows, np.bool_)
    open_nodes = {0: Node(whole, np.zeros(count, np.int64), np.full(count, table.bins, np.int64), whole)}
    found = []
    while open_nodes:
        place, node = open_nodes.popitem()
        found.append(node)
        if place not in owners:
            continue
        owner = owners[place]
        left = sides[owner][place]
        for child, side in ((2 * place + 1, left), (2 * place + 2, ~left)):
            own, low, high = node.own, node.low.copy(), node.high.copy()
            if owner == "bank":
                own = own & side
            else:
                column, edge = names.index(decisions[place].column), decisions[place].bin
                if child % 2:
                    high[column] = min(high[column], edge)
                else:
                    low[column] = max(low[column], edge + 1)
            open_nodes[child] = Node(own, low, high, node.inside & side)
    return found


def fit_counts(
    guess: Floats, starts: NDArray[np.int64], rows: NDArray[np.int64], low: NDArray[np.int64],
    high: NDArray[np.int64], targets: Floats, strength: float,
) -> None:  # fmt: skip
    """Move the probabilities of some rows towards the counts of one node; columns begin at `starts`."""
    columns, total = len(starts) - 1, starts[-1]
    expected = np.zeros(total)
    mass = np.empty(columns)
    for turn in range(2):
        for i in rows:
            inside = 1.0
            for f in range(columns):
                share = 0.0
                for c in range(starts[f] + low[f], min(starts[f] + high[f] + 1, starts[f + 1])):
                    share += guess[i, c]
                mass[f] = share
                inside *= share
            if inside < 1e-4:
                continue
            for f in range(columns):
                weight = inside / mass[f]
                for c in range(starts[f] + low[f], min(starts[f] + high[f] + 1, starts[f + 1])):
                    if turn == 0:
                        expected[c] += weight * guess[i, c]
                    else:
                        guess[i, c] *= max(1e-6, 1 + strength * weight * (expected[c] - 1))
                if turn == 1:
                    whole = 0.0
                    for c in range(starts[f], starts[f + 1]):
                        whole += guess[i, c]
                    for c in range(starts[f], starts[f + 1]):
                        guess[i, c] /= whole
        if turn == 0:
            for c in range(total):
                expected[c] = min(20.0, targets[c] / expected[c]) if expected[c] > 1e-9 else 1.0


def attack_totals(
    nodes: list[Node], hidden: NDArray[np.uint8], y: Floats, sweeps: int, strength: float
) -> float:
    """Return the bits per row that the counts of all nodes give away to proportional fitting."""
    fast = kernel(fit_counts, keep=False)
    bins = [int(column.max()) + 1 for column in hidden]
    starts = np.concatenate([[0], np.cumsum(bins)]).astype(np.int64)
    places = hidden.astype(np.int64) + starts[:-1, None]
    shares = np.bincount(places.ravel(), minlength=starts[-1]) / hidden.shape[1]
    guess = np.tile(shares, (hidden.shape[1], 1))
    for _ in range(sweeps):
        for node in nodes:
            for label in (0, 1):
                rows = np.flatnonzero(node.own & (y == label))
                counts = np.bincount(places[:, node.inside & (y == label)].ravel(), minlength=starts[-1])
                if len(rows):
                    fast(guess, starts, rows, node.low, node.high, counts.astype(np.float64), strength)
    return bits_of_guesses([guess[:, a:b] for a, b in pairwise(starts)], hidden)


def main() -> None:
    """Train, attack, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--trees", type=int, default=50)
    parser.add_argument("--bins", type=int, default=32)
    parser.add_argument("--sweeps", type=int, default=1, help="of the attack on totals; 0 = none")
    parser.add_argument("--strength", type=float, default=0.03)
    options = parser.parse_args()
    began = time.process_time()
    table, y = read(options.data, options.bins)
    fitted = boosting.fit(
        boosting.Labelled(table, y), Settings(trees=options.trees), SeededRandom(b"tree leak")
    )
    told, nodes = walk(fitted.model, table)
    hidden = table.values[[c.owner == "partner" for c in table.columns]]
    columns = [ColumnBins(int(column.max()) + 1) for column in hidden]
    splits = sum(len(part) for p in fitted.model.parts if p.owner == "partner" for part in p.trees)
    found = {
        "rows": table.rows,
        "partner's columns": round(entropy(hidden), 2),
        "column by column": round(sum(entropy(column[None]) for column in hidden), 2),
        "partner's splits": splits,
        "sides": round(bits_per_row(np.stack(told), hidden), 2),
        "sides, column by column": round(sum(bits_per_row(np.stack(told), h[None]) for h in hidden), 2),
        "bound of sides": round(most_from_sides(columns, options.bins, splits, table.rows), 2),
        "totals": round(attack_totals(nodes, hidden, y, options.sweeps, options.strength), 2),
    }
    print(json.dumps({**found, "CPU s": round(time.process_time() - began)}, indent=1))


if __name__ == "__main__":
    main()
