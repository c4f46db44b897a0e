import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest

import fedmkt.contract.reading
from fedmkt.audit import statements
from fedmkt.contract.agreement import Contract
from fedmkt.contract.approvals import approval, denial, revocation
from fedmkt.contract.canonical import digest
from fedmkt.contract.governance import ApproverRole, LawfulBasis, Result, SensitiveBasis, Suite
from fedmkt.contract.model_terms import Kind as ModelKind
from fedmkt.contract.reading.changes import changes
from fedmkt.contract.reading.contents import Reading, read, texts_of
from fedmkt.contract.reading.disclosures_zh import DISCLOSURES_ZH, mark_of
from fedmkt.contract.reading.document import PHRASES, Document, Facts, Language, Voice
from fedmkt.contract.reading.phrases_en import ENGLISH
from fedmkt.contract.reading.phrases_zh import CHINESE
from fedmkt.contract.reading.review import place, review
from fedmkt.contract.reading.risks import risks
from fedmkt.contract.reading.screen import lines
from fedmkt.contract.reading.wide import columns, padded, width_of, wrap
from fedmkt.contract.signatures import SignedContract
from fedmkt.privacy.disclosure import DEFAULT, REGISTRY, plain_text_of
from fedmkt.report.contract import render
from tests.contract.agreed import APPROVERS, IDENTITIES, START, TREES, contract, governance, party, signed

LANGUAGES: tuple[Language, ...] = get_args(Language)
SOURCES = [
    path.read_text()
    for path in sorted(Path(fedmkt.contract.reading.__file__).parent.glob("*.py"))
    if not path.name.startswith("phrases_")
]
PLACEHOLDER = re.compile(r"\{\w+\}")


def agreed(**changes) -> Contract:  # type: ignore[no-untyped-def]
    return contract(governance=governance(**changes))


def reading(found: Contract, given=()) -> Reading:  # type: ignore[no-untyped-def]
    return Reading(signed(found), tuple(given), START + timedelta(days=1))


def grown(**more) -> Contract:  # type: ignore[no-untyped-def]
    """A contract with all that is to be looked at twice, and every disclosure."""
    terms = governance().model_dump()
    terms["locations"]["notary"] = "DE"
    for grant in (terms["datasets"][0]["columns"][0], terms["datasets"][1]["columns"][0]):
        grant |= {"level": 5, "category": "C3", "sensitive": True}
    terms["datasets"][0]["columns"][1]["level"] = None
    terms["datasets"][1]["columns"][0]["name"] = "other"
    terms["datasets"][1]["purposes"] = ["loans"]
    terms["impact"] |= {"purpose": "loans", "expires": START + timedelta(days=3)}
    terms |= {"approvers": terms["approvers"][:3], "use": "pricing", "groups": ("age",), "transfer": None}
    terms["retention"]["record_days"] = 100
    trees = {"kind": "trees"}
    kinds = [k for k in REGISTRY if k not in ("CrossCorrelation", "StandardErrors")]
    values = {"governance": terms, "model": trees, "disclosures": tuple(kinds), "rehearsal": True}
    return contract(**values | more)


def test_both_tables_have_the_same_phrases_with_the_same_values_in_them() -> None:
    assert set(ENGLISH) == set(CHINESE)
    for key, text in ENGLISH.items():
        assert sorted(PLACEHOLDER.findall(text)) == sorted(PLACEHOLDER.findall(CHINESE[key])), key


def test_every_phrase_is_used_and_every_used_one_exists() -> None:
    text = "\n".join(SOURCES)
    literals = set(re.findall(r'"([a-z_]+(?:\.[a-z0-9_+-]+)?)"', text))
    prefixes = {f"{found}." for found in re.findall(r'f"(\w+)\.\{', text)}
    risk_keys = {f"risk.{key}" for key in re.findall(r'yield "(\w+)"', text)}
    dynamic = {key for key in ENGLISH if key.partition(".")[0] + "." in prefixes and "risk" not in key}
    assert set(ENGLISH) - literals - dynamic - risk_keys == set()
    said = set(re.findall(r'say\("([\w.+-]+)"', text)) | risk_keys
    assert said <= set(ENGLISH)


