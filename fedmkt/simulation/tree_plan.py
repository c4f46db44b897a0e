"""What boosted trees cost before anything runs: time, memory, the room for noise, and what their sides give away."""

import math

from fedmkt.contract.agreement import Contract
from fedmkt.privacy.row_bits import ColumnBins, most_from_sides, most_from_totals
from fedmkt.protocol.alignment.align import scored_rows, train_rows
from fedmkt.protocol.core import data_parties
from fedmkt.protocol.trees.nothing.blind_boosting import blind_bounds, blind_lanes
from fedmkt.protocol.trees.sides.boosting import histogram_terms
from fedmkt.protocol.trees.totals.lane_plan import lanes_of
from fedmkt.protocol.trees.totals.noisy_growth import plan_of
from fedmkt.protocol.trees.totals.shared_gradients import GRADIENT_BITS, HESSIAN_BITS
from fedmkt.ring.bounds import Bound
from fedmkt.ring.budget import FAILURE_SIGMAS, LEAST_RATIO_BITS
from fedmkt.ring.rlwe import DEGREE, MODULUS_BITS
from fedmkt.simulation.traffic import Sizes

# Seconds on one core of an AMD EPYC, measured on the bank-full data.
_PER_CELL_ENCRYPTED = 3.5e-8
"""One row of one vector, encrypted, packed and unpacked."""
_PER_CELL_ADDED = 1.5e-9
"""One row of one vector, added up for one column."""
_PER_HINT = 3e-7
"""One number of a hint, for each 4096 rows."""
_ON_SHARES, _SCORED_ON_SHARES = 4.0, 30.0
"""Mode totals beside mode sides, of all roles together."""
_SECOND_PARTNER = 1.35
"""Mode totals with two partners beside one that has the columns of both."""
_CHECKED = 1.2
"""Training with checked shares beside training without."""
_PER_BLIND_LEVEL = 0.12
"""What mode nothing adds for each level of a tree: mostly its rounds, whatever the rows."""
_PER_WORD = 3e-9
"""One number of a hint or its mask, for each vector: at partner, dealer and bank."""


def tree_seconds(sizes: Sizes) -> dict[str, float]:
    """Return the seconds of hint, trees and scoring."""
    contract, facts = sizes.contract, sizes.trees
    rows = train_rows(contract, sizes.overlap)
    vectors = sum(facts.widths())
    partners = sizes.parties[1:]
    columns = sum(len(facts.bins[p].sizes) for p in partners)
    words = DEGREE * sum(facts.bins[p].width for p in partners)
    fit = vectors * rows * (_PER_CELL_ENCRYPTED + _PER_CELL_ADDED * columns) + 3 * _PER_WORD * words * vectors
    score = 1e-8 * scored_rows(contract, sizes.overlap) * sum(level.splits for level in facts.levels)
    if contract.trees.reveal != "sides":
        more = _SECOND_PARTNER if len(partners) > 1 else 1.0
        fit, score = more * _ON_SHARES * fit, more * _SCORED_ON_SHARES * score
    if contract.trees.checked_shares:
        fit *= _CHECKED
    if contract.trees.reveal == "nothing":
        fit += _PER_BLIND_LEVEL * contract.trees.trees * contract.trees.depth
    return {"prepare": _PER_HINT * words * math.ceil(rows / DEGREE) / DEGREE, "fit": fit, "score": score}


def tree_memory(sizes: Sizes) -> int:
    """Return the bytes of hints, masks and of the largest batch of vectors, of all parties together."""
    rows, facts = train_rows(sizes.contract, sizes.overlap), sizes.trees
    holders = sizes.parties if sizes.contract.trees.reveal != "sides" else sizes.parties[1:]
    words = DEGREE * sum(facts.bins[p].width for p in holders)
    # Tags stand beside shares, and the partner keeps the bank's words until they are checked.
    copies = 8 if sizes.contract.trees.checked_shares else 4
    return 8 * len(holders) * (3 * words + copies * rows * max(facts.widths(), default=1))


def tree_bounds(sizes: Sizes) -> list[Bound]:
    """Return what a total and its noise take of a word; raises ConfigError where they do not fit."""
    if sizes.contract.trees.reveal != "sides":
        return _shared_bounds(sizes)
    terms = histogram_terms(sizes.contract, sizes.overlap, sizes.trees.bins)
    plan = terms.budget(max(len(sizes.trees.bins[p].sizes) for p in sizes.parties[1:]))
    noise = FAILURE_SIGMAS * plan.sum_deviation * math.hypot(1, 2**LEAST_RATIO_BITS)
    return [
        Bound(
            "totals",
            math.log2(math.prod(terms.packing().sizes)),
            "of g and h together",
            float(terms.packing().bits),
        ),
        Bound("noise, flooded", math.log2(noise), "8 sigma of both, at least", plan.delta_bits - 1.0),
        Bound("encrypted vectors", math.log2(terms.vectors), "of all trees", math.log2(plan.max_vectors + 1)),
    ]


