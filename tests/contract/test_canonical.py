import hashlib
import json
from datetime import datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from fedmkt.contract.agreement import Limits
from fedmkt.contract.canonical import canonical_bytes, digest
from fedmkt.contract.files import from_toml, to_toml
from fedmkt.contract.model_terms import ModelTerms
from tests.contract.agreed import PATH, START, TREES, contract, party, signed


def test_the_canonical_bytes_are_sorted_json_without_spaces():
    text = canonical_bytes(contract()).decode()
    values = json.loads(text)
    # Whole fractions are written without a point there, so they come back as whole numbers.
    assert json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == text
    assert values["created"] == "2030-01-01T00:00:00Z"
    assert "label" not in values["parties"][1]


def test_further_kinds_of_ids_are_signed_where_there_are_any():
    assert b"more_kinds" not in canonical_bytes(contract())
    kinds = ("email", "compound:surname+born")
    agreed = contract(parties=tuple(party(name, more_kinds=kinds) for name in ("bank", "shop")))
    assert json.loads(canonical_bytes(agreed))["parties"][0]["more_kinds"] == list(kinds)
    assert from_toml(to_toml(signed(agreed)), "c.toml").contract == agreed
    other = contract(parties=tuple(party(name, more_kinds=kinds[::-1]) for name in ("bank", "shop")))
    assert digest(agreed) != digest(other) != digest(contract())


def test_the_digest_hashes_the_domain_and_the_canonical_bytes():
    agreed = contract()
    assert digest(agreed) == hashlib.sha256(b"fedmkt contract v1\n" + canonical_bytes(agreed)).digest()


def test_version_1_has_exactly_these_fields():
    # A format that changes its meaning gets a new version.
    keys = json.loads(canonical_bytes(contract())).keys()
    assert sorted(keys) == [
        "coordinator", "created", "disclosures", "expires", "family", "limits", "model", "name",
        "parties", "purpose", "scores", "version",
    ]  # fmt: skip


def test_terms_that_came_later_are_left_out_at_what_was_meant_before():
    assert contract(channel="hub", rehearsal=False) == contract()
    added = json.loads(canonical_bytes(contract(channel="flower", rehearsal=True)))
    assert (added.pop("channel"), added.pop("rehearsal")) == ("flower", True)
    assert added == json.loads(canonical_bytes(contract()))


def test_times_are_the_same_whatever_zone_they_were_written_in():
    east = contract(created=datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))))
    assert digest(east) == digest(contract())


@pytest.mark.parametrize(
    "change",
    [
        {"purpose": "loans"},
        {"family": "loans"},
        {"expires": START + timedelta(days=31)},
        {"model": ModelTerms(iterations=21)},
        {"limits": Limits(min_common=999)},
        {"disclosures": ("RangeBit",)},
        {"channel": "flower"},
        {"rehearsal": True},
        {"parties": (party("shop"), party("bank"))},
        {"parties": (party("bank", numbers=("income",)), party("shop"))},
    ],
)
def test_any_other_term_gives_another_digest(change):
    assert digest(contract(**change)) != digest(contract())


def test_early_stopping_is_disclosed_and_leaves_the_bytes_of_other_trees_as_they_were():
    plain = canonical_bytes(contract(**TREES))
    assert b"patience" not in plain and b"validation_fraction" not in plain
    stops = TREES | {"trees": {"reveal": "sides", "patience": 5}}
    with pytest.raises(ValidationError, match="needs StopBits too"):
        contract(**stops)
    shared = stops | {"trees": {"patience": 5}}
    told = (*TREES["disclosures"], "CellBits", "BinCounts", "BinTotals", "StopBits")
    with pytest.raises(ValidationError, match="needs ValidationLosses too"):
        contract(**(shared | {"disclosures": told}))
    assert contract(**(shared | {"disclosures": (*told, "ValidationLosses")})).trees.patience == 5
    agreed = contract(**(stops | {"disclosures": (*TREES["disclosures"], "StopBits")}))
    assert from_toml(to_toml(signed(agreed)), "c.toml").contract == agreed
    assert b'"patience":5' in canonical_bytes(agreed) and b"validation_fraction" not in canonical_bytes(
        agreed
    )


def test_the_terms_of_trees_leave_the_digest_of_other_contracts_as_it_was():
    assert not {"trees", "bins"} & set(json.loads(canonical_bytes(contract())))
    other = contract(**(TREES | {"trees": {"reveal": "sides", "class_weights": (1.0, 2.0)}}))
    assert "epsilon" not in canonical_bytes(other).decode()
    assert len({digest(contract(**TREES)), digest(other), digest(contract())}) == 3


def test_checked_shares_are_a_term_of_their_own_and_left_out_where_they_are_not():
    """Contracts of trees that were signed before it was one keep their digest."""
    sides = contract(**TREES)
    assert b"checked_shares" not in canonical_bytes(sides) and "checked_shares" not in to_toml(signed(sides))
    kinds = (*TREES["disclosures"], "CellBits", "BinCounts", "BinTotals")
    plain, agreed = (
        contract(**(TREES | {"trees": {"checked_shares": c}, "disclosures": kinds})) for c in (False, True)
    )
    assert b'"checked_shares":true' in canonical_bytes(agreed) and digest(plain) != digest(agreed)
    assert from_toml(to_toml(signed(agreed)), "c.toml").contract == agreed
    with pytest.raises(ValidationError, match="checked_shares is for reveal = totals"):
        contract(**(TREES | {"trees": {"reveal": "sides", "checked_shares": True}}))


def test_terms_of_the_glm_family_are_left_out_where_they_are_not_used():
    plain = canonical_bytes(contract())
    assert not any(word in plain for word in (b"offset", b'"weight"', b"class_weights"))
    assert contract(model=ModelTerms(max_offset=8.0)) == contract()
    agreed = contract(
        parties=(party("bank", offset="o", weight="w"), party("shop")),
        model=ModelTerms(class_weights=(1.0, 5.0), max_offset=4.0),
    )
    assert agreed.bank.columns == ("age", "o", "w", "y")
    again = from_toml(to_toml(signed(agreed)), "c.toml")
    assert again.contract == agreed
    assert digest(again.contract) == digest(agreed)


def test_a_contract_with_one_penalty_has_the_bytes_that_it_had_before_there_were_paths():
    text = canonical_bytes(contract())
    assert not any(name in text for name in (b"penalties", b"path_passes", b"validation_fraction"))
    tried = contract(model=ModelTerms(penalties=(1.0, 100.0)), disclosures=PATH)
    assert json.loads(canonical_bytes(tried))["model"]["penalties"] == [1, 100]
    assert from_toml(to_toml(signed(tried)), "f").contract == tried
    assert tried.model.path == (100.0, 1.0) and tried.model.least_penalty == 1.0
