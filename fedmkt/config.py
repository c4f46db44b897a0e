"""job.toml and party.toml as frozen models; the only place with defaults besides the contract's terms.

A job file describes one job from above, as a simulation or a person who drafts a contract sees it. A
party file is one organisation's own: who it is, whose keys it pinned, what it allows. Both are parsed
from text; reading files is for the callers.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator

from fedmkt.contract.agreement import (
    MORE_KEYS,
    MOST_PARTNERS,
    AlignTerms,
    Contract,
    Limits,
    PartyTerms,
    ScoreTerms,
    Signer,
    special_columns,
)
from fedmkt.contract.model_terms import (
    AdditiveTerms,
    BinTerms,
    ModelTerms,
    ScorecardTerms,
    TreeTerms,
    least_disclosures,
)
from fedmkt.contract.rules import OVERLAP_DISCLOSURES
from fedmkt.contract.words import (
    Channel,
    Count,
    Flag,
    IdKind,
    Key,
    Kind,
    Name,
    Real,
    Task,
    Terms,
    Text,
    kind_of_key,
)
from fedmkt.errors import ConfigError
from fedmkt.mistakes import config_error, missing, mistake, read_toml
from fedmkt.privacy.disclosure import DEFAULT

Country = Annotated[str, Field(pattern=r"\A[1-9][0-9]{0,2}\z")]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]


def _host(value: str) -> str:
    try:
        ip_address("" if "%" in value else value)  # a zone could hold any text
    except ValueError:
        if not _HOST_NAME.fullmatch(value) or value.rpartition(".")[2].isdecimal():
            raise ValueError("a host name or an IP address, without port") from None
    return value


# Never an option of a program: a label begins and ends with a letter or a digit.
_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
Host = Annotated[str, AfterValidator(_host)]
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class MoreId(Terms):
    """A further key in a party's file: one column, or several that are one key together (kind = "compound").

    name : of a second column of one kind, or of a compound key: the parts, where the own columns have other names.
    """

    column: Text | None = None
    columns: tuple[Text, ...] = ()
    kind: Literal["phone", "email", "national_id", "raw", "compound"]
    name: Text | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """The columns to read."""
        return self.columns if self.column is None else (self.column,)

    @property
    def agreed(self) -> str:
        """What the contract calls this key: the same at every party."""
        name = "+".join(self.columns) if self.kind == "compound" and self.name is None else self.name
        return self.kind if name is None else f"{self.kind}:{name}"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "compound":
            if self.column is not None or len(self.columns) < 2 or len(set(self.columns)) < len(self.columns):
                raise ValueError('columns = ["one", "another"] for a compound key')
            if self.agreed.count("+") != len(self.columns) - 1:
                raise ValueError("a name with as many parts as columns, joined by +")
        elif self.column is None or self.columns:
            raise ValueError('column = "one"; several columns are a key of kind compound')
        kind_of_key(self.agreed)
        return self


class PartnerConfig(Terms):
    """One party of a job: its file, the id column and how ids are written, and the columns it brings.

    more_ids : further keys, tried in this order for people who are not found by their id.
    consent, opt_out, birth_date or age : who is left out of the list before anything is matched.
    """

    name: Name
    organisation: Text
    file: Text
    id: Text
    id_kind: IdKind
    more_ids: tuple[MoreId, ...] = Field(default=(), max_length=MORE_KEYS)
    country: Country = "86"
    numbers: tuple[Text, ...] = ()
    categories: tuple[Text, ...] = ()
    consent: Text | None = None
    opt_out: Text | None = None
    birth_date: Text | None = None
    age: Text | None = None
    minimum_age: Count | None = Field(default=None, ge=1, le=130)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that take part, the label last, the id not among them."""
        return (*self.numbers, *self.categories)

    @model_validator(mode="after")
    def _check(self) -> Self:
        named = (self.id, *self.columns)
        if len(set(named)) != len(named):
            raise ValueError("every column once, in id, numbers, categories, offset, weight or label")
        keys = [(self.id,), *(key.parts for key in self.more_ids)]
        if len(set(keys)) != len(keys):
            raise ValueError("every key once, in id or more_ids")
        if set(self.columns) & {part for parts in keys for part in parts}:
            raise ValueError("no column of a key among numbers, categories or label")
        self._check_filters()
        return self

    def _check_filters(self) -> None:
        if self.birth_date is not None and self.age is not None:
            raise ValueError("one of birth_date and age")
        if self.minimum_age is not None and self.birth_date is None and self.age is None:
            raise ValueError("minimum_age needs the column that tells the age: birth_date or age")
        # An age may be a feature too; whoever consented, or was born when, is no column of a model.
        named = [c for c in (self.consent, self.birth_date) if c is not None]
        if len({self.id, *self.columns, *named}) != 1 + len(self.columns) + len(named):
            raise ValueError("consent and birth_date are columns of their own")
        others = (self.id, self.consent, *self.columns[len(self.numbers) :])
        if self.age is not None and self.age in others:
            raise ValueError("age is a column of its own, or one in numbers")


