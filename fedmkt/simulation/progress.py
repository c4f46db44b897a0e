"""What a running job tells whoever is watching: stage, steps, rows and bytes so far."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ProgressEvent:
    """One sign of life of a run.

    stage : name of the arrow in the job, such as "psi" or "fit"
    done, total : calls finished in this stage and calls it has; total is 0 while it is not known
    rows : rows handled so far in this stage
    bytes : sealed bytes sent by all parties since the run began
    """

    stage: str
    done: int
    total: int
    rows: int
    bytes: int


Progress = Callable[[ProgressEvent], None]
"""Called between steps, in the thread of the script; must return quickly and not raise."""
