"""The withdrawal list: who said that their data may not be used any more, as keyed digests and never as ids.

Each id is brought to the table's own spelling and kept as HMAC-SHA256 under a key that lies in the party's store
beside the list (both mode 0600): without that key nobody can try ids against it, and in a copy of the store with the
key anybody can. The list has no end: it is what keeps a person out, so it outlives every run and every retention.

It is asked when a table is opened (`party.filters`), before anything is matched, and again when scores are written.
"""

import hmac
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmkt.crypto.prg import Random
from fedmkt.errors import AuditError, ConfigError
from fedmkt.party.keys import KeyColumns, Listed
from fedmkt.party.store import Store
from fedmkt.party.table import Table

Flags = NDArray[np.bool_]
KEY_BYTES: Final = 32
_IDS, _KEY = "withdrawn/ids", "withdrawn/key"
_TEXT: Final = b"fedmkt withdrawal v1\n"


@dataclass(frozen=True)
class Withdrawal:
    """One withdrawn id: of which kind, its digest (hexadecimal), since which day."""

    kind: str
    digest: str
    since: date


@dataclass(frozen=True)
class Taken:
    """What became of ids that were handed in: how many are new on the list, and how many were on it."""

    new: int
    known: int


class Withdrawals:
    """The list of one party, in its store; it is read anew at each question, others may add to it meanwhile."""

    def __init__(self, store: Store, random: Random) -> None:
        self._store = store
        self._random = random

    def entries(self) -> tuple[Withdrawal, ...]:
        """Read the list, the oldest first; AuditError if it is not as it was written."""
        return tuple(Withdrawal(*each) for each in self._read())

    def _read(self) -> Iterator[tuple[str, str, date]]:
        value = self._store.get(_IDS, b"")
        try:
            for line in value.decode().splitlines():
                kind, digest, since = json.loads(line)
                yield str(kind), bytes.fromhex(digest).hex(), date.fromisoformat(since)
        except (ValueError, TypeError, RecursionError):
            text = "withdrawal list: not as it was written"
            raise AuditError(text, "restore the store from a backup") from None

    def alone(self) -> AbstractContextManager[None]:
        """Let nobody come onto the list meanwhile, nor be noted in results: whoever writes results, or notes, waits."""
        return self._store.alone("withdrawn")

    def add(self, keys: Sequence[KeyColumns], listed: Listed, now: datetime) -> Taken:
        """Put ids on the list; on disk when this returns. The same ids again change nothing, their day neither."""
        with self.alone():
            before = self.entries()
            known = {(w.kind, w.digest) for w in before}
            secret = self._key()
            asked = dict.fromkeys(
                (key.said(), keyed_digest(secret, key, one).hex())
                for key, ids in zip(keys, listed.ids, strict=True)
                for one in sorted(ids)
            )
            fresh = [Withdrawal(*each, now.date()) for each in asked if each not in known]
            # In the order of digests: that of the file, or of the ids, would say something about who is who.
            after = [*before, *sorted(fresh, key=lambda w: w.digest)]
            lines = [json.dumps([w.kind, w.digest, w.since.isoformat()]) + "\n" for w in after]
            self._store.put(_IDS, "".join(lines).encode())
        return Taken(len(fresh), len(asked) - len(fresh))

    def flags(self, keys: Sequence[KeyColumns], spelled: Sequence[Sequence[str | None]]) -> Flags:
        """Tell for each row whether any of its ids was withdrawn; spelled : by key the ids of all rows.

        ConfigError if ids of a kind were withdrawn that the table does not have: their people could not be found.
        """
        found = np.zeros(len(spelled[0]), np.bool_)
        by_kind: dict[str, set[bytes]] = {}
        for kind, digest, _ in self._read():
            by_kind.setdefault(kind, set()).add(bytes.fromhex(digest))
        if missing := sorted(set(by_kind) - {key.said() for key in keys}):
            raise ConfigError(
                f"C16 withdrawal: people withdrew by {', '.join(missing)}, which the table does not have",
                "keep that id among more_ids: without it these people cannot be left out",
            )
        for key, ids in zip(keys, spelled, strict=True):
            if listed := by_kind.get(key.said()):
                secret = self._key()
                hits = (one is not None and keyed_digest(secret, key, one) in listed for one in ids)
                found |= np.fromiter(hits, np.bool_, len(ids))
        return found

    def of_table(self, table: Table) -> Flags:
        """Tell which rows of a table were withdrawn; of one that was opened with this list, those who came since."""
        keys = table.schema.keys if table.schema is not None else ()
        return self.flags(keys, (table.ids, *table.more_ids))

    def _key(self) -> bytes:
        if _KEY not in self._store:
            if _IDS in self._store:
                raise AuditError("withdrawal list: its key is missing", "restore the store from a backup")
            self._store.put(_KEY, self._random(KEY_BYTES))
        return self._store[_KEY]


def keyed_digest(secret: bytes, key: KeyColumns, one: str) -> bytes:
    """Return HMAC-SHA256 of an id in its canonical spelling, and of its kind."""
    return hmac.digest(secret, _TEXT + key.said().encode() + b"\0" + one.encode(), "sha256")
