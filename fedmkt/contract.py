"""What all sides sign before a run: purpose, schema, parameters, bounds, allowed disclosures, expiry.

The digest of a contract goes into every message and every audit record. Its bytes are canonical JSON
(RFC 8785), so that the same agreement has one digest whatever file it was read from; the file form is
TOML with sorted keys. Identity keys in a contract prove nothing by themselves: each party compares them
with the keys that it pinned out of band (`party.policy`).
"""

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal, Protocol, Self, get_args

import rfc8785
from pydantic import AfterValidator, Field, ValidationError, model_validator

from fedmkt.crypto.sign import Identity, verify
from fedmkt.errors import PolicyRefused
from fedmkt.mistakes import config_error, mistake, read_toml
from fedmkt.model_rules import check_correlation, check_model
from fedmkt.privacy.disclosure import DEFAULT, EVERYONE, lookup
from fedmkt.privacy.superset import epsilon
from fedmkt.terms import (
    AdditiveTerms,
    BinTerms,
    Count,
    Flag,
    ModelTerms,
    Real,
    ScorecardTerms,
    Terms,
    TreeTerms,
)

DOMAIN = b"fedmkt contract v1\n"


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("printable characters only")
    return value


def _not_everyone(value: str) -> str:
    if value == EVERYONE:
        raise ValueError(f'"{EVERYONE}" stands for every signer and names no one')
    return value


def _utc_seconds(value: datetime) -> datetime:
    if value.tzinfo is None or value.microsecond:
        raise ValueError("a time in whole seconds with its offset, like 2030-01-31T12:00:00Z")
    return value.astimezone(UTC)


def kind_of_key(value: str) -> str:
    """Return the kind of a further key if it is written as a contract writes it, else ValueError."""
    kind, _, name = value.partition(":")
    parts = name.split("+")
    if kind == "compound":
        is_right = len(parts) > 1 and all(parts)
    else:
        is_right = kind in get_args(IdKind) and len(parts) == 1 and (name != "" or value == kind)
    if not (is_right and name == name.strip()):
        raise ValueError("phone, email, national_id, raw, such a kind with :name, or compound:part+part")
    return _printable(value)


def _disclosure_kind(value: str) -> str:
    lookup(value)
    return value


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$"), AfterValidator(_not_everyone)]
Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Time = Annotated[datetime, Field(strict=True), AfterValidator(_utc_seconds)]
Kind = Annotated[str, AfterValidator(_disclosure_kind)]
IdKind = Literal["phone", "email", "national_id", "raw"]
MoreKind = Annotated[str, Field(max_length=200), AfterValidator(kind_of_key)]
"""A further key: one of IdKind, a colon and a name behind it where a kind has two, or compound and its parts."""
Channel = Literal["hub", "flower"]
Task = Literal["train", "overlap"]
MORE_KEYS = 4
OVERLAP_DISCLOSURES = ("ListSize", "SetSize")
"""All that a job that counts common customers may disclose."""


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


MOST_PARTNERS = 8
"""Whose lists one bank compares with its own in a run that only counts; two of them train together."""


