"""The pack as one HTML file: no script, no external resource, everything from outside escaped."""

from collections import Counter
from collections.abc import Mapping

from fedmkt.audit.disclosures import DisclosureReport
from fedmkt.contract.reading.disclosures_zh import DISCLOSURES_ZH
from fedmkt.evidence.amounts_zh import amount_zh, origin_zh, title_zh, unread_zh
from fedmkt.evidence.attacks import table
from fedmkt.evidence.common import outcome
from fedmkt.evidence.document import Document, Language, Words
from fedmkt.evidence.facts import Facts
from fedmkt.evidence.life import kinds, lacking, life, where
from fedmkt.report.logs import disclosure_lines
from fedmkt.report.page import show_number, show_size
from fedmkt.report.summary import DisclosureLine

_TEMPLATE = "page.html.j2"


def render(
    facts: Facts,
    say: Words,
    card: Document,
    drafts: tuple[Document, ...],
    materials: Mapping[str, object],
    maker: str,
    code: str,
) -> str:
    """Return the page as text; equal facts give equal bytes.

    maker : name and fingerprint of who signs the pack; code : digest of the release that makes it.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fedmkt", "evidence"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(number=show_number, size=show_size)
    return environment.get_template(_TEMPLATE).render(
        facts=facts,
        say=say,
        card=card,
        drafts=drafts,
        maker=maker,
        pairs=facts.ledger.totals("sender", "reader", "kind"),
        steps=facts.ledger.totals("stage"),
        stages={"(not in this log)": "（不在此日志中）", "witness": "witness（日志头会签）"},
        learned=learned(facts, say),
        lab=table(facts.attack_lab, say),
        licences=licences(materials),
        outcome=outcome(facts, say),
        moments=life(
            facts.contract, facts.statements, facts.logs.records, facts.run, outcome(facts, say), say
        ),
        kinds=kinds(say),
        where=lambda place: where(place, say),
        lacking=lambda count: lacking(count, say),
        code=code,
    )


def learned(facts: Facts, say: Words) -> tuple[DisclosureLine, ...]:
    """List what each reader learned: kind, from whom, how much, and what can be worked out from it."""
    return learned_lines(facts.disclosures, say.language)


def learned_lines(found: DisclosureReport, language: Language) -> tuple[DisclosureLine, ...]:
    """List the same of any report of disclosures."""
    if language == "en":
        return disclosure_lines(found)
    lines = [
        DisclosureLine(
            item.reader,
            title_zh(item.disclosure.kind),
            origin_zh(item),
            f"{amount_zh(item.disclosure)}。\n{DISCLOSURES_ZH[item.disclosure.kind].text}",
            "disclosures",
        )
        for item in found.merged()
    ]
    for item in found.unread:
        text, amount = unread_zh(item)
        lines.append(DisclosureLine(item.reader, "不在此日志中", amount, f"{text}。", "disclosures"))
    return tuple(lines)


def licences(materials: Mapping[str, object]) -> tuple[tuple[str, int], ...]:
    """Count the components of a bill of materials by licence, the most frequent first."""
    components = materials["components"]
    if not isinstance(components, list):
        raise TypeError("a list of components is needed")
    names = Counter(_licence(c.get("licenses") or [{}]) for c in components)
    return tuple(sorted(names.items(), key=lambda item: (-item[1], item[0])))


def _licence(choices: list[dict[str, object]]) -> str:
    choice = choices[0]
    one = choice.get("license")
    if isinstance(one, dict):
        return str(one.get("id") or one.get("name"))
    return str(choice.get("expression") or "?")
