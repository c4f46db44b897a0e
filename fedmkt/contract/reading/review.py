"""What a person reads before approving: what changes, what is new, what is disclosed, what goes in, what is risky."""

import re
from collections.abc import Sequence

from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.contract.reading.changes import Change, changes
from fedmkt.contract.reading.contents import columns, disclosure_item, disclosures, moment
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
from fedmkt.contract.reading.risks import risks


def review(new: Contract, old: Contract | None, language: Language) -> Document:
    """Lay out a review in one language; old : the version that people know, if there is one."""
    say = Voice(language)
    sections = (
        _summary(say, new),
        _changes(say, new, old),
        *_first_disclosed(say, new, old),
        _risks(say, new),
        columns(say, new),
        disclosures(say, new),
    )
    subtitle = say("subtitle", digest=digest(new).hex())
    return Document(language, say("review", name=new.name), subtitle, sections, say("colon"))


def _summary(say: Voice, contract: Contract) -> Section:
    rows = (
        (say("purpose"), contract.purpose),
        (say("task"), say(f"task.{contract.task}")),
        (say("valid"), say("from_to", start=moment(contract.created), end=moment(contract.expires))),
        (say("parties"), say.join([s.organisation for s in contract.signers])),
    )
    return Section(say("agreement"), (Facts(rows),))


def _changes(say: Voice, new: Contract, old: Contract | None) -> Section:
    terms = new.governance
    if old is None:
        is_missing = terms is not None and bool(terms.amends)
        said = say("changes_missing" if is_missing else "changes_first")
        return Section(say("changes"), (Note(said, serious=is_missing),))
    blocks: list[Block] = []
    if terms is not None and terms.amends != digest(old).hex():
        blocks.append(Note(say("changes_other"), serious=True))
    rows = []
    for found in changes(old, new):
        rows.append((place(say, found.where), _said(say, found)))
    blocks.append(Table((say("where"), say("what")), tuple(rows)) if rows else Note(say("changes_none")))
    return Section(say("changes"), tuple(blocks))


def _said(say: Voice, change: Change) -> str:
    old, new = (
        None if text is None else _value(say, change.where, text) for text in (change.old, change.new)
    )
    if old is None:
        return say("change_new", new=new)
    if new is None:
        return say("change_gone", old=old)
    return say("change_was", old=old, new=new)


def _value(say: Voice, where: str, text: str) -> str:
    """Say a value as the page says it elsewhere."""
    if text in ("true", "false"):
        return say("yes") if text == "true" else say("no")
    for pattern, prefix in _VALUES:
        if re.fullmatch(pattern, where):
            return say(f"{prefix}.{text}")
    return text


_VALUES = (
    (r"task", "task"),
    (r"model\.kind", "model"),
    (r"align\.match", "match"),
    (r"governance\.use", "use"),
    (r"governance\.suite", "suite"),
    (r"governance\.datasets\[.*?\]\.(?:basis|sensitive_basis)\[.*\]", "basis"),
    (r"governance\.recipients\[.*\]\.result", "result"),
    (r"governance\.approvers\[.*\]\.role", "approver"),
)
"""Terms whose values have words, and by which prefix these are found."""
_PLACES = (
    (r"purpose", "purpose"),
    (r"created", "place.created"),
    (r"expires", "place.expires"),
    (r"task", "task"),
    (r"model\.kind", "model"),
    (r"align\.match", "match"),
    (r"rehearsal", "place.rehearsal"),
    (r"governance\.suite", "suite"),
    (r"governance\.code", "code"),
    (r"governance\.groups\[.*\]", "groups"),
    (r"disclosures\[.*\]", "place.disclosure"),
    (r"parties\[(.*)\]\.key", "place.key"),
    (r"coordinator\.key", "place.coordinator_key"),
    (r"parties\[(.*)\]\.(?:numbers|categories)\[.*\]", "place.used_column"),
    (r"limits\.max_runs", "max_runs"),
    (r"limits\.max_resumes", "max_resumes"),
    (r"limits\.max_epsilon", "max_epsilon"),
    (r"limits\.min_list", "min_list"),
    (r"limits\.min_common", "min_common"),
    (r"limits\.min_support", "min_support"),
    (r"governance\.min_rest", "min_rest"),
    (r"governance\.datasets\[.*?\]\.minimum_age", "minimum_age"),
    (r"scores\.decimals", "place.decimals"),
    (r"governance\.max_size_runs", "max_size_runs"),
    (r"governance\.use", "use"),
    (r"governance\.approvals", "place.approvals"),
    (r"governance\.locations\.(.*)", "place.location"),
    (r"governance\.countries\[.*\]", "countries_allowed"),
    (r"governance\.retention\.result_days", "results_kept"),
    (r"governance\.retention\.record_days", "records_kept"),
    (r"governance\.retention\.transport_days", "transport_kept"),
    (r"governance\.impact\..*", "impact"),
    (r"governance\.transfer\..*", "transfer"),
    (r"governance\.datasets\[(.*?)\]\.purposes\[.*\]", "place.purposes"),
    (r"governance\.datasets\[(.*?)\]\.(?:basis|sensitive_basis)\[.*\]", "place.basis"),
    (r"governance\.datasets\[(.*?)\]\.retention_days", "place.dataset_days"),
    (r"governance\.datasets\[(.*?)\]\.columns\[(.*)\]\.level", "place.level"),
    (r"governance\.datasets\[(.*?)\]\.columns\[(.*)\]\.category", "place.category"),
    (r"governance\.datasets\[(.*?)\]\.columns\[(.*)\]\.kind", "place.kind"),
    (r"governance\.datasets\[(.*?)\]\.columns\[(.*)\]\.sensitive", "place.sensitive"),
    (r"governance\.datasets\[(.*?)\]\.columns\[(.*)\]\.name", "place.grant"),
    (r"governance\.recipients\[(.*)\]\..*", "place.recipient"),
    (r"governance\.approvers\[(.*)\]\..*", "place.approver"),
)
"""Terms that have words of their own; others are called as in a job."""


def place(say: Voice, where: str) -> str:
    """Say in words which term a change is about."""
    for pattern, key in _PLACES:
        found = re.fullmatch(pattern, where)
        if found is not None:
            return say(key, **dict(zip(("one", "other"), found.groups(), strict=False)))
    return where


def _first_disclosed(say: Voice, new: Contract, old: Contract | None) -> Sequence[Section]:
    """Say of what is disclosed for the first time what it tells, before anything else is said of it."""
    fresh = [kind for kind in new.disclosures if old is not None and kind not in old.disclosures]
    if not fresh:
        return ()
    items = Items(tuple(disclosure_item(say, new, kind) for kind in fresh))
    return (Section(say("new_disclosures"), (items,)),)


def _risks(say: Voice, contract: Contract) -> Section:
    found = tuple(Note(risk.said(say), serious=True) for risk in risks(contract))
    return Section(say("risks"), found or (Note(say("risks_none")),))
