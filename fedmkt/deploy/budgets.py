"""What a party has spent of its privacy budgets, and what is left: by counterpart and population, and by contract."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.deploy.folders import PartyFolder, load_party_folder
from fedmkt.party.store import Store
from fedmkt.protocol.budget_ledger import Entry, Training, epsilon_together, read_entries
from fedmkt.protocol.counterpart import counterparts, known_as
from fedmkt.report.folder import read_contract

OWN_COLUMNS = "own columns, told by totals"
MEMBERSHIP = "who is common, told by lists"


@dataclass(frozen=True)
class Account:
    """One counterpart and population. epsilon : at `delta`, of `entries` together; most : what the policy allows."""

    counterpart: str
    population: str
    entries: int
    epsilon: float
    delta: float
    most: float

    @property
    def left(self) -> float:
        """What may still be spent; entries do not simply add up, so more than it says may fit."""
        return max(0.0, self.most - self.epsilon)


@dataclass(frozen=True)
class ContractBudget:
    """One contract: runs used of those allowed, and what its counterparts have had of the epsilon it allows."""

    contract: str
    runs: int
    max_runs: int
    epsilon: float
    max_epsilon: float


@dataclass(frozen=True)
class Budgets:
    """All accounts of a party."""

    accounts: tuple[Account, ...]
    contracts: tuple[ContractBudget, ...]

    def lines(self) -> list[str]:
        """Say it in plain words."""
        lines = [] if self.accounts else ["nothing was told with noise yet"]
        for a in self.accounts:
            delta = f" at delta {a.delta:.1e}" if a.delta else ""
            lines.append(f"{a.counterpart}: {a.population}")
            lines.append(
                f"  {a.entries} runs, epsilon {a.epsilon:.2f}{delta}; {a.left:.2f} of {a.most:g} left"
            )
        for c in self.contracts:
            lines.append(f"contract {c.contract}: {c.runs} of {c.max_runs} runs used")
            lines.append(
                f"  its counterparts had epsilon {c.epsilon:.2f} in all contracts, {c.max_epsilon:g} allowed"
            )
        return [*lines, "runs without noise are not counted here: no number bounds what they told"]


def read_budgets(folder: PartyFolder) -> Budgets:
    """Read the ledger of a party's folder, and the contracts that are still here."""
    config, store = load_party_folder(folder)[0], Store(folder.state / "store")
    entries = [entry for _, entry in read_entries(store)]
    accounts = tuple(
        Account(
            same[0].organisation,
            OWN_COLUMNS if isinstance(same[0], Training) else MEMBERSHIP,
            len(same),
            epsilon_together(same),
            min((e.delta for e in same if isinstance(e, Training)), default=0.0),
            config.policy.max_epsilon,
        )
        for same in _groups(entries)
    )
    found = sorted(folder.state.glob("contracts/*/contract.toml"))
    contracts = tuple(_of_contract(path, config.name, store, entries) for path in found)
    return Budgets(accounts, contracts)


def _groups(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Put together what is about one counterpart and population."""
    for kind in dict.fromkeys(type(e) for e in entries):
        rest = [e for e in entries if type(e) is kind]
        while rest:
            same = known_as([rest[0].told], [e.told for e in entries])
            yield [e for e in rest if e.told in same]
            rest = [e for e in rest if e.told not in same]


def _of_contract(path: Path, me: str, store: Store, entries: list[Entry]) -> ContractBudget:
    contract: Contract = read_contract(path.parent)
    runs = store.runs(digest(contract).hex())
    same = known_as(counterparts(contract, me), [e.told for e in entries])
    spent = [epsilon_together(group) for group in _groups([e for e in entries if e.told in same])]
    return ContractBudget(
        path.parent.name,
        len(runs),
        contract.limits.max_runs,
        max(spent, default=0.0),
        contract.limits.max_epsilon,
    )
