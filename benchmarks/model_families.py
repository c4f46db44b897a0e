"""The families that `benchmarks.models` compares; a family is one entry."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.model_plain import BOOSTED, COUNTS, GROWN, LOGISTIC, RIDGE, SPLINES, XGBOOST, Plain
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


NUMBERS = {
    "bank-full": Target("balance"), "bank-additional-full": Target("age"), "synthetic": Target("number"),
}  # fmt: skip
"""What a linear model predicts: what a customer has on the account, or its age where no balance is in the file."""
COUNTED = {
    "bank-full": Target("campaign"), "bank-additional-full": Target("campaign"), "synthetic": Target("count"),
}  # fmt: skip
"""What a Poisson model predicts: how often a customer was called in this campaign, counted by the bank."""


def _trees(reveal: str, most_rows: int) -> Entry:
    sections = {"model": {"kind": "trees"}, "trees": {"reveal": reveal}}
    return Entry(f"trees-{reveal}", sections, (BOOSTED, GROWN, XGBOOST), most_rows=most_rows)


FAMILIES = (
    Entry("logistic", {"model": {"kind": "logistic"}}, (LOGISTIC,)),
    Entry("scorecard", {"model": {"kind": "scorecard"}}, (LOGISTIC,)),
    Entry("additive", {"model": {"kind": "additive"}}, (LOGISTIC, SPLINES), most_rows=100_000),
    Entry("linear", {"model": {"kind": "linear"}}, (RIDGE,), NUMBERS),
    Entry("poisson", {"model": {"kind": "poisson"}}, (COUNTS,), COUNTED),
    # A million rows need gradient_bits = 2 in mode sides, and more memory and time in the others: docs/trees.md.
    _trees("sides", 700_000),
    _trees("totals", 200_000),
    _trees("nothing", 100_000),
)
"""What is compared, in the order of the table."""
