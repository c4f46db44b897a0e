"""What a participant keeps for the auditor of the deals: sealed seeds, commitments, marks, receipts.

Beside its log, in `deals/`: `RUN-EPOCH.seed`, the own dealer seed of an epoch, sealed to the auditor's key, and
`RUN-EPOCH.receipts`, all receipts before the call that closed the run there: they are kept before that call writes a
result, so no result rests on deals that nobody can audit. In the log: commitments to the seeds, and with each message
of the dealer its mark (`protocol.deals`). The dealer itself writes no seed: with it they are in memory only.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from fedmkt.audit.disclosures import SEALED
from fedmkt.audit.records import Json
from fedmkt.contract.agreement import Contract
from fedmkt.crypto.prg import Random
from fedmkt.crypto.seal import Envelope, Pieces
from fedmkt.crypto.sign import Identity
from fedmkt.party.events import Event
from fedmkt.party.journal import write_atomically
from fedmkt.protocol import deals, wire
from fedmkt.protocol.core import Name, data_parties, dealer
from fedmkt.protocol.session import Epoch
from fedmkt.protocol.turns import Receipt

FOLDER = "deals"
MARK = "mark"


class DealRecords:
    """One participant's part in audited deals of one contract; without an auditor it does nothing."""

    def __init__(
        self, contract: Contract, me: Name, folder: Path | None, identity: Identity, random: Random
    ) -> None:
        """Begin with nothing. folder : of the log; None where nothing is kept, in a contract without auditor."""
        self._contract = contract
        self._me = me
        self._folder = folder
        self._identity = identity
        self._random = random
        self._keys: dict[Name, bytes] = {}
        self._marks: dict[str, str] = {}
        self._holds = me in data_parties(contract)

    def begin(self, epoch: Epoch, seeds: Mapping[Name, bytes]) -> list[Event]:
        """Seal the own seed for the auditor, before anything of the epoch is answered; returns what to log."""
        auditor = self._contract.auditor
        if auditor is None or self._folder is None:
            return []
        self._keys = {party: deals.mark_key(seed) for party, seed in seeds.items()}
        self._marks = {}
        if self._holds:
            sealed = deals.seal_seed(
                self._contract, epoch.run, epoch.number, epoch.id, self._me, seeds[self._me], self._identity,
                self._random,
            )  # fmt: skip
            write_atomically(seed_file(self._folder, epoch.run.hex(), epoch.number), wire.encode(sealed))
        commitments: dict[str, Json] = {p: deals.commitment(s).hex() for p, s in seeds.items()}
        return [(SEALED, {"epoch": epoch.number, "to": auditor.name, "commitments": commitments})]

    def note(self, envelope: Envelope, index: int, step: str, plain: Pieces) -> None:
        """Mark a message of the dealer that was sent or received here; others are left alone."""
        if self._keys and envelope.sender == dealer(self._contract):
            key = self._keys[Name(envelope.reader)]
            self._marks[envelope.digest.hex()] = deals.mark(key, index, step, plain).hex()

    def marked(self, events: Iterable[Event]) -> Iterator[Event]:
        """Add the marks to the records of the messages that have one."""
        for name, body in events:
            found = self._marks.pop(str(body.get("sha256")), None)
            yield (name, body) if found is None else (name, {**body, MARK: found})

    def keep_receipts(self, epoch: Epoch, receipts: Sequence[Receipt]) -> None:
        """Keep the receipts before a run's close; the dealer, who is audited, does not keep them for the auditor."""
        if self._contract.auditor is not None and self._folder is not None and self._holds:
            path = receipts_file(self._folder, epoch.run.hex(), epoch.number)
            write_atomically(path, written(receipts))


def seed_file(log: Path, run: str, epoch: int) -> Path:
    """Return where a party's sealed seed of an epoch lies."""
    return log / FOLDER / f"{run}-{epoch}.seed"


def receipts_file(log: Path, run: str, epoch: int) -> Path:
    """Return where a party's copy of the receipts lies that led to a run's close in an epoch."""
    return log / FOLDER / f"{run}-{epoch}.receipts"


def closes_of(log: Path, run: str) -> set[int]:
    """Return the epochs in which a party kept receipts of a run: those in which it was asked to close it."""
    names = (path.stem.rpartition("-")[2] for path in (log / FOLDER).glob(f"{run}-*.receipts"))
    return {int(name) for name in names if name.isascii() and name.isdigit()}


def read_receipts(data: bytes) -> list[Receipt]:
    """Read receipts back; ValueError if they are cut or changed in form."""
    found, at = list[Receipt](), 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if at + 4 + size > len(data):
            raise ValueError("the last receipt is cut")
        found.append(wire.decode(data[at + 4 : at + 4 + size], Receipt))
        at += 4 + size
    return found


def written(receipts: Sequence[Receipt]) -> bytes:
    """Write receipts as they are kept; the inverse of `read_receipts`."""
    encoded = [wire.encode(receipt) for receipt in receipts]
    return b"".join(len(data).to_bytes(4, "big") + data for data in encoded)


def drop_seeds(log: Path, run: str) -> int:
    """Delete a run's sealed seeds, also one that a crash left half written; returns how many."""
    found = list((log / FOLDER).glob(f"{run}-*.seed*"))
    for path in found:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    return len(found)
