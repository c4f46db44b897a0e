"""A party's own log as its steps see it: its head, its growth, and the signatures under the heads of others."""

import json
from collections.abc import Mapping, Sequence

from fedmkt.errors import AuditError, PeerError
from fedmkt.party.audit_log import PEERS, AuditLog
from fedmkt.party.store import Store
from fedmkt.protocol.core import Name
from fedmkt.protocol.session import Hello


class LogNotary:
    """What the steps of one contract may see of the log of `me`; `contract` : its digest, hexadecimal."""

    def __init__(
        self, me: Name, log: AuditLog, keys: Mapping[Name, bytes], store: Store, contract: str
    ) -> None:
        self._me = me
        self._log = log
        self._keys = keys
        self._store = store
        self._place = f"heads/{contract}"
        self._cosigned: dict[Name, int] = {}

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
        """Learn from the hellos what each peer counter-signed of the own log last."""
        self._cosigned = {Name(h.party): dict(h.heads).get(self._me, 0) for h in hellos}
        for peer, size in self._cosigned.items():
            if not 0 <= size <= self._log.size:
                raise PeerError(
                    f"{peer}: cosigned {size} records, the log of {self._me} has {self._log.size}"
                )

    def head(self) -> bytes:
        """Return the own head as a signed note."""
        return self._log.head()

    def extension(self, peer: Name) -> tuple[bytes, ...]:
        """Prove that the own log only grew since `peer` counter-signed it last; nothing where it never did."""
        size = self._cosigned[peer]
        return tuple(self._log.extension(size)) if size else ()

    def cosign(self, heads: Mapping[Name, tuple[bytes, tuple[bytes, ...]]]) -> Mapping[Name, bytes]:
        """Counter-sign the heads of others, after what the store knows of them; AuditError where a log was lost."""
        self.seen()
        lines = self._log.cosign(heads, self._keys)
        self._store.put(self._place, json.dumps(self._sizes()).encode())
        return {p: lines[p] for p in heads}

    def collect(self, lines: Mapping[Name, bytes]) -> None:
        """Keep the signatures of others under the own head."""
        keys = {n: self._keys[n] for n in (self._me, *lines)}
        size = self._log.add_cosignatures(lines, keys)
        self._cosigned |= dict.fromkeys(lines, size)
