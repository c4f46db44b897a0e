import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "fedmkt").rglob("*.py"))

# Imports go downward only: from a higher number to the same or a lower one.
LAYERS = {
    "errors": 0, "compiled": 0,
    "crypto": 1, "ring": 1, "learn": 1, "privacy": 1,
    "mistakes": 1, "sbom": 1,
    "contract": 2, "config": 2, "protocol": 2, "audit": 2,
    "party": 3,
    "transport": 4,
    "attack_lab": 5, "marketing": 5, "report": 5, "evidence": 5, "simulation": 5, "deploy": 5,
    "console": 6,
    "cli": 7,
    "__main__": 8, "": 8,
}  # fmt: skip

# Neighbours in one layer that must not know each other.
STRANGERS = {
    ("crypto", "learn"), ("crypto", "ring"), ("crypto", "privacy"),
    ("learn", "crypto"), ("learn", "ring"), ("learn", "privacy"),
    ("contract", "config"), ("contract", "protocol"), ("contract", "audit"),
    ("protocol", "audit"), ("audit", "protocol"), ("protocol", "config"), ("audit", "config"),
    ("report", "simulation"), ("marketing", "simulation"), ("report", "evidence"), ("evidence", "simulation"),
    ("evidence", "deploy"),
}  # fmt: skip

# Plain values that stand above their users: whoever runs a script may report its progress, and what is signed
# about a contract is a statement in the form of a record of a log.
KNOWN_TO_ALL = {"simulation.progress", "audit.statements"}

PURE = (
    "errors",
    "compiled",
    "mistakes",
    "contract",
    "config",
    "crypto",
    "ring",
    "learn",
    "privacy",
    "protocol",
    "audit",
)

# Where a package may be imported; everywhere else it is refused.
ONLY_IN = {
    "flwr": ("transport.flower_",),
    "ray": ("transport.flower_",),
    "grpc": ("transport.hub",),
    "typer": ("cli.",),
    "click": ("cli.",),
    "rich": ("cli.",),
    "torch": ("learn.network", "protocol.network"),
    "jinja2": ("report.", "evidence.", "console."),
    "matplotlib": ("report.",),
    "socket": ("transport.", "console.serve", "attack_lab.attacks.giant_readers"),
    "uvicorn": ("transport.front", "console.serve"),
    "ssl": ("transport.",),
    "greenlet": ("protocol.", "party.", "transport."),
}

# What a pure layer has no use for: randomness is an argument, and so are tables, times and files.
WORLDLY = {
    "asyncio", "ftplib", "glob", "http", "io", "multiprocessing", "pandas", "psutil", "pyarrow", "random",
    "requests", "httpx", "secrets", "shutil", "signal", "socketserver", "sqlite3", "subprocess", "tempfile",
    "time", "urllib", "uuid",
}  # fmt: skip
WORLDLY_CALLS = {"now", "utcnow", "today", "urandom", "getenv", "default_rng()", "open", "input", "print"}
# These two are programs of their own for an auditor, `python -m fedmkt.audit.verify`: they print.
PRINTS = {"audit.verify", "audit.verify_proof"}

# Slow or heavy packages that no import of fedmkt may pull in before they are needed.
NEVER_AT_IMPORT = {"torch", "flwr", "ray"}

UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "runpy"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
UNSAFE_METHODS = {("os", "system"), ("os", "popen"), ("yaml", "load"), ("torch", "load")}
UNSAFE_KEYWORDS = {"shell", "allow_pickle"}


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name, and whether it happens when the file is imported."""

    name: str
    line: int
    at_start: bool


def module_of(path: Path, package: Path) -> str:
    """Name a file within fedmkt: "crypto.seal", and "crypto" for its __init__."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.Module) -> Iterator[Import]:
    """Find all imports, also inside functions; those under TYPE_CHECKING count, but not as at the start."""
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_for_types(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, id(node) not in late)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield Import("(relative)", node.lineno, True)
                continue
            for alias in node.names:
                yield Import(f"{node.module}.{alias.name}", node.lineno, id(node) not in late)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def layer_of(module: str) -> int:
    """Give the layer of a module; KeyError for one that stands in no layer."""
    return LAYERS[module.partition(".")[0]]


