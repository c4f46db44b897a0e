"""C11 to C13, C19 and C20: what a result may say, and what must be said of it."""

from collections.abc import Iterator

from fedmkt.party.controls.control import Breach, ContractAsked, Control, ReleaseAsked, ScoreAsked
from fedmkt.privacy.disclosure import (
    BinCounts,
    BinTotals,
    BinWeights,
    CellBits,
    HistogramTotals,
    PenaltyCurve,
    Scores,
)

_CELLS = (BinCounts, BinTotals, BinWeights, CellBits, HistogramTotals, PenaltyCurve)
_LOGITS = ("PartialScore", "Embeddings")


def _output_k(asked: ContractAsked) -> Iterator[Breach]:
    agreed, own = asked.contract.limits.min_support, asked.config.policy.min_support
    if agreed < own:
        yield Breach(f"min_support = {agreed} in the contract, {asked.config.name} needs {own}")
    contract = asked.contract
    if asked.terms is not None and contract.model.kind == "trees" and contract.trees.reveal == "sides":
        yield Breach(
            'trees with reveal = "sides" open totals of groups of any size',
            'reveal = "totals" or "nothing" keeps every group at min_support rows',
        )


def _cell(asked: ReleaseAsked) -> Iterator[Breach]:
    found = asked.disclosure
    if asked.contract.governance is not None and isinstance(found, _CELLS):
        least = max(asked.config.policy.min_support, asked.contract.limits.min_support)
        if found.minimum < least:
            yield Breach(f"{found.kind} may cover fewer than {least} people")


def _rounding(asked: ContractAsked) -> Iterator[Breach]:
    agreed, own = asked.contract.scores.decimals, asked.config.policy.max_decimals
    if agreed > own:
        yield Breach(f"scores.decimals = {agreed} in the contract, {asked.config.name} allows {own}")
    for kind in asked.contract.disclosures:
        if kind in _LOGITS:
            yield Breach(f"{kind} gives parts of scores that are not rounded")


def _rounded(asked: ReleaseAsked) -> Iterator[Breach]:
    found, agreed = asked.disclosure, asked.contract.scores.decimals
    if isinstance(found, Scores) and found.decimals > min(agreed, asked.config.policy.max_decimals):
        yield Breach(f"scores with {found.decimals} decimals are about to be released")


def _budget(asked: ContractAsked) -> Iterator[Breach]:
    align = asked.contract.align
    if asked.contract.trees.epsilon is None and (align.drop, align.dummies) == (0.0, 1.0):
        return
    agreed, own = asked.contract.limits.max_epsilon, asked.config.policy.max_epsilon
    if agreed > own:
        yield Breach(f"limits.max_epsilon = {agreed:g} in the contract, {asked.config.name} allows {own:g}")


def _fairness(asked: ContractAsked) -> Iterator[Breach]:
    if asked.terms is None:
        return
    if asked.terms.use == "pricing":
        yield Breach("results that set prices person by person are refused")
    bank = asked.contract.bank
    for group in asked.terms.groups:
        if group not in (*bank.categories, *bank.numbers):
            yield Breach(f"group {group!r} is no column of {bank.name}: its rates cannot be reported")


def _rates(asked: ScoreAsked) -> Iterator[Breach]:
    terms = asked.contract.governance
    for group in terms.groups if terms is not None else ():
        if group not in asked.rates:
            yield Breach(f"no rates of selection by {group!r} would be kept with the scores")


def _explanation(asked: ScoreAsked) -> Iterator[Breach]:
    if asked.contract.governance is not None and not asked.reasons:
        yield Breach("no reasons for single scores would be kept with the scores")


CONTROLS = (
    Control("C11", "output k", "k-anonymity practice", "always",
            "limits.min_support, policy.min_support", contract=_output_k, release=_cell),
    Control("C12", "score release", "ESA: rounded scores", "always",
            "scores.decimals, policy.max_decimals", contract=_rounding, release=_rounded),
    Control("C13", "DP budget", "differential privacy", "where noise is used",
            "limits.max_epsilon, policy.max_epsilon", contract=_budget),
    Control("C19", "fairness check", "PIPL 24", "governance", "use, groups", contract=_fairness, score=_rates),
    Control("C20", "explanation", "PIPL 24, 48", "governance", "reasons beside the scores", score=_explanation),
)  # fmt: skip
