"""Static bounds of the main job: every value that is rounded on shares, from contract and public shapes.

Source: protocols.md section 0 rule 7; redteam.md 2.5. A run whose bounds do not hold is refused with the
numbers.
"""

from math import log2, sqrt

from fedmkt.contract.agreement import Contract
from fedmkt.errors import ConfigError
from fedmkt.protocol.alignment.align import train_rows_at_least
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import Name
from fedmkt.protocol.layout import FIT, FRACTION_BITS, WEIGHT_BITS, Layout, layout, residual_bits
from fedmkt.protocol.linear.correlation import COLUMN_BITS, UNIT
from fedmkt.protocol.linear.gram import (
    BLOCK_BITS,
    FACTOR_BITS,
    INVERSE_BITS,
    MAX_SCALE,
    STEP_BITS,
    least_rows,
)
from fedmkt.protocol.linear.identity import PREDICTOR_BITS
from fedmkt.protocol.linear.links import is_identity, most_predictor, most_residual, most_value, result_bits
from fedmkt.protocol.linear.logistic import GRADIENT_BITS, MOST_MOMENTUM
from fedmkt.protocol.linear.matrices import gram_rows
from fedmkt.protocol.linear.pair_gram import pair_spread
from fedmkt.protocol.linear.path import path_bound
from fedmkt.protocol.linear.range import COARSE_BITS, PAIR_NORM
from fedmkt.protocol.linear.scoring import score_bits
from fedmkt.protocol.linear.standard_errors import CURVATURE_BITS, held_out_rows
from fedmkt.protocol.prepare import RIDGE, START_RIDGE, Shape
from fedmkt.ring.bounds import Bound, check

_MAX_INVERSE = {2: 8.0, 3: 43.0}
"""Largest entry of Y and A Y, by the number of parties: Newton-Schulz from 2/k I doubles at most every iteration."""
_MAX_HIDDEN_INVERSE = 32.0
"""The same with hidden match: from 2^-l I, 4 + l iterations, and the partner's own block need not be the identity."""


_MAX_UNWHITENED_INVERSE = {2: 32.0, 3: 86.0}
"""With products of pairs, which are not white: from 2^-l 2/k I, l + 1 more iterations. A is at most its spread."""


def job_bounds(contract: Contract, overlap: Overlap, shapes: dict[Name, Shape]) -> list[Bound]:
    """List the bound of every rounded value of the main job."""
    model = contract.model
    plan = layout(contract, overlap, {p: s.columns for p, s in shapes.items()}, FIT)
    norm = max(*(float(s.row_norm) for s in shapes.values()), PAIR_NORM if plan.pairs else 0.0)
    d, w = float(plan.width), model.max_weight
    n, rows = float(plan.rows), float(gram_rows(contract, plan))
    real = max(1.0, train_rows_at_least(contract, overlap))
    # Penalty rows hold sqrt(penalty) / spread, spread >= sqrt(RIDGE penalty / rows): at most sqrt(rows / RIDGE), and
    # sqrt(2) times as much of an earlier model's columns.
    # The spread of products of pairs is 1.
    stiff = max(sqrt(n / (START_RIDGE if model.start else RIDGE)), sqrt(model.penalty) if plan.pairs else 0.0)
    residual, value = most_residual(contract), most_value(contract)
    # Along a path, the largest penalty is so many times the one that fills these rows; the inverse makes up for it.
    grown = max(model.penalties, default=1.0) / min(model.penalties, default=1.0)
    gradient = n * norm * residual + grown * stiff * stiff * w
    scaled = (n * norm * residual + sqrt(grown) * stiff * stiff * w) / 2 ** _power(plan)
    factor = 2.0**FACTOR_BITS * 2 ** _power_of(rows) / min(rows, real)
    reach = MAX_SCALE * 2 ** _power(plan) / real
    x, w_scale, r = FRACTION_BITS, WEIGHT_BITS, residual_bits(contract)
    omega, most = _omega(contract, norm, len(shapes) + len(plan.pairs)), _MAX_INVERSE[len(shapes)]
    if plan.pairs:
        most = max(_MAX_UNWHITENED_INVERSE[len(shapes)], pair_spread(contract, plan))
    top = 10**contract.scores.decimals
    steepest = scaled * reach
    if contract.align.hidden:
        # All rows but m are 0 in the gradient, which the bank's scale divides by the same m.
        steepest = MAX_SCALE * (norm * residual + stiff * stiff * w / real)
        most = _MAX_HIDDEN_INVERSE
    step = d * most * steepest + MOST_MOMENTUM * 2 * w
    return [
        _bound("matrix", max(norm, stiff), x, f"max({norm:g}, {stiff:.3g})", 30),
        _link_bound(contract),
        _bound("weights", w, w_scale, f"{w:g}"),
        _bound("scores", value * top, score_bits(contract), f"{value:g} * {top}"),
        _bound("penalty row", stiff * w, x + w_scale, f"{stiff:.3g} * {w:g}"),
        _bound(
            "gradient",
            gradient,
            x + r,
            f"({n:g} * {norm:g} * {residual:g} + {grown * stiff * stiff:.3g} * {w:g})",
        ),
        _bound("Gram block", rows * norm * norm, 2 * x, f"{rows:g} * {norm:g}^2"),
        _scaled_block(contract, plan, norm, factor),
        _bound(
            "inverse", d * most * most * sqrt(grown), 2 * INVERSE_BITS, f"{d:g} * {most:g}^2{_times(grown)}"
        ),
        _bound("scaled inverse", most * reach, INVERSE_BITS + STEP_BITS, f"{most:g} * {reach:g}"),
        _bound(
            "step",
            step,
            GRADIENT_BITS + STEP_BITS,
            f"({d:g} * {most:g} * {steepest:.3g} + {MOST_MOMENTUM * 2 * w:g})",
        ),
        *_correlation_bounds(contract, overlap),
        *([path_bound(contract, overlap)] if model.penalties else []),
        _bound("squared weights", d * w * w * omega, 3 * COARSE_BITS, f"{d:g} * {w:g}^2 * {omega:.3g}"),
    ]


