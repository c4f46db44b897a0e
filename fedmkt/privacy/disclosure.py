"""The vocabulary of everything that a step may reveal to a reader.

A disclosure is a fact about one release: what, to whom, how much. Its docstring says exactly what the
reader can compute from it; the contract allows disclosures by name; what has no name here is refused.
Numbers that count people are bands wherever the protocol shows only a band.
"""

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import ClassVar

EVERYONE = "all"
"""The reader of a disclosure that every signer of the contract receives."""


@dataclass(frozen=True)
class Disclosure:
    """One release to the reader `to`: a party's name, or `EVERYONE`.

    adds : fields whose numbers may be added up over the releases of a run
    """

    adds: ClassVar[tuple[str, ...]] = ()
    to: str

    @property
    def kind(self) -> str:
        """The name by which a contract allows it."""
        return type(self).__name__

    @property
    def text(self) -> str:
        """What the reader can compute from it, in full."""
        return text_of(self.kind)

    @property
    def plain_text(self) -> str:
        """The same as one paragraph without marks of emphasis, for screen and page."""
        return plain_text_of(self.kind)

    def describe(self) -> str:
        """Say in plain words what the reader received this time."""
        return f"received {self.kind}"

    def record(self) -> dict[str, str | int | bool]:
        """Give the body of a `value.revealed` record; `from_record` reads it back."""
        return {"kind": self.kind, **asdict(self)}


def _between(low: int, high: int, noun: str) -> str:
    return f"between {low:,} and {high:,} {noun}"


@dataclass(frozen=True)
class ListSize(Disclosure):
    """The exact number of ids on the other side's list: the messages of the intersection have that length.

    It tells how many customers were offered for matching, and nothing about which ones.
    """

    rows: int

    def describe(self) -> str:
        """Say how long the list is."""
        return f"learned that the other side's list has {self.rows:,} ids"


@dataclass(frozen=True)
class SetSize(Disclosure):
    """The number of common ids, as a band.

    Two runs whose bands differ tell that the lists changed; a band never tells about one id, unless the
    lists of two runs differ by few ids. Where a contract's task is only to count, the partner's program
    holds the exact number while it runs, and shows the band.
    """

    low: int
    high: int

    def describe(self) -> str:
        """Say the band of the common customers."""
        return f"learned that {_between(self.low, self.high, 'customers')} are common"


@dataclass(frozen=True)
class MatchedOwnRows(Disclosure):
    """Which of the reader's own rows the other party has too.

    For the partner this is **which of its people bank there**: membership, a bank secret. For the bank it
    is which of its customers the partner knows. Of people who are only on the other list nothing is told.
    With two partners the rows are those that all parties share: each partner learns that its matched people
    are with the other partner too. Where customers have several keys, the bank learns by which of them two
    records agree, the partner by which one a pair was made.
    """

    low: int
    high: int

    def describe(self) -> str:
        """Say how many own rows turned out to be known to the other side."""
        return f"learned which of its own rows the other side has: {_between(self.low, self.high, 'rows')}"


@dataclass(frozen=True)
class CampaignRows(Disclosure):
    """Which matched rows carry a label (were in the campaign) and which are only to be scored.

    The partner can tell which of its people the bank has addressed, not how they answered.
    """

    low: int
    high: int

    def describe(self) -> str:
        """Say how many rows are known to have been in the campaign."""
        return f"learned which matched rows were in the campaign: {_between(self.low, self.high, 'rows')}"


@dataclass(frozen=True)
class JoinedRows(Disclosure):
    """How many of the bank's customers take part, as a band, where all do: with a label, and without.

    Nothing about who they are, and nothing about how many of them the partner has.
    """

    low: int
    high: int

    def describe(self) -> str:
        """Say the band of the rows that take part."""
        return f"learned that {_between(self.low, self.high, 'customers')} of the bank take part"


