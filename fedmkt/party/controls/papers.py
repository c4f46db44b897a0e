"""C14, C15, C17 and C18: assessments, retention, countries and approvals."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from fedmkt.contract.agreement import Contract
from fedmkt.contract.approvals import check_approved
from fedmkt.contract.governance import AssessmentTerms
from fedmkt.errors import PolicyRefused
from fedmkt.party.controls.control import Breach, ContractAsked, Control

RECORD_DAYS: Final = 1096
"""Three years: PIPL 56, network data regulation 12."""
TRANSPORT_DAYS: Final = 183
"""Six months: cybersecurity law 21."""


def _assessed(
    what: str, found: AssessmentTerms | None, contract: Contract, now: datetime
) -> Iterator[Breach]:
    if found is None:
        yield Breach(f"no {what} is named")
        return
    if found.expires <= now:
        yield Breach(f"the {what} expired on {found.expires:%Y-%m-%d}", "assess anew, and amend the contract")
    if found.purpose != contract.purpose:
        yield Breach(f"the {what} is for {found.purpose!r}, the contract for {contract.purpose!r}")
    for party in contract.parties:
        if party.name not in found.parties:
            yield Breach(f"the {what} does not cover {party.name}")


def _impact(asked: ContractAsked) -> Iterator[Breach]:
    if asked.terms is not None:
        yield from _assessed("assessment of impact", asked.terms.impact, asked.contract, asked.now)


def _retention(asked: ContractAsked) -> Iterator[Breach]:
    if asked.terms is None:
        return
    kept = asked.terms.retention
    if kept.record_days < RECORD_DAYS:
        yield Breach(f"record_days = {kept.record_days}, the law asks for {RECORD_DAYS}")
    if kept.transport_days < TRANSPORT_DAYS:
        yield Breach(f"transport_days = {kept.transport_days}, the law asks for {TRANSPORT_DAYS}")
    for dataset in asked.terms.datasets:
        if kept.result_days > dataset.retention_days:
            yield Breach(
                f"results are kept {kept.result_days} days, the dataset of {dataset.party} allows "
                f"{dataset.retention_days}"
            )


def _location(asked: ContractAsked) -> Iterator[Breach]:
    if asked.terms is None:
        return
    for name, country in sorted(asked.terms.locations.items()):
        if country not in asked.terms.countries:
            yield Breach(f"{name} is in {country}, allowed: {', '.join(asked.terms.countries)}")
    if len(set(asked.terms.locations.values())) > 1:
        what = "assessment of the transfer abroad"
        yield from _assessed(what, asked.terms.transfer, asked.contract, asked.now)


def _approvals(asked: ContractAsked) -> Iterator[Breach]:
    if not asked.config.policy.require_approvals:
        return
    try:
        check_approved(asked.contract, asked.statements)
    except PolicyRefused as error:
        yield Breach(str(error).removeprefix("C18 approvals: "), error.hint)


CONTROLS = (
    Control("C14", "impact assessment", "PIPL 55, 56; GDPR 35", "governance", "impact", contract=_impact),
    Control("C15", "retention", "PIPL 19, 56; Reg. 12; CSL 21", "governance",
            "retention, datasets.retention_days", contract=_retention),
    Control("C17", "location", "PIPL 38; Reg. 35-38", "governance",
            "locations, countries, transfer", contract=_location),
    Control("C18", "approvals", "JR/T 0196", "governance", "approvers, approvals", contract=_approvals),
)  # fmt: skip
