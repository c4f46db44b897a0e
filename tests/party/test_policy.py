import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest

from fedmkt.audit import statements
from fedmkt.config.drafts import draft_contract, simulated_party
from fedmkt.config.files import parse_job
from fedmkt.config.settings import PartyConfig
from fedmkt.contract.approvals import revocation
from fedmkt.contract.signatures import SignedContract, sign
from fedmkt.crypto.sign import Identity
from fedmkt.errors import PolicyRefused
from fedmkt.party.contract_past import Past
from fedmkt.party.controls import registry
from fedmkt.party.controls.registry import CONTROLS
from fedmkt.party.policy import Policy
from fedmkt.privacy.disclosure import DealerSeeds, Embeddings, RangeBit
from fedmkt.protocol.deals import auditor_terms
from tests.contract.agreed import governance

JOB = """
name = "spring"
purpose = "cards"
[bank]
name = "bank"
organisation = "First Bank"
file = "bank.csv"
id = "phone"
id_kind = "phone"
label = "answered"
numbers = ["age"]
[[partners]]
name = "shop"
organisation = "Shop GmbH"
file = "shop.csv"
id = "tel"
id_kind = "phone"
numbers = ["spent"]
"""
IDENTITIES = {name: Identity(bytes([i + 1]) * 32) for i, name in enumerate(("bank", "shop", "coordinator"))}
KEYS = {name: identity.public for name, identity in IDENTITIES.items()}
EVE = Identity(b"e" * 32)
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def make_config(name="shop", **policy_changes):
    config = simulated_party(parse_job(JOB, "job.toml"), name, KEYS)
    return config.model_copy(update={"policy": config.policy.model_copy(update=policy_changes)})


def make_signed(job=JOB, identities=IDENTITIES, **changes):
    keys = {name: identity.public for name, identity in identities.items()}
    contract = draft_contract(parse_job(job, "job.toml"), keys, NOW).model_copy(update=changes)
    return SignedContract(
        contract=contract,
        signatures={name: sign(contract, name, identity) for name, identity in identities.items()},
    )


def unsigned_by_bank():
    signed = make_signed()
    return SignedContract(
        contract=signed.contract, signatures={**signed.signatures, "bank": signed.signatures["shop"]}
    )


def with_coordinator_of_the_bank():
    return make_signed(job=JOB + '[coordinator]\norganisation = "first bank"\n')


def with_auditor():
    """The policy allows what is handed to an auditor, but nobody compared this one's key."""
    terms = auditor_terms("auditor", "Audit House", EVE)
    named = (*make_signed().contract.disclosures, DealerSeeds.__name__)
    return make_config(disclosures=named), make_signed(auditor=terms, disclosures=named), NOW


def revoked_by_bank(contract):
    return statements.sign(revocation(contract, "bank", NOW, "a leak"), IDENTITIES["bank"])


# One refused case for each control without a number: the party's settings, the contract, the time. Those with one
# have their cases in tests/party/controls.
REFUSED = {
    "signatures": lambda: (make_config(), unsigned_by_bank(), NOW),
    "signers-pinned": lambda: (make_config(), make_signed(identities={**IDENTITIES, "bank": EVE}), NOW),
    "coordinator-apart": lambda: (make_config(), with_coordinator_of_the_bank(), NOW),
    "own-terms": lambda: (make_config(), make_signed(JOB.replace("Shop GmbH", "Other GmbH")), NOW),
    "not-expired": lambda: (make_config(), make_signed(), NOW + timedelta(days=31)),
    "revoked": lambda: (make_config(), make_signed(), NOW, [revoked_by_bank(make_signed().contract)]),
    "replaced": lambda: (make_config(), make_signed(), NOW, (), Past(replaced_by="ab" * 32)),
    "rehearsal": lambda: (make_config(), make_signed("rehearsal = true\n" + JOB), NOW),
    "governance": lambda: (make_config(require_governance=True), make_signed(), NOW),
    "maximum-common": lambda: (make_config(max_common=5000), make_signed(), NOW),
    "auditor": with_auditor,
    "repetitions": lambda: (make_config(), make_signed(JOB + "[limits]\nmax_runs = 6\n"), NOW),
    "disclosures": lambda: (make_config(disclosures=("RangeBit",)), make_signed(), NOW),
}


@pytest.mark.parametrize("name", ["bank", "shop", "coordinator"])
def test_every_signer_accepts_the_contract_it_agreed_to(name):
    config = make_config() if name == "coordinator" else make_config(name)
    if name == "coordinator":
        config = config.model_copy(update={"name": name, "organisation": "Independent Coordinator"})
    Policy(config).check_contract(make_signed(), NOW)


