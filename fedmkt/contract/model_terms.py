"""What a contract fixes about the model: one section for all kinds, and one for what each kind needs besides.

Every number that the arithmetic of a protocol relies on, or that changes what is revealed, stands here.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedmkt.contract.words import Count, Flag, Real, Terms
from fedmkt.privacy.disclosure import DEFAULT

Weight = Annotated[float, Field(strict=True, ge=1e-3, le=1e3)]
Penalty = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0.1, le=1e9)]
Kind = Literal["logistic", "linear", "poisson", "additive", "scorecard", "trees"]
Link = Literal["logistic", "linear", "poisson"]
Reveal = Literal["nothing", "totals", "sides"]

GLM_KINDS: tuple[Kind, ...] = ("logistic", "linear", "poisson")
"""Kinds that fit the prepared columns themselves: these may have offset and weights, and start from one another."""
ROW_WEIGHT_UNIT = 1 / 16
"""Weights of rows are rounded to a multiple of this."""
LEAST_EPSILON, MOST_EPSILON = 0.5, 8.0
"""Less is below what encrypted sums tell by themselves for millions of rows; more is hardly a promise."""
MAX_ROW_WEIGHT = 8.0
"""A row counts at most as this many: every bound on sums over rows grows by as much."""

MAX_WEIGHT_RATIO = 100
"""Of class weights of trees on shares, where weights below a hundredth of the other would be lost in rounding."""


MOST_GROWTH = 10_000
"""How many times the least penalty of a path the largest may be."""


class ModelTerms(Terms):
    """Model, optimiser and number formats; every bound that the arithmetic relies on stands here.

    max_offset : largest size of the bank's offset column, where it has one.
    class_weights : what a row without and one with a response count, a multiple of 1/16 each.
    start : digest of an earlier contract of the same parties, with whose model training begins.
    penalties : in place of penalty, those that are tried, each in `path_passes` passes from the model of the one before
    (the largest, which is first, and the chosen one, at last, in `iterations`). The one with the least error on
    `validation_fraction` of the train rows is chosen.
    """

    kind: Kind = "logistic"
    penalty: Penalty = 1.0
    penalties: tuple[Penalty, ...] = Field(default=(), max_length=12)
    path_passes: Count = Field(default=8, ge=2, le=100)
    validation_fraction: Real = Field(default=0.2, ge=0.05, le=0.5)
    iterations: Count = Field(default=20, ge=1, le=100)
    period: Literal[64, 128] = 128
    max_weight: Real = Field(default=16.0, ge=0.5, le=4096.0)
    test_fraction: Real = Field(default=0.3, ge=0.05, le=0.8)
    gram_rows: Count = Field(default=65536, ge=100, le=1 << 24)
    checkpoint_every: Count = Field(default=4, ge=1, le=100)
    max_offset: Real = Field(default=8.0, gt=0, le=12.0)
    class_weights: tuple[Real, Real] | None = None
    start: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @property
    def link(self) -> Link:
        """What labels and scores are: answers and their probabilities, numbers, or counts."""
        return self.kind if self.kind == "linear" or self.kind == "poisson" else "logistic"

    @property
    def path(self) -> tuple[float, ...]:
        """The penalties in the order in which they are tried: the largest first."""
        return tuple(sorted(self.penalties, reverse=True))

    @property
    def least_penalty(self) -> float:
        """The smallest penalty with which the model may end."""
        return min(self.penalties, default=self.penalty)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.class_weights is not None:
            if any(not 0 < w <= MAX_ROW_WEIGHT or w % ROW_WEIGHT_UNIT for w in self.class_weights):
                raise ValueError("class_weights are two multiples of 1/16 from 1/16 to 8")
            if self.kind != "logistic":
                raise ValueError("class_weights of [model] are for kind = logistic")
        if self.start is not None and self.kind not in GLM_KINDS:
            raise ValueError(f"no start with kind = {self.kind}")
        self._check_path()
        return self

    def _check_path(self) -> None:
        usual = ModelTerms.model_fields
        if not self.penalties:
            if any(getattr(self, n) != usual[n].default for n in ("path_passes", "validation_fraction")):
                raise ValueError("path_passes and validation_fraction only with penalties")
            return
        if len(set(self.penalties)) != len(self.penalties) or len(self.penalties) < 2:
            raise ValueError("penalties are 2 to 12 different values")
        if max(self.penalties) > MOST_GROWTH * min(self.penalties):
            raise ValueError(f"the largest of penalties is at most {MOST_GROWTH:,} times the smallest")
        if self.penalty != usual["penalty"].default:
            raise ValueError("one of penalty and penalties")
        if self.kind == "trees" or self.start is not None:
            raise ValueError("penalties are for a linear kind of model without start")


class BinTerms(Terms):
    """How columns are cut into bins, by their owner, from its own train rows alone.

    count : most bins of a number, missing values apart; method : of about equal counts, or of equal width.
    A category has a bin for each frequent level, as limits.max_levels says. max_shift : stability index of a column
    that stays, between its owner's train rows and reference (`protocol.shift`), if it has one; .25 is usual.
    """

    count: Count = Field(default=32, ge=2, le=128)
    method: Literal["quantile", "width"] = "quantile"
    max_shift: Real | None = Field(default=None, gt=0, le=100)


class TrendTerms(Terms):
    """The score must not fall (+1) or must not rise (-1) as this number does, everything else being equal."""

    party: str
    column: str
    trend: Literal[-1, 1]


class AdditiveTerms(Terms):
    """The functions of an additive model, made by their owner from its own train rows alone.

    basis : of a number, cubic splines, or bins; knots : inner ones at most, at quantiles; smooth : the penalty on
    their roughness (`learn.splines`), in units of model.penalty. pairs : columns whose products count too, each written
    PARTY/COLUMN: both of one party, or numbers of two, whose products (`learn.factors`) stay shared.
    """

    basis: Literal["spline", "bins"] = "spline"
    knots: Count = Field(default=10, ge=1, le=40)
    smooth: Real = Field(default=0.003, ge=0, le=1e6)
    pairs: tuple[tuple[str, str], ...] = Field(default=(), max_length=20)

    def pairs_of(self, party: str) -> tuple[tuple[str, str], ...]:
        """Return the pairs of one party, by the names of its columns."""
        split = [(left.split("/", 1), right.split("/", 1)) for left, right in self.pairs]
        return tuple((left[1], right[1]) for left, right in split if left[0] == right[0] == party)

    @property
    def across(self) -> tuple[tuple[tuple[str, str], tuple[str, str]], ...]:
        """Return the pairs of two parties, each column as (party, column)."""
        split = [[(p, c) for p, _, c in (name.partition("/") for name in pair)] for pair in self.pairs]
        return tuple((left, right) for left, right in split if left[0] != right[0])

    def paired_across(self, party: str) -> tuple[str, ...]:
        """Return a party's column of each of its pairs with another party, in their order."""
        return tuple(column for pair in self.across for owner, column in pair if owner == party)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for left, right in self.pairs:
            if "/" not in left or "/" not in right:
                raise ValueError('pairs as [["PARTY/COLUMN", "PARTY/COLUMN"]]')
        if len({frozenset(pair) for pair in self.pairs}) != len(self.pairs) or any(
            left == right for left, right in self.pairs
        ):
            raise ValueError("every pair once, of two columns")
        return self