@dataclass(frozen=True)
class MatrixShape(Disclosure):
    """The number of columns of a party's prepared matrix and its largest row norm, rounded up.

    With the column names of the contract the first tells how many frequent levels the categories have, not
    which. The second is one number about the most unusual row; it bounds every score. Where totals per bin are
    computed, it also tells how many bins each column has, and whether one is for missing values. In a scorecard it
    tells how many columns stayed, which depends on labels: on totals of all rows, and on nobody's label alone. Where
    the contract has a limit of shift, it tells that columns are missing which moved between the rows that train and a
    table of the owner's choice; by how much it does not. In trees, and by name in a scorecard, it tells which.
    """

    columns: int
    row_norm: int

    def describe(self) -> str:
        """Say how wide the other matrix is."""
        return f"learned that a matrix has {self.columns:,} columns and row norms up to {self.row_norm:,}"


@dataclass(frozen=True)
class RangeBit(Disclosure):
    """One bit: whether the shared weights are still within the bound that keeps every score in range.

    A run that goes on tells only that the bound of the contract holds; a run that stops tells that it
    does not: one bit about all rows together.
    """

    def describe(self) -> str:
        """Say what the bit is about."""
        return "learned one bit: whether every score is certainly in range"


@dataclass(frozen=True)
class Scores(Disclosure):
    """The joint score of each matched row of the reader, rounded before it is released.

    A probability; of a linear model the expected label in its standard deviations, of a Poisson model in its means.

    The reader can subtract what its own columns explain; what remains is the partner's part of the score,
    blurred by the rounding. One linear functional of the partner's columns per row and model: over as many
    models as the partner has columns, those columns follow for people whose profile is known. The ledger
    caps the number of models for that reason.
    """

    low: int
    high: int
    decimals: int

    def describe(self) -> str:
        """Say how many scores were released and how finely."""
        rows = _between(self.low, self.high, "rows")
        return f"received scores of {rows}, rounded to {self.decimals} decimals"


@dataclass(frozen=True)
class PenaltyCurve(Disclosure):
    """How well each tried penalty predicts: one number for each, about a random part of the train rows together.

    The squared error (of counts the deviance) of the expected labels of rows that did not train, added up and rounded
    on shares to about five decimals of its mean. Of these rows the reader knows the labels and its own columns, so that
    each number is one equation about the partner's columns of all of them: far less than one score, of which it gets
    one for each row that it asks for. With `minimum` rows or more no single row shows beside the others. Two runs
    that drew the same rows and differ by what one of them counts would tell its error, and so its score, though it
    trains: each run draws other ones. A reader that deviates may weigh all but one with next to nothing.
    """

    penalties: int
    minimum: int

    def describe(self) -> str:
        """Say how many numbers, and about how many rows at least."""
        rows = f"at least {self.minimum:,} rows together"
        return f"received one error of {rows} for each of {self.penalties} penalties"


@dataclass(frozen=True)
class ChosenPenalty(Disclosure):
    """Which of the contract's penalties the model is trained with: the one with the least error.

    A choice among at most twelve, so less than four bits about all rows together. All signers learn it, as every party
    needs it for the passes that follow.
    """

    def describe(self) -> str:
        """Say what is known."""
        return "learned which penalty was chosen"


@dataclass(frozen=True)
class ModelPart(Disclosure):
    """The reader's own weights in clear.

    At the optimum penalty·w = X'(y - p) holds for the reader's columns: as many linear equations about the
    labels as it has columns. With columns that single out one row, the sign of a weight is that row's label.
    For the bank, exact partial scores of the partner follow from scores minus its own part.
    """

    weights: int

    def describe(self) -> str:
        """Say how many weights were opened."""
        return f"received its own {self.weights:,} weights in clear"


