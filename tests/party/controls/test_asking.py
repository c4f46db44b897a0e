"""How controls are asked: what a release may say, what a refusal leaves in the log, who may make us write one."""

from datetime import timedelta

import pytest

from fedmkt.contract.signatures import SignedContract, sign
from fedmkt.crypto.sign import Identity
from fedmkt.errors import PolicyRefused
from fedmkt.party.node import Sources, open_party
from fedmkt.party.policy import Policy
from fedmkt.privacy.disclosure import DEFAULT, BinCounts, PartialScore, Scores
from fedmkt.simulation.run import party_settings
from tests.contract.agreed import START, contract, governance
from tests.party.controls.office import Office, make_office, place_in, records, refusals
from tests.party.test_policy import make_config

KINDS = (*DEFAULT, "BinCounts", "PartialScore")


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    return make_office(tmp_path_factory.mktemp("office"))


def test_under_governance_no_cell_of_fewer_people_than_the_minimum_is_released() -> None:
    own = Policy(make_config(disclosures=KINDS))
    agreed = contract(governance=governance(), disclosures=KINDS)
    own.check_disclosure(BinCounts(to="bank", columns=1, bins=9, minimum=50), agreed)
    with pytest.raises(PolicyRefused, match=r"^C11 output k: BinCounts may cover fewer than 50 people"):
        own.check_disclosure(BinCounts(to="bank", columns=1, bins=9, minimum=49), agreed)


def test_scores_with_more_decimals_than_agreed_and_parts_of_scores_are_refused() -> None:
    own = Policy(make_config(disclosures=KINDS))
    own.check_disclosure(Scores(to="bank", low=0, high=100, decimals=2), contract())
    with pytest.raises(PolicyRefused, match=r"^C12 score release: scores with 3 decimals"):
        own.check_disclosure(Scores(to="bank", low=0, high=100, decimals=3), contract())
    with pytest.raises(PolicyRefused, match="does not allow PartialScore"):
        own.check_disclosure(PartialScore(to="bank", low=0, high=100), contract())


def test_a_budget_of_runs_in_the_contract_binds_beside_the_partys_own() -> None:
    own, earlier = Policy(make_config(max_size_runs=5)), [START - timedelta(days=d) for d in (1, 2)]
    own.check_size_runs(earlier, START, governance(max_size_runs=3))
    with pytest.raises(PolicyRefused, match=r"^C10 .* at most 2 times"):
        own.check_size_runs(earlier, START, governance(max_size_runs=2))


def test_the_same_refusal_is_logged_once_and_a_later_run_begins_its_log_as_any(office: Office) -> None:
    allowed = office.world()
    for number in range(3):
        refused = office.world(folder=allowed.folder, withdrawn=lambda table: table.rows >= 0)
        with pytest.raises(PolicyRefused, match=r"^C16 "):
            refused.open()
        assert len(refusals(refused)) == 1, number
    allowed.open()
    allowed.kill()
    types = [r.type for r in records(allowed, "bank")]
    assert (
        types[:3] == ["policy.refused", "contract.proposed", "contract.signed"] and "dataset.opened" in types
    )


def test_a_contract_that_others_signed_makes_us_write_nothing(office: Office) -> None:
    world, eve = office.world(), Identity(b"e" * 32)
    bank, partner = world.contract.parties
    swapped = world.contract.model_copy(
        update={"parties": (bank, partner.model_copy(update={"key": eve.public.hex()}))}
    )
    made = {n: sign(swapped, n, eve if n == "partner" else i) for n, i in world.identities.items()}
    settings = party_settings(office.config, world.signed, "bank")
    place = place_in(world.folder, swapped, "bank")
    with pytest.raises(PolicyRefused, match=r"^rule signers-pinned: the key of partner"):
        signed = SignedContract(contract=swapped, signatures=made)
        open_party("bank", signed, settings, None, place, Sources.of(1, "bank"))
    assert not place.logs.exists() and not place.store.exists()
