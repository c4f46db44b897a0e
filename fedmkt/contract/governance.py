"""What lawyers and owners of data agree on, as terms of a contract: why, by which right, which columns, who approves.

Only shapes are checked here. Whether the terms allow a run is asked by the controls of each party
(`party.controls`), which refuse by name; who approved is a set of signed statements beside the contract.

Sources: PIPL 6, 13, 21, 23, 29, 38, 55, 56; GDPR 6, 9, 28, 30, 35; JR/T 0171 and JR/T 0197 for classes of data.
"""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from fedmkt.contract.words import Count, Flag, Key, Name, Terms, Text, Time, looks_of

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
"""ISO 3166-1 alpha-2."""
LawfulBasis = Literal[
    "PIPL-13-1", "PIPL-13-2", "PIPL-13-3", "PIPL-13-4", "PIPL-13-5", "PIPL-13-6", "PIPL-13-7",
    "GDPR-6-1-a", "GDPR-6-1-b", "GDPR-6-1-c", "GDPR-6-1-d", "GDPR-6-1-e", "GDPR-6-1-f",
]  # fmt: skip
SensitiveBasis = Literal[
    "PIPL-29", "GDPR-9-2-a", "GDPR-9-2-b", "GDPR-9-2-c", "GDPR-9-2-d", "GDPR-9-2-e", "GDPR-9-2-f",
    "GDPR-9-2-g", "GDPR-9-2-h", "GDPR-9-2-i", "GDPR-9-2-j",
]  # fmt: skip
ApproverRole = Literal["data-owner", "compliance"]
Result = Literal["scores", "model", "report"]
Suite = Literal["standard", "standard+ml-dsa-44", "gm"]
"""Which signatures stand under heads of logs: Ed25519; beside it ML-DSA-44; SM2 with SM3."""
UNKNOWN_LEVEL = 4
"""What a column without a level counts as."""


MOST_APPROVERS = 100
"""As many as one record of a log can name."""


class ColumnGrant(Terms):
    """One column that an owner lets take part.

    level : 1 to 5 by JR/T 0197; absent, it counts as `UNKNOWN_LEVEL`. category : by JR/T 0171, C3 never takes part.
    kind : what it tells, in the owner's words. sensitive : PIPL 28 or GDPR 9.
    """

    name: Text
    level: Count | None = Field(default=None, ge=1, le=5)
    category: Literal["C1", "C2", "C3"] | None = None
    kind: Text
    sensitive: Flag = False

    @property
    def counts_as(self) -> int:
        """The level that rules go by."""
        return UNKNOWN_LEVEL if self.level is None else self.level


class DatasetTerms(Terms):
    """What one party brings: whose data these are, for what they may be used and by which right.

    people : whose data, in words. retention_days : how long whatever is made of them is kept at most.
    minimum_age : completed years; nobody younger takes part. Absent, nothing is said.
    """

    party: Name
    name: Text
    people: Text
    purposes: tuple[Text, ...] = Field(min_length=1)
    basis: tuple[LawfulBasis, ...] = Field(min_length=1)
    sensitive_basis: tuple[SensitiveBasis, ...] = ()
    retention_days: Count = Field(default=365, ge=1, le=36_600)
    minimum_age: Count | None = Field(default=None, ge=14, le=130)
    columns: tuple[ColumnGrant, ...] = Field(min_length=1)

    def grant(self, column: str) -> ColumnGrant | None:
        """Find the grant of a column; None if there is none."""
        return next((c for c in self.columns if c.name == column), None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len({c.name for c in self.columns}) != len(self.columns):
            raise ValueError("every column once")
        return self


class AssessmentTerms(Terms):
    """An assessment of impact (PIPL 55, GDPR 35) or of a transfer abroad (PIPL 38), by the digest of its document."""

    sha256: Digest
    purpose: Text
    parties: tuple[Name, ...] = Field(min_length=1)
    expires: Time


class Approver(Terms):
    """A person who may approve for a signer, with a key of their own (Ed25519, hexadecimal)."""

    name: Name
    party: Name
    role: ApproverRole
    key: Key


class Recipient(Terms):
    """Who gets a result, and for what."""

    result: Result
    to: Name
    use: Text


class RetentionTerms(Terms):
    """Days after the end of a run until `fedmkt expire` deletes: results, records of the log, transport logs.

    PIPL 56 and the network data regulation 12 ask for three years of records, the cybersecurity law for six months.
    """

    result_days: Count = Field(default=180, ge=1, le=36_600)
    record_days: Count = Field(default=1096, ge=1, le=36_600)
    transport_days: Count = Field(default=183, ge=1, le=36_600)


class GovernanceTerms(Terms):
    """All of it for one contract.

    locations : the country of each signer. countries : where they may be; abroad only with `transfer`.
    approvals : how many of a party's own approvers must have approved, both roles among them; two in any case.
    use : what results serve; prices that differ from person to person are refused. groups : columns of the bank's
    by whose values rates of selection are reported. max_size_runs : a budget besides those of `limits`; delta
    of noise is 1 / rows^1.1 at most. min_rest : people of each list who must not be common.
    code : digest of the wheel that every participant runs. revision, amends : which version this is, and of what.
    """

    revision: Count = Field(default=1, ge=1, le=1_000_000)
    amends: Digest | None = None
    datasets: tuple[DatasetTerms, ...] = Field(min_length=1)
    locations: dict[Name, Country]
    countries: tuple[Country, ...] = Field(min_length=1)
    impact: AssessmentTerms | None = None
    transfer: AssessmentTerms | None = None
    approvers: tuple[Approver, ...] = Field(default=(), max_length=MOST_APPROVERS)
    approvals: Count = Field(default=2, ge=1, le=10)
    recipients: tuple[Recipient, ...] = Field(min_length=1)
    retention: RetentionTerms = RetentionTerms()
    use: Literal["marketing", "service", "pricing"] = "marketing"
    groups: tuple[Text, ...] = ()
    max_size_runs: Count = Field(default=5, ge=1, le=1000)
    min_rest: Count = Field(default=100, ge=0, le=1 << 40)
    suite: Suite = "standard"
    code: Digest | None = None

    @property
    def needed(self) -> int:
        """How many of each party must approve: never fewer than there are roles."""
        return max(self.approvals, len(get_args(ApproverRole)))

    def dataset(self, party: str) -> DatasetTerms | None:
        """Find what a party brings; None if nothing is said."""
        return next((d for d in self.datasets if d.party == party), None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len({d.party for d in self.datasets}) != len(self.datasets):
            raise ValueError("every party brings one dataset")
        if len({a.key for a in self.approvers}) != len(self.approvers):
            raise ValueError("every approver has a key of their own")
        if len({(a.party, a.name) for a in self.approvers}) != len(self.approvers):
            raise ValueError("every approver of a party has a name of their own")
        for party in {a.party for a in self.approvers}:
            _check_names_apart(party, [a.name for a in self.approvers if a.party == party])
        if (self.revision == 1) != (self.amends is None):
            raise ValueError("revision 1 amends nothing, later ones say what")
        return self


def _check_names_apart(party: str, names: list[str]) -> None:
    """Refuse names of two approvers of one party that a reader takes for the same."""
    seen = dict[str, str]()
    for name in names:
        shape = looks_of(name)
        if seen.setdefault(shape, name) != name:
            raise ValueError(f"names of approvers of {party} read alike: {seen[shape]}, {name}")
