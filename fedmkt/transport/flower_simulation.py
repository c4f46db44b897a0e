"""Flower's simulation engine on this machine: the same script and steps, every message through Flower and Ray.

The script and the dealer live in Flower's ServerApp, each party in a process of its own (`flower_party`). Ray is
started for the run and ended with it. Flower is imported only when a run starts: it reads its switches (no
telemetry, no search for updates) from the environment at that moment.
"""

import contextlib
import io
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from fedmkt.errors import ConfigError, TransportError
from fedmkt.party.handle import Party
from fedmkt.protocol.core import Name, PublicValue
from fedmkt.protocol.pipeline import SCRIPTS
from fedmkt.transport.driver import Coordinator, Endpoint, Progress
from fedmkt.transport.flower_seat import Seat
from fedmkt.transport.memory import MemoryEndpoint

if TYPE_CHECKING:
    from flwr.app import ConfigRecordValues, Context
    from flwr.serverapp import Grid
    from ray import ObjectRef
    from ray.actor import ActorProxy

    from fedmkt.transport.flower_party import PartySeat

LOG = "flower.log"
"""In the coordinator's folder: what Flower says while it runs."""

_START_SECONDS = 180.0
_END_SECONDS = 30.0
_OBJECT_STORE_BYTES = 512 << 20


def run_in_flower(
    seats: Sequence[Seat],
    dealer: Party,
    folder: Path,
    resume: bool = False,
    watch: Callable[[Progress], None] = lambda _: None,
    deadline: float = 600.0,
) -> tuple[PublicValue, Progress]:
    """Run the main job of the seats' contract, or resume it; `folder` is the coordinator's own.

    deadline : seconds that one call may take. Raises what the coordinator raises: a party's refusal, or
    TransportError when something ended that should not have.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _scratch() as scratch, _surroundings(scratch), _log_to(folder / LOG), _own_ray(len(seats), scratch):
        return _Simulation(seats, dealer, folder, resume, watch, deadline).run()


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Make a folder for what Ray and Flower leave behind; it is removed at the end."""
    # Not in the run folder: the path of a socket has at most 107 characters.
    short = "/tmp" if os.path.isdir("/tmp") else None  # only the parent of a folder of our own  # nosec B108
    folder = Path(tempfile.mkdtemp(prefix="fedmkt-", dir=short))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _settings(scratch: Path) -> dict[str, str]:
    cores = len(os.sched_getaffinity(0))
    code = str(Path(__file__).resolve().parents[2])
    return {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_HOME": str(scratch / "flower"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        # Ray gives its workers one thread: with as many as here, sums of floats have the same last bit.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(cores)),
        "PYTHONPATH": os.pathsep.join(filter(None, (code, os.environ.get("PYTHONPATH")))),
    }


@contextlib.contextmanager
def _surroundings(scratch: Path) -> Iterator[None]:
    """Set what Flower, Ray and the parties' processes read from the environment; put it back at the end."""
    wanted = _settings(scratch)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back who handles SIGTERM: Ray would end this process at once, and leave the run half ended."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _own_ray(workers: int, scratch: Path) -> Iterator[None]:
    """Start Ray with one worker for each node, and end it with all its processes."""
    import ray

    if ray.is_initialized():
        raise ConfigError("ray is already running in this process", "run the job in a process of its own")
    try:
        with _signals_kept():
            ray.init(
                address="local", num_cpus=workers, num_gpus=0, include_dashboard=False, log_to_driver=False,
                logging_level=logging.ERROR, object_store_memory=_OBJECT_STORE_BYTES, _temp_dir=str(scratch),
            )  # fmt: skip
        yield
    finally:
        ray.shutdown()


class _WithoutRay(io.TextIOBase):
    """Standard output without what Ray's own threads print there: that goes to a log."""

    def __init__(self, rest: TextIO, log: TextIO) -> None:
        self._rest = rest
        self._log = log

    def write(self, text: str) -> int:
        """Write to the log for a thread of Ray, to the true output for everybody else."""
        of_ray = threading.current_thread().name.startswith("ray_")
        return (self._log if of_ray else self._rest).write(text)

    def flush(self) -> None:
        """Flush both."""
        self._rest.flush()
        self._log.flush()


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Send what Flower and Ray say to a file: stdout and stderr belong to the command."""
    from flwr.supercore import log  # noqa: F401  # its import adds the console handler that is replaced here

    logger = logging.getLogger("flwr")
    handlers, propagates = list(logger.handlers), logger.propagate
    with path.open("a", encoding="utf-8") as file:
        to_file = logging.StreamHandler(file)
        to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        to_file.setLevel(logging.INFO)
        logger.handlers, logger.propagate = [to_file], False
        try:
            with contextlib.redirect_stdout(_WithoutRay(sys.stdout, file)):
                yield
        finally:
            logger.handlers, logger.propagate = handlers, propagates


@dataclass(frozen=True)
class _Actor:
    """A party's actor, and the promise of the number of its process."""

    handle: "ActorProxy[PartySeat]"
    process: "ObjectRef[int]"


