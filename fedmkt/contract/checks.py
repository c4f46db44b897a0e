"""What is refused of a contract, or under it, whoever takes part: its roles, its time, the size of an intersection."""

from collections.abc import Sequence
from datetime import datetime

from fedmkt.contract.agreement import Contract, Limits
from fedmkt.contract.words import comparable
from fedmkt.errors import PolicyRefused


def check_roles(contract: Contract) -> None:
    """Refuse a coordinator that shares organisation or key with a party: it could unmask everything."""
    for party in contract.parties:
        if comparable(party.organisation) == comparable(contract.coordinator.organisation):
            raise PolicyRefused(
                f"the coordinator belongs to {party.organisation!r}, the organisation of {party.name}",
                "let an organisation run the coordinator that is no party of the contract",
            )
        if party.key == contract.coordinator.key:
            raise PolicyRefused(
                f"the coordinator signs with the key of {party.name}",
                "let an organisation run the coordinator that is no party of the contract",
            )


def check_time(contract: Contract, now: datetime) -> None:
    """Refuse a contract that has expired or does not hold yet."""
    if not contract.created <= now < contract.expires:
        raise PolicyRefused(
            f"rule not-expired: the contract holds from {contract.created} to {contract.expires}"
        )


def check_rest(contract: Contract, lists: Sequence[int], common: int) -> None:
    """Refuse a match that leaves too few people of any list: of nearly each of them it would tell that it is common.

    Asked by whoever knows the count, where others do not; lists : how long each is. The message tells no number.
    """
    terms = contract.governance
    if terms is not None and min(lists) - common < terms.min_rest:
        raise PolicyRefused("C09 minimum match: too few people of a list are not common")


def check_common(limits: Limits, low: int, high: int) -> None:
    """Refuse an intersection that is certainly too small or too large; the message tells no number of people.

    Of a count that is known low is one less and high is the count: a band is low < count <= high.
    """
    if high < limits.min_common:
        raise PolicyRefused("C09 minimum match: the intersection is smaller than the contract's minimum")
    if limits.max_common is not None and low >= limits.max_common:
        raise PolicyRefused("rule maximum-common: the intersection is larger than the contract's maximum")