@dataclass(frozen=True)
class CrossCorrelation(Disclosure):
    """Correlations over all training rows of each party's prepared columns with its own and everybody else's.

    One number for each pair of a column of the reader and one of the other side: a sum over rows with factors that
    the reader knows, so as many linear equations about the values of that column as the reader has columns. **With
    columns that single out one row it is a table of rows**, so each column of either side has an effective support of
    at least 50 rows, checked by its owner, and the ledger ends these sums at one for each min_support rows. That
    leaves sums over groups: of two yes/no columns how many rows have both, exactly, be it one; of two own columns
    that differ by one row, that row. Rounding to four decimals hides it only where the rows of such a column times all
    rows pass a hundred million. The correlations of the other side's columns among each other tell how often the
    levels of a category occur, in an order without names; so is it with two partners for theirs. The names are those
    of the contract, and a number where several columns come from one.
    **A reader that deviates is not stopped**: nobody sees whether its columns have the support that it claims.
    """

    bank_columns: int
    columns: int
    other_columns: int
    rows: int
    decimals: int

    def describe(self) -> str:
        """Say how many correlations, over how many rows."""
        pairs = (
            self.columns * (self.bank_columns + self.other_columns) + self.columns * (self.columns - 1) // 2
        )
        return (
            f"received {pairs:,} correlations of {self.columns:,} columns over up to {self.rows:,} rows, "
            f"rounded to {self.decimals} decimals"
        )


@dataclass(frozen=True)
class StandardErrors(Disclosure):
    """The standard error of each of the reader's own weights, for p-values, and the two numbers that make it up.

    The inflation tells how closely the columns of all parties follow that column; less what the own columns explain,
    the other side's. The mean of p(1 - p) over held-out rows, weighted by the squares of that column, to about three
    digits: as many linear equations about the scores of these rows as the reader has columns, in each run. Of a
    yes/no column it tells about the rate at which its rows respond. The reader itself leaves out columns that fewer
    than min_support held-out rows carry, of which a row could be read so: one that deviates is not stopped. **Of two
    own columns that differ by one held-out row it tells that row's p(1 - p)**, to about three digits; no ledger counts
    these sums from contract to contract.
    """

    weights: int

    def describe(self) -> str:
        """Say of how many weights."""
        return f"received the standard errors of its own {self.weights:,} weights"


@dataclass(frozen=True)
class SupersetList(Disclosure):
    """A list of the reader's people: most of the common ones, and some of the others.

    Each one on it is more likely to be common than before, each absent one less likely: by a factor of at most
    e^epsilon, whatever else the reader knows about that person. Later lists of the same people make the same
    choice and add nothing, as long as the contracts' drops and dummies stay; with others the epsilons add up.
    The length of the list tells about how many are common.
    """

    rows: int
    epsilon: str

    def describe(self) -> str:
        """Say how long the list is, and how little it tells."""
        return f"received a list of {self.rows:,} rows of which only some are common (epsilon {self.epsilon})"


@dataclass(frozen=True)
class LastingNames(Disclosure):
    """A name for each person on the other side's list that stays the same from run to run, and says nothing else.

    The reader can tell how many of the unknown people of one run are still there in another, and of somebody who
    becomes common since when the other side has known that person.
    """

    rows: int

    def describe(self) -> str:
        """Say how many names."""
        return f"received lasting names of {self.rows:,} people whom it does not know by them"


@dataclass(frozen=True)
class BinCounts(Disclosure):
    """How many common rows fall into each bin of the other side's columns.

    Exact counts of groups. Two runs whose lists or edges differ by one row tell the bin of that row.
    """

    columns: int
    bins: int
    minimum: int

    def describe(self) -> str:
        """Say how many counts, and the smallest group."""
        return (
            f"received row counts of {self.bins:,} bins in {self.columns:,} columns, "
            f"each of at least {self.minimum:,} rows"
        )


@dataclass(frozen=True)
class BinTotals(Disclosure):
    """How many labelled events fall into each bin of the other side's columns.

    A bin without any event, or with events only, tells the label of each of its rows: at one response in
    a hundred most bins of 50 rows are of that sort.
    """

    columns: int
    bins: int
    minimum: int

    def describe(self) -> str:
        """Say how many totals, and the smallest group."""
        return (
            f"received event totals of {self.bins:,} bins in {self.columns:,} columns, "
            f"each of at least {self.minimum:,} rows"
        )


