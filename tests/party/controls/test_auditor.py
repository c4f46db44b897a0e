"""A contract may name an auditor of the deals: an outsider, and one whose key each party compared."""

import pytest

from fedmkt.contract.agreement import AuditorTerms
from fedmkt.contract.canonical import canonical_bytes
from fedmkt.crypto.sign import Identity
from fedmkt.privacy.disclosure import DEFAULT
from fedmkt.protocol.deals import auditor_terms
from tests.contract.agreed import contract
from tests.party.controls.office import Office, make_office

AUDITOR = auditor_terms("auditor", "Audit House", Identity(bytes([9]) * 32))
NAMED = (*DEFAULT, "DealerSeeds")
AUDITED = {"auditor": AUDITOR, "disclosures": NAMED}


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    return make_office(tmp_path_factory.mktemp("office"))


def test_a_party_accepts_an_auditor_whose_key_it_compared(office: Office) -> None:
    office.opens(job=AUDITED)


def test_a_party_refuses_an_auditor_whose_key_it_did_not_compare(office: Office) -> None:
    said = office.refuses("rule", job=AUDITED, policy={"auditors": ("ab" * 32,)})
    assert said.startswith("rule auditor: ")
    assert "seals dealer seeds to no key that it did not compare" in said


def test_a_party_refuses_to_hand_out_seeds_that_its_policy_does_not_name(office: Office) -> None:
    assert "DealerSeeds" in office.refuses("rule", job=AUDITED, policy={"disclosures": DEFAULT})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": "shop"}, "not those of shop"),
        ({"organisation": "BANK  ltd"}, "not that of bank"),
        ({"organisation": "notary"}, "not that of notary"),
        ({"key": contract().coordinator.key}, "not those of notary"),
        ({"seal_key": contract().bank.key}, "not those of bank"),
        ({"seal_key": AUDITOR.key}, "two keys"),
    ],
)
def test_an_auditor_is_nobody_who_signs(changes: dict[str, str], complaint: str) -> None:
    auditor = AuditorTerms.model_validate(AUDITOR.model_dump() | changes)
    with pytest.raises(ValueError, match=complaint):
        contract(auditor=auditor, disclosures=NAMED)


def test_what_the_auditor_is_given_stands_in_the_contract() -> None:
    with pytest.raises(ValueError, match="DealerSeeds"):
        contract(auditor=AUDITOR)
    with pytest.raises(ValueError, match="no receipt says"):
        contract(auditor=AUDITOR, disclosures=NAMED, trees={"reveal": "totals", "checked_shares": True})
    assert AUDITOR.seal_key.encode() in canonical_bytes(contract(auditor=AUDITOR, disclosures=NAMED))
    assert b"auditor" not in canonical_bytes(contract())
