"""Links of the GLM family: from the linear predictor to the value that a label is compared with, by kind of model.

| kind | a label is compared with | on shares | labels |
|---|---|---|---|
| logistic | 1 / (1 + exp(-z)) | `ring.sigmoid`, one round | 0 or 1 |
| poisson | exp(z), bent beyond z = 3 | `ring.exponential`, one round | counts, divided by their mean |
| linear | z | a rounding, one round | numbers, in standard deviations around their mean |

The bank brings its labels to these units by itself and scores back (`learn.glm.standardise`). All numbers here follow
from the contract alone. A residual is value minus label, times the row's weight where there are weights
(`row_weights`). Letters: z linear predictor, P period of a series.
"""

from fedmkt.contract.agreement import Contract
from fedmkt.contract.model_terms import MAX_ROW_WEIGHT, ROW_WEIGHT_UNIT
from fedmkt.ring import exponential, sigmoid
from fedmkt.ring.bounds import RESIDUAL_MAX
from fedmkt.ring.fixed import HalfWords

ROW_WEIGHT_BITS = 4
"""Row weights are whole multiples of 2^-4: their product with a residual at scale 2^12 is one at scale 2^16."""
_USED = 0.45
"""Share of a period, to either side of zero, in which the series is what it stands for."""

assert ROW_WEIGHT_UNIT == 2.0**-ROW_WEIGHT_BITS


def is_identity(contract: Contract) -> bool:
    """Tell whether values are the linear predictor itself: no series, no angles."""
    return contract.model.link == "linear"


def has_row_weights(contract: Contract) -> bool:
    """Tell whether rows count differently, in training."""
    return contract.bank.weight is not None or contract.model.class_weights is not None


def most_row_weight(contract: Contract) -> float:
    """Return the most that a row can count."""
    if contract.bank.weight is not None:
        return MAX_ROW_WEIGHT
    return max(contract.model.class_weights or (1.0,))


def most_offset(contract: Contract) -> float:
    """Return the largest size of what the bank adds to a linear predictor."""
    return contract.model.max_offset if contract.bank.offset is not None else 0.0


def _range(contract: Contract) -> float:
    """Return the bound of |z|, offset included."""
    return _USED * 2.0 ** log2_period(contract)


def most_predictor(contract: Contract) -> float:
    """Return L: columns times weights must stay below it, so that with any offset |z| is below 0.45 periods."""
    return _range(contract) - most_offset(contract)


def most_value(contract: Contract) -> float:
    """Return the largest size of a value, as it is released and lifted."""
    return {"logistic": RESIDUAL_MAX, "poisson": exponential.MOST}.get(contract.model.link, _range(contract))


def most_residual(contract: Contract) -> float:
    """Return a bound of the mean size of residuals over the rows.

    Of labels in standard deviations, and of counts divided by their mean, the mean size is at most one.
    """
    most = RESIDUAL_MAX if contract.model.link == "logistic" else most_value(contract) + 1
    return most * most_row_weight(contract)


def harmonics(contract: Contract) -> int:
    """Return K: the dealer deals 2 K half words for each row."""
    if contract.model.link == "poisson":
        return exponential.HARMONICS
    return 0 if is_identity(contract) else sigmoid.series(contract.model.period).harmonics


def log2_period(contract: Contract) -> int:
    """Return log2 P; where there is no series, of what bounds |z| all the same."""
    if contract.model.link == "poisson":
        return exponential.LOG2_PERIOD
    return sigmoid.series(contract.model.period).log2_period


def result_bits(contract: Contract) -> int:
    """Return the scale of `evaluate`."""
    return exponential.RESULT_BITS if contract.model.link == "poisson" else sigmoid.RESULT_BITS


def evaluate(delta: HalfWords, dealt: HalfWords, contract: Contract, first: bool) -> HalfWords:
    """Compute one party's share of the values, (n,) uint32; arguments as `sigmoid.evaluate`."""
    if contract.model.link == "poisson":
        value = exponential.evaluate(delta, dealt)
        constant = exponential.CONSTANT
    else:
        value = sigmoid.evaluate(delta, dealt, sigmoid.series(contract.model.period))
        constant = sigmoid.HALF
    if first:
        value += constant
    return value


def constants_digest(contract: Contract) -> bytes:
    """Digest the public constants that multiply shares in this contract's link (SHA-256)."""
    if contract.model.link == "poisson":
        return exponential.constants_digest()
    return sigmoid.constants_digest(sigmoid.series(contract.model.period))