def test_every_rule_has_a_case_that_it_refuses():
    assert set(REFUSED) == {c.id for c in CONTROLS.values() if not c.is_numbered}


@pytest.mark.parametrize("rule", REFUSED)
def test_each_rule_refuses_its_case_and_is_named(rule):
    config, signed, now, *more = REFUSED[rule]()
    with pytest.raises(PolicyRefused, match=f"^rule {rule}: "):
        Policy(config).check_contract(signed, now, *more)


@pytest.mark.parametrize("rule", REFUSED)
def test_without_the_rule_its_case_would_pass(rule, monkeypatch):
    config, signed, now, *more = REFUSED[rule]()
    rest = {name: control for name, control in CONTROLS.items() if name != rule}
    monkeypatch.setattr(registry, "CONTROLS", rest)
    Policy(config).check_contract(signed, now, *more)


def test_a_contract_with_the_coordinators_key_in_a_partys_place_is_refused():
    # Two contracts, each with the relay's key where the other party's belongs, would let it read everything.
    swapped = make_signed(identities={**IDENTITIES, "bank": EVE})
    with pytest.raises(PolicyRefused, match="the key of bank is not the pinned one"):
        Policy(make_config()).check_contract(swapped, NOW)


def test_a_pinned_key_that_does_not_sign_is_refused():
    config = make_config()
    pinned = PartyConfig.model_validate(
        {**config.model_dump(), "pinned": {**config.pinned, "telco": EVE.public.hex()}}
    )
    with pytest.raises(PolicyRefused, match="telco signs or is pinned, but not both"):
        Policy(pinned).check_contract(make_signed(), NOW)


def test_an_organisation_that_is_no_signer_refuses():
    config = make_config().model_copy(update={"name": "telco"})
    with pytest.raises(PolicyRefused, match="telco is no signer"):
        Policy(config).check_contract(make_signed(), NOW)


def test_a_contract_of_the_future_is_refused():
    with pytest.raises(PolicyRefused, match=r"^rule not-expired"):
        Policy(make_config()).check_contract(make_signed(), NOW - timedelta(seconds=1))


def test_the_last_second_is_before_the_expiry():
    Policy(make_config()).check_contract(make_signed(), NOW + timedelta(days=30, seconds=-1))
    with pytest.raises(PolicyRefused, match=r"^rule not-expired"):
        Policy(make_config()).check_contract(make_signed(), NOW + timedelta(days=30))


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("min_list", "C09 minimum match"),
        ("min_common", "C09 minimum match"),
        ("min_support", "C11 output k"),
    ],
)
def test_a_party_accepts_stricter_minimum_sizes_than_its_own_and_no_laxer_ones(name, rule):
    Policy(make_config(**{name: 40})).check_contract(make_signed(), NOW)
    with pytest.raises(PolicyRefused, match=f"^{rule}: {name}"):
        Policy(make_config(**{name: 2000})).check_contract(make_signed(), NOW)


def test_a_party_accepts_a_smaller_maximum_of_the_intersection_than_its_own_and_no_larger_one():
    agreed = make_signed(JOB + "[limits]\nmax_common = 5000\n")
    Policy(make_config(max_common=5000)).check_contract(agreed, NOW)
    with pytest.raises(PolicyRefused, match=r"^rule maximum-common: max_common = 5000 in the contract"):
        Policy(make_config(max_common=4999)).check_contract(agreed, NOW)


@pytest.mark.parametrize("name", ["max_runs", "max_resumes"])
def test_a_party_accepts_fewer_repetitions_than_its_own_limit_and_no_more(name):
    Policy(make_config(**{name: 10})).check_contract(make_signed(), NOW)
    with pytest.raises(PolicyRefused, match=f"^rule repetitions: {name}"):
        Policy(make_config(**{name: 1})).check_contract(make_signed(), NOW)


def test_the_label_must_be_granted_too():
    with pytest.raises(PolicyRefused, match="column 'answered' is not granted by bank"):
        Policy(make_config("bank", columns=("age",))).check_contract(make_signed(), NOW)


def days_before(*days):
    return [NOW - timedelta(days=d) for d in days]


def test_sizes_are_shown_to_one_partner_at_most_so_often_within_so_many_days():
    own = Policy(make_config(max_size_runs=2, size_run_days=7))
    own.check_size_runs(days_before(1), NOW)
    own.check_size_runs(days_before(1, 7, 8, 9), NOW)
    with pytest.raises(
        PolicyRefused, match=r"^C10 differencing guard: shop shows sizes .* at most 2 times in 7 days"
    ):
        own.check_size_runs(days_before(1, 6.99, 8), NOW)