def breaches(module: str, source: str) -> list[str]:
    """List what a file does that its place in the layers does not allow."""
    tree = ast.parse(source)
    found = [f"{module}:{i.line} {problem}" for i in imports(tree) for problem in _import_problems(module, i)]
    if module.partition(".")[0] in PURE:
        found += [f"{module}:{line} pure, but calls {name}" for line, name in _worldly_calls(module, tree)]
    return found


def _import_problems(module: str, found: Import) -> Iterator[str]:
    top, _, rest = found.name.partition(".")
    if top == "(relative)":
        yield "relative import: the layers cannot be read from it"
    elif top == "fedmkt":
        yield from _inner_problems(module, rest)
    else:
        places = ONLY_IN.get(top)
        if places is not None and not module.startswith(places):
            yield f"{top} is for {', '.join(places)} only"
        elif top in NEVER_AT_IMPORT and found.at_start and not module.startswith("transport.flower_"):
            yield f"imports {top} when it is imported itself"
        if module.partition(".")[0] in PURE and top in WORLDLY:
            yield f"pure, but imports {top}"


def _inner_problems(module: str, target: str) -> Iterator[str]:
    ours, theirs = module.partition(".")[0], target.partition(".")[0]
    if ours == theirs or target.startswith(tuple(KNOWN_TO_ALL)):
        return
    if theirs not in LAYERS:  # a name of fedmkt/__init__ itself: its version, or its front door
        if target != "__version__" and layer_of(module) < LAYERS[""]:
            yield f"imports fedmkt.{target} from the front door"
        return
    if layer_of(theirs) > layer_of(module):
        yield f"imports fedmkt.{target} from a layer above"
    elif (ours, theirs) in STRANGERS:
        yield f"{ours} and {theirs} must not know each other"