@dataclass(frozen=True)
class BinWeights(Disclosure):
    """For each of the reader's columns whether it stays, which of its bins were joined, and their weight of evidence.

    These are **label aggregates**: with its own rows by bin the reader computes how many events each group of its
    customers has, and how many of all. Each group has at least the minimum of rows, of events, and of rows without
    one; edges and weights stay what they are under one contract. Two columns whose groups differ in a few rows only, or
    two contracts whose rows do, tell the events among these few.
    """

    columns: int
    bins: int
    minimum: int
    events: int

    def describe(self) -> str:
        """Say how many weights, and the smallest group."""
        return (
            f"learned the weight of evidence of {self.bins:,} bins in {self.columns:,} own columns, each of at least "
            f"{self.minimum:,} rows, {self.events:,} events and as many rows without one"
        )


@dataclass(frozen=True)
class MinimumBits(Disclosure):
    """How far the bins of each column must be joined until all have enough events and enough rows without one.

    One of a few given ways, or none of them; both sides are told before any total. For the partner it is a fact about
    labels, in groups that it chose: each bin has enough of either kind, or some bin, it is not said which, has not.
    """

    columns: int
    bits: int
    minimum: int

    def describe(self) -> str:
        """Say how many bits, about which minimum."""
        return (
            f"learned {self.bits:,} bits about {self.columns:,} columns: whether every bin has at least "
            f"{self.minimum:,} events and as many rows without one"
        )


@dataclass(frozen=True)
class CellBits(Disclosure):
    """Which groups of cells in the nodes of trees have nobody or enough rows in each cell: one bit for each group.

    A group is two ranges of a column's bins, of either party, in both children of a node. Where the bit is not set,
    one of its cells has at least one row and fewer than the minimum; nothing says which, or how many.
    """

    adds: ClassVar[tuple[str, ...]] = ("bits",)
    bits: int
    minimum: int

    def describe(self) -> str:
        """Say how many bits, and what was compared."""
        return f"learned {self.bits:,} bits: whether the cells of a group are empty or have {self.minimum:,} rows"


@dataclass(frozen=True)
class HistogramTotals(Disclosure):
    """Sums of gradients and Hessians, and numbers of rows, per bin in each node of each tree.

    The first tree's gradients are known to the bank, so its totals are `BinCounts` and `BinTotals`. A node
    minus its child is a group that nobody released: it may be smaller than the minimum of either, unless the
    minimum is enforced on shares, in all children of a node at once (`reveal = "totals"`). That is for each tree by
    itself: the difference of two trees' nodes whose rows the reader knows may be of fewer rows, be it one.
    """

    adds: ClassVar[tuple[str, ...]] = ("totals",)
    totals: int
    minimum: int

    def describe(self) -> str:
        """Say how many totals, and the smallest group."""
        return f"received {self.totals:,} gradient totals of groups of at least {self.minimum:,} rows in each tree"


@dataclass(frozen=True)
class SplitSides(Disclosure):
    """For every row, on which side of each chosen split of the other party's columns it falls.

    Nearly a hand-over: the reader puts the sides together to the binned value of each column of each row.
    """

    adds: ClassVar[tuple[str, ...]] = ("splits",)
    splits: int
    low: int
    high: int

    def describe(self) -> str:
        """Say how many splits, of how many rows."""
        return f"received the side of {self.splits:,} splits of {_between(self.low, self.high, 'rows')}"


@dataclass(frozen=True)
class ChosenSplits(Disclosure):
    """Which edges of the reader's own bins were chosen as splits, at which node of which tree.

    It tells which of its columns, and where in them, separate the labels best: the same kind of fact as the
    direction of a weight. Of an early tree's root alone it is a fact about all rows; further down, about rows that
    the reader cannot tell apart, unless all splits above are its own. No label and no row of the other side follows.
    """

    adds: ClassVar[tuple[str, ...]] = ("splits",)
    splits: int

    def describe(self) -> str:
        """Say how many splits."""
        return f"learned where {self.splits:,} splits of its own columns are"


@dataclass(frozen=True)
class TreeShape(Disclosure):
    """How many splits a level of a tree has, and how many of them are of each partner's columns.

    The messages have that length. Where nobody learns sides, also which nodes are split by whom, and how many
    groups of cells are compared, which says how finely all columns are open, and once whether the largest leaves
    add up to much. It tells how much each side brings to the model; nothing about any row.
    """

    adds: ClassVar[tuple[str, ...]] = ("splits",)
    splits: int

    def describe(self) -> str:
        """Say how many splits."""
        return f"learned on which levels of the trees {self.splits:,} splits are, and of whose columns"


