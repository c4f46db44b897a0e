from dataclasses import replace
from datetime import timedelta

import pytest

from fedmkt.audit import statements
from fedmkt.contract.approvals import (
    approval,
    approved,
    check_approved,
    counts,
    decisions,
    denial,
    find_approver,
    revocation,
    revocations,
)
from fedmkt.contract.governance import Approver
from fedmkt.crypto.sign import Identity
from fedmkt.errors import PolicyRefused
from tests.contract.agreed import APPROVERS, IDENTITIES, START, contract, governance

AGREED = contract(governance=governance())
EVE = Identity(b"e" * 32)


def approver(party: str, role: str) -> Approver:
    return next(a for a in AGREED.governance.approvers if (a.party, a.role) == (party, role))


def said(party: str, role: str, make=approval, key=None, at=START, agreed=AGREED, more=()):  # type: ignore[no-untyped-def]
    statement = make(agreed, approver(party, role), at, *more)
    return statements.sign(statement, key or APPROVERS[party, role])


def all_of_them():  # type: ignore[no-untyped-def]
    return [said(party, role) for party, role in APPROVERS]


def test_two_people_of_each_party_with_both_roles_approve() -> None:
    assert approved(AGREED, all_of_them()) == {"bank": ("ann", "ben"), "shop": ("ann", "ben")}
    check_approved(AGREED, all_of_them())


@pytest.mark.parametrize("absent", range(4))
def test_one_approval_fewer_is_too_few(absent: int) -> None:
    given = all_of_them()
    del given[absent]
    with pytest.raises(PolicyRefused, match=r"^C18 approvals: (bank|shop): 1 of 2 approvals$"):
        check_approved(AGREED, given)


def test_nobody_counts_twice() -> None:
    given = [said("bank", "data-owner", at=START + timedelta(days=i)) for i in range(3)]
    assert approved(AGREED, given) == {"bank": ("ann",), "shop": ()}


@pytest.mark.parametrize(
    "envelope",
    [
        said("bank", "data-owner", key=EVE),
        said("bank", "data-owner", key=APPROVERS["bank", "compliance"]),
        said("bank", "data-owner", key=IDENTITIES["bank"]),
        said("bank", "data-owner", agreed=contract(governance=governance(approvals=1))),
        statements.sign(
            revocation(AGREED, "bank", START, "an end"), APPROVERS["bank", "data-owner"]
        ),
        statements.sign(
            replace(approval(AGREED, approver("bank", "data-owner"), START), kind="evidence"),
            APPROVERS["bank", "data-owner"],
        ),
        statements.sign(
            approval(AGREED, approver("bank", "data-owner").model_copy(update={"role": "compliance"}), START),
            APPROVERS["bank", "data-owner"],
        ),
        statements.sign(
            replace(approval(AGREED, approver("bank", "data-owner"), START), predicate={"approver": "ann"}),
            APPROVERS["bank", "data-owner"],
        ),
    ],
    ids=["stranger", "colleague", "signer", "other contract", "revocation", "kind", "role", "shape"],
)  # fmt: skip
def test_what_is_no_approval_of_this_person_for_this_contract_counts_for_nothing(envelope) -> None:  # type: ignore[no-untyped-def]
    assert approved(AGREED, [envelope]) == {"bank": (), "shop": ()}
    assert not revocations(AGREED, [envelope])


def test_two_people_of_one_role_are_not_enough_for_two_roles() -> None:
    carl = Identity(b"c" * 32)
    terms = governance().model_dump()
    terms["approvers"] = [
        *terms["approvers"],
        {"name": "carl", "party": "bank", "role": "data-owner", "key": carl.public.hex()},
    ]
    agreed = contract(governance=terms)
    given = [
        statements.sign(approval(agreed, a, START), key)
        for a, key in zip(agreed.governance.approvers, [*APPROVERS.values(), carl], strict=True)
    ]
    check_approved(agreed, given)
    without_ben = [given[0], *given[2:]]
    assert approved(agreed, without_ben)["bank"] == ("ann", "carl")
    with pytest.raises(PolicyRefused, match="bank: nobody approved as compliance"):
        check_approved(agreed, without_ben)


def test_the_last_decision_of_a_person_counts_and_of_two_at_once_the_denial() -> None:
    no = said("bank", "data-owner", denial, more=("too broad",))
    yes = said("bank", "data-owner")
    later = said("bank", "data-owner", at=START + timedelta(hours=1))
    for given in ([no, yes], [yes, no]):
        assert approved(AGREED, given)["bank"] == ()
        (found,) = decisions(AGREED, given)
        assert (found.decision, found.reason) == ("denial", "too broad")
    assert approved(AGREED, [later, no])["bank"] == ("ann",)


@pytest.mark.parametrize("name", ["bank", "shop", "notary"])
def test_any_signer_can_end_a_contract(name: str) -> None:
    statement = revocation(AGREED, name, START, "the campaign was called off")
    envelope = statements.sign(statement, IDENTITIES[name])
    assert revocations(AGREED, [envelope]) and not revocations(contract(), [envelope])
    (found,) = revocations(AGREED, [envelope, envelope])
    assert (found.signer, found.reason) == (name, "the campaign was called off")


@pytest.mark.parametrize("identity", [EVE, IDENTITIES["shop"], APPROVERS["bank", "data-owner"]])
def test_nobody_ends_a_contract_in_the_name_of_another(identity: Identity) -> None:
    envelope = statements.sign(revocation(AGREED, "bank", START, "an end"), identity)
    assert not revocations(AGREED, [envelope])


def test_only_a_revocation_revokes() -> None:
    said_otherwise = replace(revocation(AGREED, "bank", START, "an end"), kind="evidence")
    assert not revocations(AGREED, [statements.sign(said_otherwise, IDENTITIES["bank"])])


def test_a_contract_without_governance_needs_no_approval_and_neither_does_a_rehearsal() -> None:
    check_approved(contract(), [])
    check_approved(contract(governance=governance(), rehearsal=True), [])
    assert counts(contract(), []) == () and decisions(contract(), all_of_them()) == ()


def test_a_party_without_approvers_has_not_approved() -> None:
    agreed = contract(governance=governance(approvers=()))
    assert [(c.party, c.approvers, c.lacking) for c in counts(agreed, [])] == [
        ("bank", 0, "bank: 0 of 2 approvals"), ("shop", 0, "shop: 0 of 2 approvals")
    ]  # fmt: skip


def test_an_approver_is_found_by_name_and_party() -> None:
    assert find_approver(AGREED, "ann", "bank").role == "data-owner"
    with pytest.raises(ValueError, match="several approvers are called 'ann'"):
        find_approver(AGREED, "ann")
    with pytest.raises(ValueError, match=r"no approver is called 'eve'; .* ben \(compliance of shop\)"):
        find_approver(AGREED, "eve", "bank")
