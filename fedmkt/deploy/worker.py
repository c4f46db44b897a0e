"""One run's work at one participant: `python -m fedmkt.deploy.worker party|coordinator FOLDER`.

Started by the executor, which writes the tokens of the run's tasks to its standard input, one a line. It ends
when that is closed, and when nothing came for a while.
"""

import contextlib
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from fedmkt.deploy.coordinate import CALL_SECONDS, Coordination
from fedmkt.deploy.executor import ROLES, control_of, runtime_of
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder
from fedmkt.deploy.messages import SERVE, Outcome, Serve, decode_serve, encode_outcome
from fedmkt.deploy.registry import read_registry
from fedmkt.deploy.runs import find_run, is_worker, log_to_stderr
from fedmkt.deploy.take_part import open_own_party, take_part
from fedmkt.errors import FedmktError, PeerError
from fedmkt.party.handle import Party
from fedmkt.protocol import wire
from fedmkt.transport.driver import ASKS, RESTARTED, Ask, Refusal, Told, serve
from fedmkt.transport.flower_grid import GridMail
from fedmkt.transport.flower_tasks import ClientTask, ServerTask
from fedmkt.transport.flower_words import ASK

_LOGGER = logging.getLogger("fedmkt.worker")
_IDLE_SECONDS = {"hub": 30.0, "flower": 900.0}  # by channel; with "flower" the party waits for its next step
_FIRST_SECONDS = 30.0
_LAST_SECONDS = 5.0
_TICK = 0.1


class PartyWorker:
    """A party's side of one run. With the channel "flower" it holds the party between messages.

    is_wanted : says whether another message of this run has come, so that the one before is of no use any more.
    """

    def __init__(self, root: Path, is_wanted: Callable[[], bool]) -> None:
        self._folder = PartyFolder(root)
        self._runtime = runtime_of("party", root)
        self._party: Party | None = None
        self._is_wanted = is_wanted

    @property
    def idle_seconds(self) -> float:
        """How long to wait for another message before the end."""
        return _IDLE_SECONDS["hub" if self._party is None else "flower"]

    def work(self, token: str) -> None:
        """Answer one message, and serve if that is what it asks for."""
        with contextlib.ExitStack() as stack:
            task = stack.enter_context(ClientTask(self._runtime.address, token))
            try:
                kind, body = task.receive()
                if kind == ASK:
                    task.reply(wire.encode(self._ask(body)))
                    return
                if kind != SERVE:
                    raise PeerError("coordinator: sent a message of an unknown type")
                invitation = decode_serve(body)
            except FedmktError as error:
                _LOGGER.error("%s", error)
                task.reply(encode_outcome(Outcome(type(error).__name__, "invitation")))
                return
            if invitation.contract.contract.channel == "flower":
                task.reply(encode_outcome(self._open(invitation)))
                return
            later = stack.pop_all()
        take_part(self._folder, invitation, lambda told: _reply_soon(task, told, later), self._is_wanted)

    def _open(self, invitation: Serve) -> Outcome:
        if self._party is not None:
            self._party.release()
            self._party = None
        try:
            self._party = open_own_party(self._folder, invitation)
        except (FedmktError, OSError) as error:
            _LOGGER.error("%s", error)
            return Outcome(
                type(error).__name__ if isinstance(error, FedmktError) else "TransportError", "opening"
            )
        return Outcome()

    def _ask(self, body: bytes) -> Told:
        if self._party is None:
            _LOGGER.warning("asked before it was invited: this process began anew")
            return Refusal("TransportError", RESTARTED)
        try:
            message: Ask = wire.decode(body, *ASKS)  # type: ignore[assignment]  # one of ASKS
        except ValueError:
            return Refusal("PeerError", "message")
        return serve(self._party, message)


def _reply_soon(task: ClientTask, outcome: Outcome, task_end: contextlib.ExitStack) -> None:
    """Answer without waiting for it: whoever sees us at the hub goes on, even if our SuperNode is away."""

    def reply() -> None:
        try:
            with task_end:
                task.reply(encode_outcome(outcome))
        except Exception as error:
            _LOGGER.warning("the answer was not delivered: %s", type(error).__name__)

    threading.Thread(target=reply, name="fedmkt-reply", daemon=True).start()


class CoordinatorWorker:
    """The coordinator's side of one run."""

    idle_seconds = 0.0

    def __init__(self, root: Path) -> None:
        self._folder = CoordinatorFolder(root)
        self._runtime = runtime_of("coordinator", root)

    def work(self, token: str) -> None:
        """Run one run to its end."""
        with ServerTask(self._runtime.address, token) as task:
            run = find_run(self._folder.runs, task.run())
            status = run.status()
            if status.has_ended or (status.state == "running" and is_worker(status.process)):
                _LOGGER.warning("%s has ended, or another process is at work on it", run.name)
                return
            mail = GridMail(task.grid, CALL_SECONDS, _TICK)
            try:
                status = Coordination(self._folder, run, mail, self._nodes).go()
            finally:
                mail.close()
        if status.state == "failed":
            _LOGGER.error("%s: %s", run.name, status.error)

    def _nodes(self) -> dict[str, int]:
        with contextlib.closing(control_of(self._folder)) as control:
            online = {n.key.strip(): n.number for n in control.nodes() if n.is_online}
        registry = read_registry(self._folder.registry)
        keys = zip(registry.active, registry.node_keys(), strict=True)
        return {p.name: online[k.strip()] for p, k in keys if k.strip() in online}


def main(arguments: list[str]) -> int:
    """Work on the tokens that come in, until there are no more."""
    log_to_stderr()
    if len(arguments) != 2 or arguments[0] not in ROLES:
        print(__doc__)
        return 2
    # Flower interrupts its own process when a task is not known any more; the run itself may be well.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    root = Path(arguments[1])
    tokens: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_tokens, args=(tokens,), daemon=True).start()
    party = arguments[0] == "party"
    worker = PartyWorker(root, lambda: not tokens.empty()) if party else CoordinatorWorker(root)
    seconds = _FIRST_SECONDS
    while True:
        try:
            token = tokens.get(timeout=seconds)
        except queue.Empty:
            return 0
        if not token:
            return 0
        try:
            worker.work(token)
        except FedmktError as error:
            _LOGGER.error("%s", error)
        except Exception as error:
            # Flower's own errors quote what they carry: only their kind is written.
            _LOGGER.error("a task failed: %s", type(error).__name__)
        seconds = worker.idle_seconds


def _read_tokens(tokens: "queue.Queue[str]") -> None:
    for line in sys.stdin:
        tokens.put(line.strip())
    tokens.put("")
    # The executor has gone: what is under way cannot be delivered any more.
    threading.Timer(_LAST_SECONDS, os._exit, [1]).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
