import pytest

from fedmkt.audit import disclosures
from fedmkt.audit.records import Record
from fedmkt.errors import AuditError
from fedmkt.privacy.disclosure import Embeddings, MatchedOwnRows, RangeBit, Scores, SplitSides


def record(party, disclosure, kind="value.revealed"):
    return Record(0, "t", party, "r", kind, "c", {"index": 1, "step": "S", **disclosure.record()})


SCORES = Scores(to="bank", low=1000, high=2000, decimals=2)
BIT = RangeBit(to="all")


def test_each_party_is_told_what_it_learned_from_whom_and_why(signed):
    logs = {
        "shop": [record("shop", SCORES), record("shop", BIT), record("shop", BIT)],
        "bank": [record("bank", MatchedOwnRows(to="shop", low=1000, high=2000))],
    }
    report = disclosures.report(logs, signed.contract)
    assert [(item.source, item.disclosure, item.times) for item in report.of("bank")] == [
        ("shop", SCORES, 1),
        ("shop", BIT, 2),
    ]
    assert [item.disclosure.kind for item in report.of("shop")] == ["MatchedOwnRows"]
    assert report.of("bank")[0].clause == 'contract, disclosures: "Scores"'


def test_the_lines_say_it_in_plain_words_with_the_whole_text(signed):
    report = disclosures.report({"bank": [], "shop": [record("shop", SCORES)]}, signed.contract)
    assert max(map(len, report.lines())) <= 80
    assert "shop:\n  learned nothing" in "\n".join(report.lines())
    text = " ".join(" ".join(report.lines()).split())
    assert "received scores of between 1,000 and 2,000 rows, rounded to 2 decimals (from shop; " in text
    assert " ".join(SCORES.text.split()) in text


def test_what_several_told_in_the_same_words_is_said_once(signed):
    logs = {name: [record(name, BIT), record(name, BIT)] for name in ("shop", "bank")}
    report = disclosures.report(logs, signed.contract)
    (fact,) = [fact for fact in report.merged() if fact.reader == "coordinator"]
    assert fact.origin == "from shop and bank, 2 times each"
    assert sum("learned one bit" in line for line in report.lines()) == 3  # once for each reader
    assert "**" not in "\n".join(report.lines())


def test_amounts_of_releases_of_one_kind_are_added_up_source_by_source(signed):
    sides = [SplitSides(to="bank", splits=n, low=100, high=200) for n in (3, 5, 5)]
    other = SplitSides(to="bank", splits=7, low=0, high=50)
    told = ((sides[0], 1), (sides[1], 2), (other, 1))
    learned = tuple(disclosures.Learned("bank", "shop", d, times, "") for d, times in told)
    facts = disclosures.DisclosureReport(("bank",), learned).merged()
    assert [(f.disclosure.splits, f.times) for f in facts] == [(13, (3,)), (7, (1,))]


def test_a_party_learns_nothing_from_its_own_release_to_all(signed):
    report = disclosures.report({"shop": [record("shop", BIT)]}, signed.contract)
    assert report.of("shop") == ()
    assert len(report.of("bank")) == len(report.of("coordinator")) == 1


def test_other_events_are_no_disclosures(signed):
    assert (
        disclosures.report({"shop": [record("shop", SCORES, "step.completed")]}, signed.contract).learned
        == ()
    )


def test_a_disclosure_outside_the_contract_is_an_audit_error(signed):
    with pytest.raises(AuditError, match="does not allow Embeddings"):
        disclosures.report(
            {"shop": [record("shop", Embeddings(to="bank", width=8, openings=1))]}, signed.contract
        )


def test_a_disclosure_to_a_stranger_is_an_audit_error(signed):
    with pytest.raises(AuditError, match="eve, who is no signer"):
        disclosures.report({"shop": [record("shop", RangeBit(to="eve"))]}, signed.contract)


def test_an_unreadable_disclosure_is_an_audit_error(signed):
    bad = Record(4, "t", "shop", "r", "value.revealed", "c", {"kind": "Scores", "to": "bank"})
    with pytest.raises(AuditError, match="log of shop: record 4: Scores has the fields"):
        disclosures.report({"shop": [bad]}, signed.contract)
