"""What goes between a party's own log and its peers: heads shown, counter-signed, and counter-signatures kept.

Of each head shown, the proof continues the one that the same peer was shown before it in this epoch; of the first one,
what the peer said in its hello to have counter-signed last. Peers see heads in the order in which they were shown.
"""

import json
from collections.abc import Mapping, Sequence

from fedmkt.errors import AuditError, PeerError
from fedmkt.party.audit_log import PEERS, AuditLog
from fedmkt.party.store import Store
from fedmkt.protocol.core import Name
from fedmkt.protocol.session import Hello
from fedmkt.protocol.witness import Cosignature, Head, Rider


class LogNotary:
    """Shows one party's log to its peers, and signs for theirs."""

    def __init__(
        self, me: Name, log: AuditLog, keys: Mapping[Name, bytes], store: Store, contract: str
    ) -> None:
        self._me = me
        self._log = log
        self._keys = keys
        self._store = store
        self._place = f"heads/{contract}"
        self._shown: dict[Name, int] = {}
        self._size = -1
        self._lines: dict[Name, bytes | None] = {}
        self._released = 0

    def seen(self) -> dict[Name, int]:
        """Return how many records of each peer's log were counter-signed here last."""
        # The store outlives a log folder: with the last heads gone, a peer could show another past.
        known, sizes = json.loads(self._store.get(self._place, b"{}")), self._sizes()
        for peer, size in sizes.items():
            if size < known.get(peer, 0):
                raise AuditError(
                    f"log of {peer}: {known[peer]} records were cosigned, {PEERS} has {size}: restore the logs"
                )
        return sizes

    def _sizes(self) -> dict[Name, int]:
        return {p: self._log.peer_size(p) for p in self._keys if p != self._me}

    def begin(self, hellos: Sequence[Hello]) -> None:
        """Begin an epoch: learn from the hellos what each peer counter-signed of the own log last."""
        self._shown = {Name(h.party): dict(h.heads).get(self._me, 0) for h in hellos}
        for peer, size in self._shown.items():
            if not 0 <= size <= self._log.size:
                raise PeerError(
                    f"{peer}: cosigned {size} records, the log of {self._me} has {self._log.size}"
                )
        self._size, self._lines, self._released = -1, {}, self._log.size

    @property
    def witnessed(self) -> bool:
        """Tell whether a head that covers the own last release is counter-signed by all who were shown it."""
        return self._size >= self._released and None not in self._lines.values()

    def release(self) -> None:
        """Learn that something was revealed: what the log says of it, all of it by now, is not witnessed yet."""
        self._released = self._log.size

    def show(self, readers: Sequence[Name]) -> dict[Name, Head]:
        """Sign the log as it is now, for these readers."""
        note, self._size = self._log.head(), self._log.size
        heads = {p: Head(note, self._extension(p)) for p in readers if p != self._me}
        self._shown |= dict.fromkeys(heads, self._size)
        self._lines = dict.fromkeys(heads)
        return heads

    def _extension(self, peer: Name) -> tuple[bytes, ...]:
        size = self._shown[peer]
        return tuple(self._log.extension(size)) if size else ()

    def take(self, riders: Sequence[tuple[Name, Rider]]) -> dict[Name, Cosignature]:
        """Keep what others signed of the own log and sign for the heads that they show; the last of each counts.

        Raises AuditError for a head that does not continue its owner's last one, or a signature that is none.
        """
        self._collect({p: r.cosignature for p, r in riders if r.cosignature is not None})
        signed: dict[Name, Cosignature] = {}
        heads = [(p, r.head) for p, r in riders if r.head is not None]
        while heads:
            # Of one sender each continues the one before it: one after the other.
            batch = {p: head for p, head in reversed(heads)}
            heads = [(p, head) for p, head in heads if batch[p] is not head]
            signed |= self._cosign(batch)
        return signed

    def _cosign(self, heads: Mapping[Name, Head]) -> dict[Name, Cosignature]:
        self.seen()
        lines = self._log.cosign({p: (h.note, h.proof) for p, h in heads.items()}, self._keys)
        self._store.put(self._place, json.dumps(self._sizes()).encode())
        return {p: Cosignature(self._log.peer_size(p), lines[p]) for p in heads}

    def _collect(self, found: Mapping[Name, Cosignature]) -> None:
        # A line under an earlier head than the last is of no more use.
        lines = {p: c.line for p, c in found.items() if p in self._lines and c.records == self._size}
        if not lines:
            return
        self._lines |= lines
        complete = {p: line for p, line in self._lines.items() if line is not None}
        if len(complete) == len(self._lines):
            self._log.add_cosignatures(complete, {n: self._keys[n] for n in (self._me, *complete)})
