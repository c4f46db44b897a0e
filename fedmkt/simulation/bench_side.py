"""One side of a measured intersection, in a process of its own: `python -m fedmkt.simulation.bench_side`.

It invents its list, opens its party as in any run, answers the coordinator over its standard input and output,
and then tells what that cost it. Nobody else's list, key or state is ever in this process.
"""

import json
import logging
import os
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from fedmkt.audit.checkpoint import log_origin
from fedmkt.config.job import JobConfig
from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.contract.files import from_toml, to_toml
from fedmkt.contract.signatures import SignedContract, second_keys
from fedmkt.crypto.id_hash import PackedIds
from fedmkt.crypto.sign import Identity
from fedmkt.party.audit_log import AuditLog
from fedmkt.party.handle import Party
from fedmkt.party.journal import Journal, write_atomically
from fedmkt.party.node import Place, Sources, load_identity
from fedmkt.party.policy import Policy
from fedmkt.party.store import Store
from fedmkt.protocol import wire
from fedmkt.protocol.alignment.items import Rows
from fedmkt.protocol.alignment.psi import Aligned, Customers, Overlap, psi
from fedmkt.protocol.core import Caller, Name, State
from fedmkt.protocol.witness import witness
from fedmkt.simulation.run import party_settings
from fedmkt.transport.driver import serve
from fedmkt.transport.pipe import serve_pipe, write_letter

BANK, PARTNER = Name("bank"), Name("partner")
NUMBERS = 9_999_999_967
"""Phone numbers that exist, a prime: people are counted and their numbers spread over all of it."""
_FIRST_NUMBER = 10_000_000_000
_DIGITS = 11
_SPREAD = 6_180_339_887


@dataclass(frozen=True)
class Lists:
    """Two invented lists of phone numbers: how long they are, and how many people stand on both."""

    rows: int
    sender_rows: int
    common: int
    seed: int = 1

    @property
    def sizes(self) -> dict[Name, int]:
        """How many numbers each party has."""
        return {BANK: self.rows, PARTNER: self.sender_rows}

    def numbers(self, party: Name) -> NDArray[np.int64]:
        """Return the numbers of one party, 11 digits each, all different, in an order of its own."""
        first, count = (0, self.rows) if party == BANK else (self.rows - self.common, self.sender_rows)
        order = np.random.default_rng([self.seed, first]).permutation(count)
        order += first
        order *= _SPREAD  # below 2^63 for a thousand million people
        order %= NUMBERS
        order += _FIRST_NUMBER
        return order


@dataclass(frozen=True)
class Trial:
    """One intersection to be measured: its folder holds what all sides must know, and each side's own files."""

    folder: Path
    config: JobConfig
    signed: SignedContract
    lists: Lists

    def place(self, name: str) -> Place:
        """Return one participant's folders."""
        return Place(self.folder / "parties" / name, self.folder / "logs" / name)

    def write(self, identities: Mapping[str, Identity]) -> None:
        """Write down what the sides read, and give each its key."""
        known = {"job": self.config.model_dump(mode="json"), "lists": asdict(self.lists)}
        write_atomically(self.folder / "trial.json", json.dumps(known).encode())
        write_atomically(self.folder / "contract.toml", to_toml(self.signed).encode())
        for name, identity in identities.items():
            write_atomically(self.place(name).identity, identity.secret_bytes())

    @staticmethod
    def read(folder: Path) -> "Trial":
        """Read what `write` wrote."""
        known = json.loads((folder / "trial.json").read_text())
        contract = folder / "contract.toml"
        signed = from_toml(contract.read_text(), str(contract))
        return Trial(folder, JobConfig.model_validate(known["job"]), signed, Lists(**known["lists"]))

    def open_party(self, name: Name, *local: State) -> Party:
        """Open one participant with these states; its script is the intersection alone."""
        place, sources, contract = self.place(name), Sources.of(None, name), self.signed.contract
        identity = load_identity(place, sources.random)
        policy = Policy(party_settings(self.config, self.signed, name))
        policy.check_contract(self.signed, sources.clock())
        agreed, second = digest(contract), second_keys(self.signed)
        log = AuditLog(
            place.logs, log_origin(agreed, name), identity, sources.clock, "", name, agreed, second
        )
        journal = Journal(place.journal, place.private / "journal.key", sources.random)
        store = Store(place.store)
        return Party(name, contract, psi_alone, identity, policy, log, journal, store, sources.random, local)


@dataclass(frozen=True)
class Ready:
    """The side has its list and its party; what it does from now on is counted."""

    party: str


@dataclass(frozen=True)
class Spent:
    """What one side spent, and what it found: its rows of the common customers, in the common order."""

    cpu_s: float
    peak_mb: float
    rows: Rows


def psi_alone(call: Caller, contract: Contract) -> Overlap:
    """Run the intersection as in the main job, with the logs' signatures that it asks for, and nothing after it."""
    witness(call, contract)
    return psi(call, contract)


def peak_mb() -> float:
    """Return the largest resident size of this process so far, in millions of bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not from getrusage: there the size of the process that started this one counts too, before its exec.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def customers_of(numbers: NDArray[np.int64]) -> Customers:
    """Turn phone numbers into a party's list."""
    digits = np.empty((len(numbers), _DIGITS), dtype=np.uint8)
    left = numbers.copy()
    for column in range(_DIGITS - 1, -1, -1):
        digits[:, column] = left % 10
        left //= 10
    digits += ord("0")
    ends = np.arange(_DIGITS, (len(numbers) + 1) * _DIGITS, _DIGITS, dtype=np.int64)
    return Customers(PackedIds(digits.reshape(-1), ends), None)


def take_part(name: Name, folder: Path, source: IO[bytes], to: IO[bytes]) -> None:
    """Be one side of one trial, from its list to its costs."""
    trial = Trial.read(folder)
    party = trial.open_party(name, customers_of(trial.lists.numbers(name)))
    write_letter(to, wire.encode_pieces(Ready(name)))
    before = time.process_time()
    try:
        serve_pipe(source, to, lambda ask: serve(party, ask))
        spent = time.process_time() - before
    finally:
        party.release()
    rows = party.recall(Aligned).labelled
    write_letter(to, wire.encode_pieces(Spent(spent, peak_mb(), rows)))


def main() -> None:
    """Take part in the trials of the given folders, one after the other."""
    name, *folders = sys.argv[1:]
    # Whatever prints must not get between the letters.
    with os.fdopen(os.dup(1), "wb") as to:
        os.dup2(2, 1)
        logging.basicConfig(stream=sys.stderr, format="%(message)s")
        for folder in folders:
            take_part(Name(name), Path(folder), sys.stdin.buffer, to)


if __name__ == "__main__":
    main()
