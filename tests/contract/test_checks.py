import pytest

from fedmkt.contract.agreement import Signer
from fedmkt.contract.checks import check_roles
from fedmkt.errors import PolicyRefused
from tests.contract.agreed import IDENTITIES, contract


def test_a_coordinator_of_a_party_is_refused():
    own = Signer(name="notary", organisation="Shop LTD", key=IDENTITIES["notary"].public.hex())
    with pytest.raises(PolicyRefused, match="the coordinator belongs to 'shop ltd'"):
        check_roles(contract(coordinator=own))


def test_a_coordinator_with_the_key_of_a_party_is_refused():
    own = Signer(name="notary", organisation="Notary", key=IDENTITIES["shop"].public.hex())
    with pytest.raises(PolicyRefused, match="signs with the key of shop"):
        check_roles(contract(coordinator=own))


def test_a_coordinator_of_its_own_is_accepted():
    check_roles(contract())
