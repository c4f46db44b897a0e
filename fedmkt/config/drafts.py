"""What a job makes: the contract that its parties would sign, and the settings of a party that agrees to it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import ValidationError

from fedmkt.config.job import JobConfig, overlap_of
from fedmkt.config.policy import PolicyConfig
from fedmkt.config.settings import PartyConfig
from fedmkt.config.tables import BankConfig, PartnerConfig
from fedmkt.contract.agreement import Contract, PartyTerms, Signer
from fedmkt.mistakes import config_error


def draft_contract(job: JobConfig, keys: Mapping[str, bytes], now: datetime) -> Contract:
    """Write the contract that a job asks for, unsigned; `keys` : public identity key of every signer."""
    created = now.astimezone(UTC).replace(microsecond=0)
    names = {party.name for party in job.parties} | {job.coordinator.name}
    if job.task == "overlap":
        job = overlap_of(job)
    if set(keys) != names:
        raise ValueError(f"keys of exactly {sorted(names)} are needed, got {sorted(keys)}")
    terms = (_terms(job.bank, "bank", keys), *(_terms(party, "partner", keys) for party in job.partners))
    try:
        return Contract(
            name=job.name,
            purpose=job.purpose,
            family=job.family or job.name,
            created=created,
            expires=created + timedelta(days=job.valid_days),
            coordinator=Signer(
                name=job.coordinator.name,
                organisation=job.coordinator.organisation,
                key=keys[job.coordinator.name].hex(),
            ),
            parties=terms,
            model=job.model,
            trees=job.trees,
            bins=job.bins,
            scorecard=job.scorecard,
            additive=job.additive,
            limits=job.limits,
            scores=job.scores,
            align=job.align,
            disclosures=job.disclosures,
            task=job.task,
            governance=job.governance,
            channel=job.channel,
            rehearsal=job.rehearsal,
            auditor=job.auditor if job.task == "train" else None,
        )
    except ValidationError as error:
        raise config_error(f"job {job.name}", Contract, error) from None


def _terms(party: PartnerConfig, role: Literal["bank", "partner"], keys: Mapping[str, bytes]) -> PartyTerms:
    return PartyTerms(
        name=party.name,
        organisation=party.organisation,
        key=keys[party.name].hex(),
        role=role,
        id_kind=party.id_kind,
        more_kinds=tuple(key.agreed for key in party.more_ids),
        numbers=party.numbers,
        categories=party.categories,
        offset=party.offset if isinstance(party, BankConfig) else None,
        weight=party.weight if isinstance(party, BankConfig) else None,
        label=party.label if isinstance(party, BankConfig) else None,
    )


def simulated_party(job: JobConfig, name: str, keys: Mapping[str, bytes]) -> PartyConfig:
    """Write the settings of a party that agrees to the job: its purpose, columns and limits."""
    party = job.party(name)
    own = job.policy
    limits = job.limits
    return PartyConfig(
        name=party.name,
        organisation=party.organisation,
        pinned={signer: key.hex() for signer, key in keys.items()},
        policy=PolicyConfig(
            purposes=(job.purpose,),
            columns=party.columns,
            min_list=own.min_list or limits.min_list,
            min_common=own.min_common or limits.min_common,
            max_common=own.max_common or limits.max_common,
            min_support=own.min_support or limits.min_support,
            min_difference=own.min_difference,
            max_size_runs=own.max_size_runs,
            size_run_days=own.size_run_days,
            max_runs=own.max_runs or limits.max_runs,
            max_resumes=limits.max_resumes if own.max_resumes is None else own.max_resumes,
            max_epsilon=own.max_epsilon or limits.max_epsilon,
            disclosures=job.disclosures if own.disclosures is None else own.disclosures,
            max_decimals=own.max_decimals or job.scores.decimals,
            rehearsals=job.rehearsal,
            auditors=() if job.auditor is None else (job.auditor.seal_key,),
            require_governance=own.require_governance,
            require_approvals=own.require_approvals,
            require_filters=own.require_filters,
        ),
    )
