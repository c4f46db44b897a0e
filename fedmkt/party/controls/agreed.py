"""Controls without a number: who signed, when a contract holds, what a party's own policy bounds."""

from collections.abc import Iterator

from fedmkt.contract.approvals import check_not_revoked
from fedmkt.contract.checks import check_roles, check_time
from fedmkt.contract.signatures import check_signatures
from fedmkt.errors import PolicyRefused
from fedmkt.party.controls.control import Breach, ContractAsked, Control, ReleaseAsked
from fedmkt.privacy.disclosure import EVERYONE


def _signatures(asked: ContractAsked) -> Iterator[Breach]:
    try:
        check_signatures(asked.signed)
    except PolicyRefused as error:
        yield Breach(str(error), error.hint)


def _signers_pinned(asked: ContractAsked) -> Iterator[Breach]:
    signers, pinned = {s.name: s.key for s in asked.contract.signers}, asked.config.pinned
    for name in sorted(set(signers) ^ set(pinned)):
        yield Breach(f"{name} signs or is pinned, but not both")
    for name in sorted(set(signers) & set(pinned)):
        if signers[name] != pinned[name]:
            yield Breach(f"the key of {name} is not the pinned one", "compare keys")


def _coordinator_apart(asked: ContractAsked) -> Iterator[Breach]:
    try:
        check_roles(asked.contract)
    except PolicyRefused as error:
        yield Breach(str(error), error.hint)


def _own_terms(asked: ContractAsked) -> Iterator[Breach]:
    name, own = asked.config.name, asked.own
    if own is None:
        yield Breach(f"{name} is no signer of the contract")
    elif own.organisation != asked.config.organisation:
        yield Breach(f"the contract calls {name} {own.organisation!r}")


def _not_expired(asked: ContractAsked) -> Iterator[Breach]:
    try:
        check_time(asked.contract, asked.now)
    except PolicyRefused as error:
        yield Breach(str(error).removeprefix("rule not-expired: "), error.hint)
        return
    if asked.past.expired:
        yield Breach(
            f"{asked.config.name} saw the end of the contract before: its clock is behind now, or was ahead then",
            "it stays over here, whichever clock was wrong: fedmkt contract renew",
        )


def _replaced(asked: ContractAsked) -> Iterator[Breach]:
    if by := asked.past.replaced_by:
        yield Breach(
            f"the version {by[:16]} of the contract took its place at {asked.config.name}",
            "run that one; this one runs here no more",
        )


def _revoked(asked: ContractAsked) -> Iterator[Breach]:
    try:
        check_not_revoked(asked.contract, asked.statements)
    except PolicyRefused as error:
        yield Breach(str(error).removeprefix("rule revoked: "), error.hint)


def _rehearsal(asked: ContractAsked) -> Iterator[Breach]:
    if asked.contract.rehearsal and not asked.config.policy.rehearsals:
        yield Breach(
            f"the contract is for rehearsals on invented data, {asked.config.name} allows none",
            "rehearsals = true in the policy allows them: never where real data lie",
        )


def _governance(asked: ContractAsked) -> Iterator[Breach]:
    if asked.terms is None and asked.config.policy.require_governance:
        yield Breach(
            f"the contract has no [governance], {asked.config.name} signs none without",
            "say purposes, legal bases, columns, countries and who approves in [governance] of job.toml",
        )


def _maximum_common(asked: ContractAsked) -> Iterator[Breach]:
    agreed, own = asked.contract.limits.max_common, asked.config.policy.max_common
    if own is not None and (agreed is None or agreed > own):
        said = "no max_common" if agreed is None else f"max_common = {agreed}"
        yield Breach(f"{said} in the contract, {asked.config.name} allows at most {own}")


def _repetitions(asked: ContractAsked) -> Iterator[Breach]:
    for name in ("max_runs", "max_resumes"):
        agreed, own = getattr(asked.contract.limits, name), getattr(asked.config.policy, name)
        if agreed > own:
            yield Breach(f"{name} = {agreed} in the contract, {asked.config.name} allows {own}")


def _disclosures(asked: ContractAsked) -> Iterator[Breach]:
    for kind in asked.contract.disclosures:
        if kind not in asked.config.policy.disclosures:
            yield Breach(f"{kind} is not allowed by {asked.config.name}")


def _auditor(asked: ContractAsked) -> Iterator[Breach]:
    auditor, deals = asked.contract.auditor, asked.config.name == asked.contract.coordinator.name
    if auditor is not None and not deals and auditor.seal_key not in asked.config.policy.auditors:
        yield Breach(
            f"{asked.config.name} seals dealer seeds to no key that it did not compare: {auditor.name}",
            "compare the auditor's seal_key out of band, then name it in auditors of policy.toml",
        )


def _disclosure(asked: ReleaseAsked) -> Iterator[Breach]:
    kind, reader = asked.disclosure.kind, asked.disclosure.to
    if kind not in asked.contract.disclosures:
        yield Breach(f"the contract does not allow {kind}")
    if kind not in asked.config.policy.disclosures:
        yield Breach(f"{asked.config.name} does not allow {kind}")
    if reader not in {EVERYONE, *(signer.name for signer in asked.contract.signers)}:
        yield Breach(f"{reader} is no signer of the contract")


_ALWAYS, _LAW = "always", "design: a party rests on its own policy"
AUTHENTIC = (
    Control("signatures", "all signed", "PIPL 20", _ALWAYS, "signatures", contract=_signatures),
    Control("signers-pinned", "compared keys", "JR/T 0196 7.5", _ALWAYS, "[pinned]", contract=_signers_pinned),
    Control(
        "coordinator-apart", "coordinator of its own", _LAW, _ALWAYS, "coordinator", contract=_coordinator_apart
    ),
    Control("own-terms", "own place", _LAW, _ALWAYS, "parties", contract=_own_terms),
)  # fmt: skip
"""What shows that a contract is one of ours at all: it is asked first."""
REVOKED = Control(
    "revoked", "ended by a signer", "PIPL 20", _ALWAYS, "statements of signers", contract=_revoked
)
REPLACED = Control(
    "replaced", "a later version ran", "PIPL 14", _ALWAYS, "amends of a contract that ran", contract=_replaced
)
OVER = (REVOKED, REPLACED)
"""Whatever else a contract says, it is over."""
OTHERS = (
    Control("governance", "governance present", "PIPL 20, 21, 23", "policy", "policy.require_governance",
            contract=_governance),
    Control("not-expired", "time", _LAW, _ALWAYS, "created, expires", contract=_not_expired),
    Control("rehearsal", "rehearsal", _LAW, _ALWAYS, "policy.rehearsals", contract=_rehearsal),
    Control("maximum-common", "largest match", _LAW, "policy", "limits.max_common", contract=_maximum_common),
    Control("repetitions", "runs and resumes", _LAW, _ALWAYS, "limits.max_runs, max_resumes", contract=_repetitions),
    Control("auditor", "auditor of the deals", _LAW, _ALWAYS, "policy.auditors", contract=_auditor),
    Control("disclosures", "allowed disclosures", "PIPL 6, 19", _ALWAYS, "disclosures",
            contract=_disclosures, release=_disclosure),
)  # fmt: skip
