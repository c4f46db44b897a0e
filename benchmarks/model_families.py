"""The families that `benchmarks.models` compares; a family is one entry."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.model_plain import BOOSTED, GROWN, LOGISTIC, XGBOOST, Plain
from benchmarks.model_worlds import Sections, Target


@dataclass(frozen=True)
class Entry:
    """One row of the comparison for each data set.

    sections : of the job.toml; plain : beside it, the nearest first; targets : by data set, where the answer yes or
    no is not what is predicted; most_rows : of the invented data
    """

    name: str
    sections: Sections
    plain: tuple[Plain, ...]
    targets: Mapping[str, Target] = field(default_factory=dict)
    most_rows: int = 1_000_000


FAMILIES = (
    Entry("logistic", {"model": {"kind": "logistic"}}, (LOGISTIC,)),
    Entry(
        "trees-sides", {"model": {"kind": "trees"}, "trees": {"reveal": "sides"}}, (BOOSTED, GROWN, XGBOOST)
    ),
)
"""What is compared, in the order of the table."""