class TreeTerms(Terms):
    """How boosted trees are grown, and what the bank and the partners learn while they grow.

    reveal : `totals`, nobody learns which side of a partner's split a row takes; `sides`, the bank does; `nothing`,
    totals and leaves stay shared too, and only the chosen splits are opened, to their owners.
    trees, depth, rate, penalty, min_gain, min_rows, row_share, column_share, class_weights : as in
    `learn.splits.Settings`, but that nobody counts rows in mode `sides`: a total of h proves them. max_thresholds :
    most edges of one column of a partner that the bank is told sides of; where a column has more, the trees make do
    with the first ones that they chose. trends : of some numbers. gradient_bits : of g and of h as integers; more
    than 3 cost bytes, fit fewer rows, and have not been seen to help. checked_shares : in mode `totals` with one
    partner, a bank that adds to its shares of rows ends the run; `protocol.checked_sums` says what that is worth, and
    what it is not.
    patience : trees without a better loss on the validation rows until training stops, of which those up to the best
    stay; 0 = never. validation_fraction : of the train rows, drawn anew in each run, which then do not train.
    epsilon : where it is given, in mode `totals`, the partner adds as much noise to all totals as makes a training
    (epsilon, delta) differentially private for one row of its columns, delta = 1 / rows^1.1 (`privacy.noise`); cells
    are then neither joined nor counted.
    """

    reveal: Reveal = "totals"
    trees: Count = Field(default=50, ge=1, le=1000)
    depth: Count = Field(default=5, ge=1, le=8)
    rate: Real = Field(default=0.1, gt=0, le=1)
    penalty: Real = Field(default=1.0, gt=0, le=1e6)
    min_gain: Real = Field(default=0.0, ge=0, le=1e6)
    min_rows: Count = Field(default=50, ge=1, le=1 << 40)
    row_share: Real = Field(default=1.0, gt=0, le=1)
    column_share: Real = Field(default=1.0, gt=0, le=1)
    class_weights: tuple[Weight, Weight] = (1.0, 1.0)
    max_thresholds: Count = Field(default=128, ge=1, le=128)
    trends: tuple[TrendTerms, ...] = ()
    gradient_bits: Count = Field(default=3, ge=2, le=8)
    checked_shares: Flag = False
    patience: Count = Field(default=0, ge=0, le=1000)
    validation_fraction: Real = Field(default=0.1, ge=0.01, le=0.5)
    epsilon: Real | None = Field(default=None, ge=LEAST_EPSILON, le=MOST_EPSILON)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.checked_shares and self.reveal != "totals":
            raise ValueError(
                "checked_shares is for reveal = totals: in mode sides the bank knows all gradients"
            )
        if self.trees * 2**self.depth > 1 << 16:
            raise ValueError("trees * 2^depth is at most 65536")
        if len({(t.party, t.column) for t in self.trends}) != len(self.trends):
            raise ValueError("every trend once")
        if self.epsilon is not None and (
            self.checked_shares or self.patience or self.class_weights != (1.0, 1.0)
        ):
            # Losses have no noise, and tags are of the lanes that also count rows.
            raise ValueError("epsilon without checked_shares, patience or class_weights")
        if self.epsilon is not None and self.reveal != "totals":
            raise ValueError(
                'epsilon with reveal = "totals": the other modes tell sides, or no totals at all'
            )
        return self


