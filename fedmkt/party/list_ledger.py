"""What a party remembers of the lists that it matched: with whom, when, and which ids, as keyed hashes.

Whoever may choose lists and see how long intersections are works out who is on the other side's list, a few
people a run (tests/simulation/test_size_attack.py). So every run that shows a size is counted, for each other
party with data, before the first size leaves; an aborted run stays counted, a resumed one counts once. The
rules over these facts stand in `controls.sizes`; each party enforces them for itself. Another party is known again as
`protocol.counterpart` says: neither a new key nor a new name begins anew, nor the one after the other.

What is kept: one entry a run, for good; of each list 8 bytes an id, a hash under a key that never leaves the
store, sorted: 80 MB for 10 million ids. They stay comparable for `KEPT_DAYS` days and at most `KEPT_LISTS`
different lists; older ones are removed, and a list that differs by a few ids from one of those is not noticed.

Tampering. Each entry continues a chain of hashes that begins with the key's; its head goes into the audit log
of the run that it is about. Opening the ledger compares every head in all own logs that are still here with the
chain: an entry that was changed, taken out or rolled back, another key, or a missing list is an AuditError. If
ledger *and* logs were rolled back together, the other signers notice it when they next meet a log shorter
than the head that they signed, or whoever puts all logs together. Not noticed: a party that restores its whole
folder and never meets those contracts again, or runs changed software. Against that only others' ledgers help.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import rfc8785
from numpy.typing import NDArray

from fedmkt.audit.records import Json, read_leaf, timestamp
from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.crypto.id_hash import PackedIds, hash_ids
from fedmkt.crypto.prg import Random
from fedmkt.errors import AuditError, PolicyRefused
from fedmkt.party.events import Event
from fedmkt.party.policy import Policy
from fedmkt.party.store import Store
from fedmkt.protocol.counterpart import Counterpart, counterparts, known_as

KEPT_DAYS: Final = 365
KEPT_LISTS: Final = 20
EVENT: Final = "list.counted"
"""The record in the audit log that carries the head of the ledger."""

_ENTRIES, _KEY = "lists/entries", "lists/key"
_FIELDS = {"contract", "forgets", "list", "others", "run", "time"}

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Entry:
    """One run that shows sizes. list : digest of the own list; forgets : lists that were removed with it."""

    run: str
    contract: str
    time: str
    others: tuple[Counterpart, ...]
    list: str
    forgets: tuple[str, ...] = ()

    @property
    def moment(self) -> datetime:
        """When it was counted."""
        return datetime.fromisoformat(self.time)

    def leaf(self) -> bytes:
        """Encode it as one canonical line."""
        others: Json = [[o.organisation, o.key] for o in self.others]
        values: dict[str, Json] = {
            "contract": self.contract, "forgets": list(self.forgets), "list": self.list, "others": others,
            "run": self.run, "time": self.time,
        }  # fmt: skip
        return rfc8785.dumps(values)


def difference(one: Hashes, other: Hashes) -> int:
    """Count what is on one of two lists only; both sorted, without repetitions."""
    both = np.concatenate([one, other])
    both.sort(kind="stable")  # two sorted runs: merged in one pass
    return len(both) - 2 * int((both[1:] == both[:-1]).sum())


class ListLedger:
    """The entries of one party, in its store."""

    def __init__(self, store: Store, random: Random) -> None:
        self._store = store
        self._random = random

    def entries(self) -> tuple[Entry, ...]:
        """Read all entries, the oldest first; AuditError if they are not as they were written."""
        return tuple(_read_entries(self._store.get(_ENTRIES, b"")))

    def alone(self) -> AbstractContextManager[None]:
        """Let no other process of ours count a run meanwhile."""
        return self._store.alone("lists")

    def heads(self) -> tuple[str, ...]:
        """Return the head of the chain after each entry."""
        return tuple(_heads(self._store.get(_KEY, b""), self.entries()))

    def verify(self, logged: Iterable[str]) -> None:
        """Compare the ledger with heads from the own audit logs; AuditError if one of them is not in its chain."""
        if not set(logged) <= set(self.heads()):
            raise AuditError(
                "ledger of matched lists: not as the audit log says: it was changed, or an older one was put back",
                "restore the store from its last backup; what was counted since must not be forgotten",
            )

    def hashes(self, ids: Sequence[str] | PackedIds) -> Hashes:
        """Hash a list's ids under the key of this store, cut to 8 bytes, and sort them."""
        if _KEY not in self._store:
            if _ENTRIES in self._store:
                raise AuditError("ledger of matched lists: its key is missing")
            self._store.put(_KEY, self._random(32))
        found = np.ascontiguousarray(hash_ids(ids, self._store[_KEY])[:, 0])
        found.sort()
        return found

    def earlier(self, others: Collection[Counterpart], but: str = "") -> tuple[Entry, ...]:
        """Find the runs that showed sizes to one of these, save the run `but`."""
        entries = self.entries()
        same = known_as(others, [o for e in entries for o in e.others])
        return tuple(e for e in entries if e.run != but and not same.isdisjoint(e.others))

    def differences(self, own: Hashes, entries: Sequence[Entry]) -> Iterator[int]:
        """Count by how many ids a list differs from each list of these entries that is still kept."""
        kept = _kept(self.entries())
        for name in dict.fromkeys(e.list for e in entries if e.list in kept):
            yield 0 if name == _name(own) else difference(own, self._list(name))

    def add(self, run: str, contract: Contract, me: str, own: Hashes, now: datetime) -> str:
        """Write an entry and keep its list; returns the new head. On disk when this returns."""
        name, before = _name(own), self.entries()
        self._store.put(self._path(name), own.tobytes())
        entry = Entry(run, digest(contract).hex(), timestamp(now), counterparts(contract, me), name)
        forgets = _outdated([*before, entry], now)
        entry = Entry(entry.run, entry.contract, entry.time, entry.others, name, forgets)
        self._store.put(_ENTRIES, b"".join(e.leaf() + b"\n" for e in [*before, entry]))
        for old in forgets:
            self._store.forget(self._path(old))
        return self.heads()[-1]

    def _list(self, name: str) -> Hashes:
        try:
            data = self._store[self._path(name)]
        except KeyError:
            raise AuditError("ledger of matched lists: the hashes of an earlier list are missing") from None
        if hashlib.sha256(data).hexdigest() != name:
            raise AuditError("ledger of matched lists: the hashes of an earlier list were changed")
        return np.frombuffer(data, dtype=np.uint64)

    @staticmethod
    def _path(name: str) -> str:
        return f"lists/{name}"


