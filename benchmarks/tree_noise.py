"""What noise on totals costs: AUC of boosted trees in mode totals against epsilon.

    python -m benchmarks.tree_noise --data bank-full.csv.gz

UCI Bank Marketing (bank-full, `duration` dropped), columns parted as in `tree_leak`. Trees are those of the plain twin
(`learn/noisy.py`), which a joint training equals where its noise and rounding are the same; noise is what a contract
with max_resumes = 0 plans. For each epsilon and shape of trees the mean over splits of 70 : 30, each with another
seed, and its standard deviation over them. Beside them the same trees without noise, and of the bank's columns alone.

Prints JSON.
"""

import argparse
import json
import os

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.tree_leak import BANK, Floats, read
from fedmkt.learn import boosting, noisy
from fedmkt.learn.boosting import Labelled
from fedmkt.learn.cells import Counts
from fedmkt.learn.noisy import Bins
from fedmkt.learn.splits import Settings
from fedmkt.learn.trees import Table, linear_predictor
from fedmkt.privacy.noise import plan_noise
from fedmkt.protocol.trees.totals.noisy_growth import draw_noise
from fedmkt.protocol.trees.totals.shared_gradients import LIMITS

SHAPES = ((5, 3, 0.6, 8), (10, 2, 0.5, 4), (10, 3, 0.5, 4), (20, 3, 0.3, 8), (50, 5, 0.1, 32))
"""Trees, depth, rate and bins."""
EPSILONS = (None, 8.0, 4.0, 2.0, 1.0)


def settings(trees: int, depth: int, rate: float, least: float, penalty: float) -> Settings:
    """Set what noise needs: leaves of many rows, and a penalty."""
    return Settings(
        trees=trees, depth=depth, rate=rate, penalty=penalty, min_rows=0, min_weight=least, gradient_bits=6,
        hessian_bits=6,
    )  # fmt: skip


def bins_of(table: Table) -> Bins:
    """Return which cells there are; nothing is missing in these data."""
    return Bins(tuple(int(v.max()) + 1 for v in table.values), (False,) * len(table.columns), table.bins)


def rows_of(table: Table, rows: np.ndarray) -> Table:
    """Take some rows."""
    return Table(table.columns, np.ascontiguousarray(table.values[:, rows]), table.bins)


def auc_of(model: boosting.Fitted, held: Table, y: Floats) -> float:
    """Return the AUC of held-out rows."""
    tables = {
        owner: Table(
            tuple(c for c in held.columns if c.owner == owner),
            np.ascontiguousarray(held.values[[c.owner == owner for c in held.columns]]),
            held.bins,
        )
        for owner in dict.fromkeys(c.owner for c in held.columns)
    }
    return float(roc_auc_score(y, linear_predictor(model.model, tables)))


def run(
    train: Labelled, held: Table, y: Floats, shape: tuple[int, int, float, int], epsilon: float | None
) -> float:
    """Grow the trees of one shape under one epsilon, or without noise and with what that needs."""
    trees, depth, rate, _ = shape
    bins = bins_of(train.table)
    if epsilon is None:
        found = boosting.fit(train, settings(trees, depth, rate, 12.5, 1.0), os.urandom)
        return auc_of(found, held, y)
    plan = plan_noise(epsilon, train.table.rows, trees * depth, len(bins.values), LIMITS)

    def noise(nodes: int) -> Counts:
        return draw_noise(plan, bins, nodes, os.urandom)

    found = noisy.fit(train, bins, settings(trees, depth, rate, 50.0, 200.0), noise, os.urandom)
    return auc_of(found, held, y)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="bank-full.csv or .csv.gz")
    parser.add_argument("--splits", type=int, default=6)
    arguments = parser.parse_args()
    rows = []
    for shape in SHAPES:
        table, y = read(arguments.data, shape[3])
        found: dict[str, list[float]] = {}
        for split in range(arguments.splits):
            order = np.random.default_rng(split).permutation(table.rows)
            cut = int(0.7 * table.rows)
            train = Labelled(rows_of(table, order[:cut]), y[order[:cut]])
            held, answers = rows_of(table, order[cut:]), y[order[cut:]]
            for epsilon in EPSILONS:
                score = run(train, held, answers, shape, epsilon)
                found.setdefault("no noise" if epsilon is None else f"{epsilon:g}", []).append(score)
            own = np.array([c.name in BANK for c in table.columns])
            alone = Table(
                tuple(c for c in table.columns if c.name in BANK), train.table.values[own], table.bins
            )
            score = run(
                Labelled(alone, train.y),
                Table(alone.columns, held.values[own], table.bins),
                answers,
                shape,
                None,
            )
            found.setdefault("bank alone", []).append(score)
        trees, depth, rate, bins = shape
        means = {k: [round(float(np.mean(v)), 4), round(float(np.std(v)), 4)] for k, v in found.items()}
        rows.append({"trees": trees, "depth": depth, "rate": rate, "bins": bins, "auc": means})
        print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
