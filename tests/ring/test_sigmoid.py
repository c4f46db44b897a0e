"""The one-round sigmoid against the exact function, among two and three parties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmkt.ring import rounding, sigmoid
from fedmkt.ring.fixed import HalfWords, Words, decode, encode, reconstruct, share_out
from fedmkt.ring.sigmoid import HALF, RESULT_BITS, TABLE_BITS, series, sine_table

PARTIES = pytest.mark.parametrize("k", [2, 3])
PERIODS = pytest.mark.parametrize("period", [64, 128])
SCALE = 36


def uniform(rng: np.random.Generator, *shape: int) -> Words:
    return rng.integers(0, 2**64, size=shape, dtype=np.uint64)


def uniform32(rng: np.random.Generator, *shape: int) -> HalfWords:
    return rng.integers(0, 2**32, size=shape, dtype=np.uint32)


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def shared_sigmoid(x: np.ndarray, period: int, k: int, seed: int) -> list[HalfWords]:
    """Run the whole round among k parties and a dealer; returns the shares with the half added."""
    rng = np.random.default_rng(seed)
    chosen = series(period)
    z = share_out(encode(x, SCALE), k, [uniform(rng, x.size) for _ in range(k - 1)])
    t = uniform32(rng, x.size)
    t_shares = share_out(t, k, [uniform32(rng, x.size) for _ in range(k - 1)])
    delta = reconstruct(
        [sigmoid.prepare(sigmoid.angle_share(z[i], SCALE, chosen.log2_period), t_shares[i]) for i in range(k)]
    )
    others = [uniform32(rng, 2 * chosen.harmonics, x.size) for _ in range(k - 1)]
    dealt = [*others, sigmoid.deal_correction(t, chosen.harmonics, others)]
    shares = [sigmoid.evaluate(delta, dealt[i], chosen) for i in range(k)]
    shares[0] = shares[0] + HALF
    return shares


def value(shares: list[HalfWords]) -> np.ndarray:
    return reconstruct(shares).view(np.int32) / 2.0**RESULT_BITS


@PARTIES
@PERIODS
def test_the_shared_sigmoid_is_within_a_thousandth_up_to_8(k: int, period: int) -> None:
    x = np.linspace(-8, 8, 40_001)
    error = np.abs(value(shared_sigmoid(x, period, k, seed=k)) - logistic(x))
    print(f"P={period} k={k}: |x| <= 8 error max {error.max():.2e}, rms {np.sqrt((error**2).mean()):.2e}")
    assert error.max() < 1e-3


@PERIODS
def test_the_shared_sigmoid_is_within_seven_thousandths_up_to_its_ends(period: int) -> None:
    x = np.linspace(-0.45 * period, 0.45 * period, 40_001)
    error = np.abs(value(shared_sigmoid(x, period, 2, seed=1)) - logistic(x))
    print(f"P={period}: |x| <= {0.45 * period} error max {error.max():.2e}")
    assert error.max() < 7e-3


@PERIODS
def test_integers_add_little_to_the_error_of_the_series(period: int) -> None:
    x = np.random.default_rng(2).uniform(-0.45 * period, 0.45 * period, 50_000)
    chosen = series(period)
    ideal = 0.5 + sum(
        c / 2**16 * np.sin(2 * np.pi * k * x / period) for k, c in enumerate(chosen.coefficients, start=1)
    )
    error = value(shared_sigmoid(x, period, 2, seed=3)) - ideal
    print(f"P={period}: integers rms {error.std():.1e} max {np.abs(error).max():.1e} mean {error.mean():.1e}")
    assert error.std() < 1.2e-4
    assert np.abs(error).max() < 6e-4
    assert abs(error.mean()) < 5e-6


@PERIODS
def test_beyond_half_a_period_the_series_has_the_wrong_sign(period: int) -> None:
    """The reason for the range bit (redteam.md 2.4)."""
    half = period / 2
    x = np.array([half * 1.15, half * 1.3, half, -half])
    assert np.all(value(shared_sigmoid(x, period, 2, seed=4))[:2] < 0.05)
    assert np.allclose(value(shared_sigmoid(x, period, 2, seed=4))[2:], 0.5, atol=1e-3)


@PERIODS
def test_every_angle_gives_a_value_that_the_rounding_accepts(period: int) -> None:
    x = np.random.default_rng(5).uniform(-period, period, 50_000)
    result = reconstruct(shared_sigmoid(x, period, 2, seed=6)).view(np.int32)
    assert np.abs(result - 2**28).max() < 1.1 * 2**28 < 2**30


@PARTIES
def test_the_result_lifts_to_shares_modulo_2_to_the_64(k: int) -> None:
    rng = np.random.default_rng(7)
    x = np.linspace(-8, 8, 2001)
    shares = shared_sigmoid(x, 64, k, seed=8)
    mask = uniform32(rng, x.size)
    mask_shares = share_out(mask, k, [uniform32(rng, x.size) for _ in range(k - 1)])
    opened = reconstruct([rounding.prepare_lift(shares[i], mask_shares[i], first=i == 0) for i in range(k)])
    dealt = rounding.deal_lift(mask, 12)
    zero = rounding.DealtRounding(np.zeros_like(dealt.high), np.zeros_like(dealt.top))
    lifted = [rounding.finish_lift(opened, zero if i else dealt, 12, first=i == 0) for i in range(k)]
    assert np.abs(decode(reconstruct(lifted), 16) - logistic(x)).max() < 1e-3


@settings(max_examples=50)
@given(
    rows=st.lists(st.integers(-(2**41), 2**41 - 1), min_size=1, max_size=30),
    k=st.sampled_from([2, 3]),
    seed=st.integers(0, 2**32),
)
def test_the_shared_angle_is_at_most_k_minus_1_units_low(rows: list[int], k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = np.array(rows, dtype=np.int64).view(np.uint64)
    shares = share_out(z, k, [uniform(rng, z.size) for _ in range(k - 1)])
    angle = reconstruct([sigmoid.angle_share(share, SCALE, 6) for share in shares])
    exact = np.array([(row >> 10) % 2**32 for row in rows], dtype=np.uint32)
    assert np.all(exact - angle <= k - 1)


def test_an_angle_carries_no_bit_above_the_period() -> None:
    """Whole 64-bit words of z - t would show the carry and the upper bits (redteam.md section 0)."""
    z = np.array([5 << 10, (5 << 10) + (3 << 42), (5 << 10) - (1 << 42)], dtype=np.int64).view(np.uint64)
    angle = sigmoid.angle_share(z, SCALE, 6)
    assert angle.dtype == np.uint32
    assert list(angle) == [5, 5, 5]


def test_angles_refuse_scales_that_do_not_fill_32_bits() -> None:
    assert sigmoid.angle_share(np.array([7], np.uint64), 26, 6)[0] == 7
    for bits in (25, 59):
        with pytest.raises(ValueError, match=r"32\.\.64"):
            sigmoid.angle_share(np.zeros(1, np.uint64), bits, 6)


@pytest.mark.parametrize(("period", "end", "ridge"), [(64, 0.45, 0.0), (128, 0.47, 1e-3)])
def test_the_committed_coefficients_are_the_float_fit(period: int, end: float, ridge: float) -> None:
    count = series(period).harmonics
    x = np.linspace(-end * period, end * period, 8001)
    basis = np.stack([np.sin(2 * np.pi * k * x / period) for k in range(1, count + 1)], axis=1)
    weight = np.exp(-((x / 6) ** 2)) + 0.05
    rows = np.vstack([basis * weight[:, None], np.sqrt(ridge) * np.eye(count)])
    target = np.concatenate([(logistic(x) - 0.5) * weight, np.zeros(count)])
    fit = np.linalg.lstsq(rows, target, rcond=None)[0]
    assert np.array_equal(np.rint(fit * 2**16), series(period).coefficients)


def test_the_table_is_the_sine_and_no_entry_is_near_a_rounding_edge() -> None:
    table = sine_table()
    real = np.sin(2 * np.pi * np.arange(2**16) / 2**16) * 2**TABLE_BITS
    assert table.dtype == np.int16
    assert np.array_equal(table, np.rint(real))
    assert np.abs(real - np.floor(real) - 0.5).min() > 1e-5
    assert not table.flags.writeable


@pytest.mark.parametrize(
    ("period", "digest"),
    [
        (64, "bfdff9c35652231990337e98d43f30b8ef4e0e0a223824178863b2a31ecbae91"),
        (128, "37126df826d515c2a9233ce57269cd809a0b43a1257b02141ec4f0d3b1a1d20b"),
    ],
)
def test_the_public_constants_are_these_on_every_machine(period: int, digest: str) -> None:
    assert sigmoid.constants_digest(series(period)).hex() == digest


@PERIODS
def test_compiled_and_plain_constants_are_bit_equal(period: int) -> None:
    """A share of one in one harmonic at a time reads the public factor out of the compiled code."""
    chosen = series(period)
    delta = uniform32(np.random.default_rng(9), 3000)
    delta[:6] = [0, 1, 2**15, 2**15 - 1, 2**31, 2**32 - 1]
    factors = sigmoid.plain_factors(delta, chosen)
    for row in range(2 * chosen.harmonics):
        unit = np.zeros((2 * chosen.harmonics, delta.size), dtype=np.uint32)
        unit[row] = 1
        assert np.array_equal(sigmoid.evaluate(delta, unit, chosen).view(np.int32), factors[row])


@PERIODS
@pytest.mark.parametrize("n", [0, 1, 2047, 2048, 5001])
def test_compiled_and_plain_paths_give_the_same_bytes(period: int, n: int) -> None:
    rng = np.random.default_rng(n)
    chosen = series(period)
    t, delta = uniform32(rng, n), uniform32(rng, n)
    dealt = sigmoid.deal_angles(t, chosen.harmonics)
    assert dealt.tobytes() == sigmoid.plain_deal_angles(t, chosen.harmonics).tobytes()
    share = uniform32(rng, 2 * chosen.harmonics, n)
    assert (
        sigmoid.evaluate(delta, share, chosen).tobytes()
        == sigmoid.plain_evaluate(delta, share, chosen).tobytes()
    )


@pytest.mark.parametrize("count", [1, 2])
def test_a_correction_is_the_values_minus_the_others_and_may_overwrite_one(count: int) -> None:
    rng = np.random.default_rng(count)
    t = uniform32(rng, 4100)
    others = [uniform32(rng, 40, t.size) for _ in range(count)]
    want = (sigmoid.deal_angles(t, 20) - sum(others)).astype(np.uint32)
    assert np.array_equal(sigmoid.deal_correction(t, 20, others), want)
    assert sigmoid.deal_correction(t, 20, others, out=others[-1]) is others[-1]
    assert np.array_equal(others[-1], want)


def test_row_blocks_give_the_same_as_the_whole() -> None:
    rng = np.random.default_rng(10)
    t, delta, share = uniform32(rng, 5000), uniform32(rng, 5000), uniform32(rng, 40, 5000)
    whole = sigmoid.deal_angles(t, 20)
    part = slice(1000, 3500)
    assert np.array_equal(sigmoid.deal_angles(t[part], 20), whole[:, part])
    block = np.ascontiguousarray(share[:, part])
    assert np.array_equal(
        sigmoid.evaluate(delta[part], block, series(64)), sigmoid.evaluate(delta, share, series(64))[part]
    )


def test_a_constant_that_differs_in_its_last_bit_ruins_the_value() -> None:
    """redteam.md 2.6: the reason for one integer table and its digest in the transcript."""
    rng = np.random.default_rng(11)
    factor, secret = np.uint32(700_001), np.uint32(12_345)
    first = uniform32(rng, 1000)
    second = secret - first
    right = (first + second) * factor
    assert np.all(first * factor + second * factor == right)
    wrong = (first * factor + second * (factor + np.uint32(1)) - right).view(np.int32)
    assert np.median(np.abs(wrong)) > 2**28


def test_the_sigmoid_refuses_wrong_shapes_types_and_periods() -> None:
    t, dealt = np.zeros(5, np.uint32), np.zeros((40, 5), np.uint32)
    for bad in (0, 1, 32, 100, 256, -64):
        with pytest.raises(ValueError, match="64 and 128"):
            series(bad)
    with pytest.raises(ValueError, match="expected uint32"):
        sigmoid.deal_angles(t.astype(np.uint64), 20)
    with pytest.raises(ValueError, match="expected uint32"):
        sigmoid.deal_angles(dealt, 20)
    with pytest.raises(ValueError, match="expected uint32"):
        sigmoid.deal_correction(t, 20, [dealt[:, :4]])
    with pytest.raises(ValueError, match="other parties"):
        sigmoid.deal_correction(t, 20, [])
    with pytest.raises(ValueError, match="C order"):
        sigmoid.deal_correction(t, 20, [dealt], out=np.asfortranarray(dealt))
    with pytest.raises(ValueError, match="expected uint32"):
        sigmoid.evaluate(t, dealt[:38], series(64))
    with pytest.raises(ValueError, match="expected uint32"):
        sigmoid.prepare(t, t[:1])
