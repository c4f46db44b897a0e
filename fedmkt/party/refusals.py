"""What a party refuses although the script asks for it: an epoch out of turn, a release that nobody allowed.

The controls stand in `party.controls`; here they are put to what a call brings and does.
"""

from collections.abc import Mapping
from typing import Any

from fedmkt.contract.agreement import Contract
from fedmkt.errors import PeerError, PolicyRefused
from fedmkt.party.policy import Policy
from fedmkt.party.store import Store
from fedmkt.protocol.alignment.items import NO_ROW, Known
from fedmkt.protocol.alignment.psi import Aligned, Customers
from fedmkt.protocol.core import Call, Name, Outcome, State
from fedmkt.protocol.session import NEW_RUN, Invitation


def check_invitation(me: Name, contract: Contract, store: Store, invitation: Invitation) -> None:
    """Refuse an epoch of a closed run, one that is not later than all seen of its run, and one resume too many."""
    run = invitation.run.hex()
    if len(invitation.run) not in (len(NEW_RUN), 32) or f"closed/{run}" in store:
        raise PeerError(f"{me}: this run was closed, or is none")
    if invitation.epoch <= store.highest_epoch(run) or (invitation.run == NEW_RUN) != (invitation.epoch == 1):
        raise PeerError(f"{me}: epoch {invitation.epoch} is not new")
    if invitation.epoch - 1 > contract.limits.max_resumes:
        raise PolicyRefused(f"{me}: more resumes than the contract allows ({contract.limits.max_resumes})")


def check_outcome(
    call: Call[Any, Any],
    outcome: Outcome[Any, Any],
    contract: Contract,
    policy: Policy | None,
    witnessed: bool,
) -> None:
    """Refuse what a step reveals undeclared, or against contract or policy, or before the logs were counter-signed.

    policy : None asks the contract alone. ValueError where the step breaks its own declaration.
    """
    for disclosure in outcome.reveals:
        if type(disclosure) not in call.step.reveals:
            raise ValueError(f"{call.step.name} reveals {disclosure.kind}, which it did not declare")
        if disclosure.kind not in contract.disclosures:
            raise PolicyRefused(f"the contract does not allow the disclosure {disclosure.kind}")
        if policy is not None:
            policy.check_disclosure(disclosure, contract)
    if outcome.reveals and not witnessed:
        raise PolicyRefused(f"{call.step.name} reveals something before the logs were counter-signed")
    if not isinstance(outcome.public, call.step.tells):
        raise ValueError(f"{call.step.name} tells something else than it declared")


def check_match(
    me: Name,
    contract: Contract,
    policy: Policy | None,
    outcome: Outcome[Any, Any],
    states: Mapping[type[State], State],
) -> None:
    """Refuse a match that was just found, by what this party knows of it; where it is hidden the partner knows nothing.

    Rows that the contract leaves out for want of a label count as not common.
    """
    kept = {type(state): state for state in outcome.keep}
    aligned, known, customers = kept.get(Aligned), kept.get(Known), states.get(Customers)
    if policy is None or not isinstance(aligned, Aligned) or not isinstance(customers, Customers):
        return
    if contract.align.hidden and me != contract.bank.name:
        return
    if isinstance(known, Known):
        common = int(known.rows.sum())
    else:
        common = int((aligned.labelled != NO_ROW).sum() + (aligned.unlabelled != NO_ROW).sum())
    policy.check_match(contract, len(customers.ids), common)
