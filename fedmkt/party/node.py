"""Put one organisation's side together: its files, keys, policy, log, journal and store.

One party's node opens that party's own folder and file and nothing else; it is the same in a simulation's
process, in an actor of Flower's simulation and in a deployment.
"""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from fedmkt.audit.checkpoint import log_origin
from fedmkt.config import BankConfig, PartnerConfig, PartyConfig
from fedmkt.contract import SignedContract, digest
from fedmkt.crypto.prg import Random, SeededRandom, derive
from fedmkt.crypto.sign import Identity
from fedmkt.party.audit_log import AuditLog
from fedmkt.party.handle import Event, Party
from fedmkt.party.journal import Journal, write_atomically
from fedmkt.party.outputs import write_outputs
from fedmkt.party.policy import Policy
from fedmkt.party.store import Store
from fedmkt.party.table import Column, Table, TableSchema, read_table
from fedmkt.protocol.core import Name, State
from fedmkt.protocol.pipeline import main_job
from fedmkt.protocol.prepare import Columns
from fedmkt.protocol.psi import Customers

Clock = Callable[[], datetime]
_SEEDED_START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Sources:
    """Where a participant's randomness and time come from: the system, or a seed (simulations only)."""

    random: Random
    clock: Clock

    @staticmethod
    def of(seed: int | None, name: str, epoch_hint: int = 0, start: datetime = _SEEDED_START) -> "Sources":
        """Return the system's sources, or those that follow from a seed and the participant's name.

        epoch_hint : the latest epoch that may have been opened before; every epoch draws from a stream of its own.
        start : when a seeded clock begins to tick.
        """
        if seed is None:
            return Sources(secrets.token_bytes, lambda: datetime.now(UTC))
        key = derive(
            seed.to_bytes(16, "big"), b"fedmkt simulation\n" + name.encode(), salt=bytes([epoch_hint])
        )
        return Sources(SeededRandom(key), _SeededClock(epoch_hint, start))


class _SeededClock:
    """A clock that ticks one millisecond at each look; a resumed run begins minutes after the last time."""

    def __init__(self, epoch_hint: int, start: datetime) -> None:
        self._start = start
        self._ticks = 60_000 * epoch_hint

    def __call__(self) -> datetime:
        self._ticks += 1
        return self._start + timedelta(milliseconds=self._ticks)


@dataclass(frozen=True)
class Place:
    """The folders of one participant of a run: private ones, and its log in the run folder."""

    private: Path
    logs: Path

    @property
    def identity(self) -> Path:
        """The identity key, mode 0600."""
        return self.private / "identity.key"

    @property
    def store(self) -> Path:
        """What outlives runs."""
        return self.private / "store"

    @property
    def journal(self) -> Path:
        """Encrypted checkpoints."""
        return self.private / "journal"

    @property
    def model(self) -> Path:
        """Model share, and at the bank the scores."""
        return self.private / "model"


def load_identity(place: Place, random: Random) -> Identity:
    """Read the participant's identity key, or make one."""
    if not place.identity.exists():
        write_atomically(place.identity, Identity.generate(random).secret_bytes())
    return Identity(place.identity.read_bytes())


def open_data(config: PartnerConfig, folder: Path) -> Table:
    """Read a party's own file as its job says."""
    columns = [Column(n, "number") for n in config.numbers] + [
        Column(n, "category") for n in config.categories
    ]
    label = config.label if isinstance(config, BankConfig) else None
    return read_table(
        folder / config.file, TableSchema(config.id, config.id_kind, config.country, tuple(columns), label)
    )


def local_states(table: Table) -> tuple[State, ...]:
    """Turn a table into what the steps read."""
    labelled = None if table.label is None else ~np.isnan(table.label)
    return (Customers(table.ids, labelled), Columns(table.numbers, table.categories, table.label))


def data_digest(table: Table) -> bytes:
    """Hash ids, columns and label in their order; kept by the party itself, it never leaves."""
    state = hashlib.sha256("\n".join(table.ids).encode())
    for name, numbers in table.numbers.items():
        state.update(name.encode() + b"\0" + np.ascontiguousarray(numbers).tobytes())
    for name, levels in table.categories.items():
        state.update(name.encode() + b"\0" + repr(levels.tolist()).encode())
    state.update(b"" if table.label is None else table.label.tobytes())
    return state.digest()


def open_party(
    name: str,
    signed: SignedContract,
    config: PartyConfig,
    table: Table | None,
    place: Place,
    sources: Sources,
) -> Party:
    """Open one participant: checks the contract against its own policy first, before anything leaves."""
    contract, policy = signed.contract, Policy(config)
    policy.check_contract(signed, sources.clock())
    if table is not None:
        policy.check_list(len(table.ids), contract.limits)
    log = AuditLog(
        place.logs, log_origin(digest(contract), name), load_identity(place, sources.random), sources.clock, "", name,
        digest(contract),
    )  # fmt: skip
    if log.size == 0:
        log.append_all(_opening_records(name, signed, table))
    store = Store(place.store)
    journal = Journal(place.journal, place.private / "journal.key", sources.random)
    return Party(
        Name(name), contract, main_job, load_identity(place, sources.random), policy, log, journal, store,
        sources.random, local_states(table) if table is not None else (),
        data=data_digest(table) if table is not None else b"",
        finish=lambda party: write_outputs(party, place.model, table) if table is not None else [],
    )  # fmt: skip


def _opening_records(name: str, signed: SignedContract, table: Table | None) -> list[Event]:
    contract = signed.contract
    records: list[Event] = [
        ("contract.signed", {"signers": [s.name for s in contract.signers], "purpose": contract.purpose}),
        ("policy.loaded", {"party": name}),
    ]
    if table is not None:
        columns = list(contract.party(name).columns)
        records.append(
            ("dataset.opened", {"columns": columns, "rows_up_to": -(-len(table.ids) // 1000) * 1000})
        )
    return records
