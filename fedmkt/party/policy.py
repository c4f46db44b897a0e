"""What one organisation allows: every contract, list, intersection and release is put to its controls.

A party runs only what its contract *and* its own policy allow, whatever the coordinator asks. The rules themselves
stand in `party.controls`: each refuses by name, and none tells a count of anybody's data.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import numpy as np

from fedmkt.config.settings import PartyConfig
from fedmkt.contract.agreement import Contract
from fedmkt.contract.governance import GovernanceTerms
from fedmkt.contract.signatures import SignedContract, check_given_signatures
from fedmkt.crypto.dsse import Envelope
from fedmkt.party.contract_past import UNKNOWN, Past
from fedmkt.party.controls import registry
from fedmkt.party.controls.agreed import AUTHENTIC
from fedmkt.party.controls.code import installed_code
from fedmkt.party.controls.control import (
    Breach,
    ContractAsked,
    Control,
    Flags,
    ListsAsked,
    MatchAsked,
    ReleaseAsked,
    RowsAsked,
    ScoreAsked,
)
from fedmkt.party.filters import Dropped
from fedmkt.privacy.disclosure import Disclosure, ListSize, MatchedOwnRows, SetSize, SupersetList

_SIZES = (ListSize, SetSize, MatchedOwnRows, SupersetList)
_LATER = ("signatures", "C18")
"""What may be missing while a contract is still being signed."""


def shows_a_size(disclosure: Disclosure) -> bool:
    """Tell whether a release says how long a list or an intersection is: with chosen lists, who is on them."""
    return isinstance(disclosure, _SIZES)


class Policy:
    """The policy of one organisation, the coordinator's included; it keeps no state."""

    def __init__(self, config: PartyConfig) -> None:
        self.config = config

    @property
    def digest(self) -> str:
        """The SHA-256 of what is allowed, hexadecimal: of its canonical JSON, whatever the file looks like."""
        values = self.config.policy.model_dump(mode="json")
        return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def check_contract(
        self,
        signed: SignedContract,
        now: datetime,
        statements: Sequence[Envelope] = (),
        past: Past = UNKNOWN,
    ) -> None:
        """Refuse a contract that breaks any control; keys are compared with those pinned in the party file.

        statements : signed ones about the contract, such as approvals; past : what was seen of it before.
        """
        registry.ask_contract(self._asked(signed, now, statements, past))

    def check_before_signing(self, signed: SignedContract, now: datetime) -> None:
        """Refuse what `check_contract` refuses, but for missing signatures and approvals; those given must verify."""
        check_given_signatures(signed)
        registry.ask_contract(self._asked(signed, now), leave_out=_LATER)

    def breaches(
        self, signed: SignedContract, now: datetime, statements: Sequence[Envelope] = (), past: Past = UNKNOWN
    ) -> Iterator[tuple[Control, tuple[Breach, ...]]]:
        """List every control that is asked about a contract, with all that breaks it."""
        return registry.contract_breaches(self._asked(signed, now, statements, past))

    def is_ours(self, signed: SignedContract, now: datetime) -> bool:
        """Tell whether exactly those whose keys we compared have signed: nobody else makes us write anything."""
        asked = self._asked(signed, now)
        return not any(c.contract and tuple(c.contract(asked)) for c in AUTHENTIC)

    def _asked(
        self,
        signed: SignedContract,
        now: datetime,
        statements: Sequence[Envelope] = (),
        past: Past = UNKNOWN,
    ) -> ContractAsked:
        return ContractAsked(self.config, signed, now, statements, installed_code(), past)

    def check_list(
        self, rows: int, contract: Contract, dropped: Dropped | None = None, withdrawn: Flags | None = None
    ) -> None:
        """Refuse to match with an own list that is too short, or from which not all were taken off who must be.

        rows : distinct ids, after duplicates were removed. dropped : what the filters did; withdrawn : (rows,) who of
        them withdrew.
        """
        gone = np.zeros(rows, np.bool_) if withdrawn is None else withdrawn
        registry.ask_rows(RowsAsked(self.config, contract, rows, dropped or Dropped(), gone))

    def check_size_runs(
        self, earlier: Sequence[datetime], now: datetime, terms: GovernanceTerms | None = None
    ) -> None:
        """Refuse one more run that shows sizes, if too many lie within the last days.

        earlier : when runs with the same partner showed sizes. Those of the future count too: a clock that was
        put back forgets nothing.
        """
        registry.ask_lists(ListsAsked(self.config, terms, now, earlier=earlier))

    def check_difference(self, differences: Iterable[int], now: datetime) -> None:
        """Refuse a list that differs by a few ids from one that was matched with the same partner.

        differences : ids that are on one of the two lists only, for each earlier list. Two sizes would tell
        about those few.
        """
        registry.ask_lists(ListsAsked(self.config, None, now, differences=differences))

    def check_match(self, contract: Contract, rows: int, common: int) -> None:
        """Refuse a match that leaves too few people of the own list, which has so many rows."""
        registry.ask_match(MatchAsked(self.config, contract, rows, common))

    def check_disclosure(self, disclosure: Disclosure, contract: Contract) -> None:
        """Refuse a release that contract or policy do not name, to somebody who is no signer, or of too few."""
        registry.ask_release(ReleaseAsked(self.config, contract, disclosure))

    def check_scores(self, contract: Contract, rates: Iterable[str], reasons: bool) -> None:
        """Refuse to keep scores without rates of selection by these groups, and without reasons."""
        registry.ask_score(ScoreAsked(self.config, contract, frozenset(rates), reasons))
