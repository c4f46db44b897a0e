"""What a contract says, section by section: purposes, legal bases, columns, countries, budgets, who learns what.

The last section lists every term by its name, so that nothing that was signed is left out of what people read.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from fedmkt.contract.agreement import Contract, Signer
from fedmkt.contract.approvals import counts, decisions, revocations
from fedmkt.contract.canonical import digest
from fedmkt.contract.governance import AssessmentTerms, DatasetTerms, GovernanceTerms
from fedmkt.contract.reading.changes import flat
from fedmkt.contract.reading.document import (
    Block,
    Document,
    Facts,
    Items,
    Language,
    Note,
    Section,
    Table,
    Voice,
)
from fedmkt.contract.signatures import SignedContract, signature_standings
from fedmkt.crypto.dsse import Envelope
from fedmkt.crypto.sign import fingerprint
from fedmkt.privacy.disclosure import READERS, may_learn


@dataclass(frozen=True)
class Reading:
    """A contract with what was said about it, as it is read at one moment; statements : approvals and revocations."""

    signed: SignedContract
    statements: tuple[Envelope, ...]
    now: datetime

    @property
    def contract(self) -> Contract:
        """What is agreed."""
        return self.signed.contract


def role_of(contract: Contract, signer: Signer) -> str:
    """Return bank, partner or coordinator."""
    return next((party.role for party in contract.parties if party.name == signer.name), "coordinator")


def readers_of(contract: Contract, kind: str) -> list[str]:
    """List the signers who may be told a disclosure of this kind."""
    if kind == "DealerSeeds":
        return [] if contract.auditor is None else [contract.auditor.name]
    hidden = contract.align.hidden
    return [
        s.name for s in contract.signers if kind in may_learn(role_of(contract, s), contract.task, hidden)
    ]


def read(reading: Reading, language: Language) -> Document:
    """Lay out the whole contract in one language."""
    say, contract = Voice(language), reading.contract
    sections = (
        _agreement(say, reading),
        _signers(say, contract),
        *governance_sections(say, contract),
        _limits(say, contract),
        disclosures(say, contract),
        _approvals(say, reading),
        _signatures(say, reading),
        _all_terms(say, contract),
    )
    return Document(
        language,
        say("title", name=contract.name),
        say("subtitle", digest=digest(contract).hex()),
        sections,
        say("colon"),
    )


def governance_sections(say: Voice, contract: Contract) -> Iterator[Section]:
    """Lay out the terms of governance, or say that there are none; columns in any case."""
    terms = contract.governance
    if terms is not None:
        yield _datasets(say, terms)
    yield columns(say, contract)
    if terms is None:
        yield Section(say("governance"), (Note(say("no_governance"), serious=True),))
        return
    yield _countries(say, contract, terms)
    yield Section(say("assessments"), (_assessment(say, terms.impact, say("impact")),))
    yield _retention(say, terms)
    yield Section(say("withdrawal"), (Note(say("withdrawal_text")),))
    yield _recipients(say, terms)


def _agreement(say: Voice, reading: Reading) -> Section:
    contract, terms = reading.contract, reading.contract.governance
    rows = [
        (say("purpose"), contract.purpose),
        (say("task"), say(f"task.{contract.task}")),
        (say("valid"), say("from_to", start=moment(contract.created), end=moment(contract.expires))),
        (say("state", time=moment(reading.now)), _state(say, reading)),
    ]
    if contract.task == "train":
        rows.append((say("model"), say(f"model.{contract.model.kind}")))
        rows.append((say("match"), say(f"match.{contract.align.match}")))
        rows.append((say("auditor"), _auditor(say, contract)))
    if terms is not None:
        rows.append((say("use"), say(f"use.{terms.use}")))
        rows.append((say("revision"), _revision(say, terms)))
        rows.append((say("suite"), say(f"suite.{terms.suite}")))
        rows.append((say("code"), terms.code or say("code_open")))
    blocks: list[Block] = [Facts(tuple(rows))]
    if contract.rehearsal:
        blocks.insert(0, Note(say("rehearsal"), serious=True))
    for found in revocations(contract, reading.statements):
        text = say("revoked", signer=found.signer, time=moment(found.time), reason=found.reason)
        blocks.insert(0, Note(text, serious=True))
    return Section(say("agreement"), tuple(blocks))


def _auditor(say: Voice, contract: Contract) -> str:
    auditor = contract.auditor
    if auditor is None:
        return say("auditor_none")
    seen = fingerprint(bytes.fromhex(auditor.seal_key))
    return say("auditor_named", name=auditor.name, organisation=auditor.organisation, fingerprint=seen)


def _revision(say: Voice, terms: GovernanceTerms) -> str:
    if terms.amends is None:
        return say("revision_first")
    return say("revision_later", number=terms.revision, digest=terms.amends)


def _state(say: Voice, reading: Reading) -> str:
    contract = reading.contract
    if revocations(contract, reading.statements):
        return say("state_revoked")
    if reading.now < contract.created:
        return say("state_future")
    if reading.now >= contract.expires:
        return say("state_expired")
    return say("state_valid", days=(contract.expires - reading.now).days)


def _signers(say: Voice, contract: Contract) -> Section:
    terms = contract.governance
    countries = {} if terms is None else terms.locations
    rows = tuple(
        (
            signer.name,
            signer.organisation,
            say(f"role.{role_of(contract, signer)}"),
            countries.get(signer.name, say("not_said")),
            fingerprint(bytes.fromhex(signer.key)),
        )
        for signer in contract.signers
    )
    head = (say("name"), say("organisation"), say("role"), say("country"), say("fingerprint"))
    return Section(say("signers"), (Table(head, rows),))


def _datasets(say: Voice, terms: GovernanceTerms) -> Section:
    return Section(say("datasets"), tuple(Facts(_dataset(say, d)) for d in terms.datasets))


def _dataset(say: Voice, data: DatasetTerms) -> tuple[tuple[str, str], ...]:
    return (
        (say("party"), data.party),
        (say("dataset"), data.name),
        (say("people"), data.people),
        (say("purposes"), say.join(data.purposes)),
        (say("basis"), say.join([say(f"basis.{b}") for b in data.basis])),
        (say("sensitive_basis"), say.join([say(f"basis.{b}") for b in data.sensitive_basis])),
        (say("minimum_age"), say("age_open") if data.minimum_age is None else str(data.minimum_age)),
        (say("kept_at_most"), say("days", number=data.retention_days)),
    )


def columns(say: Voice, contract: Contract) -> Section:
    """Lay out the columns that take part, with level, category and kind as their owner says."""
    head = (say("party"), say("column"), say("level"), say("category"), say("kind"), say("sensitive"))
    rows = [row for party in contract.parties for row in _columns(say, contract, party.name, party.columns)]
    blocks: list[Block] = [Table(head, tuple(rows))] if rows else [Note(say("no_columns"))]
    if rows:
        blocks.append(Note(say("levels_text")))
    return Section(say("columns"), tuple(blocks))


def _columns(say: Voice, contract: Contract, party: str, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    terms = contract.governance
    data = None if terms is None else terms.dataset(party)
    for name in names:
        grant = None if data is None else data.grant(name)
        if grant is None:
            yield (party, name, *[say("not_said")] * 4)
            continue
        level = say("level_unknown", level=grant.counts_as) if grant.level is None else str(grant.level)
        sensitive = say("yes") if grant.sensitive else say("no")
        yield party, name, level, grant.category or say("not_said"), grant.kind, sensitive


def _countries(say: Voice, contract: Contract, terms: GovernanceTerms) -> Section:
    abroad = crosses_border(terms)
    blocks: list[Block] = [
        Facts(
            (
                (say("countries_allowed"), say.join(terms.countries)),
                (say("border"), say("border_crossed") if abroad else say("border_kept")),
            )
        )
    ]
    if abroad or terms.transfer is not None:
        blocks.append(_assessment(say, terms.transfer, say("transfer")))
    return Section(say("countries"), tuple(blocks))


def crosses_border(terms: GovernanceTerms) -> bool:
    """Tell whether the signers are in more than one country."""
    return len(set(terms.locations.values())) > 1


def _assessment(say: Voice, terms: AssessmentTerms | None, name: str) -> Block:
    if terms is None:
        return Note(say("assessment_missing", name=name), serious=True)
    return Facts(
        (
            (name, terms.sha256),
            (say("purpose"), terms.purpose),
            (say("parties"), say.join(terms.parties)),
            (say("holds_until"), moment(terms.expires)),
        )
    )


def _retention(say: Voice, terms: GovernanceTerms) -> Section:
    kept = terms.retention
    rows = (
        (say("results_kept"), say("days", number=kept.result_days)),
        (say("records_kept"), say("days", number=kept.record_days)),
        (say("transport_kept"), say("days", number=kept.transport_days)),
    )
    return Section(say("retention"), (Facts(rows), Note(say("retention_text"))))


def _recipients(say: Voice, terms: GovernanceTerms) -> Section:
    head = (say("result"), say("recipient"), say("recipient_use"))
    rows = tuple((say(f"result.{r.result}"), r.to, r.use) for r in terms.recipients)
    blocks: list[Block] = [Table(head, rows)]
    if terms.groups:
        blocks.append(Facts(((say("groups"), say.join(terms.groups)),)))
    return Section(say("results"), tuple(blocks))


def _limits(say: Voice, contract: Contract) -> Section:
    limits, terms = contract.limits, contract.governance
    rows = [
        (say("max_runs"), str(limits.max_runs)),
        (say("max_resumes"), str(limits.max_resumes)),
    ]
    if terms is not None:
        rows.append((say("max_size_runs"), str(terms.max_size_runs)))
    if contract.trees.epsilon is None:
        rows.append((say("noise"), say("noise_none")))
    else:
        rows.append((say("noise"), f"epsilon = {contract.trees.epsilon:g}"))
        rows.append((say("max_epsilon"), f"epsilon <= {limits.max_epsilon:g}"))
        rows.append((say("max_delta"), say("delta_text")))
    rows += [
        (say("min_list"), f"{limits.min_list:,}"),
        (say("min_common"), f"{limits.min_common:,}"),
        *([] if terms is None else [(say("min_rest"), f"{terms.min_rest:,}")]),
        (say("min_support"), f"{limits.min_support:,}"),
    ]
    if contract.task == "train":
        rows.append((say("rounding"), say("rounding_text", decimals=contract.scores.decimals)))
    return Section(say("budgets"), (Facts(tuple(rows)),))


def disclosures(say: Voice, contract: Contract) -> Section:
    """Lay out who may learn what, each disclosure with its whole text."""
    learned = tuple(
        (s.name, say.join([kind for kind in contract.disclosures if s.name in readers_of(contract, kind)]))
        for s in contract.signers
    )
    blocks: list[Block] = [Note(say("disclosures_text")), Facts(learned)]
    unused = [kind for kind in contract.disclosures if kind not in READERS]
    if unused:
        blocks.append(Note(say("disclosures_unused", kinds=say.join(unused))))
    blocks.append(Items(tuple(disclosure_item(say, contract, kind) for kind in contract.disclosures)))
    return Section(say("disclosures"), tuple(blocks))


def disclosure_item(say: Voice, contract: Contract, kind: str) -> tuple[str, str]:
    """Give one disclosure's title, with who learns it, and its text."""
    title, text = say.disclosure(kind)
    return say("to_readers", title=title, readers=say.join(readers_of(contract, kind))), text


