"""job.toml: one job from above, as a simulation or a person who drafts a contract sees it."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from fedmkt.config.policy import JobPolicy
from fedmkt.config.tables import BankConfig, PartnerConfig, id_list
from fedmkt.contract.agreement import MOST_PARTNERS, AlignTerms, AuditorTerms, Limits, ScoreTerms
from fedmkt.contract.governance import GovernanceTerms
from fedmkt.contract.model_terms import (
    AdditiveTerms,
    BinTerms,
    ModelTerms,
    ScorecardTerms,
    TreeTerms,
    least_disclosures,
)
from fedmkt.contract.rules import OVERLAP_DISCLOSURES
from fedmkt.contract.words import Channel, Count, Flag, Kind, Name, Task, Terms, Text
from fedmkt.mistakes import missing, mistake


class CoordinatorConfig(Terms):
    """Who runs the coordinator; never one of the parties."""

    name: Name = "coordinator"
    organisation: Text = "Independent Coordinator"


def _least(read: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a job discloses that does not say: the least with which its kind of model works."""
    # Where another section was wrong, it is not here, and the job is refused anyway.
    least = least_disclosures(read.get("model", ModelTerms()), read.get("trees", TreeTerms()))
    return (*least, "DealerSeeds") if read.get("auditor") is not None else least


class JobConfig(Terms):
    """One job: who takes part with which columns, and every number that is not left at its default.

    task : `overlap` counts the common customers and uses no column.
    """

    name: Name
    purpose: Text
    task: Task = "train"
    family: Text | None = None
    valid_days: Count = Field(default=30, ge=1, le=3660)
    bank: BankConfig
    partners: tuple[PartnerConfig, ...] = Field(min_length=1, max_length=MOST_PARTNERS)
    coordinator: CoordinatorConfig = CoordinatorConfig()
    model: ModelTerms = ModelTerms()
    trees: TreeTerms = TreeTerms()
    bins: BinTerms = BinTerms()
    scorecard: ScorecardTerms = ScorecardTerms()
    additive: AdditiveTerms = AdditiveTerms()
    limits: Limits = Limits()
    scores: ScoreTerms = ScoreTerms()
    align: AlignTerms = AlignTerms()
    policy: JobPolicy = JobPolicy()
    auditor: AuditorTerms | None = None
    disclosures: tuple[Kind, ...] = Field(default_factory=_least)
    governance: GovernanceTerms | None = None
    channel: Channel = "hub"
    rehearsal: Flag = False

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
        if self.task == "train" and len(self.partners) > 2:
            raise mistake("at most two partners train together; more where task = overlap", "partners")
        if self.task == "train":
            self._check_columns()
        return self

    def _check_columns(self) -> None:
        if self.bank.label is None:
            raise missing("bank", "label")
        wanted = "number" if self.model.link != "logistic" else "class"
        if self.bank.label_kind != wanted:
            raise mistake(f'label_kind = "{wanted}" where the model is {self.model.kind}', "bank")
        for party, where in (
            (self.bank, ("bank",)),
            *((p, ("partners", i)) for i, p in enumerate(self.partners)),
        ):
            if not (party.numbers or party.categories):
                raise mistake("at least one column in numbers or categories", *where)


def overlap_of(job: JobConfig) -> JobConfig:
    """Return the job that only counts the common customers of the same parties: without columns and model."""
    left_out = {
        name: JobConfig.model_fields[name].default
        for name in ("model", "trees", "bins", "scorecard", "additive", "scores", "align")
    }
    return job.model_copy(
        update={
            "task": "overlap",
            "bank": id_list(job.bank),
            "partners": tuple(id_list(party) for party in job.partners),
            "disclosures": tuple(kind for kind in job.disclosures if kind in OVERLAP_DISCLOSURES),
            **left_out,
        }
    )
