"""Shared gradients against the sigmoid in floats, and what is seen of them."""

from dataclasses import replace

import numpy as np
import pytest

from fedmkt.protocol.core import Masked
from fedmkt.protocol.trees.totals.shared_gradients import (
    FAR,
    LIMITS,
    NEAR,
    UNIT,
    Gradients,
    deal_gradients,
    open_angles,
    open_gradients,
    series_of,
    take_gradients,
)
from tests.protocol.plain_caller import BANK, DEALER, SHOP, PlainCaller, chi_square, contract_of


def run(scores, y, series=FAR, seed=1, count=0, change=lambda m: m):
    """Play all roles; scores : (n,) log odds. Returns g and h, and what was sent."""
    batch = Gradients(count, SHOP, len(scores), series.period)
    caller = PlainCaller(contract_of(2), {}, seed=seed)
    turns = {p: caller.turn(p) for p in (BANK, SHOP)}
    share = np.random.default_rng(seed).integers(0, 2**32, len(scores), np.uint32)
    words = np.rint(scores / UNIT).astype(np.int64).astype(np.uint32)
    shares, labels = {SHOP: share, BANK: words - share}, {BANK: y.astype(np.uint8), SHOP: None}
    dealt = {BANK: deal_gradients(caller.turn(DEALER), batch), SHOP: None}
    other = {BANK: SHOP, SHOP: BANK}
    angles = {p: open_angles(turns[p], batch, shares[p]) for p in other}
    values = {
        p: open_gradients(turns[p], batch, angles[p][1], change(angles[other[p]][0]), dealt[p], labels[p])
        for p in other
    }
    found = [
        take_gradients(turns[p], batch, values[p][1], change(values[other[p]][0]), dealt[p]) for p in other
    ]
    sent = [m.angles.words for m, _ in angles.values()] + [m.values.words for m, _ in values.values()]
    sent += [dealt[BANK].angles, *dealt[BANK].high, *dealt[BANK].top]
    g = (found[0][0] + found[1][0]) << np.uint64(16)
    h = (found[0][1] + found[1][1]).astype(np.uint32).view(np.int32).astype(np.int64)
    return np.stack([g.view(np.int64) >> 16, h]), sent


def truth(scores, y):
    p = 1 / (1 + np.exp(-scores))
    return np.stack([32 * (p - y), 256 * p * (1 - p)])


@pytest.mark.parametrize(
    ("series", "most", "error"),
    [
        (FAR, 8, (1e-3, 2e-3)),
        (FAR, FAR.most, (4e-3, 4e-3)),
        (NEAR, 8, (1e-3, 2e-3)),
        (NEAR, NEAR.most, (4e-3, 5e-3)),
    ],
)
def test_gradients_are_those_of_the_sigmoid_up_or_down_to_an_integer(series, most, error):
    random = np.random.default_rng(int(most))
    scores, y = random.uniform(-most, most, 5000), random.random(5000) < 0.3
    found, _ = run(scores, y, series)
    exact = truth(scores, y)
    for value, wanted, scale, wrong, limit in zip(found, exact, (32, 256), error, LIMITS, strict=True):
        assert np.abs(value - wanted).max() < 1 + scale * wrong
        assert np.abs(value).max() <= limit


def test_rounding_has_the_right_mean():
    scores, y = np.full(40_000, -1.3), np.zeros(40_000)
    found, _ = run(scores, y)
    exact = truth(scores, y)[:, 0]
    for value, wanted, error in zip(found, exact, (32 * 1e-3, 256 * 2e-3), strict=True):
        assert abs(value.mean() - wanted) < 0.02 + error
        assert 0.1 < np.std(value) < 0.6


@pytest.mark.parametrize("series", [NEAR, FAR])
def test_the_committed_coefficients_are_the_float_fit(series):
    x = np.linspace(-series.most, series.most, 4001)
    p = 1 / (1 + np.exp(-x))
    weight = np.sqrt(np.exp(-((x / 6) ** 2)) + 0.05)
    angles = 2 * np.pi * np.outer(x, np.arange(series.cosines.harmonics + 1)) / series.period
    basis = np.cos(angles)
    fit = np.linalg.lstsq(basis * weight[:, None], p * (1 - p) * weight, rcond=None)[0]
    assert np.array_equal(np.rint(fit * 2**16), [series.constant, *series.cosines.coefficients])
    assert np.abs(basis @ fit - p * (1 - p)).max() < 5e-3
    if series is NEAR:  # the other one is tested where it stands
        sines = np.sin(angles[:, 1:])
        fit = np.linalg.lstsq(sines * weight[:, None], (p - 0.5) * weight, rcond=None)[0]
        assert np.array_equal(np.rint(fit * 2**16), series.sines.coefficients)
        assert np.abs(sines @ fit + 0.5 - p).max() < 4e-3


def test_there_are_two_series():
    assert series_of(32) is NEAR and series_of(64) is FAR
    with pytest.raises(ValueError, match="no series of period 16"):
        series_of(16)


def test_what_is_seen_is_uniform_whatever_scores_and_labels():
    sizes = set()
    for scores, y in ((np.zeros(20_000), np.zeros(20_000)), (np.full(20_000, 5.0), np.ones(20_000))):
        _, sent = run(scores, y)
        assert all(abs(chi_square(part)) < 5 for part in sent)
        sizes.add(tuple(part.nbytes for part in sent))
    assert len(sizes) == 1


def cut(message):
    if hasattr(message, "angles"):
        return replace(message, angles=Masked(message.angles.words[:-1]))
    return replace(message, values=Masked(message.values.words[:, :-1]))


@pytest.mark.parametrize("name", ["TreeAngles", "TreeGradients"])
def test_openings_of_another_length_are_refused(name):
    with pytest.raises(ValueError, match=r"shape|are not"):
        run(np.zeros(50), np.zeros(50), change=lambda m: cut(m) if type(m).__name__ == name else m)
