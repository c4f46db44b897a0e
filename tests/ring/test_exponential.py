"""The one-round exponential function against the exact one, among two and three parties."""

import numpy as np
import pytest

from fedmkt.ring import exponential, rounding, sigmoid
from fedmkt.ring.exponential import CONSTANT, HARMONICS, LOG2_PERIOD, MOST, RESULT_BITS
from fedmkt.ring.fixed import HalfWords, decode, encode, reconstruct, share_out

PARTIES = pytest.mark.parametrize("k", [2, 3])
PERIOD = 2.0**LOG2_PERIOD
SCALE = 36


def shared_exponential(x: np.ndarray, k: int, seed: int) -> list[HalfWords]:
    """Run the whole round among k parties and a dealer; returns the shares with the constant added."""
    rng = np.random.default_rng(seed)

    def halves(*shape: int) -> list[HalfWords]:
        return [rng.integers(0, 2**32, shape, dtype=np.uint32) for _ in range(k - 1)]

    masks = [rng.integers(0, 2**64, x.size, dtype=np.uint64) for _ in range(k - 1)]
    z = share_out(encode(x, SCALE), k, masks)
    t = rng.integers(0, 2**32, x.size, dtype=np.uint32)
    t_shares = share_out(t, k, halves(x.size))
    delta = reconstruct(
        [sigmoid.prepare(sigmoid.angle_share(z[i], SCALE, LOG2_PERIOD), t_shares[i]) for i in range(k)]
    )
    others = halves(2 * HARMONICS, x.size)
    dealt = [*others, sigmoid.deal_correction(t, HARMONICS, others)]
    shares = [exponential.evaluate(delta, d) for d in dealt]
    shares[0] = shares[0] + CONSTANT
    return shares


def value(shares: list[HalfWords]) -> np.ndarray:
    return reconstruct(shares).view(np.int32) / 2.0**RESULT_BITS


@PARTIES
@pytest.mark.parametrize(("low", "high", "bound"), [(-8, 2.5, 1e-3), (2.5, 3, 3.5e-3), (-28.8, -8, 1.5e-3)])
def test_the_series_is_the_exponential_function_up_to_20(
    k: int, low: float, high: float, bound: float
) -> None:
    x = np.linspace(low, high, 20_001)
    exact = np.exp(x)
    assert np.abs((exponential.plain_series(x) - exact) / np.maximum(1, exact)).max() < bound
    error = value(shared_exponential(x, k, seed=k)) - exponential.plain_series(x)
    print(f"k={k} {low}..{high}: integers rms {error.std():.1e}, mean {error.mean():.1e}")
    assert error.std() < 2e-3
    assert abs(error.mean()) < 5e-5


def test_beyond_20_times_the_series_bends_and_never_leaves_its_bound() -> None:
    x = np.linspace(3, 0.45 * PERIOD, 20_001)
    found = exponential.plain_series(x)
    assert found.min() > 19 and found.max() < MOST
    everywhere = np.linspace(-PERIOD / 2, PERIOD / 2, 100_001)
    assert np.abs(exponential.plain_series(everywhere)).max() < MOST
    assert MOST * 2.0**RESULT_BITS < 2**30
    shared = value(shared_exponential(everywhere, 2, seed=1))
    assert np.abs(shared).max() * 2.0**RESULT_BITS < 2**30


def test_the_integers_are_those_of_the_fit() -> None:
    """Fit again: weighted least squares with a ridge on the coefficients; relative error counts below x = 3."""
    limit, top = 0.45 * PERIOD, np.exp(3.0)
    x = np.linspace(-limit, limit, 4001)
    bent = 2 * top - top * np.exp(-np.maximum(x - 3, 0))
    target = np.where(x <= 3, np.exp(np.minimum(x, 3)), bent)
    inner = (np.exp(-((np.minimum(x, 0) / 8) ** 2)) + 0.05) / np.maximum(np.exp(np.minimum(x, 3)), 1) ** 1.5
    root = np.sqrt(np.where(x <= 3, inner, 1e-7))
    theta = 2 * np.pi * np.outer(x, np.arange(1, HARMONICS + 1)) / PERIOD
    terms = np.concatenate([np.ones((len(x), 1)), np.sin(theta), np.cos(theta)], axis=1)
    ridge = np.sqrt(1e-10 * len(x)) * np.eye(terms.shape[1])
    rows, values = np.vstack([terms * root[:, None], ridge]), np.append(target * root, np.zeros(len(ridge)))
    fitted = np.linalg.lstsq(rows, values, rcond=None)[0]
    assert np.abs(terms @ fitted - exponential.plain_series(x)).max() < 1e-4


@PARTIES
def test_the_result_lifts_to_shares_modulo_2_to_the_64(k: int) -> None:
    rng = np.random.default_rng(7)
    x = np.linspace(-8, 3, 2001)
    shares = shared_exponential(x, k, seed=8)
    mask = rng.integers(0, 2**32, x.size, dtype=np.uint32)
    others = [rng.integers(0, 2**32, x.size, dtype=np.uint32) for _ in range(k - 1)]
    masks = share_out(mask, k, others)
    opened = reconstruct([rounding.prepare_lift(shares[i], masks[i], first=i == 0) for i in range(k)])
    dealt = rounding.deal_lift(mask, 12)
    zero = rounding.DealtRounding(np.zeros_like(dealt.high), np.zeros_like(dealt.top))
    lifted = [rounding.finish_lift(opened, zero if i else dealt, 12, first=i == 0) for i in range(k)]
    assert np.abs(decode(reconstruct(lifted), RESULT_BITS - 12) - value(shares)).max() <= 2.0**-12


def test_shares_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="no angles of one size"):
        exponential.evaluate(np.zeros(3, np.uint32), np.zeros((2 * HARMONICS, 2), np.uint32))


def test_the_digest_names_the_constants() -> None:
    assert len(exponential.constants_digest()) == 32
    assert exponential.constants_digest() != sigmoid.constants_digest(sigmoid.series(64))
