from datetime import datetime

import pytest
from pydantic import ValidationError

from fedmkt.contract.agreement import AlignTerms
from fedmkt.contract.canonical import canonical_bytes
from fedmkt.contract.files import from_toml, to_toml
from fedmkt.contract.model_terms import ModelTerms
from fedmkt.contract.signatures import SignedContract
from fedmkt.errors import ConfigError
from tests.contract.agreed import START, contract, party, signed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parties": (party("bank"),)}, "at least 2 items"),
        ({"parties": (party("shop"), party("telco"))}, "exactly one party with role bank"),
        ({"parties": (party("bank"), party("shop", name="bank"))}, "a name of its own"),
        ({"parties": (party("bank"), party("shop", key=party("bank").key))}, "a key of its own"),
        (
            {"parties": (party("bank"), party("shop", organisation=" BANK  Ltd"))},
            "an organisation of its own",
        ),
        (
            {"parties": (party("bank"), party("shop", organisation="\uff22ank ltd"))},
            "an organisation of its own",
        ),
        ({"parties": (party("bank"), party("shop", id_kind="email"))}, "one id_kind"),
        ({"parties": (party("bank"), party("shop", more_kinds=("email",)))}, "the same more_kinds"),
        (
            {"parties": tuple(party(name, more_kinds=("email",)) for name in ("bank", "shop", "telco"))},
            "for one partner",
        ),
        (
            {
                "parties": tuple(party(name, more_kinds=("email",)) for name in ("bank", "shop")),
                "align": AlignTerms(reuse=5),
            },
            "for a single key",
        ),
        ({"expires": START}, "expires after created"),
        ({"created": datetime(2030, 1, 1)}, "with its offset"),
        ({"disclosures": ("RangeBit", "Everything")}, "unknown disclosure 'Everything'"),
        ({"disclosures": ("RangeBit", "RangeBit")}, "every disclosure once"),
        ({"name": "Spring"}, "match pattern"),
        ({"name": "all"}, "names no one"),
        ({"channel": "pigeon"}, "'hub' or 'flower'"),
        ({"rehearsal": 1}, "valid boolean"),
        ({"purpose": "a\nb"}, "printable"),
        ({"version": 2}, "should be 1"),
        ({"more": 1}, "not permitted"),
    ],
)
def test_a_contract_that_cannot_hold_is_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        contract(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"role": "partner"}, "only the bank, has a label"),
        ({"numbers": ("age", "age")}, "every column once"),
        ({"categories": ("age",)}, "every column once"),
        ({"label": "age"}, "every column once"),
        ({"id_kind": "name"}, "'phone', 'email'"),
        ({"more_kinds": ("name",)}, "such a kind with :name"),
        ({"more_kinds": ("compound",)}, "compound:part"),
        ({"more_kinds": ("compound:a",)}, "compound:part"),
        ({"more_kinds": ("compound:a+",)}, "compound:part"),
        ({"more_kinds": ("email:",)}, "such a kind with :name"),
        ({"more_kinds": ("email: x",)}, "such a kind with :name"),
        ({"more_kinds": ("email:a\nb",)}, "printable"),
        ({"more_kinds": ("phone",)}, "every kind of id once"),
        ({"more_kinds": ("email", "email")}, "every kind of id once"),
        ({"more_kinds": tuple(f"raw:{n}" for n in range(5))}, "at most 4"),
        ({"key": "AB" * 32}, "match pattern"),
    ],
)
def test_party_terms_that_cannot_hold_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        party("bank", **change)


COUNTED = {"label": None, "numbers": ()}
OVERLAP = {"task": "overlap", "disclosures": ("ListSize", "SetSize")}


def test_a_contract_that_only_counts_has_no_columns_and_discloses_lengths_and_bands():
    counts = contract(parties=(party("bank", **COUNTED), party("shop", **COUNTED)), **OVERLAP)
    assert counts.bank.columns == () and b'"task":"overlap"' in canonical_bytes(counts)
    assert from_toml(to_toml(SignedContract(contract=counts)), "c").contract == counts
    assert b"task" not in canonical_bytes(contract()) and "task" not in to_toml(signed(contract()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parties": (party("bank", label=None), party("shop"))}, "only the bank, has a label"),
        ({"parties": (party("bank"), party("shop", numbers=()))}, "at least one column"),
        (OVERLAP, "no column and no label"),
        (
            OVERLAP | {"parties": (party("bank", numbers=()), party("shop", **COUNTED))},
            "no column and no label",
        ),
        (
            {"task": "overlap", "parties": (party("bank", **COUNTED), party("shop", **COUNTED))},
            "of ListSize, SetSize: the task only counts",
        ),
        (
            OVERLAP
            | {
                "parties": (party("bank", **COUNTED), party("shop", **COUNTED)),
                "model": ModelTerms(iterations=3),
            },
            "left out: the task only counts",
        ),
        ({"task": "count"}, "'train' or 'overlap'"),
    ],
)
def test_columns_and_disclosures_are_those_of_the_task(change, message):
    with pytest.raises(ValidationError, match=message):
        contract(**change)


def test_a_mistake_about_one_party_names_its_place_in_the_file():
    text = to_toml(signed(contract())).replace('numbers = ["age"]', "numbers = []", 1)
    with pytest.raises(ConfigError, match=r"^c: parties\[0\]: accepted: at least one column"):
        from_toml(text, "c")


def test_terms_cannot_be_changed_after_they_were_made():
    with pytest.raises(ValidationError, match="frozen"):
        contract().purpose = "loans"