class ScorecardTerms(Terms):
    """How WoE columns are made of bins, which of them stay, and how the model becomes points.

    merge : how bins are joined once their totals are known: neighbours short of rows, events or others (`none`),
    then until event rates of a number rise or fall (`monotone`), or while they do not differ (`chimerge`).
    min_share : of the rows, in every joined bin; min_iv : information value of a column that stays, but each party
    keeps its best one; max_correlation : of two WoE columns of one party that stay.
    base_score points mean base_odds events per other row, points_to_double more double the odds.
    """

    merge: Literal["none", "monotone", "chimerge"] = "monotone"
    # Lower, and a bin could lie further out than what a prepared column is bounded by: sqrt(1 / share - 1) < 8.
    min_share: Real = Field(default=0.05, ge=0.02, le=0.5)
    min_iv: Real = Field(default=0.02, ge=0, le=10)
    max_correlation: Real = Field(default=0.9, gt=0, le=1)
    base_score: Real = Field(default=600.0, ge=-1e6, le=1e6)
    base_odds: Real = Field(default=1.0, gt=0, le=1e6)
    points_to_double: Real = Field(default=20.0, ge=-1e4, le=1e4)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.points_to_double:
            raise ValueError("points_to_double is not 0")
        return self


def _needed_to_stop(trees: TreeTerms) -> tuple[str, ...]:
    """Return what early stopping tells besides."""
    if not trees.patience:
        return ()
    return ("StopBits",) if trees.reveal == "sides" else ("StopBits", "ValidationLosses")


def needed_disclosures(model: ModelTerms, trees: TreeTerms) -> tuple[str, ...]:
    """Return the kinds of disclosures without which a model of this kind cannot be trained."""
    if model.kind == "trees":
        if trees.epsilon is not None:
            return ("NoisyTotals", "ChosenSplits", "TreeShape")
        shown = {
            "sides": ("HistogramTotals", "SplitSides"),
            "totals": ("HistogramTotals", "CellBits", "BinCounts", "BinTotals"),
            "nothing": (),
        }
        return (*shown[trees.reveal], "ChosenSplits", "TreeShape", *_needed_to_stop(trees))
    path = ("PenaltyCurve", "ChosenPenalty") if model.penalties else ()
    if model.kind == "scorecard":
        return ("MinimumBits", "BinCounts", "BinTotals", "BinWeights", *path)
    return path


def least_disclosures(model: ModelTerms, trees: TreeTerms) -> tuple[str, ...]:
    """Return the least with which a job works that trains this kind of model."""
    return (*DEFAULT, *(k for k in needed_disclosures(model, trees) if k not in DEFAULT))


LEAST_SUPPORT = 50
"""Rows that carry each column where correlations between the parties' columns are released."""


def refused_correlation(
    disclosures: Sequence[str], model: ModelTerms, shown: bool, min_support: int
) -> str | None:
    """Say what is accepted in place of correlations or standard errors that a contract must not list; else None.

    shown : whether the match is shown and only common customers take part.
    """
    if "StandardErrors" in disclosures:
        if not {"CrossCorrelation", "ModelPart"} <= set(disclosures):
            return "StandardErrors with CrossCorrelation and ModelPart, from which they follow"
        if model.kind not in ("logistic", "scorecard"):
            return "StandardErrors with model.kind logistic or scorecard"
    if "CrossCorrelation" not in disclosures:
        return None
    if model.kind in ("trees", "additive"):
        return "CrossCorrelation with a linear kind of model"
    if model.start is not None:
        return "CrossCorrelation without model.start: columns of an earlier preparation are not centred on new rows"
    if not shown:
        return (
            "CrossCorrelation where match = shown and join = inner: each party counts how many of the common rows "
            "carry a column, or it could be one row"
        )
    if min_support < LEAST_SUPPORT:
        return (
            f"CrossCorrelation with limits.min_support of at least {LEAST_SUPPORT}: a column of one row is read by its "
            "correlations"
        )
    return None