def _name(own: Hashes) -> str:
    return hashlib.sha256(own.tobytes()).hexdigest()


def _kept(entries: Iterable[Entry]) -> dict[str, datetime]:
    """Name the lists that are kept after these entries, with the time of the last match, the oldest first."""
    kept: dict[str, datetime] = {}
    for entry in entries:
        kept.pop(entry.list, None)
        kept[entry.list] = entry.moment
        for name in entry.forgets:
            kept.pop(name, None)
    return kept


def _outdated(entries: Sequence[Entry], now: datetime) -> tuple[str, ...]:
    """Name the lists to remove: last matched too long ago, or before the last KEPT_LISTS different ones."""
    kept = _kept(entries)
    recent = [name for name, time in kept.items() if now - time < timedelta(days=KEPT_DAYS)]
    return tuple(sorted(set(kept) - set(recent[-KEPT_LISTS:])))


def _heads(key: bytes, entries: Iterable[Entry]) -> Iterator[str]:
    head = hashlib.sha256(b"fedmkt list ledger v1\n" + hashlib.sha256(key).digest()).digest()
    for entry in entries:
        head = hashlib.sha256(head + entry.leaf()).digest()
        yield head.hex()


def _read_entries(data: bytes) -> Iterator[Entry]:
    for line in data.splitlines():
        try:
            values = json.loads(line)
            if set(values) != _FIELDS:
                raise ValueError("other fields")
            others = tuple(Counterpart(organisation, key) for organisation, key in values["others"])
            entry = Entry(
                values["run"],
                values["contract"],
                values["time"],
                others,
                values["list"],
                tuple(values["forgets"]),
            )
            if entry.leaf() != line or entry.moment.tzinfo is None:
                raise ValueError("not as it was written")
        except (ValueError, TypeError, AttributeError):
            raise AuditError("ledger of matched lists: not as it was written") from None
        yield entry


def logged_heads(logs: Iterable[Path]) -> frozenset[str]:
    """Collect the heads of the ledger from log files; a file that is not there is none."""
    return frozenset(head for path in logs for head in _heads_in(path))


def _heads_in(path: Path) -> Iterator[str]:
    mark = f'"{EVENT}"'.encode()
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for line in lines:
        if mark in line:
            try:
                record = read_leaf(line)
            except ValueError:
                raise AuditError(f"{path}: a record of the ledger of matched lists was changed") from None
            if record.type == EVENT:
                yield str(record.body.get("ledger"))


@dataclass(frozen=True)
class ListGuard:
    """One contract's view of the ledger: the own list, and what policy says about it.

    logs : the own audit logs that are still here, this contract's first. dropped : events that say how many
    people consent, opt-out and age took off the list.
    """

    ledger: ListLedger
    policy: Policy
    contract: Contract
    me: str
    own: Hashes
    clock: Callable[[], datetime]
    logs: Sequence[Path]
    dropped: Sequence[Event] = ()

    def check(self) -> None:
        """Refuse early what `count` would refuse, save for a run that was counted before."""
        self.ledger.verify(logged_heads(self.logs))
        if not any(e.contract == digest(self.contract).hex() for e in self.ledger.entries()):
            self._check("")

    def count(self, run: str) -> list[Event]:
        """Count a run, once; returns what the log has to say before a size is shown."""
        with self.ledger.alone():
            logged = logged_heads(self.logs[:1])
            self.ledger.verify(logged)
            entries = self.ledger.entries()
            known = next((i for i, e in enumerate(entries) if e.run == run), None)
            if known is None:
                self._check(run)
                head = self.ledger.add(run, self.contract, self.me, self.own, self.clock())
            else:
                if entries[known].list != _name(self.own):
                    raise PolicyRefused("C10 differencing guard: not the list that this run began with")
                head = self.ledger.heads()[known]
        # Killed between ledger and log, a run is in the ledger alone.
        return [] if head in logged else [*self.dropped, (EVENT, {"ledger": head})]

    def _check(self, run: str) -> None:
        earlier = self.ledger.earlier(counterparts(self.contract, self.me), run)
        self.policy.check_size_runs([e.moment for e in earlier], self.clock(), self.contract.governance)
        self.policy.check_difference(self.ledger.differences(self.own, earlier), self.clock())
