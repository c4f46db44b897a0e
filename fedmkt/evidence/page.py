"""The pack as one HTML file: no script, no external resource, everything from outside escaped."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from fedmkt.audit.disclosures import DisclosureReport
from fedmkt.contract.reading.amounts_zh import amount_zh, origin_zh, title_zh, unread_zh
from fedmkt.contract.reading.disclosures_zh import DISCLOSURES_ZH
from fedmkt.evidence.common import outcome
from fedmkt.evidence.document import Document, Language, Words
from fedmkt.evidence.facts import Facts
from fedmkt.evidence.life import kinds, lacking, life, where
from fedmkt.report.logs import disclosure_lines
from fedmkt.report.page import show_number, show_size
from fedmkt.report.summary import DisclosureLine

_TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Attack:
    """One line of the attack lab's table, as text."""

    row: str
    name: str
    metric: str
    undefended: str
    here: str
    limit: str
    verdict: str
    note: str


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
        learned=learned(facts, say),
        attacks=attacks(facts),
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


def attacks(facts: Facts) -> tuple[Attack, ...]:
    """Read the lines of the attack lab's report beside a run."""
    return attack_lines(facts.attack_lab)


def attack_lines(report: Mapping[str, object] | None) -> tuple[Attack, ...]:
    """Read the lines of an attack lab's report; what has another form is left to the file itself."""
    found = report.get("findings") if report else None
    return tuple(_attack(line) for line in found if isinstance(line, dict)) if isinstance(found, list) else ()


def _attack(line: Mapping[str, object]) -> Attack:
    limit = line.get("limit")
    if isinstance(limit, dict):
        limit = f"{'≥' if limit.get('is_least') else '≤'} {_shown(limit.get('value'))}"
    return Attack(
        row=_shown(line.get("row")),
        name=_shown(line.get("attack")),
        metric=_shown(line.get("metric")),
        undefended=_shown(line.get("undefended")),
        here=_shown(line.get("here")),
        limit=_shown(limit),
        verdict=_shown(line.get("verdict")),
        note=_shown(line.get("note") or ""),
    )


def _shown(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
