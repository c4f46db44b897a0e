"""The columns of pairs of two parties in the Gram matrix: nobody can whiten them, so that their part of it is shared.

A column of a pair is the sum of what its two owners' matrices have for it, so its products with any column are sums of
products of matrices, which `gram` computes, and of those that a party makes of its own matrix alone. On the diagonal
comes the ridge that whitening adds to all other columns. Everything here is one party's own arithmetic.

Letters: M_p the matrix of party p, own columns and shares; A the Gram matrix; d its width, m the columns of all pairs.
"""

from collections.abc import Sequence

import numpy as np

from fedmkt.contract.agreement import Contract
from fedmkt.learn import factors
from fedmkt.protocol.core import Name, Turn, Words
from fedmkt.protocol.layout import Layout
from fedmkt.protocol.prepare import RIDGE
from fedmkt.ring.kernels import Matrix, gram

Pair = tuple[Name, Name]
_SAMPLE = 1.25
"""How much larger the mean square of a factor may be over the rows of the Gram matrix than over all train rows."""
PAIR_ROWS = 4096
"""Least rows of the Gram matrix where these are a part of the train rows. A product is large on the few rows that are
far out in both numbers, one in 400 where they are independent: without some of these, passes swing there and grow. The
largest step, in units of that from all rows, is up to 9 from 400 rows, 7 from 1,000, 2 from 4,000; 3.2 swings."""


def held_slices(plan: Layout, parties: Sequence[Pair]) -> dict[Pair, slice]:
    """Say where each product of two parties' matrices stands in the vector of all their entries."""
    at, found = 0, {}
    for p, q in parties:
        found[p, q] = slice(at, at + plan.held_of(p) * plan.held_of(q))
        at = found[p, q].stop
    return found


def with_pairs(turn: Turn, plan: Layout, parties: Sequence[Pair], products: Words, own: Matrix) -> Words:
    """Return the own share of the blocks between two parties' columns, then of (d, m) products with pairs' columns.

    products : the own share of M_p' M_q for all parties, as `held_slices` says; own : rows of the own matrix.
    """
    total, held = np.zeros((plan.width, plan.width), np.uint64), plan.held(turn.me)
    shares = own[:, plan.columns_of(turn.me) :].copy()
    total[np.ix_(held, held[plan.columns_of(turn.me) :])] = gram(own, shares)
    for (p, q), where in held_slices(plan, parties).items():
        block = products[where].reshape(plan.held_of(p), plan.held_of(q))
        total[np.ix_(plan.held(p), plan.held(q))] += block
        total[np.ix_(plan.held(q), plan.held(p))] += block.T
    between = [total[plan.columns[p], plan.columns[q]].reshape(-1) for p, q in parties]
    return np.concatenate([*between, total[:, plan.own_width :].reshape(-1)])


def place_pairs(plan: Layout, a: Words, blocks: Words) -> None:
    """Put the last (d, m) entries of `blocks` into A, (d, d)."""
    places = np.arange(plan.own_width, plan.width)
    found = blocks[len(blocks) - plan.width * len(places) :].reshape(plan.width, len(places))
    a[:, places] = found
    a[places, : plan.own_width] = found[: plan.own_width].T


def pair_ridge(contract: Contract, plan: Layout) -> float:
    """Return the ridge of the columns of pairs, in units of variance: of the padded rows, which all know."""
    return RIDGE * contract.model.penalty / plan.rows


def pair_spread(contract: Contract, plan: Layout) -> float:
    """Bound the eigenvalues of X'X/n for the columns X of all pairs, with the ridge.

    The mean of (x'Uy)^2 is at most that of |x|^2 |Uy|^2: of one pair the bound of |x|^2, times the largest eigenvalue
    of yy' over the rows, which is 1 over all train rows.
    """
    return _SAMPLE * factors.MOST_NORM**2 * len(plan.pairs) + pair_ridge(contract, plan)
