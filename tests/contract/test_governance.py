import json
from datetime import timedelta

import pytest
from pydantic import ValidationError

from fedmkt.audit.verify import _read_contract
from fedmkt.contract.canonical import canonical_bytes, digest
from fedmkt.contract.files import from_toml, to_toml
from tests.contract.agreed import START, contract, governance, signed


def test_terms_of_governance_are_signed_with_the_contract_and_come_back() -> None:
    agreed = contract(governance=governance())
    text = to_toml(signed(agreed))
    assert from_toml(text, "x").contract == agreed
    values = json.loads(canonical_bytes(agreed))
    assert values["governance"]["impact"]["expires"] == "2030-10-28T00:00:00Z"
    assert digest(agreed) != digest(contract(governance=governance(countries=["CN", "DE"])))


def test_the_verifier_of_auditors_reads_the_same_digest() -> None:
    agreed = contract(governance=governance())
    assert _read_contract(to_toml(signed(agreed)).encode(), None, START).digest == digest(agreed).hex()


def test_a_contract_without_them_has_the_bytes_it_had() -> None:
    assert "governance" not in json.loads(canonical_bytes(contract()))


@pytest.mark.parametrize(
    ("changes", "accepted"),
    [
        ({"datasets": [governance().datasets[0].model_dump()]}, "one dataset of each party"),
        ({"locations": {"bank": "CN", "shop": "CN"}}, "the country of each signer"),
        (
            {"locations": {"bank": "CN", "shop": "CN", "notary": "CN", "more": "CN"}},
            "the country of each signer",
        ),
        (
            {"approvers": [governance().approvers[0].model_dump() | {"party": "notary"}]},
            "approvers of parties only",
        ),
        ({"recipients": [{"result": "scores", "to": "nobody", "use": "x"}]}, "recipients are signers"),
    ],
)
def test_they_name_the_participants_of_the_contract(changes, accepted) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValidationError, match=accepted):
        contract(governance=governance(**changes))


@pytest.mark.parametrize(
    ("changes", "accepted"),
    [
        ({"datasets": [governance().datasets[0].model_dump()] * 2}, "every party brings one dataset"),
        ({"approvers": [governance().approvers[0].model_dump()] * 2}, "a key of their own"),
        ({"revision": 2}, "later ones say what"),
        ({"amends": "ab" * 32}, "revision 1 amends nothing"),
        ({"countries": ["china"]}, "pattern"),
        ({"retention": {"result_days": 0}}, "greater than or equal to 1"),
        (
            {
                "impact": {
                    "sha256": "ab" * 32,
                    "purpose": "x",
                    "parties": ["bank"],
                    "expires": START + timedelta(microseconds=1),
                }
            },
            "whole seconds",
        ),
        ({"more": 1}, "Extra inputs"),
    ],
)
def test_their_shapes_are_checked(changes, accepted) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValidationError, match=accepted):
        governance(**changes)


def test_an_unknown_level_counts_as_four() -> None:
    grant = governance().datasets[0].columns[0]
    assert (grant.counts_as, grant.model_copy(update={"level": None}).counts_as) == (2, 4)
