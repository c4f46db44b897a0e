"""Families of joint models behind one interface: what the job runs between the split of the rows and the end.

A family is two scripts. `fit` prepares the parties' columns and trains; the model stays in shares or parts at its
parties. `score` releases rounded scores to the bank. What a family discloses beyond the job's own is in
`terms.needed_disclosures`, and the file of each script says who learns what.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import Caller, Name
from fedmkt.protocol.linear import logistic, path, scoring
from fedmkt.protocol.linear.bounds import check_bounds
from fedmkt.protocol.linear.correlation import cross_correlation
from fedmkt.protocol.linear.standard_errors import give_errors
from fedmkt.protocol.linear.warm import check_start
from fedmkt.protocol.prepare import prepare_columns
from fedmkt.protocol.scorecard.scorecard import weigh_columns
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.nothing import blind_boosting
from fedmkt.protocol.trees.sides import boosting, tree_scoring
from fedmkt.protocol.trees.totals import shared_boosting, shared_scoring
from fedmkt.protocol.trees.tree_columns import cut_columns
from fedmkt.protocol.witness import checkpoint, witness

Widths = dict[Name, int]
"""How many columns of its model matrix, or of its bins, each party has: public."""


@dataclass(frozen=True)
class Family:
    """One kind of joint model: `fit` returns the public widths, which `score` is given again."""

    fit: Callable[[Caller, Contract, Overlap], Widths]
    score: Callable[[Caller, Contract, Overlap, Widths], None]


def _fit_linear(call: Caller, contract: Contract, overlap: Overlap) -> Widths:
    if contract.model.start is not None:
        check_start(call, contract)
    shapes = prepare_columns(call, contract)
    check_bounds(contract, overlap, shapes)
    checkpoint(call, contract)
    columns = {p: s.columns for p, s in shapes.items()}
    cross_correlation(call, contract, overlap, columns)
    fit = path.fit if contract.model.penalties else logistic.fit
    fit(call, contract, overlap, columns)
    return columns


def _fit_scorecard(call: Caller, contract: Contract, overlap: Overlap) -> Widths:
    weigh_columns(call, contract, overlap)
    witness(call, contract)  # the preparation tells its shape
    return _fit_linear(call, contract, overlap)


def _score_linear(call: Caller, contract: Contract, overlap: Overlap, columns: Widths) -> None:
    scoring.score(call, contract, overlap, columns)
    if "ModelPart" in contract.disclosures:
        scoring.give_parts(call, contract)
    give_errors(call, contract, overlap, columns)


def _fit_trees(call: Caller, contract: Contract, overlap: Overlap) -> Widths:
    sizes = cut_columns(call, contract)
    checkpoint(call, contract)
    _MODES[contract.trees.reveal].fit(call, contract, overlap, sizes)
    return {p: s.width for p, s in sizes.items()}


def _score_trees(call: Caller, contract: Contract, overlap: Overlap, bins: Widths) -> None:
    _MODES[contract.trees.reveal].score(call, contract, overlap)


@dataclass(frozen=True)
class _Mode:
    """How trees are grown and scored where a contract lets so much be revealed."""

    fit: Callable[[Caller, Contract, Overlap, Mapping[Name, BinSizes]], None]
    score: Callable[[Caller, Contract, Overlap], None]


_MODES: Mapping[str, _Mode] = {
    "sides": _Mode(boosting.fit, tree_scoring.score),
    "nothing": _Mode(blind_boosting.fit, shared_scoring.score),
    "totals": _Mode(shared_boosting.fit, shared_scoring.score),
}


_GLM = Family(_fit_linear, _score_linear)
FAMILIES: Mapping[str, Family] = {
    "logistic": _GLM,
    "linear": _GLM,
    "poisson": _GLM,
    "additive": _GLM,
    "scorecard": Family(_fit_scorecard, _score_linear),
    "trees": Family(_fit_trees, _score_trees),
}
"""The families by the kind of model that a contract names; an additive model is a linear one of other columns."""
