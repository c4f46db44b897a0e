import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmkt.privacy.superset import epsilon, epsilon_text, listed

KEY = bytes(range(32))
WRONG = [(0.0, 0.5), (0.05, 1.0), (1.0, 0.5), (0.5, 0.0), (-0.1, 0.5), (0.1, 1.1), (math.nan, 0.5)]


def test_epsilon_is_that_of_the_documented_example():
    assert epsilon(0.05, 0.5) == pytest.approx(math.log(0.5 / 0.05))
    assert epsilon_text(0.05, 0.5) == "2.31", "rounded up: never too small"
    assert epsilon(0.0, 1.0) == 0.0 and epsilon_text(0.0, 1.0) == "0.00"


@given(drop=st.floats(0.001, 0.999), dummies=st.floats(0.001, 0.999))
def test_epsilon_bounds_every_likelihood_ratio_both_ways(drop, dummies):
    found = epsilon(drop, dummies)
    for of_common, of_others in ((1 - drop, dummies), (drop, 1 - dummies)):
        assert math.exp(-found) * (1 - 1e-9) <= of_common / of_others <= math.exp(found) * (1 + 1e-9)
    assert float(epsilon_text(drop, dummies)) >= found - 1e-8


@pytest.mark.parametrize(("drop", "dummies"), WRONG)
def test_probabilities_that_leave_somebody_unprotected_are_refused(drop, dummies):
    with pytest.raises(ValueError, match="both between 0 and 1"):
        epsilon(drop, dummies)


def test_shares_of_listed_people_are_the_probabilities():
    random = np.random.default_rng(1)
    names, common = random.integers(0, 2**63, 40_000, np.uint64), random.random(40_000) < 0.3
    found = listed(KEY, names, common, 0.1, 0.4)
    for who, share in ((common, 0.9), (~common, 0.4)):
        assert abs(found[who].mean() - share) < 4.5 * math.sqrt(share * (1 - share) / who.sum())


def test_the_choice_of_a_person_depends_on_nothing_but_key_name_case_and_probabilities():
    random = np.random.default_rng(2)
    names, common = random.integers(0, 2**63, 3000, np.uint64), random.random(3000) < 0.5
    whole, order = listed(KEY, names, common, 0.1, 0.4), random.permutation(3000)
    assert np.array_equal(listed(KEY, names[order], common[order], 0.1, 0.4), whole[order])
    assert np.array_equal(listed(KEY, names[:7], common[:7], 0.1, 0.4), whole[:7])


def test_other_keys_other_probabilities_and_the_other_case_choose_independently():
    """With one coin for both cases, who is listed only since he is common would show that he became so."""
    names, everybody = np.arange(20_000, dtype=np.uint64), np.ones(20_000, bool)
    choices = [
        listed(KEY, names, everybody, 0.5, 0.5),
        listed(KEY, names, ~everybody, 0.5, 0.5),
        listed(bytes(32), names, everybody, 0.5, 0.5),
        listed(KEY, names, everybody, 0.5, 0.51),
    ]
    for one, other in pairwise(choices):
        assert abs((one == other).mean() - 0.5) < 4.5 * 0.5 / math.sqrt(len(names))