class BankConfig(PartnerConfig):
    """The bank's side of a job; empty labels mark customers who were not in the campaign.

    offset, weight : columns as in `contract.PartyTerms`. label_kind : an answer, yes or no, or a number or count.
    """

    offset: Text | None = None
    weight: Text | None = None
    label: Text | None = None
    label_kind: Literal["class", "number"] = "class"

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that take part, the label last, the id not among them."""
        return (*self.numbers, *self.categories, *special_columns(self))


class CoordinatorConfig(Terms):
    """Who runs the coordinator; never one of the parties."""

    name: Name = "coordinator"
    organisation: Text = "Independent Coordinator"


class PolicyConfig(Terms):
    """What one organisation allows, whatever a contract says; the defaults allow no purpose and no column.

    min_difference : ids by which a list differs from each earlier one with the same partner, unless it is equal
    (1: any). max_size_runs : runs with one partner within size_run_days that show how long an intersection is.
    max_epsilon : of all trainings with noise that one bank had of the own columns.
    """

    purposes: tuple[Text, ...] = ()
    columns: tuple[Text, ...] = ()
    min_list: Count = Field(default=1000, ge=1)
    min_common: Count = Field(default=1000, ge=1)
    max_common: Count | None = Field(default=None, ge=1)
    min_support: Count = Field(default=50, ge=1)
    min_difference: Count = Field(default=100, ge=1)
    max_size_runs: Count = Field(default=5, ge=1)
    size_run_days: Count = Field(default=30, ge=1, le=3660)
    max_runs: Count = Field(default=5, ge=1)
    max_resumes: Count = Field(default=3, ge=0)
    max_epsilon: Real = Field(default=8.0, gt=0)
    disclosures: tuple[Kind, ...] = DEFAULT
    rehearsals: Flag = False


class JobPolicy(Terms):
    """The simulated parties' own minimum sizes; what is absent follows the job's limits."""

    min_list: Count | None = Field(default=None, ge=1)
    min_common: Count | None = Field(default=None, ge=1)
    max_common: Count | None = Field(default=None, ge=1)
    min_support: Count | None = Field(default=None, ge=1)
    min_difference: Count = Field(default=100, ge=1)
    max_size_runs: Count = Field(default=5, ge=1)
    size_run_days: Count = Field(default=30, ge=1, le=3660)
    max_runs: Count | None = Field(default=None, ge=1)
    max_resumes: Count | None = Field(default=None, ge=0)
    max_epsilon: Real | None = Field(default=None, gt=0)
    disclosures: tuple[Kind, ...] | None = None


def _least(read: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a job discloses that does not say: the least with which its kind of model works."""
    # Where another section was wrong, it is not here, and the job is refused anyway.
    return least_disclosures(read.get("model", ModelTerms()), read.get("trees", TreeTerms()))


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
    disclosures: tuple[Kind, ...] = Field(default_factory=_least)
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


class NodeConfig(Terms):
    """How a party's processes run on its own machine; both ports listen on loopback only.

    data : the folder of the table's file, relative to the party's folder.
    """

    data: Text = "."
    runtime_port: Port = 9094
    health_port: Port = 9095

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.runtime_port == self.health_port:
            raise ValueError("runtime_port and health_port differ")
        return self


class PartyConfig(Terms):
    """One organisation's own settings: who it is, the keys it compared out of band, what it allows."""

    name: Name
    organisation: Text
    pinned: Mapping[Name, Key]
    policy: PolicyConfig = PolicyConfig()
    node: NodeConfig = NodeConfig()