@pytest.mark.parametrize(
    ("prefix", "values"),
    [
        ("basis", (*get_args(LawfulBasis), *get_args(SensitiveBasis))),
        ("model", get_args(ModelKind)),
        ("approver", get_args(ApproverRole)),
        ("result", get_args(Result)),
        ("suite", get_args(Suite)),
        ("role", ("bank", "partner", "coordinator")),
        ("task", ("train", "overlap")),
        ("match", ("shown", "hidden")),
        ("use", ("marketing", "service", "pricing")),
        ("signature", ("valid", "missing", "invalid")),
        ("decision", ("approval", "denial")),
    ],
)
def test_every_value_of_a_term_has_words_and_no_other_has(prefix: str, values: tuple[str, ...]) -> None:
    assert {key for key in ENGLISH if key.startswith(f"{prefix}.")} == {f"{prefix}.{v}" for v in values}


def test_every_disclosure_is_translated_as_it_stands_now() -> None:
    # If this fails, an English text has changed: translate it anew, then write its mark down.
    assert {kind: found.of for kind, found in DISCLOSURES_ZH.items()} == {k: mark_of(k) for k in REGISTRY}


NAMES = {
    "ann", "ben", "age", "y", "other", "bank", "shop", "notary", "cards", "loans", "letters", "spring", "ltd", "Notary",
    "of", "customers", "who", "agreed", "demography", "CN", "DE", "called", "off", "Card", "Bank", "Shop",
}  # fmt: skip
SYMBOLS = {
    "SHA", "UTC", "Ed", "ML", "DSA", "SM", "JR", "T", "C", "WOE", "e", "epsilon", "delta", "p", "w", "X", "min_support",
    "minimum", "width", "reveal", "totals",
}  # fmt: skip


@pytest.mark.parametrize("of", [agreed, grown])
def test_no_english_is_left_in_a_chinese_page_besides_names(of) -> None:  # type: ignore[no-untyped-def]
    found = of()
    for document in (read(reading(found, statement_of(found)), "zh"), review(found, agreed(), "zh")):
        # The last section calls terms by their names in the file.
        sections = tuple(s for s in document.sections if s.title != CHINESE["all_terms"])
        text = " ".join(texts_of(replace(document, sections=sections))).replace(digest(found).hex(), "")
        words = set(re.findall(r"[A-Za-z_]+", re.sub(r"\b[0-9a-f]{4,64}\b", "", text)))
        assert words - NAMES - SYMBOLS - set(REGISTRY) - set(found.disclosures) == set()


