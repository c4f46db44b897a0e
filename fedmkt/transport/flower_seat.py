"""What one party's actor is told in Flower's simulation: that party's own settings and places, nobody else's."""

from dataclasses import dataclass
from pathlib import Path

from fedmkt.config.settings import PartyConfig
from fedmkt.config.tables import PartnerConfig
from fedmkt.contract.signatures import SignedContract
from fedmkt.party.node import Place


@dataclass(frozen=True)
class Seat:
    """One party of a simulated run; the actor that takes it opens the party's file and folders by itself.

    files : the folder that `data.file` is relative to. epoch : of the run that is resumed, 0 for a new run.
    """

    signed: SignedContract
    data: PartnerConfig
    settings: PartyConfig
    files: Path
    place: Place
    seed: int | None
    epoch: int

    @property
    def name(self) -> str:
        """The party's name in the contract."""
        return self.data.name
