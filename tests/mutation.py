"""Mutants of our own code: does a test beside the module notice a small change of it?

python -m tests.mutation                       a sample of 25 mutants of each module below, seed 1
python -m tests.mutation --sample 0            all of them: hours
python -m tests.mutation --only wire --seed 2  another sample of one module

A mutant changes one place: a comparison turned or shifted by one, `and` for `or`, a `not` taken away, a number or a
text changed, a `raise` or a call that stands alone taken out, a result dropped, an addition for a subtraction. A
docstring, a message of an error, an annotation and a `__repr__` are left alone. Mutants that no test can see, because
they mean the same, count as survivors too.
"""

import argparse
import ast
import copy
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES: dict[str, Sequence[str]] = {
    "fedmkt/protocol/wire.py": ("tests/protocol/test_wire.py",),
    "fedmkt/party/policy.py": (
        "tests/party/test_policy.py",
        "tests/party/controls",
        "tests/party/test_list_ledger.py",
    ),
    "fedmkt/audit/records.py": ("tests/audit/test_records.py",),
    "fedmkt/audit/checkpoint.py": (
        "tests/audit/test_checkpoint.py",
        "tests/audit/test_second_signatures.py",
    ),
    "fedmkt/audit/verify.py": ("tests/audit/test_verify.py", "tests/audit/test_retention.py"),
    "fedmkt/party/audit_log.py": ("tests/party/test_audit_log.py", "tests/audit/test_verify.py"),
    "fedmkt/crypto/tree.py": ("tests/crypto/test_tree.py",),
    "fedmkt/crypto/dsse.py": ("tests/crypto/test_dsse.py",),
    "fedmkt/crypto/sign.py": ("tests/crypto/test_sign.py", "tests/crypto/test_edge_cases.py"),
    "fedmkt/crypto/seal.py": ("tests/crypto/test_seal.py",),
}
SECONDS = 120
"""Of CPU: a mutant whose tests take longer runs for ever, and is noticed."""
QUIET = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
"""What is imported before the fork, to save time, cannot be rewritten."""
_HEAVY = (
    "numpy",
    "pandas",
    "pyarrow.parquet",
    "pydantic",
    "cryptography.x509",
    "hypothesis",
    "pytest",
    "numba",
)
_TURNED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OTHER = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
}

Change = Callable[[ast.AST], ast.AST]


def changes_of(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """Yield every change of one node: what it is, and a function that gives the changed node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield from _compared(node)
    elif isinstance(node, ast.BoolOp):
        yield "and for or", lambda n: _with(n, op=ast.Or() if isinstance(n.op, ast.And) else ast.And())
        for at in range(len(node.values)):
            rest = [v for i, v in enumerate(node.values) if i != at]
            yield f"without term {at + 1}", lambda n, r=rest: _with(n, values=r) if len(r) > 1 else r[0]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "without not", lambda n: n.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in _OTHER:
        yield "another operator", lambda n: _with(n, op=_OTHER[type(n.op)]())
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield "one more", lambda n: ast.Constant(n.value + 1)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield "the other truth", lambda n: ast.Constant(not n.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and node.value:
        yield "no text", lambda n: ast.Constant(type(n.value)())
    elif isinstance(node, ast.Raise):
        yield "without raise", lambda n: ast.Pass()
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "without call", lambda n: ast.Pass()
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield "returns nothing", lambda n: _with(n, value=ast.Constant(None))


def _compared(node: ast.Compare) -> Iterator[tuple[str, Change]]:
    yield "comparison turned", lambda n: _with(n, ops=[_TURNED[type(n.ops[0])]()])
    yield "comparison true", lambda n: ast.Constant(True)
    yield "comparison false", lambda n: ast.Constant(False)


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def places_of(tree: ast.Module) -> list[ast.AST]:
    """Return the nodes that may be changed, in order: no docstring, message, annotation, default of a type, repr."""
    left_out: set[int] = set()

    def leave(node: ast.AST | None) -> None:
        left_out.update(id(n) for n in ast.walk(node)) if node is not None else None

    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            leave(node)
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            leave(node.exc)
        elif isinstance(node, ast.FunctionDef):
            for argument in (*node.args.args, *node.args.kwonlyargs):
                leave(argument.annotation)
            leave(node.returns)
            if node.name in ("__repr__", "lines"):
                leave(node)
            for decorator in node.decorator_list:
                leave(decorator)
        elif isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                leave(decorator)
        elif isinstance(node, ast.AnnAssign):
            leave(node.annotation)
        elif isinstance(node, ast.JoinedStr):
            leave(node)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            name = node.value.func
            if isinstance(name, ast.Name) and name.id in ("TypeVar", "NewType"):
                leave(node)
    return [node for node in ast.walk(tree) if id(node) not in left_out]


def mutants_of(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, change and text of every mutant of a module."""
    for at, node in enumerate(places_of(ast.parse(source))):
        for number, (name, _) in enumerate(changes_of(node)):
            tree = ast.parse(source)
            target = places_of(tree)[at]
            change = list(changes_of(target))[number][1]
            text = ast.unparse(ast.fix_missing_locations(_Swap(target, change(target)).visit(tree)))
            yield getattr(node, "lineno", 0), name, text


class _Swap(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self._new if node is self._old else super().visit(node)  # type: ignore[no-any-return]


def is_noticed(place: Path, module: str, text: str, tests: Sequence[str]) -> bool:
    """Run the tests beside a module on a mutant of it, in a forked process; tells whether one of them failed."""
    path = place / module
    before = path.read_text()
    path.write_text(text)
    try:
        child = os.fork()
        if child == 0:
            _run_tests(place, tests)
        _, status = os.waitpid(child, 0)
    finally:
        path.write_text(before)
    return not (os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0)


def _run_tests(place: Path, tests: Sequence[str]) -> None:
    code = 99
    try:
        os.chdir(place)
        os.setsid()
        sys.path[:] = [str(place), *(p for p in sys.path if Path(p or ".").resolve() != ROOT)]
        sys.dont_write_bytecode = True
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        signal.alarm(10 * SECONDS)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        import pytest

        code = int(
            pytest.main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", *QUIET, "-m", "not slow", *tests])
        )
    finally:
        os._exit(code)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=25, help="mutants of each module, 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="a part of a module's path")
    chosen = parser.parse_args()
    os.environ.update(CI="1", PYTHONDONTWRITEBYTECODE="1")
    for name in _HEAVY:
        importlib.import_module(name)
    killed = total = 0
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for part in ("fedmkt", "tests", "examples", "parties"):
            shutil.copytree(ROOT / part, place / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", place)
        for module, tests in MODULES.items():
            if chosen.only not in module:
                continue
            source = (ROOT / module).read_text()
            if is_noticed(place, module, source, tests):
                raise AssertionError(f"{module}: its tests fail without any change")
            made = list(mutants_of(source))
            if chosen.sample and len(made) > chosen.sample:
                made = random.Random(chosen.seed).sample(made, chosen.sample)
            survivors = [
                (line, what)
                for line, what, text in sorted(made)
                if not is_noticed(place, module, text, tests)
            ]
            killed, total = killed + len(made) - len(survivors), total + len(made)
            facts = {"module": module, "mutants": len(made), "killed": len(made) - len(survivors)}
            print(json.dumps(facts | {"survivors": survivors}), flush=True)
    print(f"killed {killed} of {total}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