def _approvals(say: Voice, reading: Reading) -> Section:
    contract, terms = reading.contract, reading.contract.governance
    if terms is None:
        return Section(say("approvals"), (Note(say("approvals_none")),))
    found = counts(contract, reading.statements)
    head = (say("party"), say("approved"), say("needed"), say("approvers"))
    rows = tuple((c.party, str(len(c.approved)), str(c.needed), str(c.approvers)) for c in found)
    blocks: list[Block] = [Note(say("approvals_text", number=terms.needed)), Table(head, rows)]
    said = {d.approver.key: d for d in decisions(contract, reading.statements)}
    people = []
    for approver in terms.approvers:
        decided = said.get(approver.key)
        what, when, why = say("decision_none"), "", ""
        if decided is not None:
            what, when, why = say(f"decision.{decided.decision}"), moment(decided.time), decided.reason
        people.append((approver.party, approver.name, say(f"approver.{approver.role}"), what, when, why))
    if people:
        titles = (say("party"), say("name"), say("role"), say("decision"), say("time"), say("reason"))
        blocks.append(Table(titles, tuple(people)))
    if any(c.lacking for c in found):
        blocks.append(Note(say("approvals_lacking"), serious=True))
    return Section(say("approvals"), tuple(blocks))


def _signatures(say: Voice, reading: Reading) -> Section:
    found = signature_standings(reading.signed)
    rows = tuple((name, say(f"signature.{standing}")) for name, standing in found.items())
    blocks: list[Block] = [Facts(rows)]
    if all(standing == "valid" for standing in found.values()):
        blocks.append(Note(say("signatures_complete")))
    else:
        blocks.append(Note(say("signatures_lacking"), serious=True))
    return Section(say("signatures"), tuple(blocks))


def _all_terms(say: Voice, contract: Contract) -> Section:
    """List every term by its name: what the sections above put into words, and what only the arithmetic needs."""
    return Section(say("all_terms"), (Facts(tuple(flat(contract))),))


def moment(value: datetime) -> str:
    """Write a time as people of any country read it."""
    return value.strftime("%Y-%m-%d %H:%M UTC")


def texts_of(document: Document) -> Iterable[str]:
    """List every text of a document, in order."""
    yield from (document.title, document.subtitle)
    for section in document.sections:
        yield section.title
        for block in section.blocks:
            if isinstance(block, Note):
                yield block.text
            else:
                yield from block.head if isinstance(block, Table) else ()
                for row in block.rows:
                    yield from row
