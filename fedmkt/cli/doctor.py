"""Can this machine run fedmkt: versions, processor, memory, disk, compiler cache and clock."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

OK, WARNING, FAILED = "ok", "warning", "failed"
GIB = 2**30
OLDEST_PYTHON = (3, 11)
LEAST_MEMORY, LEAST_DISK = 2 * GIB, 2 * GIB
# Nobody could have installed this release before it was written: an earlier clock is wrong.
RELEASED = 1_760_000_000


@dataclass(frozen=True)
class Check:
    """One thing looked at: `state` is "ok", "warning" (slower or riskier) or "failed" (will not run)."""

    name: str
    state: str
    found: str
    hint: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All checks, and the seconds that they took."""

    checks: tuple[Check, ...]
    seconds: float

    @property
    def is_healthy(self) -> bool:
        """True when nothing failed; warnings are allowed."""
        return all(check.state != FAILED for check in self.checks)

    def to_json(self) -> dict[str, object]:
        """Give the facts of the printed lines as plain data."""
        checks = [asdict(check) for check in self.checks]
        return {"healthy": self.is_healthy, "seconds": round(self.seconds, 3), "checks": checks}

    def lines(self) -> list[str]:
        """Give one line per check, its hint below it, and the outcome last."""
        lines: list[str] = []
        for check in self.checks:
            lines.append(f"{check.state:<8} {check.name:<14} {check.found}")
            if check.hint:
                lines.append(f"{'':<8} {'':<14} -> {check.hint}")
        outcome = "this machine can run fedmkt" if self.is_healthy else "this machine cannot run fedmkt yet"
        return [*lines, f"{outcome} ({self.seconds:.1f} s)"]


def examine(folder: Path | None = None) -> Diagnosis:
    """Look at this machine; `folder` is where runs will be written, by default the current one."""
    started = time.perf_counter()
    checks = (
        _python(),
        *_packages(),
        _processor(Path("/proc/cpuinfo")),
        _memory(Path("/proc/meminfo")),
        _disk(folder or Path.cwd()),
        _compiler_cache(),
        _ray(),
        _clock(time.time()),
    )
    return Diagnosis(checks, time.perf_counter() - started)


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < OLDEST_PYTHON:
        return Check("python", FAILED, found, "install Python 3.11 or later")
    return Check("python", OK, found)


def _packages() -> Iterator[Check]:
    """Compare what is installed with the ranges that fedmkt declares."""
    declared = _declared()
    if not declared:
        yield Check("packages", FAILED, "fedmkt is not installed", "pip install fedmkt, or make install")
        return
    good = 0
    for requirement in declared:
        name, accepted, condition = _parse_requirement(requirement)
        if "extra" in condition:
            continue
        check = _package(name, accepted)
        good += check.state == OK
        if check.state != OK:
            yield check
    yield Check("packages", OK, f"{good} in the range that fedmkt declares")


def _declared() -> list[str]:
    """Read fedmkt's requirements from its metadata, or beside a source tree that is run as it lies."""
    try:
        return importlib.metadata.requires("fedmkt") or []
    except importlib.metadata.PackageNotFoundError:
        project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    try:
        declared = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return []
    return [str(requirement) for requirement in declared]


def _parse_requirement(text: str) -> tuple[str, str, str]:
    """Split "flwr[simulation]<1.42,>=1.41; marker" into name, ranges and marker."""
    requirement, _, condition = text.partition(";")
    match = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*(.*)", requirement)
    if match is None:
        raise ValueError(f"not a requirement: {text!r}")
    return match[1], match[2].strip(" ()"), condition.strip()


def _package(name: str, accepted: str) -> Check:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, FAILED, f"missing, needs {accepted}", f"pip install '{name}{accepted}'")
    if not is_accepted(version, accepted):
        return Check(name, FAILED, f"{version}, needs {accepted}", f"pip install '{name}{accepted}'")
    return Check(name, OK, version)


def is_accepted(version: str, accepted: str) -> bool:
    """Say whether a release lies in a comma-separated list of >=, >, <, <= and == bounds."""
    return all(_holds(version, bound) for bound in accepted.split(",") if bound.strip())


def _holds(version: str, bound: str) -> bool:
    match = re.fullmatch(r"\s*(>=|<=|==|<|>)\s*([0-9.]+)\s*", bound)
    if match is None:
        raise ValueError(f"not a bound: {bound!r}")
    ours, theirs = _release(version), _release(match[2])
    return {
        ">=": ours >= theirs,
        "<=": ours <= theirs,
        "==": ours == theirs,
        ">": ours > theirs,
        "<": ours < theirs,
    }[match[1]]


def _release(version: str) -> tuple[int, ...]:
    match = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    numbers = [int(part) for part in match[0].split(".")] if match else [0]
    while len(numbers) > 1 and numbers[-1] == 0:  # 1.0 and 1 are the same release
        numbers.pop()
    return tuple(numbers)


def _processor(cpuinfo: Path) -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{cores} core{'s' if cores != 1 else ''}"
    flags = _field(cpuinfo, ("flags", "Features"))
    if flags is None:
        return Check("processor", WARNING, f"{found}, AES instructions unknown", "masks may be made slowly")
    if "aes" not in flags.split():
        return Check("processor", WARNING, f"{found}, no AES instructions", "masks are made about 10x slower")
    return Check("processor", OK, f"{found}, AES instructions")


def _field(path: Path, names: tuple[str, ...]) -> str | None:
    """Read the first `name : value` line of a file in /proc; None where there is no such file or line."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return None


def _memory(meminfo: Path) -> Check:
    kibibytes = _field(meminfo, ("MemAvailable",))
    if kibibytes is None:
        return Check("memory", WARNING, "unknown", f"a run needs about {LEAST_MEMORY // GIB} GiB")
    free = int(kibibytes.split()[0]) * 1024
    if free < LEAST_MEMORY:
        return Check(
            "memory", WARNING, f"{free / GIB:.1f} GiB free", "close other programs: runs may be killed"
        )
    return Check("memory", OK, f"{free / GIB:.1f} GiB free")


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        return Check("disk", FAILED, f"cannot write to {folder}", "choose another folder with --out")
    if free < LEAST_DISK:
        return Check("disk", WARNING, f"{free / GIB:.1f} GiB free", "choose another folder with --out")
    return Check("disk", OK, f"{free / GIB:.1f} GiB free")


def _compiler_cache() -> Check:
    """Look where numba keeps compiled loops: without a place to write, every start compiles them again."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    package = Path(__file__).resolve().parents[1]
    candidates = [Path(chosen)] if chosen else [package, Path.home() / ".cache"]
    for folder in candidates:
        try:
            with tempfile.TemporaryFile(dir=folder):
                return Check("numba cache", OK, "writable")
        except OSError:
            continue
    hint = "set NUMBA_CACHE_DIR to a folder that can be written"
    return Check("numba cache", WARNING, f"cannot write to {candidates[0]}", hint)


def _ray() -> Check:
    """Find the engine of `--backend flower`; it is not imported, which would take over a second."""
    if importlib.util.find_spec("ray") is None:
        return Check("ray", WARNING, "missing", "pip install 'flwr[simulation]', or use --backend memory")
    return Check("ray", OK, importlib.metadata.version("ray"))


def _clock(now: float) -> Check:
    shown = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(now))
    if now < RELEASED:
        return Check("clock", FAILED, shown, "set the clock: contracts and logs carry the time")
    return Check("clock", OK, shown)