def _link_bound(contract: Contract) -> Bound:
    """Bound what is brought to the scale of residuals: a series modulo 2^32, or the linear predictor."""
    value = most_value(contract)
    if is_identity(contract):
        return _bound("predictor", value, PREDICTOR_BITS, f"{value:g}")
    name = "sigmoid" if contract.model.link == "logistic" else "exponential"
    return _bound(name, value, result_bits(contract), f"{value:g}", 30)


def _correlation_bounds(contract: Contract, overlap: Overlap) -> list[Bound]:
    """Bound correlations, of columns of norm 1 that rounding may pass a little, and sums of p(1 - p) times squares."""
    found = []
    if "CrossCorrelation" in contract.disclosures:
        found.append(_bound("correlations", 1.001 * UNIT, 2 * COLUMN_BITS, f"1.001 * {UNIT}"))
    if "StandardErrors" in contract.disclosures:
        rows = held_out_rows(contract, overlap)
        found.append(_bound("curvature", 0.25 * rows, 2 * CURVATURE_BITS, f"0.25 * {rows}"))
    return found


def _scaled_block(contract: Contract, plan: Layout, norm: float, factor: float) -> Bound:
    """Bound the Gram blocks at their second rounding, divided by the number of rows that count."""
    if not contract.align.hidden:
        return _bound("scaled Gram block", norm * norm * factor, INVERSE_BITS, f"{norm:g}^2 * {factor:g}")
    # A mean of products over the rows that count, and the partner's ridge, which counts all rows.
    ridge = gram_rows(contract, plan) / least_rows(contract, plan)
    bits = BLOCK_BITS + FACTOR_BITS
    return _bound("scaled Gram block", norm * norm + ridge, bits, f"({norm:g}^2 + {ridge:.3g})")


def _bound(name: str, value: float, scale_bits: int, formula: str, limit: float = 62) -> Bound:
    return Bound(name, log2(value) + scale_bits, f"{formula} * 2^{scale_bits}", limit)


def _times(grown: float) -> str:
    return f" * {sqrt(grown):.3g}" if grown > 1 else ""


def _power(plan: Layout) -> int:
    return _power_of(plan.total)


def _power_of(rows: float) -> int:
    return (int(rows) - 1).bit_length()


def _omega(contract: Contract, norm: float, parties: int) -> float:
    limit = most_predictor(contract)
    return max(norm * norm * parties / (0.98 * limit**2), 1 / (0.02 * limit**2)) + 2.0**-COARSE_BITS


def check_bounds(contract: Contract, overlap: Overlap, shapes: dict[Name, Shape]) -> None:
    """Refuse, with the numbers, a run in which a value could leave its range unseen."""
    check(job_bounds(contract, overlap, shapes))
    plan = layout(contract, overlap, {p: s.columns for p, s in shapes.items()}, FIT)
    rows, enough = gram_rows(contract, plan), least_rows(contract, plan)
    if rows < enough:
        raise ConfigError(
            f"the Gram block of {plan.width} columns is estimated from {rows} rows, at least {enough} are needed",
            "raise [model] gram_rows, or use more customers or fewer columns",
        )