class _Simulation:
    """One run: actors, Flower's engine on a thread, the script in its ServerApp."""

    def __init__(
        self, seats: Sequence[Seat], dealer: Party, folder: Path, resume: bool,
        watch: Callable[[Progress], None], deadline: float,
    ) -> None:  # fmt: skip
        self._seats = seats
        self._dealer = dealer
        self._folder = folder
        self._resume = resume
        self._watch = watch
        self._deadline = deadline
        self._outcome: tuple[PublicValue, Progress] | None = None
        self._error: BaseException | None = None
        self._stop: Callable[[str], None] = lambda _: None
        self._stopped = ""
        self._served = threading.Event()
        self._ended = threading.Event()
        self._ending = threading.Lock()
        self._actors: list[_Actor] = []

    def run(self) -> tuple[PublicValue, Progress]:
        """Run to the end; whatever happens, the parties' processes are gone afterwards."""
        engine = threading.Thread(target=self._run_engine, name="fedmkt-flower", daemon=True)
        try:
            self._seat_parties()
            engine.start()
            # Not join: Python takes a thread whose join was interrupted for one that has ended.
            while not self._ended.wait(0.2):
                pass
        except BaseException:
            self._cancel("interrupted")
            raise
        finally:
            self._end_parties()
            if engine.ident is not None:
                self._ended.wait(_END_SECONDS)
        if self._error is not None:
            raise self._error
        if self._outcome is None:
            raise TransportError("flower: the engine ended before the run did", f"see {self._folder / LOG}")
        return self._outcome

    def _cancel(self, why: str) -> None:
        self._stopped = why
        self._stop(why)

    def _seat_parties(self) -> None:
        import ray

        from fedmkt.transport.flower_node import seat_name
        from fedmkt.transport.flower_party import PartySeat

        actor = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(PartySeat)
        for number, seat in enumerate(self._seats):
            handle = actor.options(name=seat_name(number)).remote(seat)
            self._actors.append(_Actor(handle, handle.process.remote()))

    def _end_parties(self) -> None:
        """End the parties' processes and wait until they are gone: their locks must be free for a resume."""
        import ray

        with self._ending:
            actors, self._actors = self._actors, []
            if not actors or not ray.is_initialized():  # any call would start Ray again
                return
            ready, _ = ray.wait([a.process for a in actors], num_returns=len(actors), timeout=0)
            numbers = []
            for found in ready:
                with contextlib.suppress(ray.exceptions.RayError):
                    numbers.append(int(ray.get(found)))
            for actor in actors:
                ray.kill(actor.handle, no_restart=True)  # type: ignore[arg-type]  # the proxy is a typed handle
            until = time.monotonic() + _END_SECONDS
            while any(_is_running(n) for n in numbers) and time.monotonic() < until:
                time.sleep(0.02)

    def _run_engine(self) -> None:
        from flwr.serverapp import ServerApp
        from flwr.simulation import run_simulation

        from fedmkt.transport.flower_node import app

        server = ServerApp()
        server.main()(self._serve)
        # One worker for each node: a party that works long must not keep another from its message.
        one: dict[str, ConfigRecordValues] = {"num_cpus": 1, "num_gpus": 0.0}
        try:
            run_simulation(
                server, app, num_supernodes=len(self._seats), backend_config={"client_resources": one}
            )
        except Exception as error:
            self._cancel(f"flower's engine failed ({type(error).__name__})")
            self._served.wait(_END_SECONDS)
        finally:
            self._ended.set()

    def _serve(self, grid: "Grid", context: "Context") -> None:
        """Flower's ServerApp: the script, and the dealer beside it."""
        from fedmkt.transport.flower_grid import FlowerEndpoint, GridMail, find_nodes

        mail = GridMail(grid, self._deadline)
        dealer = MemoryEndpoint(self._dealer)
        try:
            self._stop = mail.cancel
            if self._stopped:
                mail.cancel(self._stopped)
            nodes = find_nodes(mail, grid, tuple(s.name for s in self._seats), _START_SECONDS)
            endpoints: dict[Name, Endpoint] = {Name(n): FlowerEndpoint(mail, i, n) for n, i in nodes.items()}
            endpoints[self._dealer.me] = dealer
            contract = self._dealer.contract
            coordinator = Coordinator(
                contract, SCRIPTS[contract.task], endpoints, self._folder, self._deadline, self._watch
            )
            self._outcome = coordinator.run(self._resume), coordinator.progress
        except Exception as error:
            self._error = error
        finally:
            mail.close()
            self._end_parties()
            dealer.close()
            self._served.set()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True
