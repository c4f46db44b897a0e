"""A disk that fails: the n-th write of a process fails, or ends it and takes back what was not synced.

Faults: `full` (ENOSPC at this write and all later ones), `eio` (this one alone fails), `torn` (half of this write is
there, what was not synced is lost, and the process ends). What counts as a write: os.write, the creation of a file, the
sync of a file or folder, a rename, a removal; content written through a buffer counts at its sync.

What a crash may take back is what POSIX allows and journalling file systems do: bytes after the last sync of their
file, and renames and removals after the last sync of their folder; a new file's name comes with its own sync.
"""

import errno
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FAULTS = ("full", "eio", "torn")
_ROOT = str(Path(__file__).resolve().parents[1] / "fedmkt")
_WRITERS = ("write_atomically", "_write_all", "_write", "_sync_folder")


@dataclass
class Disk:
    """Stands between this process and the files below `folder`, which it alone writes.

    fail_at : the write that fails, from 1, or 0. sites : the place of every write so far, in order.
    """

    folder: Path
    fail_at: int = 0
    fault: str = ""
    sites: list[str] = field(default_factory=list)
    _synced: dict[str, bytes] = field(default_factory=dict)
    _pending: list[tuple[str, bytes | None]] = field(default_factory=list)
    _is_full: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def attach(self) -> None:
        """Take the place of the calls of module os, until the process ends."""
        real = self._real = {n: getattr(os, n) for n in ("write", "open", "fsync", "replace", "unlink")}
        for name in real:
            setattr(os, name, self._alone(getattr(self, f"_{name}")))
        self.detach = lambda: [setattr(os, name, call) for name, call in real.items()]

    def _alone(self, call: Callable[..., object]) -> Callable[..., object]:
        """Let no thread write while another is in the middle of it, or the process is being ended."""

        def locked(*given: object, **options: object) -> object:
            with self._lock:
                return call(*given, **options)

        return locked

    def _write(self, file: int, data: bytes) -> int:
        path = self._path(file)
        if path is not None:
            self._count("write", path, lambda: self._real["write"](file, bytes(data)[: len(data) // 2]))
        return int(self._real["write"](file, data))

    def _open(self, path: str | Path, flags: int, mode: int = 0o777, **options: object) -> int:
        name = os.path.abspath(path)
        if flags & os.O_CREAT and self._is_ours(name):
            self._count("open", name, lambda: None)
            if flags & os.O_TRUNC:
                self._synced.pop(name, None)
        return int(self._real["open"](path, flags, mode, **options))

    def _fsync(self, file: int) -> None:
        path = self._path(file)
        if path is None:
            return self._real["fsync"](file)  # type: ignore[no-any-return]
        is_folder = stat.S_ISDIR(os.fstat(file).st_mode)
        self._count("sync folder" if is_folder else "sync", path, lambda: None)
        if is_folder:
            self._pending = [p for p in self._pending if os.path.dirname(p[0]) != path]
        else:
            self._synced[path] = Path(path).read_bytes()
        return None  # really waiting for the disk would only cost time

    def _replace(self, source: str | Path, target: str | Path) -> None:
        new, old = os.path.abspath(source), os.path.abspath(target)
        if self._is_ours(old):
            self._count("rename", old, lambda: None)
            self._pending.append((old, Path(old).read_bytes() if os.path.exists(old) else None))
            self._synced[old] = self._synced.pop(new, b"")
        self._real["replace"](source, target)

    def _unlink(self, path: str | Path, **options: object) -> None:
        name = os.path.abspath(path)
        if self._is_ours(name) and os.path.exists(name):
            self._count("remove", name, lambda: None)
            self._pending.append((name, Path(name).read_bytes()))
        self._real["unlink"](path, **options)

    def _count(self, call: str, path: str, half: Callable[[], object]) -> None:
        self.sites.append(f"{call} {_site()}")
        if len(self.sites) == self.fail_at:
            if self.fault != "eio":
                half()
            if self.fault == "torn":
                self._crash(path, call)
            self._is_full = self.fault == "full"
            number = errno.EIO if self.fault == "eio" else errno.ENOSPC
            raise OSError(number, os.strerror(number), path)
        if self._is_full and call in ("write", "open", "sync"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def _crash(self, path: str, call: str) -> None:
        """End the process; of what was not synced, half of this write is there and nothing else."""
        # Nothing was there before this process began, so all files are its own.
        for name in [str(p) for p in self.folder.rglob("*") if p.is_file() and self._is_ours(str(p))]:
            kept = self._synced.get(name, b"")
            data = Path(name).read_bytes()
            if name == path and data.startswith(kept):
                # Of a write through os.write half is on its way by now; a buffer was written whole before its sync.
                kept = data if call == "write" else data[: (len(kept) + len(data)) // 2]
            if data != kept:
                Path(name).write_bytes(kept)
        for name, before in reversed(self._pending):
            if before is None:
                if os.path.exists(name):
                    self._real["unlink"](name)
            else:
                Path(name).write_bytes(before)
        os.kill(os.getpid(), signal.SIGKILL)

    def _is_ours(self, name: str) -> bool:
        return name.startswith(f"{self.folder}/") and not name.endswith(".lock")

    def _path(self, file: int) -> str | None:
        name = os.readlink(f"/proc/self/fd/{file}")
        return name if name == str(self.folder) or self._is_ours(name) else None


def _site() -> str:
    """Name the place in our code that wrote: the caller of what writes for everybody."""
    frame = sys._getframe(3)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_ROOT) and frame.f_code.co_name not in _WRITERS:
            return f"{name[len(_ROOT) + 1 :]}:{frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"


def first_of_each(sites: Sequence[str]) -> list[int]:
    """Return the number of the first write of each place."""
    return sorted({site: at for at, site in reversed(list(enumerate(sites, 1)))}.values())


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, None if it was killed, and what it said on stderr."""

    code: int | None
    said: str

    @property
    def fault(self) -> str:
        """What is wrong with how it ended, apart from its result; empty if nothing is."""
        lines = [line for line in self.said.splitlines() if line]
        if self.code in (None, 0):
            return ""
        if "Traceback" in self.said or "fault in fedmkt" in self.said:
            return f"a traceback: {self.said[-400:]}"
        errors = [line for line in lines if line.startswith("fedmkt: error: ")]
        if len(errors) != 1 or not 2 <= self.code <= 7:
            return f"exit {self.code} with {len(errors)} lines: {self.said[-400:]}"
        return ""


def forked(function: Callable[[], int]) -> Ended:
    """Run a function in a process of its own that has everything imported."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.close(reader)
            os.dup2(writer, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.stderr = os.fdopen(2, "w", closefd=False)  # pytest's own is a file of its own
            code = function()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        text = said.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return Ended(None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), text)