@dataclass(frozen=True)
class StopBits(Disclosure):
    """After each tree, whether training goes on, and in the end how many trees the model keeps.

    How many trees are of use is a fact about all validation rows together: their labels, and how well the columns of
    all sides tell them. Over a training it is one number from 1 to the most trees.
    """

    adds: ClassVar[tuple[str, ...]] = ("trees",)
    trees: int

    def describe(self) -> str:
        """Say how often."""
        return f"learned after each of {self.trees:,} trees whether training goes on"


@dataclass(frozen=True)
class ValidationLosses(Disclosure):
    """The mean squared error of the model's probabilities over all validation rows, in steps of about 2^-17.

    One after each tree. The bank knows the labels and what the leaves add, so each number is one equation about the
    leaves in which the validation rows are, and so about the partner's bins of them, all in one sum. There are never
    more numbers than rows.
    """

    adds: ClassVar[tuple[str, ...]] = ("losses",)
    losses: int
    low: int
    high: int

    def describe(self) -> str:
        """Say how many, over how many rows."""
        return f"received {self.losses:,} mean losses, each over {_between(self.low, self.high, 'rows')}"


@dataclass(frozen=True)
class Embeddings(Disclosure):
    """A few numbers per row, computed from the other party's columns by weights nobody knows.

    The other party's columns up to a linear map as soon as `width` times the number of different weights
    reaches their number; with one-hot columns a single opening separates all profiles.
    """

    width: int
    openings: int

    def describe(self) -> str:
        """Say how many numbers per row, how often."""
        return f"received {self.width:,} numbers per row, {self.openings:,} times"


@dataclass(frozen=True)
class PartialScore(Disclosure):
    """The other party's part of the score of each row, before the parts are added.

    One exact linear functional of its columns per row: for discrete columns it often names the whole
    profile, and over as many models as there are columns it gives every column.
    """

    low: int
    high: int

    def describe(self) -> str:
        """Say how many rows."""
        return f"received the other side's part of the score of {_between(self.low, self.high, 'rows')}"


@dataclass(frozen=True)
class NoisyTotals(Disclosure):
    """Sums of gradients and Hessians per bin in each node of each tree, each with noise: of one row, of none or many.

    Whatever the reader makes of all of them together is nearly as likely if **one person's columns at the other party
    were others**: up to a factor e^epsilon, but for a probability delta. That holds whatever else it knows, for a
    reader that keeps to the protocol, and for one training; epsilons of several add up, which the ledger bounds. Not
    covered: who is common, the edges of bins as all rows' values make them, scores, and what holds of groups.
    """

    adds: ClassVar[tuple[str, ...]] = ("totals",)
    totals: int
    event: str

    def describe(self) -> str:
        """Say how many totals, under which event."""
        return f"received {self.totals:,} gradient totals with noise ({self.event})"


@dataclass(frozen=True)
class DealerSeeds(Disclosure):
    """The seeds from which each party's masks of an epoch are made, sealed to the contract's auditor.

    The auditor runs the dealer's part again with them, and sees that every correction was right. Alone it learns no
    value: no message between the parties reaches it. **Together with one party, whose messages it could unmask, it can
    read the other parties' columns**, as the dealer could; later too, as long as seeds and messages are kept. An
    auditor is no signer and of no signer's organisation; each party pins its key.
    """

    epoch: int

    def describe(self) -> str:
        """Say of which epoch."""
        return f"was sealed the dealer seeds of epoch {self.epoch}"


REGISTRY: Mapping[str, type[Disclosure]] = {
    kind.__name__: kind
    for kind in (
        ListSize,
        SetSize,
        MatchedOwnRows,
        CampaignRows,
        JoinedRows,
        MatrixShape,
        RangeBit,
        Scores,
        PenaltyCurve,
        ChosenPenalty,
        ModelPart,
        CrossCorrelation,
        StandardErrors,
        SupersetList,
        LastingNames,
        BinCounts,
        BinTotals,
        BinWeights,
        MinimumBits,
        CellBits,
        HistogramTotals,
        SplitSides,
        ChosenSplits,
        TreeShape,
        StopBits,
        ValidationLosses,
        Embeddings,
        PartialScore,
        NoisyTotals,
        DealerSeeds,
    )
}
"""Every disclosure by its name; nothing else may ever be released."""

