"""What a control is, and what it is asked about: six moments, each with the facts that a party has by then.

| moment | when |
|---|---|
| contract | before anything of a run is opened, and before the contract is signed |
| rows | the own list was read and filtered, nothing of it has left |
| lists | before the first size of a list or an intersection is shown: what earlier runs showed |
| match | the common customers are known, nothing that rests on them has left |
| release | a step is about to reveal something |
| score | scores are here, and about to be kept |

A rule yields what breaks it, in words; it tells no count of anybody's data. Who asks puts the name of the control
before it (`registry`).
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedmkt.config.settings import PartyConfig
from fedmkt.contract.agreement import Contract, Signer
from fedmkt.contract.governance import DatasetTerms, GovernanceTerms
from fedmkt.contract.signatures import SignedContract
from fedmkt.crypto.dsse import Envelope
from fedmkt.party.contract_past import UNKNOWN, Past
from fedmkt.party.filters import Dropped
from fedmkt.privacy.disclosure import Disclosure

Moment = Literal["contract", "rows", "lists", "match", "release", "score"]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Breach:
    """What breaks a rule, and what the reader can do about it."""

    text: str
    hint: str = ""


@dataclass(frozen=True)
class ContractAsked:
    """A contract put to one participant.

    statements : signed ones that lie beside it; code : what is installed here; past : what was seen of it before.
    """

    config: PartyConfig
    signed: SignedContract
    now: datetime
    statements: Sequence[Envelope]
    code: str
    past: Past = UNKNOWN

    @property
    def contract(self) -> Contract:
        """What is agreed."""
        return self.signed.contract

    @property
    def terms(self) -> GovernanceTerms | None:
        """The terms of governance, if the contract has any."""
        return self.contract.governance

    @property
    def own(self) -> Signer | None:
        """The participant's own place in the contract; None if it has none."""
        return next((s for s in self.contract.signers if s.name == self.config.name), None)


@dataclass(frozen=True)
class RowsAsked:
    """The own list as it would be matched. rows : distinct people; withdrawn : (rows,) who of them withdrew."""

    config: PartyConfig
    contract: Contract
    rows: int
    dropped: Dropped
    withdrawn: Flags

    @property
    def dataset(self) -> DatasetTerms | None:
        """What the contract says of the own data, if it says anything."""
        terms = self.contract.governance
        return None if terms is None else terms.dataset(self.config.name)


@dataclass(frozen=True)
class ListsAsked:
    """Earlier runs with the same partners. earlier : when sizes were shown; differences : ids on one of two lists only.

    Times of the future count too: a clock that was put back forgets nothing.
    """

    config: PartyConfig
    terms: GovernanceTerms | None
    now: datetime
    earlier: Sequence[datetime] = ()
    differences: Iterable[int] = ()


@dataclass(frozen=True)
class MatchAsked:
    """What the participant itself knows of the match: people on the own list, and how many of them are common."""

    config: PartyConfig
    contract: Contract
    rows: int
    common: int


@dataclass(frozen=True)
class ReleaseAsked:
    """A release that a step wants to make."""

    config: PartyConfig
    contract: Contract
    disclosure: Disclosure


@dataclass(frozen=True)
class ScoreAsked:
    """Scores about to be kept. rates : groups whose selection was measured; reasons : whether each score has them."""

    config: PartyConfig
    contract: Contract
    rates: Collection[str]
    reasons: bool


Q = TypeVar("Q", contravariant=True)
Rule = Callable[[Q], Iterable[Breach]]


@dataclass(frozen=True)
class Control:
    """One control: what asks for it (`basis`), where it is on (`required`), which field of a file it reads, its rules.

    A control of security.md has a number, C01 to C22; every other is named.
    """

    id: str
    title: str
    basis: str
    required: str
    field: str
    contract: Rule[ContractAsked] | None = None
    rows: Rule[RowsAsked] | None = None
    lists: Rule[ListsAsked] | None = None
    match: Rule[MatchAsked] | None = None
    release: Rule[ReleaseAsked] | None = None
    score: Rule[ScoreAsked] | None = None

    @property
    def is_numbered(self) -> bool:
        """Tell whether it is one of C01 to C22."""
        return self.id[0] == "C"

    @property
    def name(self) -> str:
        """With what a refusal begins."""
        return f"{self.id} {self.title}" if self.is_numbered else f"rule {self.id}"

    @property
    def moments(self) -> tuple[Moment, ...]:
        """When it is asked."""
        rules: dict[Moment, object] = {
            "contract": self.contract, "rows": self.rows, "lists": self.lists, "match": self.match,
            "release": self.release, "score": self.score,
        }  # fmt: skip
        return tuple(moment for moment, rule in rules.items() if rule is not None)