def _worldly_calls(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "default_rng" and not node.args and not node.keywords:
            name = "default_rng()"
        if name in WORLDLY_CALLS and not (name == "print" and module in PRINTS):
            yield node.lineno, name


def unsafe(source: str) -> list[str]:
    """List the uses of anything that runs data as code or opens a shell."""
    tree = ast.parse(source)
    found = [
        f"{i.line} imports {i.name}" for i in imports(tree) if i.name.partition(".")[0] in UNSAFE_MODULES
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found += [f"{node.lineno} {problem}" for problem in _unsafe_call(node)]
    return found


def _unsafe_call(call: ast.Call) -> Iterator[str]:
    if isinstance(call.func, ast.Name) and call.func.id in UNSAFE_CALLS:
        yield call.func.id
    if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
        pair = (call.func.value.id, call.func.attr)
        safe = pair == ("torch", "load") and _is_true(call, "weights_only")
        if pair in UNSAFE_METHODS and not safe:
            yield ".".join(pair)
    for keyword in call.keywords:
        if keyword.arg in UNSAFE_KEYWORDS and not _is(keyword.value, False):
            yield f"{keyword.arg}={ast.unparse(keyword.value)}"


def _is_true(call: ast.Call, name: str) -> bool:
    return any(keyword.arg == name and _is(keyword.value, True) for keyword in call.keywords)


def _is(node: ast.expr, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: module_of(p, ROOT / "fedmkt") or "fedmkt")
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    assert breaches(module_of(path, ROOT / "fedmkt"), path.read_text()) == []


@pytest.mark.parametrize(
    "path",
    [
        p
        for folder in ("fedmkt", "examples", "parties", "supply")
        for p in sorted((ROOT / folder).rglob("*.py"))
    ],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_no_file_runs_data_as_code(path: Path) -> None:
    assert unsafe(path.read_text()) == []


def test_every_package_stands_in_a_layer() -> None:
    packages = {module_of(path, ROOT / "fedmkt").partition(".")[0] for path in SOURCES}
    assert packages <= set(LAYERS)


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("crypto.made_up", "from fedmkt.protocol import psi", "a layer above"),
        ("crypto.made_up", "import fedmkt.protocol.alignment.psi", "a layer above"),
        ("crypto.made_up", "from fedmkt import protocol", "a layer above"),
        ("crypto.made_up", "def f():\n    from fedmkt.learn import glm", "must not know each other"),
        ("learn.made_up", "from fedmkt.crypto.prg import Random", "must not know each other"),
        ("ring.made_up", "from fedmkt.contract.agreement import Contract", "a layer above"),
        ("protocol.made_up", "from fedmkt.party.handle import Party", "a layer above"),
        ("audit.verify", "from fedmkt.party.audit_log import Log", "a layer above"),
        ("party.made_up", "from fedmkt.simulation.world import World", "a layer above"),
        ("report.made_up", "from fedmkt.simulation.run import simulate", "must not know each other"),
        ("simulation.made_up", "from fedmkt.cli.console import say_json", "a layer above"),
        ("party.made_up", "from fedmkt import simulate", "front door"),
        ("party.made_up", "from . import store", "relative"),
        ("party.made_up", "import flwr.client", "flwr is for"),
        ("transport.hub_server", "from flwr.app import Message", "flwr is for"),
        ("transport.memory", "import grpc", "grpc is for"),
        ("simulation.run", "import typer", "typer is for"),
        ("report.build", "from rich.console import Console", "rich is for"),
        ("learn.network", "import torch", "imports torch when"),
        ("learn.glm", "def fit():\n    import torch", "torch is for"),
        ("learn.made_up", "import pandas as pd", "pure, but imports pandas"),
        ("protocol.made_up", "import secrets", "pure, but imports secrets"),
        ("config", "from pathlib import Path\nPath('job.toml').open()", "pure, but calls open"),
        (
            "contract.made_up",
            "from datetime import UTC, datetime\nnow = datetime.now(UTC)",
            "pure, but calls now",
        ),
        ("ring.made_up", "import os\nos.urandom(8)", "pure, but calls urandom"),
        ("ring.made_up", "import numpy as np\nnp.random.default_rng()", "pure, but calls default_rng()"),
    ],
)
def test_a_made_up_breach_is_found(module: str, source: str, complaint: str) -> None:
    found = breaches(module, source)
    assert len(found) == 1 and complaint in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "protocol.made_up",
            "from fedmkt.ring.fixed import encode\nfrom fedmkt.contract.agreement import Contract",
        ),
        ("party.made_up", "import time, pandas\nfrom fedmkt.audit.records import Record\nopen('x')"),
        ("transport.flower_client", "import flwr, ray"),
        ("learn.network", "def fit():\n    import torch"),
        ("cli.app", "import typer\ndef f():\n    from fedmkt.simulation.run import simulate"),
        ("protocol.made_up", "from fedmkt.simulation.progress import Progress"),
        ("", "def simulate():\n    from fedmkt.simulation.run import simulate"),
        ("ring.made_up", "import numpy as np\nnp.random.default_rng(1)"),
    ],
)
def test_what_the_layers_allow_passes(module: str, source: str) -> None:
    assert breaches(module, source) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from joblib import load",
        "import marshal as m",
        "eval('1')",
        "exec('1')",
        "__import__('os')",
        "import os\nos.system('ls')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import subprocess\nsubprocess.run('ls', shell=wanted)",
        "import numpy\nnumpy.load('x', allow_pickle=True)",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "import yaml\nyaml.load('x')",
    ],
)
def test_made_up_unsafe_code_is_found(source: str) -> None:
    assert len(unsafe(source)) == 1


@pytest.mark.parametrize(
    "source",
    ["import numpy\nnumpy.load('x', allow_pickle=False)", "import torch\ntorch.load('x', weights_only=True)"],
)
def test_the_safe_form_passes(source: str) -> None:
    assert unsafe(source) == []
