"""What all sides sign before a run: purpose, schema, parameters, bounds, allowed disclosures, expiry.

Identity keys in a contract prove nothing by themselves: each party compares them with the keys that it pinned
out of band (`party.policy`). Which terms go together stands in `contract.rules`.
"""

from typing import Literal, Protocol, Self

from pydantic import Field, model_validator

from fedmkt.contract.governance import GovernanceTerms
from fedmkt.contract.model_terms import AdditiveTerms, BinTerms, ModelTerms, ScorecardTerms, TreeTerms
from fedmkt.contract.rules import check_rules
from fedmkt.contract.words import (
    Channel,
    Count,
    Flag,
    IdKind,
    Key,
    Kind,
    MoreKind,
    Name,
    Real,
    Task,
    Terms,
    Text,
    Time,
)
from fedmkt.privacy.disclosure import DEFAULT
from fedmkt.privacy.superset import epsilon

MORE_KEYS = 4
MOST_PARTNERS = 8
"""Whose lists one bank compares with its own in a run that only counts; two of them train together."""


class WithSpecial(Protocol):
    """A side whose table may have columns that are no features."""

    @property
    def offset(self) -> str | None:
        """What is added to the linear predictor."""

    @property
    def weight(self) -> str | None:
        """How much a row counts."""

    @property
    def label(self) -> str | None:
        """What is predicted."""


def special_columns(side: WithSpecial) -> tuple[str, ...]:
    """List the bank's columns that are no features, the label last."""
    return tuple(c for c in (side.offset, side.weight, side.label) if c is not None)


class Signer(Terms):
    """One organisation that signs, with its identity key (Ed25519, hexadecimal)."""

    name: Name
    organisation: Text
    key: Key


class AuditorTerms(Terms):
    """Who may run the dealer's part of a finished run again (`protocol.deals`); signs no contract.

    key : Ed25519, under its statements. seal_key : X25519, to which each party seals its dealer seeds: with the seeds
    and what one party received, the others' columns can be unmasked, so a party pins it (`policy.auditors`).
    """

    name: Name
    organisation: Text
    key: Key
    seal_key: Key


