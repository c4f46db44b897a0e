import numpy as np
import pytest

from fedmkt.protocol.core import Inbox, Masked, data_parties
from fedmkt.protocol.shared import (
    DealtRounding,
    Opening,
    add_up,
    add_up_halves,
    deal_rounding,
    deal_value,
    finish_rounding,
    first_only,
    open_masked,
    shared_from_seeds,
    sum_openings,
)
from tests.protocol.plain_caller import DEALER, PlainCaller, chi_square, contract_of, total

RANDOM = np.random.default_rng(1)


def words(values):
    return np.asarray(values, np.int64).view(np.uint64)


def shares_of(values, k):
    masks = [RANDOM.integers(0, 2**64, values.shape, np.uint64) for _ in range(k - 1)]
    return [words(values) - add_up(masks), *masks]


def round_on_shares(values, k, shift, label="value"):
    """Return what all parties' shares add up to after a rounding, and their openings."""
    caller = PlainCaller(contract_of(k), {})
    parties = data_parties(caller.contract)
    dealt = deal_rounding(caller.turn(DEALER), label, 0, values.shape, shift)
    own = {
        p: open_masked(caller.turn(p), label, 0, s)
        for p, s in zip(parties, shares_of(values, k), strict=True)
    }
    result = {}
    for p in parties:
        inbox = Inbox(tuple((q, Opening(Masked(own[q]))) for q in parties if q != p))
        opened = sum_openings(own[p], inbox, caller.turn(p), Opening)
        result[p] = finish_rounding(
            caller.turn(p), label, 0, opened, shift, dealt if p == parties[0] else None
        )
    return total(result), own


@pytest.mark.parametrize("k", [2, 3])
def test_what_the_dealer_deals_adds_up_to_its_value(k):
    caller = PlainCaller(contract_of(k), {})
    value = RANDOM.integers(0, 2**64, (5, 3), np.uint64)
    correction = deal_value(caller.turn(DEALER), "value", 7, value, block=2)
    parties = data_parties(caller.contract)
    shares = [
        shared_from_seeds(
            caller.turn(p), "value", 7, (5, 3), correction if p == parties[0] else None, block=2
        )
        for p in parties
    ]
    assert np.array_equal(add_up(shares), value)
    assert all(chi_square(s) != 0 for s in shares)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("shift", [1, 16, 40, 62])
def test_rounding_on_shares_is_the_floor_or_one_more(k, shift):
    values = RANDOM.integers(-(2**61), 2**61, 4000)
    values[:4] = 0, -1, 2**62 - 1, -(2**62)
    rounded, _ = round_on_shares(values, k, shift)
    assert set(np.unique(rounded - (values >> shift))) <= {0, 1}


@pytest.mark.parametrize("k", [2, 3])
def test_rounding_on_shares_is_right_on_average(k):
    values = np.full(40_000, -(3 << 14) - 5 * (1 << 10))  # -3.3125 units of 2^14
    rounded, _ = round_on_shares(values, k, 14)
    spread = np.sqrt(0.3125 * 0.6875 / len(values))
    assert abs(rounded.mean() + 3.3125) < 5 * spread


@pytest.mark.parametrize("k", [2, 3])
def test_openings_of_a_constant_are_uniform(k):
    _, own = round_on_shares(np.zeros(20_000, np.int64), k, 8)
    assert all(abs(chi_square(o)) < 4.5 for o in own.values())
    assert abs(chi_square(add_up(list(own.values())))) < 4.5


def test_two_labels_or_counts_have_unrelated_masks():
    caller = PlainCaller(contract_of(), {})
    (bank, *_) = data_parties(caller.contract)
    zero = np.zeros(1000, np.uint64)
    seen = [
        open_masked(caller.turn(bank), *address)
        for address in (("a", 0, zero), ("a", 1, zero), ("b", 0, zero), ("a", 0, zero, 1))
    ]
    assert all(not (a == b).any() for i, a in enumerate(seen) for b in seen[i + 1 :])


def test_a_mask_is_never_drawn_twice():
    caller = PlainCaller(contract_of(), {})
    (bank, *_) = data_parties(caller.contract)
    open_masked(caller.turn(bank), "a", 0, np.zeros(3, np.uint64))
    with pytest.raises(ValueError, match="second time"):
        open_masked(caller.turn(bank), "a", 0, np.ones(3, np.uint64))


def test_the_first_party_needs_the_dealers_correction_in_the_right_shape():
    caller = PlainCaller(contract_of(), {})
    (bank, *_) = data_parties(caller.contract)
    with pytest.raises(ValueError, match="missing"):
        shared_from_seeds(caller.turn(bank), "value", 0, 3, None)
    with pytest.raises(ValueError, match="another shape"):
        shared_from_seeds(caller.turn(bank), "value", 0, 3, np.zeros(4, np.uint64))
    with pytest.raises(ValueError, match="missing"):
        finish_rounding(caller.turn(bank), "value", 1, np.zeros(3, np.uint64), 4, None)


@pytest.mark.parametrize("openings", [[], [4], [3, 3]], ids=["none", "another length", "two of one sender"])
def test_openings_that_are_missing_misshapen_or_repeated_are_refused(openings):
    caller = PlainCaller(contract_of(), {})
    bank, shop = data_parties(caller.contract)
    inbox = Inbox(tuple((shop, Opening(Masked(np.zeros(n, np.uint64)))) for n in openings))
    with pytest.raises(ValueError):
        sum_openings(np.zeros(3, np.uint64), inbox, caller.turn(bank), Opening)


def test_a_public_constant_is_added_once():
    caller = PlainCaller(contract_of(3), {})
    shares = {p: np.array([first_only(caller.turn(p), -5)]) for p in data_parties(caller.contract)}
    assert total(shares).tolist() == [-5]


def test_sums_wrap_and_leave_their_terms_alone():
    a, b = np.array([2**64 - 1], np.uint64), np.array([2], np.uint64)
    assert add_up([a, b]).tolist() == [1] and a.tolist() == [2**64 - 1]
    c, d = np.array([2**32 - 1], np.uint32), np.array([2], np.uint32)
    assert add_up_halves([c, d]).tolist() == [1] and c.tolist() == [2**32 - 1]


def test_a_dealt_rounding_holds_one_correction_for_each_value():
    caller = PlainCaller(contract_of(), {})
    dealt = deal_rounding(caller.turn(DEALER), "value", 0, (4, 2), 8)
    assert isinstance(dealt, DealtRounding) and dealt.high.shape == dealt.top.shape == (4, 2)