class Signer(Terms):
    """One organisation that signs, with its identity key (Ed25519, hexadecimal)."""

    name: Name
    organisation: Text
    key: Key


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
    rehearsal : for invented data only; only then may the masks of a deployment follow from a seed.
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
    channel: Channel = "hub"
    rehearsal: Flag = False

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
        if [party.role for party in self.parties].count("bank") != 1:
            raise ValueError("exactly one party with role bank")
        names = [signer.name for signer in self.signers]
        if len(set(names)) != len(names):
            raise ValueError("every signer has a name of its own")
        if len({party.key for party in self.parties}) != len(self.parties):
            raise ValueError("every party has a key of its own")
        if len({_plain(party.organisation) for party in self.parties}) != len(self.parties):
            raise ValueError("every party is an organisation of its own")
        if len({party.id_kind for party in self.parties}) != 1:
            raise ValueError("all parties match on one id_kind")
        if len({party.more_kinds for party in self.parties}) != 1:
            raise ValueError("all parties match on the same more_kinds in the same order")
        if self.parties[0].more_kinds and len(self.partners) > 1:
            raise ValueError("more_kinds are for one partner")
        if self.parties[0].more_kinds and self.align.reuse:
            # A key that a row lacks is a random item: no two runs would have the same set.
            raise ValueError("align.reuse is for a single key: more_kinds make a new set in every run")
        if len(self.partners) > 1 and (self.align.match == "hidden" or self.align.join == "left"):
            raise ValueError("match = hidden and join = left are for one partner")
        if self.align.hidden and "ModelPart" in self.disclosures:
            raise ValueError(
                "match = hidden without ModelPart: from its weights the partner can tell who is common"
            )
        check_correlation(self)
        if self.align.join == "left" and "JoinedRows" not in self.disclosures:
            raise ValueError(
                "align.join = left tells how many customers take part: disclosures name JoinedRows"
            )
        if len(set(self.disclosures)) != len(self.disclosures):
            raise ValueError("every disclosure once")
        if self.expires <= self.created:
            raise ValueError("expires after created")
        if self.task == "train" and len(self.partners) > 2:
            raise mistake("at most two partners train together; more where task = overlap", "parties")
        if self.task == "train":
            self._check_columns()
            check_model(self)
        else:
            self._check_overlap()
        return self

    def _check_columns(self) -> None:
        for place, party in enumerate(self.parties):
            if party.role == "bank" and party.label is None:
                raise mistake("the bank, and only the bank, has a label", "parties", place)
            if not (party.numbers or party.categories):
                raise mistake("at least one column in numbers or categories", "parties", place)

    def _check_overlap(self) -> None:
        for place, party in enumerate(self.parties):
            if party.columns:
                raise mistake("no column and no label: the task only counts customers", "parties", place)
        if not set(self.disclosures) <= set(OVERLAP_DISCLOSURES):
            raise mistake(
                f"of {', '.join(OVERLAP_DISCLOSURES)}: the task only counts customers", "disclosures"
            )
        sections = ("model", "trees", "bins", "scorecard", "additive", "scores", "align")
        if any(getattr(self, name) != Contract.model_fields[name].default for name in sections):
            raise ValueError(f"{', '.join(sections)} left out: the task only counts customers")


def _plain(organisation: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", organisation).casefold().split())


Standing = Literal["valid", "missing", "invalid"]


def check_roles(contract: Contract) -> None:
    """Refuse a coordinator that shares organisation or key with a party: it could unmask everything."""
    for party in contract.parties:
        if _plain(party.organisation) == _plain(contract.coordinator.organisation):
            raise PolicyRefused(
                f"the coordinator belongs to {party.organisation!r}, the organisation of {party.name}",
                "let an organisation run the coordinator that is no party of the contract",
            )
        if party.key == contract.coordinator.key:
            raise PolicyRefused(
                f"the coordinator signs with the key of {party.name}",
                "let an organisation run the coordinator that is no party of the contract",
            )


class SignedContract(Terms):
    """A contract and the signatures given so far, hexadecimal, by signer's name."""

    contract: Contract
    signatures: Mapping[Name, Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]] = {}


_ADDED: Mapping[str, object] = {
    "align": AlignTerms().model_dump(), "task": "train", "channel": "hub", "rehearsal": False,
    "trees": TreeTerms().model_dump(exclude_none=True), "bins": BinTerms().model_dump(),
    "scorecard": ScorecardTerms().model_dump(),
    "additive": AdditiveTerms().model_dump(),
}  # fmt: skip
"""Terms that came after the first contracts: left out at these values, so that their bytes stay what they were."""
_ADDED_TO_MODEL: Mapping[str, object] = {
    "max_offset": 8.0, "penalties": (), "path_passes": 8, "validation_fraction": 0.2,
}  # fmt: skip
"""The same of the section `model`; what is absent is left out anyway."""
_ADDED_TO_TREES: Mapping[str, object] = {
    "checked_shares": False, "patience": 0, "validation_fraction": 0.1,
}  # fmt: skip
"""The same of the section `trees`."""
_ADDED_TO_LIMITS: Mapping[str, object] = {"max_epsilon": 8.0}
"""The same of the section `limits`."""


def _plain_values(contract: Contract) -> dict[str, object]:
    values = contract.model_dump(mode="python", exclude_none=True)
    for party in values["parties"]:
        if not party["more_kinds"]:
            del party["more_kinds"]
    for section, usual_values in (("model", _ADDED_TO_MODEL), ("limits", _ADDED_TO_LIMITS)):
        for name, usual in usual_values.items():
            if values[section][name] == usual:
                del values[section][name]
    values = {key: value for key, value in values.items() if key not in _ADDED or value != _ADDED[key]}
    if "trees" in values:
        added = _ADDED_TO_TREES.items()
        values["trees"] = {k: v for k, v in values["trees"].items() if (k, v) not in added}
    return values


