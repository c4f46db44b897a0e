import dataclasses

import pytest

from fedmkt.privacy import disclosure
from fedmkt.privacy.disclosure import (
    DEFAULT,
    REGISTRY,
    MatchedOwnRows,
    RangeBit,
    Scores,
    from_record,
    text_of,
)

EXAMPLES = [
    kind(**{f.name: {str: "bank", int: 7, bool: True}[f.type] for f in dataclasses.fields(kind)})
    for kind in REGISTRY.values()
]


def test_the_vocabulary_has_every_kind_of_this_module_once():
    kinds = {
        name
        for name, value in vars(disclosure).items()
        if isinstance(value, type) and issubclass(value, disclosure.Disclosure)
    }
    assert set(REGISTRY) == kinds - {"Disclosure"}
    assert all(name == kind.__name__ for name, kind in REGISTRY.items())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.kind)
def test_every_disclosure_says_what_its_reader_can_compute_and_got(example):
    assert example.text == text_of(example.kind)
    assert len(example.text) > 80
    assert example.text != disclosure.Disclosure.__doc__
    assert example.describe() != disclosure.Disclosure.describe(example)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.kind)
def test_every_disclosure_survives_its_record(example):
    assert from_record(example.record()) == example
    assert from_record({"index": 4, "step": "S", **example.record()}) == example


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.kind)
def test_no_disclosure_can_be_changed_after_it_was_declared(example):
    with pytest.raises(dataclasses.FrozenInstanceError):
        example.to = "eve"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "Everything", "to": "bank"},
        {"kind": "ListSize", "to": "bank"},
        {"kind": "RangeBit", "to": "bank", "more": 1},
        {"kind": "RangeBit", "to": 1},
        {"kind": "ListSize", "to": "bank", "rows": True},
        {"kind": "Disclosure", "to": "bank"},
    ],
)
def test_a_record_that_is_no_disclosure_is_refused(body):
    with pytest.raises(ValueError, match=r"unknown disclosure|has the fields|wrong type"):
        from_record(body)


def test_the_default_is_the_least_that_the_main_job_needs():
    assert DEFAULT == (
        "ListSize", "SetSize", "MatchedOwnRows", "CampaignRows", "MatrixShape", "RangeBit", "Scores",
    )  # fmt: skip


def test_the_partner_is_told_that_it_learns_which_of_its_people_bank_there():
    assert "which of its people bank there" in text_of("MatchedOwnRows")


def test_descriptions_say_how_much():
    assert MatchedOwnRows(to="shop", low=1000, high=2000).describe() == (
        "learned which of its own rows the other side has: between 1,000 and 2,000 rows"
    )
    assert RangeBit(to="all").describe() == "learned one bit: whether every score is certainly in range"
    assert Scores(to="bank", low=1, high=2, decimals=2).describe().endswith("rounded to 2 decimals")