DEFAULT: tuple[str, ...] = (
    "ListSize",
    "SetSize",
    "MatchedOwnRows",
    "CampaignRows",
    "MatrixShape",
    "RangeBit",
    "Scores",
)
"""The least with which the main job works."""

_ALL = ("bank", "partner", "coordinator")
READERS: Mapping[str, tuple[str, ...]] = {
    "ListSize": _ALL,
    "SetSize": ("partner", "coordinator"),
    "MatchedOwnRows": ("bank", "partner"),
    "CampaignRows": ("partner",),
    "JoinedRows": ("partner", "coordinator"),
    "MatrixShape": _ALL,
    "RangeBit": _ALL,
    "Scores": ("bank",),
    "PenaltyCurve": ("bank",),
    "ChosenPenalty": _ALL,
    "ModelPart": ("bank", "partner"),
    "CrossCorrelation": ("bank",),
    "StandardErrors": ("partner",),
    "SupersetList": ("partner",),
    "LastingNames": ("bank",),
    "BinCounts": ("bank",),
    "BinTotals": ("bank",),
    "BinWeights": ("partner",),
    "MinimumBits": ("bank", "partner"),
    "CellBits": ("bank", "partner"),
    "HistogramTotals": ("bank",),
    "NoisyTotals": ("bank",),
    "SplitSides": ("bank",),
    "ChosenSplits": ("partner",),
    "TreeShape": _ALL,
    "StopBits": _ALL,
    "ValidationLosses": ("bank",),
    "DealerSeeds": (),
}
"""Which roles the steps of this release tell; a kind that is absent is told by no step yet.

`DealerSeeds` go to the auditor of the contract, who signs nothing.
"""


def may_learn(role: str, task: str = "train", hidden: bool = False) -> frozenset[str]:
    """List the kinds that a role (bank, partner, coordinator) may be told: also those that no step makes yet.

    hidden : whether the partner learns nothing about which of its people are common.
    """
    # A job that only counts: the partner does it, so the bank is told.
    readers = {**READERS, "SetSize": _ALL} if task == "overlap" else READERS
    if hidden:
        readers = {**readers, "MatchedOwnRows": ("bank",), "CampaignRows": ()}
    return frozenset(kind for kind in REGISTRY if role in readers.get(kind, _ALL))


def lookup(kind: str) -> type[Disclosure]:
    """Find a disclosure by name; ValueError for a name that is not in the vocabulary."""
    if kind not in REGISTRY:
        raise ValueError(f"unknown disclosure {kind!r}; accepted: {', '.join(REGISTRY)}")
    return REGISTRY[kind]


def text_of(kind: str) -> str:
    """Give the whole text of a disclosure: what its reader can compute."""
    return inspect.cleandoc(lookup(kind).__doc__ or "")


def plain_text_of(kind: str) -> str:
    """Give the whole text of a disclosure as one paragraph without marks of emphasis."""
    return " ".join(text_of(kind).replace("**", "").split())


def from_record(body: Mapping[str, object]) -> Disclosure:
    """Read the body of a `value.revealed` record, which may also say at which `index` and `step`.

    ValueError unless its other fields are exactly those of the kind.
    """
    kind = lookup(str(body.get("kind")))
    values = {name: value for name, value in body.items() if name not in ("kind", "index", "step")}
    if set(values) != {field.name for field in fields(kind)}:
        raise ValueError(f"{kind.__name__} has the fields {', '.join(f.name for f in fields(kind))}")
    for field in fields(kind):
        if type(values[field.name]) is not field.type:
            raise ValueError(f"{kind.__name__}: {field.name} has the wrong type")
    return kind(**values)  # type: ignore[arg-type]  # the types of all fields were compared just above
