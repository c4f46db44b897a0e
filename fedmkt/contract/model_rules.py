"""Rules of a contract about its kind of model: what goes together, what a kind of model must be allowed to reveal."""

from typing import TYPE_CHECKING

from fedmkt.contract.model_terms import GLM_KINDS, MAX_WEIGHT_RATIO, needed_disclosures, refused_correlation
from fedmkt.mistakes import mistake

if TYPE_CHECKING:
    from fedmkt.contract.agreement import Contract


def check_model(contract: "Contract") -> None:
    """Raise the mistake of the first rule that the kind of model, and what it needs besides, breaks."""
    if contract.model.kind == "trees":
        _check_trees(contract)
    missing = [k for k in needed_disclosures(contract.model, contract.trees) if k not in contract.disclosures]
    if missing:
        raise mistake(f"a model of kind {contract.model.kind} needs {', '.join(missing)} too", "disclosures")
    if contract.model.kind == "scorecard" and contract.align.hidden:
        raise mistake("shown: hidden, nobody can count the rows of a scorecard's bins", "align", "match")
    if contract.model.link != "logistic" and contract.align.hidden:
        raise mistake(
            f"shown: hidden is for kind = logistic, not for {contract.model.kind}", "align", "match"
        )
    if contract.model.start is not None and contract.align.hidden:
        raise mistake("shown: hidden, a model cannot start from an earlier one", "align", "match")
    if contract.model.kind not in GLM_KINDS and (contract.bank.offset or contract.bank.weight):
        raise mistake(f"no offset or weight with kind = {contract.model.kind}", "parties", 0)
    _check_pairs(contract)


def _check_pairs(contract: "Contract") -> None:
    known = {f"{p.name}/{c}" for p in contract.parties for c in (*p.numbers, *p.categories)}
    unknown = [c for pair in contract.additive.pairs for c in pair if c not in known]
    if unknown:
        raise mistake(f"columns of a party, not {unknown[0]}", "additive", "pairs")
    if contract.additive.pairs and contract.model.kind != "additive":
        raise mistake("pairs are for a model of kind additive", "additive", "pairs")
    numbers = {(p.name, c) for p in contract.parties for c in p.numbers}
    across = contract.additive.across
    wrong = [
        f"{party}/{column}" for pair in across for party, column in pair if (party, column) not in numbers
    ]
    if wrong:
        raise mistake(f"numbers where a pair is of two parties, not {wrong[0]}", "additive", "pairs")
    if across and contract.model.penalties:
        raise mistake("one penalty where pairs are of two parties", "model", "penalties")
    if across and (contract.align.hidden or contract.align.join == "left"):
        raise mistake(
            "pairs of one party: those of two need match = shown and join = inner", "additive", "pairs"
        )


def _check_trees(contract: "Contract") -> None:
    if contract.align.hidden:
        raise mistake("shown: who is in a node of a tree is known to both sides, by row", "align", "match")
    if contract.align.join == "left" and contract.trees.reveal != "sides":
        raise mistake(
            "inner: rows without the partner's columns have no bins there, and nobody would know how many",
            "align",
            "join",
        )
    if contract.trees.reveal == "nothing" and len(contract.partners) > 1:
        raise mistake("sides or totals: gains are compared on shares with one partner", "trees", "reveal")
    if contract.trees.checked_shares and len(contract.partners) > 1:
        raise mistake("false: the shares of one partner alone are checked", "trees", "checked_shares")
    if contract.trees.epsilon is not None and len(contract.partners) > 1:
        raise mistake("left out: noise is that of one partner alone", "trees", "epsilon")
    if contract.trees.reveal != "sides":
        if max(contract.trees.class_weights) > MAX_WEIGHT_RATIO * min(contract.trees.class_weights):
            raise mistake(
                f"weights of which one is at most {MAX_WEIGHT_RATIO} times the other, on shares",
                "trees",
                "class_weights",
            )
        if contract.trees.row_share < 1:
            # Everybody knows who is drawn: counts of as many known groups as there are trees tell single rows.
            raise mistake("1: totals of groups drawn anew for each tree tell rows", "trees", "row_share")
        epsilon, most = contract.trees.epsilon, contract.limits.max_epsilon
        if epsilon is not None and epsilon > most:
            raise mistake(f"at most limits.max_epsilon, {most:g}", "trees", "epsilon")
    if contract.trees.reveal == "nothing":
        _check_blind_trees(contract)
    numbers = {(party.name, name) for party in contract.parties for name in party.numbers}
    for place, trend in enumerate(contract.trees.trends):
        if (trend.party, trend.column) not in numbers:
            raise mistake("one of the party's numbers", "trees", "trends", place, "column")


def _check_blind_trees(contract: "Contract") -> None:
    trees = contract.trees
    if trees.class_weights != (1.0, 1.0):
        raise mistake("[1.0, 1.0]: gains are bounded for rows that weigh the same", "trees", "class_weights")
    if trees.patience:
        raise mistake("0: nothing is told that could end a training", "trees", "patience")
    if trees.column_share < 1:
        raise mistake("1: nobody is told which columns a tree may use", "trees", "column_share")
    if trees.min_gain:
        raise mistake("0: gains are compared with each other only", "trees", "min_gain")
    if trees.trends:
        raise mistake("none: values of leaves, which trends bound, are not known", "trees", "trends")


def check_correlation(contract: "Contract") -> None:
    """Raise a mistake where correlations or standard errors are listed that must not be."""
    align = contract.align
    shown = not align.hidden and align.join == "inner"
    accepted = refused_correlation(contract.disclosures, contract.model, shown, contract.limits.min_support)
    if accepted:
        raise mistake(accepted, "disclosures")
    is_weighted = bool(contract.bank.weight or contract.model.class_weights)
    if "StandardErrors" in contract.disclosures and is_weighted:
        raise mistake("StandardErrors where all rows count alike: no weight, no class_weights", "disclosures")
