"""Settings for all tests, and the guard that keeps the pure layers pure."""

import datetime
import os
import random
import site
import sys
import sysconfig
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

TESTS = Path(__file__).resolve().parent

# No deadline: a machine with busy cores is no bug. No database: a run must not depend on the one before.
settings.register_profile("fedmkt", deadline=None, database=None)
settings.register_profile("ci", parent=settings.get_profile("fedmkt"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "fedmkt")
EXAMPLES = int(os.environ.get("EXAMPLES", "0"))
"""If there is a number, properties alone are run, each on so many examples (`make properties`)."""

PURE_TESTS = ("crypto", "ring", "learn", "privacy", "protocol", "audit")
PURE = ("errors", "contract", "config", "crypto", "ring", "learn", "privacy", "protocol", "audit")
# The verifier is a program of its own for an auditor: it reads the folder that it is given.
MAY_READ = ("fedmkt.audit",)
# Machinery below a pure function that uses files and clocks for itself: imports, compiling, showing source.
MACHINERY = (
    "importlib", "linecache", "inspect", "tokenize", "traceback", "warnings", "zipimport",
    "numba", "llvmlite", "joblib", "threadpoolctl", "hypothesis", "_pytest", "pluggy", "coverage",
)  # fmt: skip
INSTALLED = tuple(
    {os.path.realpath(p) for p in (*site.getsitepackages(), sysconfig.get_path("stdlib"), sys.prefix)}
    | {str(TESTS / "vectors")}
)

CLOCKS = (
    "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time",
    "process_time_ns", "thread_time", "localtime", "gmtime", "ctime", "sleep",
)  # fmt: skip
DRAWS = (
    "random", "randint", "randrange", "choice", "choices", "sample", "shuffle", "uniform", "gauss",
    "normalvariate", "getrandbits", "randbytes", "betavariate", "expovariate", "seed",
)  # fmt: skip
NUMPY_DRAWS = (
    "seed", "rand", "randn", "randint", "random", "random_sample", "bytes", "choice", "permutation",
    "shuffle", "normal", "standard_normal", "uniform", "binomial", "poisson", "exponential", "laplace",
)  # fmt: skip
NOW = ("now", "utcnow", "today")
DEEPEST = 40  # frames looked at: a library between pure code and the world is never deeper


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give every property as many examples as were asked for, also one that says fewer, and leave the rest out."""
    if not EXAMPLES:
        return
    properties = [item for item in items if is_hypothesis_test(getattr(item, "function", None))]
    for item in properties:
        test = item.function  # type: ignore[attr-defined]
        test._hypothesis_internal_use_settings = settings(
            test._hypothesis_internal_use_settings,
            max_examples=EXAMPLES,
            suppress_health_check=list(HealthCheck),
        )
    config.hook.pytest_deselected(items=[item for item in items if item not in properties])
    items[:] = properties


class Impure(AssertionError):
    """A pure layer touched the world."""


def is_pure(module: str) -> bool:
    """Say whether a module of fedmkt must not touch the world."""
    package, _, rest = module.partition(".")
    return package == "fedmkt" and rest.partition(".")[0] in PURE


def responsible(frame: types.FrameType | None) -> str | None:
    """Name the pure module on whose behalf `frame` runs; None if somebody who may is nearer."""
    for _ in range(DEEPEST):
        if frame is None:
            return None
        module = frame.f_globals.get("__name__", "")
        if is_pure(module):
            return module
        if module.partition(".")[0] in ("fedmkt", *MACHINERY):
            return None
        if frame.f_code.co_filename.startswith(str(TESTS)) and frame.f_globals is not globals():
            return None
        frame = frame.f_back
    return None


@dataclass
class Guard:
    """What the pure layers tried while the guard was on; kept, in case they swallowed the exception."""

    seen: list[str] = field(default_factory=list)

    def check(self, what: str, frame: types.FrameType | None, allowed: tuple[str, ...] = ()) -> None:
        """Raise if a pure module, other than those in `allowed`, is responsible for `frame`."""
        module = responsible(frame)
        if module is not None and not module.startswith(allowed or ("\0",)):
            self.seen.append(f"{module}: {what}")
            raise Impure(self.seen[-1])


class Hook:
    """The one audit hook of this process; Python cannot remove a hook, so it is switched by `guard`."""

    guard: Guard | None = None
    installed = False

    @classmethod
    def install(cls) -> None:
        """Add the hook once per process, even if this file is imported twice."""
        if not cls.installed:
            sys.addaudithook(cls.hear)
            cls.installed = True

    @classmethod
    def hear(cls, event: str, arguments: tuple[object, ...]) -> None:
        """Check the events of sockets, processes and files."""
        guard = cls.guard
        if guard is None:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or not isinstance(path, str | bytes | os.PathLike):
                return
            name = os.path.realpath(os.fsdecode(path))
            if name.startswith(INSTALLED):
                return
            reading = isinstance(flags, int) and not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            guard.check(f"opens {name}", sys._getframe(1), allowed=MAY_READ if reading else ())
        elif event in ("socket.__new__", "socket.connect", "socket.bind", "socket.getaddrinfo"):
            guard.check(f"uses a socket ({event})", sys._getframe(1))
        elif event in ("subprocess.Popen", "os.system", "os.remove", "os.mkdir", "os.rename"):
            guard.check(f"reaches out of the process ({event})", sys._getframe(1))


def _watched(guard: Guard, original: Callable[..., object], what: str) -> Callable[..., object]:
    def watched(*args: object, **kwargs: object) -> object:
        guard.check(what, sys._getframe(1))
        return original(*args, **kwargs)

    return watched


def _watched_default_rng(guard: Guard, original: Callable[..., object]) -> Callable[..., object]:
    def default_rng(seed: object = None) -> object:
        if seed is None:
            guard.check("calls numpy.random.default_rng() without a seed", sys._getframe(1))
        return original(seed)

    return default_rng


def _watched_dates(guard: Guard) -> dict[type, type]:
    """Make stand-ins for datetime and date whose present time is watched; isinstance sees the originals."""

    def stand_in(original: type) -> type:
        class Meta(type(original)):
            def __instancecheck__(cls, instance: object) -> bool:
                return isinstance(instance, original)

            def __subclasscheck__(cls, subclass: type) -> bool:
                return issubclass(subclass, original)

        def asks(name: str) -> classmethod:
            def ask(cls: type, *args: object) -> object:
                guard.check(f"calls {original.__name__}.{name}", sys._getframe(1))
                return getattr(original, name)(*args)

            return classmethod(ask)

        members = {name: asks(name) for name in NOW if hasattr(original, name)}
        return Meta(original.__name__, (original,), members)

    return {original: stand_in(original) for original in (datetime.datetime, datetime.date)}


def _pure_modules() -> list[types.ModuleType]:
    return [module for name, module in list(sys.modules.items()) if is_pure(name) and module]


def _watch(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put watchers in place of clocks and global generators, and where pure modules imported them by name."""
    replaced: dict[int, tuple[object, object]] = {}

    def replace(owner: object, owner_name: str, name: str, watcher: Callable[..., object]) -> None:
        original = getattr(owner, name)
        replaced[id(original)] = (original, watcher)
        monkeypatch.setattr(owner, name, watcher)

    for owner, names in ((time, CLOCKS), (random, DRAWS), (np.random, NUMPY_DRAWS)):
        for name in names:
            watcher = _watched(guard, getattr(owner, name), f"calls {owner.__name__}.{name}")
            replace(owner, owner.__name__, name, watcher)
    replace(np.random, "numpy.random", "default_rng", _watched_default_rng(guard, np.random.default_rng))

    dates = _watched_dates(guard)
    calendar = types.ModuleType("datetime")
    calendar.__dict__.update(vars(datetime))
    calendar.__dict__.update({original.__name__: watcher for original, watcher in dates.items()})
    # Everybody else keeps the true datetime: type checks all over the libraries compare with it.
    replaced |= {id(original): (original, watcher) for original, watcher in dates.items()}
    replaced[id(datetime)] = (datetime, calendar)
    for module in _pure_modules():
        for name, value in list(vars(module).items()):
            if id(value) in replaced:
                monkeypatch.setattr(module, name, replaced[id(value)][1])


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Run the main job once on a small invented world; the folder is for reading only."""
    from fedmkt.simulation.run import simulate
    from fedmkt.simulation.world import generate, write_world

    folder = tmp_path_factory.mktemp("small")
    job = write_world(generate(3, 1000, 1200, 700), folder / "files", minimum=300)
    return simulate(job, out=folder / "run", seed=3)


@pytest.fixture
def pure_world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guard]:
    """Make sockets, files, the clock and global generators raise when a pure layer uses them."""
    guard = Guard()
    Hook.install()
    _watch(guard, monkeypatch)
    Hook.guard = guard
    try:
        yield guard
    finally:
        Hook.guard = None
    assert not guard.seen, "a pure layer touched the world and hid it"


@pytest.fixture(autouse=True)
def purity(request: pytest.FixtureRequest) -> None:
    """Guard every test of a pure layer."""
    folder = Path(request.node.path).resolve().relative_to(TESTS).parts[0]
    if folder in PURE_TESTS:
        request.getfixturevalue("pure_world")
