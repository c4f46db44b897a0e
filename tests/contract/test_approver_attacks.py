"""What somebody tries who wants a contract approved that was not: one person twice, dates to come, unseen letters."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from fedmkt.audit import statements
from fedmkt.contract.agreement import Contract
from fedmkt.contract.approvals import approval, approved, check_approved, decisions, denial
from fedmkt.contract.files import to_toml
from fedmkt.deploy.life import deny
from fedmkt.errors import PolicyRefused
from tests.contract.agreed import APPROVERS, IDENTITIES, START, contract, governance, signed

AGREED = contract(governance=governance())
assert AGREED.governance is not None
ANN = AGREED.governance.approvers[0]


def with_approvers(**changes: object) -> Contract:
    """Change the second approver of the bank."""
    people = governance().model_dump()["approvers"]
    return contract(governance=governance(approvers=[people[0], people[1] | changes, *people[2:]]))


@pytest.mark.parametrize("name", ["a-nn", "ann-", "an-n"])
def test_one_person_under_two_names_that_read_alike_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="names of approvers of bank read alike: ann, " + name):
        with_approvers(name=name)


@pytest.mark.parametrize(
    ("one", "other"), [("bill", "bi11"), ("bob", "b0b"), ("lea", "iea"), ("rn", "m"), ("vv", "w")]
)
def test_letters_and_digits_that_look_alike_are_one(one: str, other: str) -> None:
    people = governance().model_dump()["approvers"]
    named = [people[0] | {"name": one}, people[1] | {"name": other}, *people[2:]]
    with pytest.raises(ValidationError, match="read alike"):
        contract(governance=governance(approvers=named))
    # At two parties, two people may be called alike.
    contract(
        governance=governance(
            approvers=[people[0] | {"name": one}, *people[1:2], people[2] | {"name": other}, people[3]]
        )
    )


@pytest.mark.parametrize("signer", ["bank", "shop", "notary"])
def test_the_key_of_an_organisation_is_no_persons_key(signer: str) -> None:
    with pytest.raises(ValidationError, match="an approver has the identity key of"):
        with_approvers(key=IDENTITIES[signer].public.hex())


def test_a_name_in_other_letters_is_no_name() -> None:
    with pytest.raises(ValidationError):
        with_approvers(name="аnn")  # noqa: RUF001 - Cyrillic


def test_approvals_are_of_this_contract_and_of_no_other() -> None:
    other = contract(governance=governance(max_size_runs=4))
    given = [
        statements.sign(approval(other, a, START), APPROVERS[a.party, a.role])
        for a in other.governance.approvers
    ]
    check_approved(other, given)
    assert decisions(AGREED, given) == ()


def test_a_decision_of_after_the_contract_is_none() -> None:
    given = statements.sign(approval(AGREED, ANN, AGREED.expires), APPROVERS["bank", "data-owner"])
    assert approved(AGREED, [given])["bank"] == ()


@pytest.mark.parametrize(
    "at",
    [AGREED.expires - timedelta(seconds=1), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)],
    ids=["end", "9999"],
)
def test_an_approval_of_the_last_moment_does_not_keep_its_author_from_denying(
    at: datetime, tmp_path: Path
) -> None:
    key, file = APPROVERS["bank", "data-owner"], tmp_path / "c.toml"
    file.write_text(to_toml(signed(AGREED)))
    late = statements.sign(approval(AGREED, ANN, at), key)
    (tmp_path / "c.toml.approvals").mkdir()
    from fedmkt.deploy.statement_files import folder_beside, read_statements, write_statement

    write_statement(folder_beside(file), "bank.ann.approval", late)
    deny(file, AGREED, ANN, key, START, "too broad")
    (found,) = decisions(AGREED, read_statements(folder_beside(file)))
    assert found.decision == "denial"


def test_a_denial_made_elsewhere_at_the_same_moment_wins() -> None:
    key, at = APPROVERS["bank", "data-owner"], AGREED.expires - timedelta(seconds=1)
    yes, no = (statements.sign(s, key) for s in (approval(AGREED, ANN, at), denial(AGREED, ANN, at, "no")))
    assert [d.decision for d in decisions(AGREED, [yes, no])] == ["denial"]


@pytest.mark.parametrize(
    "sign", ["\u3164", "\u115f", "\u2800", "\ufe0f", "\u034f", "\u200b", "\u202e", "\u00a0"]
)
def test_letters_that_nobody_sees_stand_in_no_contract(sign: str) -> None:
    for change in ({"purpose": f"cards{sign}"}, {"family": f"c{sign}ards"}):
        with pytest.raises(ValidationError, match="characters only"):
            contract(**change)
    with pytest.raises(ValidationError, match="characters only"):
        governance(groups=[f"age{sign}"])


def test_one_approval_of_one_role_is_not_enough_whatever_the_contract_says() -> None:
    agreed = contract(governance=governance(approvals=1))
    given = [statements.sign(approval(agreed, ANN, START), APPROVERS["bank", "data-owner"])]
    given += [
        statements.sign(approval(agreed, a, START), APPROVERS[a.party, a.role])
        for a in agreed.governance.approvers
        if a.party == "shop"
    ]
    with pytest.raises(PolicyRefused, match=r"C18 approvals: bank: 1 of 2 approvals$"):
        check_approved(agreed, given)
