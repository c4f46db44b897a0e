"""Which terms of a contract go together, whatever its kind of model: one mistake for each rule that is broken."""

from typing import TYPE_CHECKING

from fedmkt.contract.model_rules import check_correlation, check_model
from fedmkt.contract.words import comparable
from fedmkt.mistakes import mistake

if TYPE_CHECKING:
    from fedmkt.contract.agreement import Contract

OVERLAP_DISCLOSURES = ("ListSize", "SetSize")
"""All that a job that counts common customers may disclose."""


def check_rules(contract: "Contract") -> None:
    """Raise the mistake of the first rule that a contract breaks."""
    _check_signers(contract)
    _check_matching(contract)
    _check_governance(contract)
    _check_auditor(contract)
    check_correlation(contract)
    if contract.align.join == "left" and "JoinedRows" not in contract.disclosures:
        raise ValueError("align.join = left tells how many customers take part: disclosures name JoinedRows")
    if len(set(contract.disclosures)) != len(contract.disclosures):
        raise ValueError("every disclosure once")
    if contract.expires <= contract.created:
        raise ValueError("expires after created")
    if contract.task == "train" and len(contract.partners) > 2:
        raise mistake("at most two partners train together; more where task = overlap", "parties")
    if contract.task == "train":
        _check_columns(contract)
        check_model(contract)
    else:
        _check_overlap(contract)


def _check_signers(contract: "Contract") -> None:
    if [party.role for party in contract.parties].count("bank") != 1:
        raise ValueError("exactly one party with role bank")
    names = [signer.name for signer in contract.signers]
    if len(set(names)) != len(names):
        raise ValueError("every signer has a name of its own")
    if len({party.key for party in contract.parties}) != len(contract.parties):
        raise ValueError("every party has a key of its own")
    if len({comparable(party.organisation) for party in contract.parties}) != len(contract.parties):
        raise ValueError("every party is an organisation of its own")


def _check_governance(contract: "Contract") -> None:
    terms = contract.governance
    if terms is None:
        return
    parties, signers = {p.name for p in contract.parties}, {s.name for s in contract.signers}
    if {d.party for d in terms.datasets} != parties:
        raise mistake("one dataset of each party", "governance", "datasets")
    if set(terms.locations) != signers:
        raise mistake("the country of each signer", "governance", "locations")
    if not {a.party for a in terms.approvers} <= parties:
        raise mistake("approvers of parties only", "governance", "approvers")
    keys = {s.key: s.name for s in contract.signers}
    for approver in terms.approvers:
        if approver.key in keys:
            said = f"an approver has the identity key of {keys[approver.key]}: people approve with keys of their own"
            raise mistake(said, "governance", "approvers")
    if not {r.to for r in terms.recipients} <= signers:
        raise mistake("recipients are signers", "governance", "recipients")


def _check_auditor(contract: "Contract") -> None:
    auditor = contract.auditor
    if auditor is not None and "DealerSeeds" not in contract.disclosures:
        raise ValueError("an auditor is given DealerSeeds: disclosures name them")
    if auditor is None:
        return
    for signer in contract.signers:
        if signer.name == auditor.name or signer.key in (auditor.key, auditor.seal_key):
            raise mistake(f"a name and keys of its own, not those of {signer.name}", "auditor")
        if comparable(signer.organisation) == comparable(auditor.organisation):
            raise mistake(f"an organisation of its own, not that of {signer.name}", "auditor", "organisation")
    if auditor.key == auditor.seal_key:
        raise mistake("two keys: one signs, the other opens", "auditor", "seal_key")
    if contract.task != "train":
        raise mistake("left out where task = overlap: nothing is dealt there", "auditor")
    if contract.trees.checked_shares:
        raise mistake(
            "false where there is an auditor: no receipt says what the dealer is asked there",
            "trees",
            "checked_shares",
        )


def _check_matching(contract: "Contract") -> None:
    if len({party.id_kind for party in contract.parties}) != 1:
        raise ValueError("all parties match on one id_kind")
    if len({party.more_kinds for party in contract.parties}) != 1:
        raise ValueError("all parties match on the same more_kinds in the same order")
    if contract.parties[0].more_kinds and len(contract.partners) > 1:
        raise ValueError("more_kinds are for one partner")
    if contract.parties[0].more_kinds and contract.align.reuse:
        # A key that a row lacks is a random item: no two runs would have the same set.
        raise ValueError("align.reuse is for a single key: more_kinds make a new set in every run")
    if len(contract.partners) > 1 and (contract.align.match == "hidden" or contract.align.join == "left"):
        raise ValueError("match = hidden and join = left are for one partner")
    if contract.align.hidden and "ModelPart" in contract.disclosures:
        raise ValueError(
            "match = hidden without ModelPart: from its weights the partner can tell who is common"
        )


def _check_columns(contract: "Contract") -> None:
    for place, party in enumerate(contract.parties):
        if party.role == "bank" and party.label is None:
            raise mistake("the bank, and only the bank, has a label", "parties", place)
        if not (party.numbers or party.categories):
            raise mistake("at least one column in numbers or categories", "parties", place)


def _check_overlap(contract: "Contract") -> None:
    for place, party in enumerate(contract.parties):
        if party.columns:
            raise mistake("no column and no label: the task only counts customers", "parties", place)
    if not set(contract.disclosures) <= set(OVERLAP_DISCLOSURES):
        raise mistake(f"of {', '.join(OVERLAP_DISCLOSURES)}: the task only counts customers", "disclosures")
    sections = ("model", "trees", "bins", "scorecard", "additive", "scores", "align")
    if any(getattr(contract, name) != type(contract).model_fields[name].default for name in sections):
        raise ValueError(f"{', '.join(sections)} left out: the task only counts customers")
