"""Noise on totals: the accountant against a formula of its own, and the noise against the accountant."""

import math

import numpy as np
import pytest

from fedmkt.privacy.noise import (
    FLOODING_DELTA,
    FLOODING_RHO,
    delta_of,
    epsilon_of,
    most_rho,
    plan_noise,
    rho_of,
)

LIMITS = (34, 67)


def by_formula(rho: float, delta: float) -> float:
    """Canonne, Kamath, Steinke 2020, proposition 12, over a fine grid of orders."""
    order = 1 + np.exp(np.linspace(np.log(1e-3), np.log(1e5), 200_000))
    at = order * rho + np.log1p(-1 / order) - np.log(delta * order) / (order - 1)
    return float(at.min())


@pytest.mark.parametrize("rho", [0.005, 0.02, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("delta", [1e-4, 1e-6])
def test_the_accountant_is_the_formula(rho: float, delta: float) -> None:
    expected = by_formula(rho, delta - FLOODING_DELTA)
    # The accountant looks at some orders only, so it may say more, and never says less.
    assert expected - 1e-9 <= epsilon_of(rho, delta) <= expected * 1.02 + 1e-9


@pytest.mark.parametrize("epsilon", [0.5, 1, 2, 4, 8])
def test_the_noise_keeps_epsilon_and_is_hardly_more_than_that(epsilon: float) -> None:
    plan = plan_noise(epsilon, 31_744, 66, 15, LIMITS)
    spent = (
        66 * 15 * sum((limit / s) ** 2 for limit, s in zip(LIMITS, plan.deviations, strict=True))
        + FLOODING_RHO
    )
    assert plan.rho == pytest.approx(spent) == rho_of(66, 15, LIMITS, plan.deviations)
    assert 0.97 * epsilon < epsilon_of(plan.rho, plan.delta) <= epsilon
    assert plan.delta == delta_of(31_744) <= 31_744**-1.1
    less = tuple(math.floor(0.95 * s) for s in plan.deviations)
    assert epsilon_of(rho_of(66, 15, LIMITS, less), plan.delta) > epsilon  # type: ignore[arg-type]


def test_more_levels_and_columns_need_more_noise_by_their_root() -> None:
    few, many = (plan_noise(4, 20_000, levels, 10, LIMITS) for levels in (30, 120))
    assert many.deviations[0] / few.deviations[0] == pytest.approx(2, rel=0.01)
    assert str(few) == f"epsilon 4 at delta {20_000**-1.1:.1e}"


def test_two_trainings_add_up_to_less_than_twice_their_epsilon() -> None:
    delta, rho = delta_of(20_000), most_rho(4, delta_of(20_000))
    assert 4 < epsilon_of(2 * rho, delta) < 8


def test_what_no_noise_can_keep_is_refused() -> None:
    with pytest.raises(ValueError, match="no noise"):
        plan_noise(0.05, 31_744, 66, 15, LIMITS)
    with pytest.raises(ValueError, match="delta"):
        epsilon_of(1.0, 2.0**-40)
