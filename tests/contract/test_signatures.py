import pytest

from fedmkt.contract.signatures import SignedContract, check_signatures, sign
from fedmkt.errors import PolicyRefused
from tests.contract.agreed import IDENTITIES, contract, party, signed


def test_a_contract_signed_by_all_is_accepted_with_one_partner_and_with_two():
    check_signatures(signed(contract()))
    check_signatures(signed(contract(parties=(party("bank"), party("shop"), party("telco")))))


@pytest.mark.parametrize("name", ["bank", "shop", "notary"])
def test_a_contract_that_one_signer_has_not_signed_is_refused(name):
    full = signed(contract())
    rest = {other: value for other, value in full.signatures.items() if other != name}
    with pytest.raises(PolicyRefused, match=f"missing {name}"):
        check_signatures(SignedContract(contract=full.contract, signatures=rest))


def test_a_signature_of_a_stranger_is_refused():
    full = signed(contract())
    more = {**full.signatures, "telco": full.signatures["bank"]}
    with pytest.raises(PolicyRefused, match="extra telco"):
        check_signatures(SignedContract(contract=full.contract, signatures=more))


def test_a_signature_for_another_contract_is_refused():
    other = signed(contract(purpose="loans"))
    with pytest.raises(PolicyRefused, match="signature of bank"):
        check_signatures(SignedContract(contract=contract(), signatures=other.signatures))


def test_nobody_signs_in_anothers_name():
    with pytest.raises(ValueError, match="no signer 'bank'"):
        sign(contract(), "bank", IDENTITIES["shop"])