def _zulu(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


def canonical_bytes(contract: Contract) -> bytes:
    """Encode as canonical JSON (RFC 8785): times as text in UTC, absent values left out."""
    values = _plain_values(contract)
    values |= {"created": _zulu(contract.created), "expires": _zulu(contract.expires)}
    return rfc8785.dumps(values)  # type: ignore[arg-type]  # model_dump yields JSON values once times are text


def digest(contract: Contract) -> bytes:
    """Hash the canonical bytes: the 32 bytes that all sign and that name the contract everywhere."""
    return hashlib.sha256(DOMAIN + canonical_bytes(contract)).digest()


def sign(contract: Contract, name: str, identity: Identity) -> str:
    """Sign as `name`; ValueError unless the contract names that signer with this identity's key."""
    for signer in contract.signers:
        if signer.name == name and signer.key == identity.public.hex():
            return identity.sign(digest(contract)).hex()
    raise ValueError(f"the contract has no signer {name!r} with the key of {identity!r}")


def check_signatures(signed: SignedContract) -> None:
    """Demand a valid signature of every party and of the coordinator, and none besides."""
    contract = signed.contract
    expected = {signer.name for signer in contract.signers}
    if set(signed.signatures) != expected:
        missing = ", ".join(sorted(expected - set(signed.signatures))) or "none"
        extra = ", ".join(sorted(set(signed.signatures) - expected)) or "none"
        raise PolicyRefused(f"signatures of exactly the signers are needed: missing {missing}, extra {extra}")
    check_given_signatures(signed)


def check_given_signatures(signed: SignedContract) -> None:
    """Demand that every signature given so far is a signer's and verifies; some may still be missing."""
    wrong = [name for name, standing in signature_standings(signed).items() if standing == "invalid"]
    if wrong:
        raise PolicyRefused(f"the signature of {wrong[0]} on the contract does not verify")


def signature_standings(signed: SignedContract) -> dict[str, Standing]:
    """Say how each signature stands, signers first; one of somebody who is no signer is invalid."""
    message = digest(signed.contract)
    found = {
        signer.name: _standing(signer, signed.signatures.get(signer.name), message)
        for signer in signed.contract.signers
    }
    return found | {name: "invalid" for name in sorted(set(signed.signatures) - set(found))}


def _standing(signer: Signer, signature: str | None, message: bytes) -> Standing:
    if signature is None:
        return "missing"
    try:
        verify(bytes.fromhex(signer.key), bytes.fromhex(signature), message)
    except ValueError:
        return "invalid"
    return "valid"


def check_common(limits: Limits, low: int, high: int) -> None:
    """Refuse an intersection that is certainly too small or too large; the message tells no number of people.

    Of a count that is known low is one less and high is the count: a band is low < count <= high.
    """
    if high < limits.min_common:
        raise PolicyRefused("the intersection is smaller than the contract's minimum")
    if limits.max_common is not None and low >= limits.max_common:
        raise PolicyRefused("the intersection is larger than the contract's maximum")


def check_time(contract: Contract, now: datetime) -> None:
    """Refuse a contract that has expired or does not hold yet."""
    if not contract.created <= now < contract.expires:
        raise PolicyRefused(
            f"rule not-expired: the contract holds from {contract.created} to {contract.expires}"
        )


def to_toml(signed: SignedContract) -> str:
    """Write the one TOML text of a signed contract: keys sorted, plain values before tables."""
    values = _plain_values(signed.contract)
    values["signatures"] = dict(signed.signatures)
    return "".join(_toml_lines(values, ()))


def _toml_value(value: object) -> str:
    if isinstance(value, datetime):
        return _zulu(value)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    # JSON and TOML write text, truth values and numbers of our ranges alike; control characters are refused.
    return json.dumps(value, ensure_ascii=False)


def _is_table(value: object) -> bool:
    return isinstance(value[0] if isinstance(value, tuple) and value else value, Mapping)


def _toml_lines(table: Mapping[str, object], path: tuple[str, ...]) -> list[str]:
    plain = [key for key in sorted(table) if not _is_table(table[key])]
    lines = [f"{key} = {_toml_value(table[key])}\n" for key in plain]
    for key in sorted(set(table) - set(plain)):
        value = table[key]
        inner = (*path, key)
        if isinstance(value, Mapping):
            lines += [f"\n[{'.'.join(inner)}]\n", *_toml_lines(value, inner)]
        elif isinstance(value, tuple):
            for item in value:
                lines += [f"\n[[{'.'.join(inner)}]]\n", *_toml_lines(item, inner)]
    return lines


def from_toml(text: str, path: str) -> SignedContract:
    """Read a contract file; `path` is only used to say where a mistake is."""
    values = read_toml(text, path)
    signatures = values.pop("signatures", {})
    try:
        return SignedContract.model_validate({"contract": values, "signatures": signatures})
    except ValidationError as error:
        raise config_error(path, SignedContract, error, skip="contract") from None