class PartyTerms(Signer):
    """What one party brings: the kind of its ids and the names of its columns; the bank also its label.

    more_kinds : further keys by which a customer is found, tried in this order after the ids.
    offset, weight : columns of the bank that no weight is fitted for: what is added to each row's linear predictor,
    and how much a row counts.
    """

    role: Literal["bank", "partner"]
    id_kind: IdKind
    more_kinds: tuple[MoreKind, ...] = Field(default=(), max_length=MORE_KEYS)
    numbers: tuple[Text, ...] = ()
    categories: tuple[Text, ...] = ()
    offset: Text | None = None
    weight: Text | None = None
    label: Text | None = None

    @property
    def id_kinds(self) -> tuple[str, ...]:
        """The kinds of all keys by which a customer is known, first the one that counts most."""
        return (self.id_kind, *self.more_kinds)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that take part, the label last."""
        return (*self.numbers, *self.categories, *special_columns(self))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.role != "bank" and self.label is not None:
            raise ValueError("the bank, and only the bank, has a label")
        if self.role != "bank" and special_columns(self):
            raise ValueError("offset and weight are columns of the bank")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("every column once, in numbers, categories, offset, weight or label")
        if len(set(self.id_kinds)) != len(self.id_kinds):
            raise ValueError("every kind of id once; a second phone is phone:NAME")
        return self


class AlignTerms(Terms):
    """How the common customers are found, and who learns which they are.

    engine : `auto` takes `oprf` for short lists and `ot` for others; `vole` rests on a younger assumption.
    match : `shown`, the partner learns which of its people bank there; `hidden`, it does not learn which.
    drop, dummies : hidden match with less work: the shares of common people that are left out, and of others that
    take part. What the partner learns about each person is bounded by `privacy.superset.epsilon`.
    join : `inner`, only common customers take part; `left`, all of the bank's do.
    reuse : most evaluations of a partner's set that is kept for later runs; 0, each run has a fresh key.
    """

    engine: Literal["auto", "oprf", "ot", "vole"] = "auto"
    match: Literal["shown", "hidden"] = "shown"
    drop: Real = Field(default=0.0, ge=0, lt=1)
    dummies: Real = Field(default=1.0, gt=0, le=1)
    join: Literal["inner", "left"] = "inner"
    reuse: Count = Field(default=0, ge=0, le=1 << 40)

    @property
    def hidden(self) -> bool:
        """Tell whether the partner learns nothing about which of its people are common."""
        return self.match == "hidden"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.reuse and self.engine not in ("auto", "oprf"):
            raise ValueError("reuse needs engine oprf: the others have no set that could be kept")
        epsilon(self.drop, self.dummies)
        if not self.hidden and (self.drop, self.dummies) != (0.0, 1.0):
            raise ValueError("drop and dummies only with match = hidden")
        if self.match == "hidden" and self.join == "left":
            raise ValueError("join = left where the match is shown: hidden, all rows take part already")
        return self


class Limits(Terms):
    """Smallest groups, largest numbers; a party's own policy may only be stricter.

    max_epsilon : of all trainings with noise together that one bank has had of a partner, over all contracts.
    """

    min_list: Count = Field(default=1000, ge=1, le=1 << 40)
    max_list: Count = Field(default=2_000_000, ge=1, le=1 << 40)
    min_common: Count = Field(default=1000, ge=1, le=1 << 40)
    max_common: Count | None = Field(default=None, ge=1, le=1 << 40)
    min_support: Count = Field(default=50, ge=1, le=1 << 40)
    min_events: Count = Field(default=5, ge=0, le=1000)
    max_resumes: Count = Field(default=3, ge=0, le=100)
    max_runs: Count = Field(default=5, ge=1, le=1000)
    max_levels: Count = Field(default=20, ge=2, le=1000)
    max_epsilon: Real = Field(default=8.0, gt=0, le=100)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_common is not None and self.max_common < self.min_common:
            raise ValueError("max_common is at least min_common")
        return self


class ScoreTerms(Terms):
    """How finely scores are rounded before release, and whether customers outside the campaign get one."""

    decimals: Count = Field(default=2, ge=1, le=4)
    unlabelled: Flag = True


class Contract(Terms):
    """One agreement; nothing is negotiated after it is signed.

    task : train a joint model, or count the common customers before one is agreed, without any column.
    channel : how steps travel, over hub sessions or each as a Flower message; a simulation has ways of its own.
    governance : purposes, legal bases, approvals and the like; each party's policy says whether it must be there.
    rehearsal : for invented data only; only then may the masks of a deployment follow from a seed.
    auditor : who may check afterwards what the dealer dealt; None: nobody can.
    """

    version: Literal[1] = 1
    name: Name
    purpose: Text
    family: Text
    created: Time
    expires: Time
    coordinator: Signer
    parties: tuple[PartyTerms, ...] = Field(min_length=2, max_length=1 + MOST_PARTNERS)
    model: ModelTerms = ModelTerms()
    trees: TreeTerms = TreeTerms()
    bins: BinTerms = BinTerms()
    scorecard: ScorecardTerms = ScorecardTerms()
    additive: AdditiveTerms = AdditiveTerms()
    limits: Limits = Limits()
    scores: ScoreTerms = ScoreTerms()
    align: AlignTerms = AlignTerms()
    disclosures: tuple[Kind, ...] = DEFAULT
    task: Task = "train"
    governance: GovernanceTerms | None = None
    channel: Channel = "hub"
    rehearsal: Flag = False
    auditor: AuditorTerms | None = None

    @property
    def bank(self) -> PartyTerms:
        """The active party."""
        return next(party for party in self.parties if party.role == "bank")

    @property
    def partners(self) -> tuple[PartyTerms, ...]:
        """The passive parties, in the contract's order."""
        return tuple(party for party in self.parties if party.role == "partner")

    @property
    def signers(self) -> tuple[Signer, ...]:
        """Everyone who must sign: the parties in order, then the coordinator."""
        return (*self.parties, self.coordinator)

    def party(self, name: str) -> PartyTerms:
        """Find a party's terms; ValueError for a name that is no party of this contract."""
        for party in self.parties:
            if party.name == name:
                return party
        raise ValueError(f"{name!r} is no party of this contract")

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_rules(self)
        return self
