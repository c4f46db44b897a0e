import pytest

from fedmkt.party.controls.code import BUILT
from fedmkt.party.controls.columns import SORTS, forbidden_kind, unused_grants
from fedmkt.party.controls.control import ContractAsked
from fedmkt.party.controls.registry import CONTROLS
from fedmkt.privacy.disclosure import DEFAULT, REGISTRY
from tests.contract.agreed import START, contract, governance, signed
from tests.party.test_policy import make_config

GATE = CONTROLS["C07"].contract


def gate(
    level: int | None, kinds: tuple[str, ...] = DEFAULT, approvals: int = 2, **column: object
) -> list[str]:
    """Say what the class gate finds in a contract whose partner brings one column of this class."""
    bank, shop = (d.model_dump() for d in governance().datasets)
    shop["columns"] = [{"name": "age", "kind": "habits", "level": level, **column}]
    terms = governance(datasets=[bank, shop], approvals=approvals)
    agreed = contract(governance=terms, disclosures=kinds)
    assert GATE is not None
    return [b.text for b in GATE(ContractAsked(make_config(), signed(agreed), START, (), ""))]


def test_every_kind_of_disclosure_is_of_one_sort() -> None:
    assert set(SORTS) == set(REGISTRY)


@pytest.mark.parametrize("level", [1, 2])
def test_levels_one_and_two_allow_every_disclosure(level: int) -> None:
    assert gate(level, (*DEFAULT, "ModelPart", "CrossCorrelation")) == []


def test_level_three_allows_sums_over_groups_and_nothing_about_rows() -> None:
    assert gate(3, (*DEFAULT, "CrossCorrelation")) == []
    assert "which shows rows" in gate(3, (*DEFAULT, "ModelPart"))[0]


@pytest.mark.parametrize("level", [4, None])
def test_level_four_and_an_unknown_level_stay_secret_shared_and_want_two_approvals(level: int | None) -> None:
    assert gate(level) == []
    assert "which shows sums" in gate(level, (*DEFAULT, "CrossCorrelation"))[0]
    assert "two approvals" in gate(level, approvals=1)[0]
    assert ("no level is given" in gate(level, approvals=1)[0]) == (level is None)


def test_level_five_and_category_c3_never_take_part() -> None:
    assert "level 5: it never" in gate(5)[0] and "category C3: it never" in gate(1, category="C3")[0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("religion", "religion"), ("Religious_Group", "religion"), ("客户宗教", "religion"), ("zongjiao", "religion"),
        ("geneMarker", "genes"), ("DNA", "genes"), ("基因型", "genes"),
        ("finger_print", None), ("fingerprint_hash", "fingerprint"), ("指纹", "fingerprint"),
        ("bloodType", "blood type"), ("blood-group", "blood type"), ("血型", "blood type"),
        ("diagnosis2", "illness"), ("HIV", "illness"), ("慢性疾病", "illness"), ("病史", "illness"),
        ("general", None), ("genre", None), ("engine", None), ("age", None), ("年龄", None), ("generation", None),
    ],
)  # fmt: skip
def test_forbidden_kinds_are_known_by_whole_words_in_english_and_chinese(name: str, kind: str | None) -> None:
    assert forbidden_kind(name) == kind


def test_grants_that_are_not_used_are_listed_by_party() -> None:
    terms = governance()
    bank = terms.datasets[0].model_dump()
    bank["columns"] = [*bank["columns"], {"name": "height", "kind": "habits"}]
    agreed = contract(governance=governance(datasets=[bank, terms.datasets[1].model_dump()]))
    assert unused_grants(agreed) == {"bank": ("height",)} and unused_grants(contract()) == {}


def test_only_suites_that_are_built_are_offered() -> None:
    assert "gm" not in BUILT and "standard" in BUILT