def _shared_bounds(sizes: Sizes) -> list[Bound]:
    lanes_for = blind_lanes if sizes.contract.trees.reveal == "nothing" else lanes_of
    lanes = lanes_for(sizes.contract, sizes.overlap, sizes.trees.bins)
    vectors, found = lanes.vectors * len(lanes.limits), list[Bound]()
    if sizes.contract.trees.reveal == "nothing":
        found = blind_bounds(sizes.contract, lanes.rows)
    for holder in sizes.parties:
        for lane, plan in enumerate(lanes.budgets(holder)):
            noise = FAILURE_SIGMAS * plan.sum_deviation * math.hypot(1, 2**LEAST_RATIO_BITS)
            name = f"word {lane + 1} of {holder}"
            found += [
                Bound(f"{name}: noise", math.log2(noise), "8 sigma, flooded", plan.delta_bits - 1.0),
                Bound(
                    f"{name}: vectors", math.log2(vectors), "of all trees", math.log2(plan.max_vectors + 1)
                ),
            ]
    return found


def most_bits_per_row(contract: Contract, sizes: Sizes) -> float:
    """Bound the bits that the sides of all splits, or all totals, tell about the partners' columns of one row."""
    trees, partners = contract.trees, data_parties(contract)[1:]
    bins = [sizes.trees.bins[p] for p in partners]
    columns = [ColumnBins(n, a) for b in bins for n, a in zip(b.sizes, b.apart, strict=True)]
    splits, rows = trees.trees * (2**trees.depth - 1), train_rows(contract, sizes.overlap)
    if trees.reveal == "totals":
        # Of g, h and rows of each cell of each node that may be split; and the loss after each tree.
        numbers = 3 * splits * sum(c.count for c in columns) + (trees.trees if trees.patience else 0)
        return most_from_totals(columns, numbers, MODULUS_BITS, rows)
    return most_from_sides(columns, trees.max_thresholds, splits, rows)


def tree_assumptions(contract: Contract, sizes: Sizes) -> tuple[str, ...]:
    """Say what was assumed of trees, and what their sides or totals can give away of a row."""
    stops = ("no training stops early: all trees are grown",) if contract.trees.patience else ()
    return (*stops, *_usual_assumptions(contract, sizes))


def _usual_assumptions(contract: Contract, sizes: Sizes) -> tuple[str, ...]:
    noise = plan_of(contract, train_rows(contract, sizes.overlap))
    if noise is not None:
        return (
            "every tree is full, and all of its splits are of the partner's columns",
            f"nobody is told the sides of splits; all totals of a training together are {noise} for one row of the "
            f"partner's columns: noise of {noise.deviations[0] / 2 ** (GRADIENT_BITS - 1):.0f} on each total of g and "
            f"{noise.deviations[1] / 2 ** (HESSIAN_BITS + 2):.0f} of h, for {noise.levels} levels of trees, those that "
            "may be grown again included",
        )
    if contract.trees.reveal == "nothing":
        return (
            "every tree is full, and all columns have all bins",
            "no total and no side is opened; who owns the best split of each node, and to the owner which it is, is",
        )
    if contract.trees.reveal == "totals":
        two = (
            "the bank and either partner together could read which side of the other partner's splits each row takes: "
            "the protection is against each of them alone, and against the partners together",
            "the second partner has half of the splits: with all of them it would send up to twice as much",
        )
        return (
            "every tree is full, its splits are of those columns that cost most, and all cells of nodes are open",
            "nobody is told the sides of splits, and totals of the cells of one tree are of groups; those of all trees "
            f"together cannot hold more than {most_bits_per_row(contract, sizes):.1f} bits about the partners' columns "
            "of each row (an attack found 0.6 on the UCI bank data: docs/trees.md)",
            *(two if len(sizes.parties) > 2 else ()),
        )
    return (
        "every tree is full, all of its splits are of partners' columns, and all columns have all bins",
        f"the sides of the splits tell the bank at most {most_bits_per_row(contract, sizes):.1f} bits about the "
        "partners' columns of each row: with many trees nearly all of the bins they are in",
    )
