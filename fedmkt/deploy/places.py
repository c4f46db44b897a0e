"""Where a participant of a deployment keeps what belongs to one contract."""

from dataclasses import dataclass
from pathlib import Path

from fedmkt.contract import Contract, digest
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder
from fedmkt.party.node import Place


@dataclass(frozen=True)
class ContractPlace(Place):
    """One contract's own folder; identity and store are the participant's and outlive all contracts."""

    identity_key: Path
    shared_store: Path

    @property
    def identity(self) -> Path:
        """The identity key, mode 0600."""
        return self.identity_key

    @property
    def store(self) -> Path:
        """What outlives runs and contracts: ledgers, highest epochs, the peers' last heads."""
        return self.shared_store


def place_of(folder: PartyFolder | CoordinatorFolder, contract: Contract) -> ContractPlace:
    """Return a contract's place below `state/contracts/`, named by the contract's name and digest."""
    own = folder.state / "contracts" / f"{contract.name}-{digest(contract).hex()[:16]}"
    return ContractPlace(own, own / "log", folder.identity, folder.state / "store")
