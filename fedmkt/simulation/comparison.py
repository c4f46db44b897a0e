"""What only a simulation can show: the joint model's exact scores beside a centralised model's."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmkt.report.summary import ConvergencePoint

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Joint and centralised model on the same held-out rows, from exact scores in the label's own unit.

    weight_error : |w - w*| / |w*| on the prepared columns, intercept included; None where there are no weights
    convergence : of the same optimiser in clear floating point, not of the run itself; of trees the loss of rows that
    do not train
    events_per_column : training rows of the rarer class (or counts above zero, or numbers), by prepared column of all
    parties, where passes may end before their optimum; None where there are no passes
    """

    label: Array
    joint: Array
    centralised: Array
    weight_error: float | None
    convergence: tuple[ConvergencePoint, ...]
    events_per_column: float | None
