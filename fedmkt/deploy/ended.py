"""Contracts whose end a command of an organisation met: the log of each says so once, and people are told."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from fedmkt.contract.canonical import zulu
from fedmkt.contract.files import from_toml
from fedmkt.contract.signatures import SignedContract
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder, read_identity, read_text
from fedmkt.deploy.places import place_of
from fedmkt.errors import AuditError
from fedmkt.party.audit_log import LOG
from fedmkt.party.contract_past import note_expired, past_of
from fedmkt.party.node import Sources, open_log
from fedmkt.party.store import Store
from fedmkt.report.folder import RunFiles


@dataclass(frozen=True)
class Ended:
    """A contract that is over. contract : the name of its folder; is_new : nobody had seen that before."""

    contract: str
    expired: datetime
    is_new: bool

    def line(self) -> str:
        """Say it in plain words."""
        return f"contract {self.contract} expired on {self.expired:%Y-%m-%d %H:%M} UTC: no run of it begins"


def note_ended(
    folder: PartyFolder | CoordinatorFolder, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> list[Ended]:
    """List the contracts here that are over; the log of each says it once, or the next time if a run has it open."""
    found = []
    for path in sorted(folder.state.glob(f"contracts/*/log/{LOG}")):
        file = path.parent.parent / "contract.toml"
        if not file.exists():  # refused before it was kept
            continue
        signed = from_toml(read_text(file), str(file))
        if clock() >= signed.contract.expires:
            store = Store(folder.state / "store")
            is_new = not past_of(store, signed.contract).expired and _note(folder, signed, store, clock)
            found.append(Ended(path.parent.parent.name, signed.contract.expires, is_new))
    return found


def ended_at(files: RunFiles) -> list[Ended]:
    """Do the same for the organisation whose run this is, and return what is over of it; nothing for a simulation."""
    root = files.root.absolute().parent.parent.parent
    place = PartyFolder(root) if PartyFolder(root).config.exists() else CoordinatorFolder(root)
    if not files.owner or not place.config.exists():
        return []
    return [found for found in note_ended(place) if found.contract == files.root.name]


def _note(
    folder: PartyFolder | CoordinatorFolder,
    signed: SignedContract,
    store: Store,
    clock: Callable[[], datetime],
) -> bool:
    key = read_identity(folder.identity).public.hex()
    names = [s.name for s in signed.contract.signers if s.key == key]
    if not names:
        return False
    place = place_of(folder, signed.contract)
    log = open_log(names[0], signed, place, Sources(secrets.token_bytes, clock))
    try:
        log.claim()
        log.append("contract.expired", {"expires": zulu(signed.contract.expires)})
        note_expired(store, signed.contract)
    except AuditError:  # a run has it open: it says so when it is opened the next time
        return False
    finally:
        log.release()
    return True
