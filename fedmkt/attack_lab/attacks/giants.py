"""Giant messages, bombs and slow peers (row 19): what is taken that should have been refused, and what it costs.

Readers are offered, in a process of its own whose memory is measured, what peers should not send (`giant_readers`).
Besides, every message of the run is measured. The figure counts what was taken, growth over 256 MiB, and messages of
the run over 64 MiB. Undefended: readers that make the room they are told to make, unpack, and wait.

Nothing that fedmkt sends is compressed, so what a message becomes is what it is; the objects that its header becomes
are bounded by the header's length.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from fedmkt.attack_lab.attacks.giant_readers import TABLE, write_packed_table
from fedmkt.attack_lab.effort import Effort
from fedmkt.attack_lab.finding import Finding, Limit
from fedmkt.attack_lab.subject import Subject
from fedmkt.crypto.seal import MAX_MESSAGE_BYTES
from fedmkt.protocol import wire

MOST_GROWTH = 256
"""MiB."""
_READERS = "fedmkt.attack_lab.attacks.giant_readers"


def giants(subject: Subject, effort: Effort) -> Finding:
    """Row 19: limits of size, memory and time that something got past."""
    ours, plain = read_by("ours"), read_by("plain")
    sizes = [sum(len(p) for p in wire.encode_pieces(m)) for at in subject.views.all for _, m in at.sent]
    large = sum(size > MAX_MESSAGE_BYTES for size in sizes)
    return Finding(
        19, "giant or lying messages", "taken", float(_broken(plain)), float(_broken(ours) + large), Limit(0),
        f"{ours['offered']} offers, grown by {ours['grown']:.0f} MiB, undefended by {plain['grown']:.0f}; the largest "
        f"of {len(sizes):,} messages of the run has {max(sizes) / (1 << 20):.2f} MiB",
    )  # fmt: skip


def read_by(kind: str) -> dict[str, object]:
    """Run the readers of one kind in a process of its own: "offered", "taken" and "grown", in MiB."""
    with tempfile.TemporaryDirectory() as name:
        write_packed_table(Path(name) / TABLE)
        command = [sys.executable, "-m", _READERS, kind, name]
        child = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found: dict[str, object] = json.loads(child.stdout)
    return found


def _broken(found: dict[str, object]) -> int:
    taken, grown = found["taken"], found["grown"]
    if not isinstance(taken, list) or not isinstance(grown, float):
        raise ValueError("the readers said something else")
    return len(taken) + (grown > MOST_GROWTH)