class CoordinatorSettings(Terms):
    """What the coordinator operates: where parties reach it, and the ports of its own processes.

    host : what parties dial. listen : the address to which front and hub are bound; the rest is on loopback.
    """

    name: Name
    organisation: Text
    host: Host
    other_hosts: tuple[Host, ...] = ()
    listen: Host = "0.0.0.0"
    front_port: Port = 8443
    hub_port: Port = 8444
    superlink_port: Port = 8000
    health_port: Port = 8090
    policy: PolicyConfig = PolicyConfig()

    @property
    def hosts(self) -> tuple[str, ...]:
        """Everything that the server's certificate answers for, loopback last."""
        return tuple(dict.fromkeys((self.host, *self.other_hosts, *LOOPBACK)))

    def party(self, pinned: Mapping[str, str]) -> PartyConfig:
        """Return the coordinator's side of a contract; `pinned` : the keys of its signers, as admitted."""
        return PartyConfig(name=self.name, organisation=self.organisation, pinned=pinned, policy=self.policy)

    @model_validator(mode="after")
    def _check(self) -> Self:
        ports = (self.front_port, self.hub_port, self.superlink_port, self.health_port)
        if len(set(ports)) != len(ports):
            raise ValueError("front_port, hub_port, superlink_port and health_port differ")
        return self


def parse_job(text: str, path: str) -> JobConfig:
    """Read the text of a job.toml; ConfigError names `path`, key, value and what is accepted."""
    return _parse(JobConfig, read_toml(text, path), path)


def parse_party(text: str, path: str) -> PartyConfig:
    """Read the text of a party.toml; ConfigError names `path`, key, value and what is accepted."""
    return _parse(PartyConfig, read_toml(text, path), path)


def parse_party_folder(
    party: str, policy: str, schema: str, folder: str
) -> tuple[PartyConfig, PartnerConfig | BankConfig]:
    """Read the texts of a party's three files; a schema with a label is a bank's.

    folder : only used to say where a mistake is.
    """
    own = f"{folder}/party.toml"
    values = read_toml(party, own)
    if "policy" in values:
        raise ConfigError(f"{own}: policy: stands in policy.toml, beside this file")
    config = _parse(PartyConfig, {**values, "policy": {}}, own)
    allowed = _parse(PolicyConfig, read_toml(policy, f"{folder}/policy.toml"), f"{folder}/policy.toml")
    return config.model_copy(update={"policy": allowed}), parse_schema(
        schema, f"{folder}/schema.toml", config.name, config.organisation
    )


def parse_schema(text: str, path: str, name: str, organisation: str) -> PartnerConfig | BankConfig:
    """Read the text of a schema.toml: the table of the party `name`; the bank's has a label."""
    values = read_toml(text, path)
    for key in ("name", "organisation"):
        if key in values:
            raise ConfigError(f"{path}: {key}: stands in party.toml, beside this file")
    values |= {"name": name, "organisation": organisation}
    return _parse(BankConfig if "label" in values else PartnerConfig, values, path)


def parse_coordinator(text: str, path: str) -> CoordinatorSettings:
    """Read the text of a coordinator.toml; ConfigError names `path`, key, value and what is accepted."""
    return _parse(CoordinatorSettings, read_toml(text, path), path)


T = TypeVar("T", bound=Terms)


def _parse(model: type[T], values: Mapping[str, object], path: str) -> T:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise config_error(path, model, error) from None


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
            channel=job.channel,
            rehearsal=job.rehearsal,
        )
    except ValidationError as error:
        raise config_error(f"job {job.name}", Contract, error) from None


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


P = TypeVar("P", bound=PartnerConfig)


def id_list(party: P) -> P:
    """Return a party's table with its ids alone, and the columns that say who is left out."""
    special = {"offset": None, "weight": None, "label": None} if isinstance(party, BankConfig) else {}
    return party.model_copy(update={"numbers": (), "categories": (), **special})


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
            rehearsals=job.rehearsal,
        ),
    )


__all__ = [
    "BankConfig",
    "CoordinatorConfig",
    "CoordinatorSettings",
    "Host",
    "JobConfig",
    "JobPolicy",
    "MoreId",
    "NodeConfig",
    "PartnerConfig",
    "PartyConfig",
    "PolicyConfig",
    "Port",
    "draft_contract",
    "id_list",
    "overlap_of",
    "parse_coordinator",
    "parse_job",
    "parse_party",
    "parse_party_folder",
    "parse_schema",
    "simulated_party",
]
