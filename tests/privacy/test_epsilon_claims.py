"""Every epsilon that is claimed, put to a statistical test: the claim holds, and half of it is found out.

The tester is that of `tests/learn/test_noisy.py`: from many draws in two worlds it bounds epsilon from below, with 99 %
confidence (DP-Auditorium's idea). It is right to reject half of a claim only if the noise is not much larger than the
claim needs, and if it can tell at all: that is what the halves show. What is noisy here are the totals of a training,
and the lists of the hidden match.
"""

import numpy as np
import pytest
from scipy.stats import beta

from fedmkt.crypto.prg import SeededRandom
from fedmkt.learn.noisy import Bins
from fedmkt.privacy.noise import delta_of, plan_noise
from fedmkt.privacy.superset import epsilon, listed
from fedmkt.protocol.trees.totals.noisy_growth import draw_noise
from fedmkt.protocol.trees.totals.shared_gradients import LIMITS
from tests.learn.test_noisy import least_epsilon

ROWS, COLUMNS = 40, 3


def of_totals(claimed, draws, seed):
    """Bound the epsilon of a row from below, by what a training of one level opens.

    The row is the worst there is: its g at the limit, so that its h is 0, and in another cell of each column in the
    other world. Given its totals without noise, the logarithm of how much likelier the other world is, is the best
    score (Neyman and Pearson). Each node that noise is drawn for is a training of its own.
    """
    plan = plan_noise(claimed, ROWS, 1, COLUMNS, LIMITS)
    bins = Bins((2,) * COLUMNS, (False,) * COLUMNS, 2)
    moved, scores = LIMITS[0], []
    for sign in (-1, 1):
        noise = draw_noise(plan, bins, draws, SeededRandom(bytes([seed, sign + 1]) * 16))[..., 0]
        # The middle of both worlds is taken off: the row is in the first cell of each column, or in the second.
        away = noise[:, :, 0] - noise[:, :, 1] - sign * moved
        scores.append(-away.sum(axis=1) * moved / plan.deviations[0] ** 2)
    return least_epsilon(scores, delta_of(ROWS))


def of_lists(drop, dummies, people, seed):
    """Bound the epsilon of a list from below: by who is on it, and by who is not. Each person is a draw."""
    names = np.arange(people, dtype=np.uint64)
    worlds = [
        listed(bytes([seed, world]) * 16, names, np.full(people, bool(world)), drop, dummies)
        for world in (0, 1)
    ]
    found = []
    for one, other in (worlds, worlds[::-1]):
        for hit, false in ((one, other), (~one, ~other)):
            hits, falses = int(hit.sum()), int(false.sum())
            least, most = (
                beta.ppf(0.005, hits, people - hits + 1),
                beta.ppf(0.995, falses + 1, people - falses),
            )
            found.append(float(np.log(least / most)))
    return max(found)


@pytest.mark.parametrize("claimed", [1.0, 4.0])
def test_the_epsilon_of_a_training_holds_and_half_of_it_is_found_out(claimed):
    found = of_totals(claimed, 60_000, 1)
    assert claimed / 2 < found < claimed


@pytest.mark.parametrize(("drop", "dummies"), [(0.05, 0.5), (0.2, 0.3), (0.01, 0.9)])
def test_the_epsilon_of_a_list_holds_and_half_of_it_is_found_out(drop, dummies):
    found = of_lists(drop, dummies, 20_000, 2)
    assert epsilon(drop, dummies) / 2 < found < epsilon(drop, dummies)


@pytest.mark.slow  # ten times as many draws, five seeds
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("claimed", [0.5, 1.0, 2.0, 4.0])
def test_no_claim_is_rejected_and_each_half_is(claimed, seed):
    assert claimed / 2 < of_totals(claimed, 600_000, seed) < claimed
    for drop, dummies in ((0.05, 0.5), (0.2, 0.3), (0.01, 0.9), (0.4, 0.45)):
        assert epsilon(drop, dummies) / 2 < of_lists(drop, dummies, 200_000, seed) < epsilon(drop, dummies)
