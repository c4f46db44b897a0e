import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmkt.contract.canonical import canonical_bytes, digest
from fedmkt.contract.files import from_toml, to_toml
from fedmkt.contract.model_terms import ModelTerms
from fedmkt.contract.signatures import SignedContract
from fedmkt.errors import ConfigError
from tests.contract.agreed import START, contract, party, signed


def test_the_file_of_a_signed_contract_is_read_back_with_the_same_digest():
    full = signed(contract(model=ModelTerms(penalty=2.5), channel="flower", rehearsal=True))
    again = from_toml(to_toml(full), "contract.toml")
    assert again == full
    assert digest(again.contract) == digest(full.contract)
    assert to_toml(again) == to_toml(full)


@given(st.text(min_size=1, max_size=60).filter(str.isprintable), st.floats(0.1, 1e9))
def test_any_name_and_number_survives_the_file(purpose, penalty):
    agreed = contract(purpose=purpose, model=ModelTerms(penalty=penalty), parties=(
        party("bank", numbers=(purpose + "!",)), party("shop")))  # fmt: skip
    again = from_toml(to_toml(SignedContract(contract=agreed)), "contract.toml")
    assert canonical_bytes(again.contract) == canonical_bytes(agreed)


def test_the_file_is_toml_that_another_reader_understands():
    values = tomllib.loads(to_toml(signed(contract())))
    assert values["parties"][0]["label"] == "y"
    assert values["created"] == START


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('purpose = "cards"', "", "c.toml: purpose: missing"),
        ('purpose = "cards"', "purpose = 3", "c.toml: purpose = 3: accepted: a valid string"),
        (
            "penalty = 1.0",
            "penalty = 0.0",
            "c.toml: model.penalty = 0.0: accepted: greater than or equal to 0.1",
        ),
        ("penalty = 1.0", "penalt = 1.0", "c.toml: model.penalt: unknown key; accepted: checkpoint_every, "),
        ('label = "y"', "labl = 1", "c.toml: parties[0].labl: unknown key; accepted: categories, "),
        ('id_kind = "phone"', 'id_kind = "x"', "c.toml: parties[0].id_kind = \"x\": accepted: 'phone', "),
        ('bank = "', 'bank = "x', "c.toml: signatures.bank = "),
        ("version = 1", '"\\u001b[2J" = 1', "c.toml: '\\x1b[2J': unknown key; accepted: "),
        ("version = 1", "version = [", "c.toml: not TOML: "),
        ("version = 1", "version = " + "[" * 5000, "c.toml: not TOML: "),
    ],
)
def test_a_mistake_in_the_file_is_one_line_with_file_key_value_and_what_is_accepted(old, new, message):
    text = to_toml(signed(contract()))
    assert old in text
    with pytest.raises(ConfigError) as caught:
        from_toml(text.replace(old, new, 1), "c.toml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
