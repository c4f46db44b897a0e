"""What a process of its own does with giant, lying, packed and silent peers (row 19): `python -m` this, KIND, FOLDER.

Prints, as JSON, which of the offers were taken, and by how many MiB the process grew. KIND `ours`: the readers of
messages, envelopes, letters, the hub's frames and tables, and a greeting with a deadline. KIND `plain`: readers that
make the room that they are told to make, unpack what is packed, and wait; what they are told is cut to 320 MiB here.
"""

import io
import json
import os
import socket
import sys
import threading
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

MIB = 1 << 20
_SPARED = 320 * MIB
_SECONDS = 0.3
TABLE = "table.parquet"
"""A file that `write_packed_table` made, elsewhere: what it costs to make does not count here."""
ARRAY = b'{"b":{"d":[{"a":"u8","s":[1099511627776]}]},"n":8796093022208,"t":"Block","v":1}'
"""Says that 8 TiB of numbers follow."""


def giant_array() -> bytes:
    """Make a message whose header announces numbers that do not come."""
    return len(ARRAY).to_bytes(4, "big") + ARRAY


def many_containers(header: int) -> bytes:
    """Make a message whose header is as long as is said, and full of small objects: each takes 30 times its bytes."""
    item = b'{"":0},'
    body = item * ((header - 40) // len(item))
    raw = b'{"b":[' + body + b'0],"n":0,"t":"Block","v":1}'
    return len(raw).to_bytes(4, "big") + raw


def packed() -> bytes:
    """Make 320 MiB of zeros small."""
    machine = zlib.compressobj(1)
    return b"".join([machine.compress(bytes(MIB)) for _ in range(_SPARED // MIB)] + [machine.flush()])


def write_packed_table(path: Path) -> None:
    """Write a Parquet file of some kilobytes whose one cell has 80 MiB."""
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"phone": ["1" * (80 * MIB)], "x": [1.0]}), path, compression="zstd")


def our_readers(folder: Path) -> Mapping[str, Callable[[], object]]:
    """Return what our readers are offered, by name; each is to refuse."""
    from dataclasses import dataclass, replace

    import numpy as np
    from numpy.typing import NDArray

    from fedmkt.crypto.seal import MAX_MESSAGE_BYTES, Envelope, Place, Prekey, open_sealed, seal
    from fedmkt.crypto.sign import Identity
    from fedmkt.party.table import Column, TableSchema, read_table
    from fedmkt.protocol import wire
    from fedmkt.protocol.core import Message, Name
    from fedmkt.transport.hub_frames import Welcome, read_welcome, write_welcome
    from fedmkt.transport.pipe import read_letter
    from fedmkt.transport.probe import greet

    @dataclass(frozen=True)
    class Block(Message):
        words: NDArray[np.uint64]

    identity, prekey = Identity(bytes([1]) * 32), Prekey(bytes([2]) * 32)
    names = Name("bank"), Name("partner")
    place = Place(bytes(32), bytes(32), bytes(16), "train", 0, "step", *names, bytes(32))
    sealed = seal(bytes(100_000), place, identity, prekey.public, os.urandom)
    honest = wire.encode(Block(np.zeros(10_000, np.uint64)))
    schema = TableSchema("phone", "phone", "86", (Column("x", "number"),), None)
    table = folder / TABLE
    authority, port = write_authority(folder), silent_server()
    names_here = ("coordinator", "bank")
    large = write_welcome(Welcome(0, 1 << 20, 1 << 20, 1000, names_here, (True, True)))
    welcome = large.replace((1 << 20).to_bytes(4, "big"), (1 << 30).to_bytes(4, "big"))

    def opened(envelope: Envelope) -> object:
        return open_sealed(envelope, place, identity.public, prekey)

    return {
        "array of 8 TiB": lambda: wire.decode(giant_array(), Block),
        "header of 4 GiB": lambda: wire.decode(b"\xff\xff\xff\xff" + bytes(64), Block),
        "16 MiB of objects": lambda: wire.decode(many_containers(16 * MIB), Block),
        "4 MiB of objects": lambda: wire.decode(many_containers(4 * MIB), Block),
        "1 % more than declared": lambda: wire.decode(honest + bytes(800), Block),
        "1 % less than declared": lambda: wire.decode(honest[:-800], Block),
        "packed message": lambda: wire.decode(packed(), Block),
        "message over 64 MiB": lambda: seal(
            [memoryview(bytes(MIB))] * (MAX_MESSAGE_BYTES // MIB + 1), place, identity, prekey.public, os.urandom
        ),
        "envelope of 1 TiB": lambda: opened(Envelope(*names, 1 << 40, bytes(32), (b"",), bytes(64))),
        "envelope 1 % longer": lambda: opened(replace(sealed, length=sealed.length + 1000)),
        "letter of 4 GiB": lambda: read_letter(io.BytesIO((1 << 32).to_bytes(8, "big") + bytes(64))),
        "letter of 1 TiB": lambda: read_letter(io.BytesIO((1 << 40).to_bytes(8, "big") + bytes(64))),
        "frames of 1 GiB": lambda: read_welcome(welcome),
        "packed table": lambda: read_table(table, schema),
        "peer that is silent": lambda: greet("127.0.0.1", port, authority, _SECONDS),
    }  # fmt: skip


def plain_readers(folder: Path) -> Mapping[str, Callable[[], object]]:
    """Return the same for readers without limits; each takes what it is offered."""
    from pyarrow import parquet

    table = folder / TABLE
    port = silent_server()

    def room(declared: int) -> object:
        return b"\1" * min(declared, _SPARED)

    def wait() -> object:
        link = socket.create_connection(("127.0.0.1", port))
        waiting = threading.Thread(target=link.recv, args=(1,), daemon=True)
        waiting.start()
        waiting.join(_SECONDS)
        return waiting.is_alive()

    return {
        "array of 8 TiB": lambda: room(json.loads(giant_array()[4:])["n"]),
        "header of 4 GiB": lambda: room(int.from_bytes(b"\xff\xff\xff\xff", "big")),
        "16 MiB of objects": lambda: json.loads(many_containers(16 * MIB)[4:]),
        "packed message": lambda: zlib.decompress(packed()),
        "envelope of 1 TiB": lambda: room(1 << 40),
        "letter of 4 GiB": lambda: room(1 << 32),
        "frames of 1 GiB": lambda: room(1 << 30),
        "packed table": lambda: parquet.read_table(table).to_pylist(),
        "peer that is silent": wait,
    }


def write_authority(folder: Path) -> Path:
    """Write a certificate that signs itself."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import Encoding

    key, name = ed25519.Ed25519PrivateKey.generate(), x509.Name([])
    start = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + timedelta(days=1))
    path = folder / "authority.pem"
    path.write_bytes(made.sign(key, None).public_bytes(Encoding.PEM))
    return path


def silent_server() -> int:
    """Listen on loopback, accept nothing and say nothing; returns the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    _LISTENERS.append(listener)
    return int(listener.getsockname()[1])


_LISTENERS: list[socket.socket] = []


def taken_by(readers: Mapping[str, Callable[[], object]]) -> list[str]:
    """Name the offers that were not refused."""
    from fedmkt.errors import FedmktError

    taken = []
    for name, read in readers.items():
        try:
            read()
        except (FedmktError, ValueError):
            continue
        taken.append(name)
    return taken


def peak() -> float:
    """Return the most memory that this program has had, in MiB: on Linux, whose `ru_maxrss` is the parent's too."""
    (line,) = [
        text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith("VmHWM:")
    ]
    return int(line.split()[1]) / 1024


def main(kind: str, folder: Path) -> None:
    """Offer everything to one kind of readers, and print what came of it. folder : with the packed table."""
    readers = (our_readers if kind == "ours" else plain_readers)(folder)
    before = peak()
    taken = taken_by(readers)
    print(json.dumps({"offered": len(readers), "taken": taken, "grown": peak() - before}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