def statement_of(found: Contract):  # type: ignore[no-untyped-def]
    ann, ben = found.governance.approvers[:2]
    return (
        statements.sign(approval(found, ann, START), APPROVERS["bank", "data-owner"]),
        statements.sign(denial(found, ben, START, "太宽泛"), APPROVERS["bank", "compliance"]),
        statements.sign(revocation(found, "shop", START, "取消"), IDENTITIES["shop"]),
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_says_all_that_was_agreed(language: Language) -> None:
    found = agreed()
    text = "\n".join(texts_of(read(reading(found, statement_of(found)), language)))
    say = Voice(language)
    for phrase in ("decision.approval", "decision.denial", "approvals_lacking", "signatures_complete"):
        assert say(phrase) in text
    for kind in DEFAULT:
        assert (plain_text_of(kind) if language == "en" else DISCLOSURES_ZH[kind].text) in text
    for said in (
        digest(found).hex(),
        "customers who agreed",
        "letters",
        "ab" * 32,
        "太宽泛",
        "取消",
        "1096",
        "183",
    ):
        assert said in text
    assert say("basis.PIPL-13-1") in text and say("border_kept") in text


def leaves(value: object) -> Iterator[str]:
    """List every single value of a contract as the file has it."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list | tuple) and all(isinstance(item, Mapping | str) for item in value):
        for item in value:
            yield from leaves(item)
    elif value is not None:
        yield str(value)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("of", [agreed, grown, contract])
def test_no_term_that_was_signed_is_left_out_of_what_people_read(of, language: Language) -> None:  # type: ignore[no-untyped-def]
    found = of()
    document = read(reading(found), language)
    (section,) = [s for s in document.sections if s.title == PHRASES[language]["all_terms"]]
    (block,) = section.blocks
    rows = block.rows  # type: ignore[union-attr]
    # As many rows as values, whatever nests in whatever: a new section of terms cannot be forgotten.
    assert len(rows) == len(list(leaves(found.model_dump(exclude_none=True))))
    names = {re.sub(r"\[.*?\](?=\.|$)", "", where) for where, _ in rows}
    assert {f"governance.{n}" for n in ("min_rest", "max_size_runs", "approvals")} <= names or of is contract
    assert {
        "limits.max_epsilon",
        "align.match",
        "model.kind",
        "parties.key",
        "coordinator.key",
        "channel",
    } <= names


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_age_and_a_remainder_are_said_in_words(language: Language) -> None:
    terms = governance(min_rest=321).model_dump()
    terms["datasets"][0]["minimum_age"] = 21
    rows = dict(
        row
        for section in read(reading(contract(governance=terms)), language).sections
        for block in section.blocks
        if isinstance(block, Facts)
        for row in block.rows
    )
    assert rows[PHRASES[language]["min_rest"]] == "321"
    assert rows["governance.datasets[bank].minimum_age"] == "21"
    text = "\n".join(texts_of(read(reading(contract(governance=terms)), language)))
    assert f"{PHRASES[language]['minimum_age']}\n21\n" in text


def test_weights_of_classes_that_change_places_are_a_change() -> None:
    old, new = (
        contract(**TREES | {"trees": {"reveal": "sides", "class_weights": weights}})
        for weights in ((1.0, 5.0), (5.0, 1.0))
    )
    (found,) = changes(old, new)
    assert (found.where, found.old, found.new) == ("trees.class_weights", "1.0, 5.0", "5.0, 1.0")
    keys = (("email", "phone:home"), ("phone:home", "email"))
    first, last = (contract(parties=(party("bank", more_kinds=k), party("shop", more_kinds=k))) for k in keys)
    assert {c.where for c in changes(first, last)} == {"parties[bank].more_kinds", "parties[shop].more_kinds"}


def test_two_uses_of_one_result_are_two_terms() -> None:
    one, two = ({"result": "scores", "to": "bank", "use": use} for use in ("letters", "calls"))
    found = changes(agreed(recipients=[one]), agreed(recipients=[one, two]))
    assert {c.new for c in found} == {"scores", "bank", "calls"}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("of", [agreed, grown, contract])
def test_no_line_is_wider_than_the_screen(of, language: Language) -> None:  # type: ignore[no-untyped-def]
    found = of()
    given = statement_of(found) if found.governance is not None else ()
    for document in (read(reading(found, given), language), review(found, agreed(), language)):
        for width in (60, 80):
            shown = lines(document, width)
            assert max(map(width_of, shown)) <= width
            together = re.sub(r"\s", "", "".join(shown))
            for section in document.sections:
                assert re.sub(r"\s", "", section.title) in together


def test_a_contract_without_governance_says_so() -> None:
    text = "\n".join(lines(read(reading(contract()), "en")))
    assert ENGLISH["approvals_none"] in text and "This contract has none" in text
    assert [risk.key for risk in risks(contract())] == ["no_governance", "membership"]


def test_all_that_is_looked_for_is_found() -> None:
    assert {risk.key for risk in risks(grown())} == {
        "rehearsal", "border", "no_transfer", "country", "assessment_ends", "assessment_other", "purpose", "no_grant",
        "unknown_level", "level", "category", "sensitive", "unused", "approvers", "pricing", "code", "records",
        "membership", "strong",
    }  # fmt: skip
    assert [risk.key for risk in risks(agreed())] == ["code", "membership"]
    assert "no_impact" in {risk.key for risk in risks(agreed(impact=None))}
    assert risks(contract(governance=governance(code="cd" * 32), align={"match": "hidden"})) == []


def test_changes_are_told_term_by_term() -> None:
    old = agreed()
    terms = governance(max_size_runs=7).model_dump()
    terms["datasets"][0]["columns"][0]["level"] = 3
    terms["datasets"][1]["purposes"] = ["cards", "loans"]
    new = contract(
        governance={**terms, "revision": 2, "amends": digest(old).hex()},
        parties=(party("bank"), party("shop", numbers=("age", "visits"))),
        disclosures=(*DEFAULT, "ModelPart"),
    )
    found = {c.where: (c.old, c.new) for c in changes(old, new)}
    assert found == {
        "disclosures[ModelPart]": (None, "ModelPart"),
        "governance.datasets[bank].columns[age].level": ("2", "3"),
        "governance.datasets[shop].purposes[loans]": (None, "loans"),
        "governance.max_size_runs": ("5", "7"),
        "parties[shop].numbers[visits]": (None, "visits"),
    }
    text = "\n".join(lines(review(new, old, "en")))
    assert "level of column age of bank" in text and "2 becomes 3" in text and "NEW: loans" in text
    assert text.index("Disclosed for the first time") < text.index("Look at these twice")
    assert ENGLISH["changes_other"] not in text
    assert changes(new, new) == []


def test_a_review_against_another_version_than_the_amended_one_says_so() -> None:
    text = "\n".join(lines(review(agreed(), contract(), "en"), 200))
    assert ENGLISH["changes_other"] in text
    assert ENGLISH["changes_none"] in "\n".join(lines(review(contract(), contract(), "en")))
    assert ENGLISH["changes_first"] in "\n".join(lines(review(contract(), None, "en")))


def test_a_review_without_the_version_that_is_amended_does_not_say_that_there_is_none() -> None:
    first = agreed()
    assert first.governance is not None
    terms = first.governance.model_copy(update={"revision": 2, "amends": "ab" * 32})
    text = "\n".join(lines(review(first.model_copy(update={"governance": terms}), None, "en")))
    assert ENGLISH["changes_missing"] in text and ENGLISH["changes_first"] not in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_term_without_words_is_called_as_in_a_job(language: Language) -> None:
    say = Voice(language)
    assert place(say, "model.iterations") == "model.iterations"
    assert place(say, "limits.max_runs") == PHRASES[language]["max_runs"]
    assert "bank" in place(say, "parties[bank].key")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_of_html_shows_every_text_and_runs_nothing(language: Language) -> None:
    document = read(reading(agreed(), statement_of(agreed())), language)
    page = render(document)
    assert (
        f'<html lang="{"en" if language == "en" else "zh-Hans"}">' in page
        and "<script" not in page
        and "http" not in page.split("<main>")[1]
    )
    plain = re.sub(r"<[^>]+>", "\n", page)
    for text in texts_of(document):
        assert _escaped(text) in plain


def test_what_people_wrote_cannot_leave_its_place_in_the_page() -> None:
    bad = "<script>alert(1)</script>&\"'"
    page = render(read(reading(contract(purpose=bad, governance=governance())), "en"))
    assert "<script" not in page and _escaped(bad) in page


def _escaped(text: str) -> str:
    for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(sign, name)
    return text


def test_wide_characters_count_two_and_lines_break_between_them() -> None:
    assert width_of("合同 a") == 6 and padded("合", 4) == "合  "
    assert wrap("隐私集合求交，合同。", 8) == ["隐私集合", "求交，合", "同。"]
    assert wrap("授权，", 4) == ["授", "权，"]  # a comma begins no line
    assert wrap("披露（出境）", 6) == ["披露", "（出", "境）"]  # a bracket ends none
    assert wrap("one two three", 7, "- ", "  ") == ["- one", "  two", "  three"]
    assert wrap("a" * 10, 4) == ["aaaa", "aaaa", "aa"]
    assert wrap("", 4, "- ") == ["- "]
    assert wrap("50 行", 80) == ["50 行"]


def test_a_table_gives_way_where_it_is_widest() -> None:
    shown = columns(("列", "text"), (("年龄", "one two three four"),), 16)
    assert shown == ["列    text", "----  ----------", "年龄  one two", "      three four"]


def test_the_file_that_is_signed_by_nobody_reads_the_same(tmp_path: Path) -> None:
    unsigned = Reading(SignedContract(contract=agreed()), (), START)
    document: Document = read(unsigned, "en")
    assert ENGLISH["signatures_lacking"] in set(texts_of(document))