def test_the_refusal_says_when_the_next_such_run_may_begin():
    own = Policy(make_config(max_size_runs=2, size_run_days=7))
    with pytest.raises(PolicyRefused) as refused:
        own.check_size_runs(days_before(1, 2, 3), NOW)
    assert refused.value.hint == "the next such run may begin on 2030-01-06 at 12:00 UTC"
    own.check_size_runs(days_before(1, 2, 3), datetime(2030, 1, 6, 12, tzinfo=UTC))


def test_a_clock_that_was_put_back_forgets_no_run():
    with pytest.raises(PolicyRefused, match="C10"):
        Policy(make_config(max_size_runs=2)).check_size_runs(days_before(-400, -1), NOW)


@pytest.mark.parametrize("differences", [[], [0], [100], [0, 100, 2000]])
def test_an_equal_list_and_one_with_many_other_people_is_matched(differences):
    Policy(make_config()).check_difference(differences, NOW)


@pytest.mark.parametrize("differences", [[7], [99], [0, 5000, 42]])
def test_a_list_that_differs_by_a_few_people_is_refused_and_the_number_not_told(differences):
    with pytest.raises(PolicyRefused, match=r"^C10 differencing guard: .* fewer than 100 ids$") as refused:
        Policy(make_config()).check_difference(differences, NOW)
    assert str(differences[-1]) not in str(refused.value) + refused.value.hint


CONTRACT = make_signed().contract


def test_lists_from_the_minimum_on_are_accepted_and_shorter_ones_refused():
    own = Policy(make_config(min_list=500))
    own.check_list(1000, CONTRACT)
    with pytest.raises(PolicyRefused, match=r"^C09 minimum match"):
        own.check_list(999, CONTRACT)


def test_the_partys_own_minimum_holds_when_it_is_the_stricter_one():
    own = Policy(make_config(min_list=1500))
    own.check_list(1500, CONTRACT)
    with pytest.raises(PolicyRefused, match=r"^C09 minimum match"):
        own.check_list(1499, CONTRACT)


def test_a_disclosure_needs_the_contract_the_policy_and_a_signer_as_reader():
    contract = make_signed().contract
    own = Policy(make_config())
    own.check_disclosure(RangeBit(to="all"), contract)
    own.check_disclosure(RangeBit(to="bank"), contract)
    with pytest.raises(PolicyRefused, match="the contract does not allow Embeddings"):
        own.check_disclosure(Embeddings(to="bank", width=1, openings=1), contract)
    with pytest.raises(PolicyRefused, match="eve is no signer"):
        own.check_disclosure(RangeBit(to="eve"), contract)
    with pytest.raises(PolicyRefused, match="shop does not allow RangeBit"):
        Policy(make_config(disclosures=())).check_disclosure(RangeBit(to="all"), contract)


def test_before_one_signs_a_signature_may_be_missing_but_none_may_be_wrong():
    policy, signed = Policy(make_config()), make_signed()
    only_own = signed.model_copy(update={"signatures": {"shop": signed.signatures["shop"]}})
    policy.check_before_signing(only_own, NOW)
    with pytest.raises(PolicyRefused):
        policy.check_contract(only_own, NOW)
    with pytest.raises(PolicyRefused, match="bank"):
        policy.check_before_signing(unsigned_by_bank(), NOW)


def test_what_breaks_a_contract_is_listed_with_its_control():
    policy = Policy(make_config())
    assert all(not found for _, found in policy.breaches(make_signed(), NOW))
    broken = [control.id for control, found in policy.breaches(unsigned_by_bank(), NOW) if found]
    assert "signatures" in broken


def test_the_digest_of_a_policy_is_that_of_its_canonical_json_whatever_the_order():
    policy = Policy(make_config(min_common=77, columns=("spent", "bought")))
    values = json.loads(policy.config.policy.model_dump_json())
    written = json.dumps(dict(reversed(values.items())), sort_keys=True, separators=(",", ":"))
    assert policy.digest == hashlib.sha256(written.encode()).hexdigest()
    assert policy.digest != Policy(make_config(min_common=78, columns=("spent", "bought"))).digest


def test_before_signing_only_signatures_and_approvals_may_be_missing():
    signed = make_signed()
    for given in ({}, {"shop": signed.signatures["shop"]}):
        begun = SignedContract(contract=signed.contract, signatures=given)
        Policy(make_config()).check_before_signing(begun, NOW)
        with pytest.raises(PolicyRefused, match=r"^C09 minimum match: min_common"):
            Policy(make_config(min_common=2000)).check_before_signing(begun, NOW)


def test_without_a_word_about_filters_none_was_applied():
    marketing = CONTRACT.model_copy(update={"governance": governance(use="marketing")})
    with pytest.raises(PolicyRefused, match=r"^C03 row-level consent: .* nobody was asked"):
        Policy(make_config("bank", require_filters=True)).check_list(10**6, marketing)
