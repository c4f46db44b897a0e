"""What one organisation allows: every contract, list, intersection and release is checked against it.

A party runs only what its contract *and* its own policy allow, whatever the coordinator asks. Each rule
is a function that raises `PolicyRefused` and names itself; none tells a count of anybody's data.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from fedmkt.config.settings import PartyConfig
from fedmkt.contract.agreement import Contract, Limits, PartyTerms, Signer
from fedmkt.contract.checks import check_roles, check_time
from fedmkt.contract.signatures import SignedContract, check_given_signatures, check_signatures
from fedmkt.errors import PolicyRefused
from fedmkt.privacy.disclosure import (
    EVERYONE,
    Disclosure,
    ListSize,
    MatchedOwnRows,
    SetSize,
    SupersetList,
)

_SIZES = (ListSize, SetSize, MatchedOwnRows, SupersetList)
Rule = Callable[[PartyConfig, SignedContract, datetime], None]


def _signatures(config: PartyConfig, signed: SignedContract, now: datetime) -> None:
    check_signatures(signed)


def _signers_pinned(config: PartyConfig, signed: SignedContract, now: datetime) -> None:
    signers = {signer.name: signer.key for signer in signed.contract.signers}
    for name in sorted(set(signers) ^ set(config.pinned)):
        raise PolicyRefused(f"rule signers-pinned: {name} signs or is pinned, but not both")
    for name in sorted(signers):
        if signers[name] != config.pinned[name]:
            raise PolicyRefused(
                f"rule signers-pinned: the key of {name} is not the pinned one", "compare keys"
            )


def _coordinator_apart(config: PartyConfig, signed: SignedContract, now: datetime) -> None:
    check_roles(signed.contract)


def _own_terms(config: PartyConfig, signed: SignedContract, now: datetime) -> None:
    own = _own(config, signed.contract)
    if own.organisation != config.organisation:
        raise PolicyRefused(f"rule own-terms: the contract calls {config.name} {own.organisation!r}")


def _purpose(config: PartyConfig, signed: SignedContract, now: datetime) -> None:
    if signed.contract.purpose not in config.policy.purposes:
        raise PolicyRefused(f"rule purpose: {signed.contract.purpose!r} is not allowed by {config.name}")


def _columns(config: PartyConfig, signed: SignedContract, now: datetime) -> None:
    own = _own(config, signed.contract)
    granted = set(config.policy.columns)
    asked = own.columns if isinstance(own, PartyTerms) else ()
    for column in asked:
        if column not in granted:
            raise PolicyRefused(f"rule columns: column {column!r} is not granted by {config.name}")


def _not_expired(config: PartyConfig, signed: SignedContract, now: datetime) -> None:
    check_time(signed.contract, now)


def _rehearsal(config: PartyConfig, signed: SignedContract, now: datetime) -> None:
    if signed.contract.rehearsal and not config.policy.rehearsals:
        raise PolicyRefused(
            f"rule rehearsal: the contract is for rehearsals on invented data, {config.name} allows none",
            "rehearsals = true in the policy allows them: never where real data lie",
        )


def _minimum_sizes(config: PartyConfig, signed: SignedContract, now: datetime) -> None:
    for name in ("min_list", "min_common", "min_support"):
        agreed, own = getattr(signed.contract.limits, name), getattr(config.policy, name)
        if agreed < own:
            raise PolicyRefused(
                f"rule minimum-sizes: {name} = {agreed} in the contract, {config.name} needs {own}"
            )


def _maximum_common(config: PartyConfig, signed: SignedContract, now: datetime) -> None:
    agreed, own = signed.contract.limits.max_common, config.policy.max_common
    if own is not None and (agreed is None or agreed > own):
        said = "no max_common" if agreed is None else f"max_common = {agreed}"
        raise PolicyRefused(
            f"rule maximum-common: {said} in the contract, {config.name} allows at most {own}"
        )


def _repetitions(config: PartyConfig, signed: SignedContract, now: datetime) -> None:
    for name in ("max_runs", "max_resumes"):
        agreed, own = getattr(signed.contract.limits, name), getattr(config.policy, name)
        if agreed > own:
            raise PolicyRefused(
                f"rule repetitions: {name} = {agreed} in the contract, {config.name} allows {own}"
            )


def _noise(config: PartyConfig, signed: SignedContract, now: datetime) -> None:
    if signed.contract.trees.epsilon is None:
        return
    agreed, own = signed.contract.limits.max_epsilon, config.policy.max_epsilon
    if agreed > own:
        raise PolicyRefused(
            f"rule noise: limits.max_epsilon = {agreed:g} in the contract, {config.name} allows {own:g}"
        )


def _disclosures(config: PartyConfig, signed: SignedContract, now: datetime) -> None:
    for kind in signed.contract.disclosures:
        if kind not in config.policy.disclosures:
            raise PolicyRefused(f"rule disclosures: {kind} is not allowed by {config.name}")


CONTRACT_RULES: dict[str, Rule] = {
    "signatures": _signatures,
    "signers-pinned": _signers_pinned,
    "coordinator-apart": _coordinator_apart,
    "own-terms": _own_terms,
    "purpose": _purpose,
    "columns": _columns,
    "not-expired": _not_expired,
    "rehearsal": _rehearsal,
    "minimum-sizes": _minimum_sizes,
    "maximum-common": _maximum_common,
    "repetitions": _repetitions,
    "noise": _noise,
    "disclosures": _disclosures,
}
"""All rules that a contract must pass, in the order in which they are asked."""


def shows_a_size(disclosure: Disclosure) -> bool:
    """Tell whether a release says how long a list or an intersection is: with chosen lists, who is on them."""
    return isinstance(disclosure, _SIZES)


class Policy:
    """The policy of one organisation, the coordinator's included; it keeps no state."""

    def __init__(self, config: PartyConfig) -> None:
        self.config = config

    def check_contract(self, signed: SignedContract, now: datetime) -> None:
        """Refuse a contract that breaks any rule; keys are compared with those pinned in the party file."""
        for rule in CONTRACT_RULES.values():
            rule(self.config, signed, now)

    def check_before_signing(self, signed: SignedContract, now: datetime) -> None:
        """Refuse whatever `check_contract` refuses, save that signatures may be missing; those given must verify."""
        check_given_signatures(signed)
        for name, rule in CONTRACT_RULES.items():
            if name != "signatures":
                rule(self.config, signed, now)

    def check_list(self, rows: int, limits: Limits) -> None:
        """Refuse to match with a list, own or other, that is shorter than contract or policy ask.

        rows : distinct ids, after duplicates were removed.
        """
        if rows < max(self.config.policy.min_list, limits.min_list):
            raise PolicyRefused(f"rule list-size: {self.config.name} does not match lists this short")

    def check_size_runs(self, earlier: Sequence[datetime], now: datetime) -> None:
        """Refuse one more run that shows sizes, if too many lie within the last days.

        earlier : when runs with the same partner showed sizes. Those of the future count too: a clock that was
        put back forgets nothing.
        """
        policy = self.config.policy
        window = timedelta(days=policy.size_run_days)
        recent = sorted(time for time in earlier if now - time < window)
        if len(recent) >= policy.max_size_runs:
            free = recent[-policy.max_size_runs] + window
            raise PolicyRefused(
                f"rule size-runs: {self.config.name} shows sizes to one partner at most {policy.max_size_runs} "
                f"times in {policy.size_run_days} days",
                f"the next such run may begin on {free:%Y-%m-%d at %H:%M} UTC",
            )

    def check_difference(self, differences: Iterable[int]) -> None:
        """Refuse a list that differs by a few ids from one that was matched with the same partner.

        differences : ids that are on one of the two lists only, for each earlier list. Two sizes would tell
        about those few.
        """
        if any(0 < found < self.config.policy.min_difference for found in differences):
            raise PolicyRefused(
                f"rule list-difference: {self.config.name} matched a list before that differs from this one by "
                f"fewer than {self.config.policy.min_difference} ids",
                "match the same list again, or one with more new people",
            )

    def check_disclosure(self, disclosure: Disclosure, contract: Contract) -> None:
        """Refuse a release that contract or policy do not name, or to somebody who is no signer."""
        kind = disclosure.kind
        if kind not in contract.disclosures:
            raise PolicyRefused(f"rule disclosure: the contract does not allow {kind}")
        if kind not in self.config.policy.disclosures:
            raise PolicyRefused(f"rule disclosure: {self.config.name} does not allow {kind}")
        if disclosure.to not in {EVERYONE, *(signer.name for signer in contract.signers)}:
            raise PolicyRefused(f"rule disclosure: {disclosure.to} is no signer of the contract")


def _own(config: PartyConfig, contract: Contract) -> Signer:
    for signer in contract.signers:
        if signer.name == config.name:
            return signer
    raise PolicyRefused(f"rule own-terms: {config.name} is no signer of the contract")
