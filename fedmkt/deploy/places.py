"""Where a participant of a deployment keeps what belongs to one contract."""

from dataclasses import dataclass
from pathlib import Path

from fedmkt.contract.agreement import Contract
from fedmkt.contract.files import to_toml
from fedmkt.contract.signatures import SignedContract
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder, read_file
from fedmkt.errors import ConfigError
from fedmkt.party.audit_log import LOG
from fedmkt.party.journal import write_atomically
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

    @property
    def own_logs(self) -> tuple[Path, ...]:
        """The log files of all contracts, this one's first: the ledgers in the store are about all of them."""
        others = sorted(self.private.parent.glob(f"*/{self.logs.name}/{LOG}"))
        return (self.logs / LOG, *(path for path in others if path != self.logs / LOG))

    @property
    def contract(self) -> Path:
        """The signed contract, beside the log that it belongs to."""
        return self.private / "contract.toml"

    def keep_contract(self, signed: SignedContract) -> None:
        """Keep the contract where log and model will lie; ConfigError if another text of it lies there."""
        text = to_toml(signed).encode()
        if not self.contract.exists():
            write_atomically(self.contract, text)
        elif read_file(self.contract) != text:
            raise ConfigError(
                f"{self.contract}: not the contract of this run, to the letter",
                "it was changed, or signed again: bring the first text back, or draft a new contract",
            )


def place_of(folder: PartyFolder | CoordinatorFolder, contract: Contract) -> ContractPlace:
    """Return a contract's place below `state/contracts/`."""
    own = folder.of_contract(contract)
    return ContractPlace(own, own / "log", folder.identity, folder.state / "store")
