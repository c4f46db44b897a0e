"""job.toml and party.toml as frozen models; the only place with defaults besides the contract's terms.

A job file describes one job from above, as a simulation or a person who drafts a contract sees it. A
party file is one organisation's own: who it is, whose keys it pinned, what it allows. Both are parsed
from text; reading files is for the callers.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from fedmkt.contract import (
    Contract,
    Count,
    IdKind,
    Key,
    Kind,
    Limits,
    ModelTerms,
    Name,
    PartyTerms,
    ScoreTerms,
    Signer,
    Terms,
    Text,
    config_error,
    read_toml,
)
from fedmkt.privacy.disclosure import DEFAULT

Country = Annotated[str, Field(pattern=r"\A[1-9][0-9]{0,2}\z")]


class PartnerConfig(Terms):
    """One party of a job: its file, the id column and how ids are written, and the columns it brings."""

    name: Name
    organisation: Text
    file: Text
    id: Text
    id_kind: IdKind
    country: Country = "86"
    numbers: tuple[Text, ...] = ()
    categories: tuple[Text, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that take part, the label last, the id not among them."""
        return (*self.numbers, *self.categories)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.numbers or self.categories):
            raise ValueError("at least one column in numbers or categories")
        named = (self.id, *self.columns)
        if len(set(named)) != len(named):
            raise ValueError("every column once, in id, numbers, categories or label")
        return self


class BankConfig(PartnerConfig):
    """The bank's side of a job; empty labels mark customers who were not in the campaign."""

    label: Text

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that take part, the label last, the id not among them."""
        return (*self.numbers, *self.categories, self.label)


class CoordinatorConfig(Terms):
    """Who runs the coordinator; never one of the parties."""

    name: Name = "coordinator"
    organisation: Text = "Independent Coordinator"


class PolicyConfig(Terms):
    """What one organisation allows, whatever a contract says; the defaults allow no purpose and no column."""

    purposes: tuple[Text, ...] = ()
    columns: tuple[Text, ...] = ()
    min_list: Count = Field(default=1000, ge=1)
    min_common: Count = Field(default=1000, ge=1)
    min_support: Count = Field(default=50, ge=1)
    max_runs: Count = Field(default=5, ge=1)
    max_resumes: Count = Field(default=3, ge=0)
    disclosures: tuple[Kind, ...] = DEFAULT


class JobPolicy(Terms):
    """The simulated parties' own minimum sizes; what is absent follows the job's limits."""

    min_list: Count | None = Field(default=None, ge=1)
    min_common: Count | None = Field(default=None, ge=1)
    min_support: Count | None = Field(default=None, ge=1)
    max_runs: Count | None = Field(default=None, ge=1)
    max_resumes: Count | None = Field(default=None, ge=0)
    disclosures: tuple[Kind, ...] | None = None


class JobConfig(Terms):
    """One job: who takes part with which columns, and every number that is not left at its default."""

    name: Name
    purpose: Text
    family: Text | None = None
    valid_days: Count = Field(default=30, ge=1, le=3660)
    bank: BankConfig
    partners: tuple[PartnerConfig, ...] = Field(min_length=1, max_length=2)
    coordinator: CoordinatorConfig = CoordinatorConfig()
    model: ModelTerms = ModelTerms()
    limits: Limits = Limits()
    scores: ScoreTerms = ScoreTerms()
    policy: JobPolicy = JobPolicy()
    disclosures: tuple[Kind, ...] = DEFAULT

    @property
    def parties(self) -> tuple[PartnerConfig, ...]:
        """The bank, then the partners in order."""
        return (self.bank, *self.partners)

    def party(self, name: str) -> PartnerConfig:
        """Find a party by name; ValueError for a name that is not in the job."""
        for party in self.parties:
            if party.name == name:
                return party
        raise ValueError(f"{name!r} is no party of job {self.name!r}")

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [*(party.name for party in self.parties), self.coordinator.name]
        if len(set(names)) != len(names):
            raise ValueError("bank, partners and coordinator each have a name of their own")
        return self


class PartyConfig(Terms):
    """One organisation's own settings: who it is, the keys it compared out of band, what it allows."""

    name: Name
    organisation: Text
    pinned: Mapping[Name, Key]
    policy: PolicyConfig = PolicyConfig()


def parse_job(text: str, path: str) -> JobConfig:
    """Read the text of a job.toml; ConfigError names `path`, key, value and what is accepted."""
    try:
        return JobConfig.model_validate(read_toml(text, path))
    except ValidationError as error:
        raise config_error(path, JobConfig, error) from None


def parse_party(text: str, path: str) -> PartyConfig:
    """Read the text of a party.toml; ConfigError names `path`, key, value and what is accepted."""
    try:
        return PartyConfig.model_validate(read_toml(text, path))
    except ValidationError as error:
        raise config_error(path, PartyConfig, error) from None


def draft_contract(job: JobConfig, keys: Mapping[str, bytes], now: datetime) -> Contract:
    """Write the contract that a job asks for, unsigned; `keys` : public identity key of every signer."""
    created = now.astimezone(UTC).replace(microsecond=0)
    names = {party.name for party in job.parties} | {job.coordinator.name}
    if set(keys) != names:
        raise ValueError(f"keys of exactly {sorted(names)} are needed, got {sorted(keys)}")
    terms = tuple(_terms(party, keys[party.name].hex()) for party in job.parties)
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
            limits=job.limits,
            scores=job.scores,
            disclosures=job.disclosures,
        )
    except ValidationError as error:
        raise config_error(f"job {job.name}", Contract, error) from None


def _terms(party: PartnerConfig, key: str) -> PartyTerms:
    label = party.label if isinstance(party, BankConfig) else None
    return PartyTerms(
        name=party.name,
        organisation=party.organisation,
        key=key,
        role="partner" if label is None else "bank",
        id_kind=party.id_kind,
        numbers=party.numbers,
        categories=party.categories,
        label=label,
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
            min_support=own.min_support or limits.min_support,
            max_runs=own.max_runs or limits.max_runs,
            max_resumes=limits.max_resumes if own.max_resumes is None else own.max_resumes,
            disclosures=job.disclosures if own.disclosures is None else own.disclosures,
        ),
    )


__all__ = [
    "BankConfig",
    "CoordinatorConfig",
    "JobConfig",
    "JobPolicy",
    "PartnerConfig",
    "PartyConfig",
    "PolicyConfig",
    "draft_contract",
    "parse_job",
    "parse_party",
    "simulated_party",
]
