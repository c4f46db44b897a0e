"""Code in data (row 17): messages, files and records that would run something if a reader let them.

Pickles that call a function, text that is a Python expression, YAML tags and arrays of objects are given to the
decoders of messages, contracts, jobs, records of logs, models and arrays. Each would leave a mark. Undefended:
`pickle.load` and `eval` on the same payloads, in a process of their own. Besides, the installed package is searched for
anything that could run data: the figure is the sum of both.
"""

import ast
import builtins
import io
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from fedmkt.attack_lab.effort import Effort
from fedmkt.attack_lab.finding import Finding, Limit
from fedmkt.attack_lab.subject import Subject
from fedmkt.audit.records import read_leaf
from fedmkt.config.files import parse_job
from fedmkt.contract.files import from_toml
from fedmkt.crypto import dsse
from fedmkt.errors import FedmktError
from fedmkt.learn.bins import Binning
from fedmkt.learn.trees import Part
from fedmkt.protocol import wire
from fedmkt.protocol.core import Nothing
from fedmkt.protocol.session import Hello
from fedmkt.protocol.turns import Receipt

_MARK = "fedmkt_attack_lab"
_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
_OPTIONS = {"shell", "allow_pickle"}
_CALLS = {"eval", "exec", "compile", "__import__"}
_COUNT = """
import builtins, io, pickle, sys
run = 0
for line in sys.stdin:
    data = bytes.fromhex(line)
    builtins.fedmkt_attack_lab = False
    for reader in (pickle.loads, lambda d: eval(d.decode())):
        try:
            reader(data)
        except Exception:
            pass
    run += builtins.fedmkt_attack_lab
print(run)
"""


def _load(data: bytes) -> object:
    return np.load(io.BytesIO(data), allow_pickle=False)


_OBJECTS = (
    b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
)
"""The header of a .npy file whose content numpy would unpickle."""

DECODERS: Mapping[str, Callable[[bytes], object]] = {
    "message": lambda data: wire.decode(data, Nothing, Receipt, Hello),
    "contract": lambda data: from_toml(data.decode(errors="replace"), "contract.toml"),
    "job": lambda data: parse_job(data.decode(errors="replace"), "job.toml"),
    "record": read_leaf,
    "statement": dsse.from_json,
    "bins": lambda data: Binning.from_json(data.decode(errors="replace")),
    "splits": lambda data: Part.from_json(data.decode(errors="replace")),
    "array": _load,
}


def code_in_data(subject: Subject, effort: Effort) -> Finding:
    """Row 17: how many payloads run, and how many places in the package could run one."""
    payloads = list(payloads_of(200))
    run = sum(runs(decoder, payload) for decoder in DECODERS.values() for payload in payloads)
    package = Path(wire.__file__).parents[1]
    places = [p for path in package.rglob("*.py") for p in dangerous(path.read_text(encoding="utf-8"))]
    child = subprocess.run(
        [sys.executable, "-c", _COUNT], input="\n".join(p.hex() for p in payloads), capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    return Finding(
        17, "code in data", "executed", float(child.stdout), float(run + len(places)), Limit(0),
        f"{len(payloads)} payloads to {len(DECODERS)} decoders; uses of pickle, eval and the like: {len(places)}",
    )  # fmt: skip


def payloads_of(count: int) -> Iterator[bytes]:
    """Give payloads that set a mark: pickles of several protocols, expressions, arrays of objects, tagged text."""
    mark = f"setattr(__import__('builtins'), '{_MARK}', True)"
    for number in range(count):
        text = f"{mark} or {number}"
        call = b"cbuiltins\neval\n(S" + repr(text).encode() + b"\ntR."
        kinds = (
            call,
            b"\x80\x02" + call,
            b"\x80\x04" + call,
            text.encode(),
            b"(" + text.encode() + b")",
            _OBJECTS + call,
            f'{{"v":1,"t":"Nothing","b":{{"d":[]}},"n":0,"x":!!python/object/apply:eval ["{text}"]}}'.encode(),
            len(call).to_bytes(4, "big") + call,
        )
        yield kinds[number % len(kinds)]


def runs(decoder: Callable[[bytes], object], payload: bytes) -> bool:
    """Tell whether a decoder ran a payload; that it refuses it is not enough, nor needed."""
    setattr(builtins, _MARK, False)
    try:
        decoder(payload)
    except (FedmktError, ValueError, KeyError, TypeError, EOFError, OSError):
        pass
    finally:
        ran = bool(getattr(builtins, _MARK))
        delattr(builtins, _MARK)
    return ran


def dangerous(source: str) -> list[int]:
    """Find the lines of a file that import or call what runs data as code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            if any(name.partition(".")[0] in _MODULES for name in _imported(node)):
                found.append(node.lineno)
        elif isinstance(node, ast.Call):
            is_call = isinstance(node.func, ast.Name) and node.func.id in _CALLS
            if is_call or any(k.arg in _OPTIONS and not _is_off(k.value) for k in node.keywords):
                found.append(node.lineno)
    return found


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]


def _is_off(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False
