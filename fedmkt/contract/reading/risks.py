"""What a person who approves should look at twice: facts of a contract, each with what it is about."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fedmkt.contract.agreement import Contract
from fedmkt.contract.governance import AssessmentTerms, DatasetTerms, GovernanceTerms
from fedmkt.contract.reading.contents import crosses_border, moment, readers_of
from fedmkt.contract.reading.document import Voice

STRONG = ("SplitSides", "CrossCorrelation", "Embeddings", "PartialScore", "ModelPart")
"""Disclosures that come near a table of rows."""
WATCHED_LEVEL = 4
LEAST_RECORD_DAYS = 1096
"""PIPL 56 asks for three years."""


@dataclass(frozen=True)
class Risk:
    """One thing to look at twice: its phrase, without the prefix, and the values in it."""

    key: str
    values: Mapping[str, str]

    def said(self, say: Voice) -> str:
        """Say it in a language; an assessment is called by its name there."""
        values = {k: say(v) if k == "name" else v for k, v in self.values.items()}
        return say(f"risk.{self.key}", **values)


def risks(contract: Contract) -> list[Risk]:
    """List what is found, the gravest first; an empty list promises nothing."""
    return [Risk(key, values) for key, values in _all(contract)]


_Found = tuple[str, Mapping[str, str]]


def _all(contract: Contract) -> Iterator[_Found]:
    terms = contract.governance
    if contract.rehearsal:
        yield "rehearsal", {}
    if terms is None:
        yield "no_governance", {}
    else:
        yield from _of_places(contract, terms)
        yield from _of_assessments(contract, terms)
        for party in contract.parties:
            data = terms.dataset(party.name)
            if data is not None:
                yield from _of_data(contract, data, party.columns)
        yield from _of_organisation(contract, terms)
    yield from _of_disclosures(contract)


def _of_places(contract: Contract, terms: GovernanceTerms) -> Iterator[_Found]:
    if crosses_border(terms):
        yield "border", {"countries": " / ".join(sorted(set(terms.locations.values())))}
        if terms.transfer is None:
            yield "no_transfer", {}
    for party, country in terms.locations.items():
        if country not in terms.countries:
            yield "country", {"party": party, "country": country}


def _of_assessments(contract: Contract, terms: GovernanceTerms) -> Iterator[_Found]:
    if terms.impact is None:
        yield "no_impact", {}
    given: dict[str, AssessmentTerms | None] = {"impact": terms.impact, "transfer": terms.transfer}
    for name, found in given.items():
        if found is None:
            continue
        if found.expires < contract.expires:
            yield "assessment_ends", {"name": name, "time": moment(found.expires)}
        if found.purpose != contract.purpose or not {p.name for p in contract.parties} <= set(found.parties):
            yield "assessment_other", {"name": name}


def _of_data(contract: Contract, data: DatasetTerms, used: tuple[str, ...]) -> Iterator[_Found]:
    party = data.party
    if contract.purpose not in data.purposes:
        yield "purpose", {"party": party, "purpose": contract.purpose}
    for column in used:
        grant = data.grant(column)
        about = {"party": party, "column": column}
        if grant is None:
            yield "no_grant", about
            continue
        if grant.level is None:
            yield "unknown_level", {**about, "level": str(grant.counts_as)}
        elif grant.level >= WATCHED_LEVEL:
            yield "level", {**about, "level": str(grant.level)}
        if grant.category == "C3":
            yield "category", about
        if grant.sensitive and not data.sensitive_basis:
            yield "sensitive", about
    for grant in data.columns:
        if grant.name not in used:
            yield "unused", {"party": party, "column": grant.name}


def _of_organisation(contract: Contract, terms: GovernanceTerms) -> Iterator[_Found]:
    for party in contract.parties:
        if sum(a.party == party.name for a in terms.approvers) < terms.needed:
            yield "approvers", {"party": party.name}
    if terms.use == "pricing":
        yield "pricing", {}
    if terms.code is None:
        yield "code", {}
    if terms.retention.record_days < LEAST_RECORD_DAYS:
        yield "records", {"days": str(terms.retention.record_days), "least": str(LEAST_RECORD_DAYS)}


def _of_disclosures(contract: Contract) -> Iterator[_Found]:
    partners = {p.name for p in contract.partners}
    if "MatchedOwnRows" in contract.disclosures and partners & set(readers_of(contract, "MatchedOwnRows")):
        yield "membership", {}
    for kind in contract.disclosures:
        if kind in STRONG:
            yield "strong", {"kind": kind}
