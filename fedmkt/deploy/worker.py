"""One run's work at one participant: `python -m fedmkt.deploy.worker party|coordinator FOLDER`.

Started by the executor, which writes the tokens of the run's tasks to its standard input, one a line. It ends
when that is closed, and when nothing came for a while.
"""

import contextlib
import logging
import os
import queue
import sys
import threading
from pathlib import Path

from fedmkt.deploy.coordinate import CALL_SECONDS, Coordination
from fedmkt.deploy.executor import ROLES, control_of, runtime_of
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder
from fedmkt.deploy.messages import SERVE, Outcome, Serve, decode_serve, encode_outcome
from fedmkt.deploy.registry import read_registry
from fedmkt.deploy.runs import find_run, log_to_stderr
from fedmkt.deploy.take_part import open_own_party, take_part
from fedmkt.errors import FedmktError, PeerError
from fedmkt.party.handle import Party
from fedmkt.protocol import wire
from fedmkt.transport.driver import ASKS, Ask, Refusal, Told, serve
from fedmkt.transport.flower_grid import GridMail
from fedmkt.transport.flower_tasks import ClientTask, ServerTask
from fedmkt.transport.flower_words import ASK

_LOGGER = logging.getLogger("fedmkt.worker")
_IDLE_SECONDS = 900.0
_LAST_SECONDS = 5.0
_TICK = 0.1


class PartyWorker:
    """A party's side of one run. With the channel "flower" it holds the party between messages."""

    def __init__(self, root: Path) -> None:
        self._folder = PartyFolder(root)
        self._runtime = runtime_of("party", root)
        self._party: Party | None = None

    def work(self, token: str) -> None:
        """Answer one message."""
        with ClientTask(self._runtime.address, token) as task:
            try:
                answer = self._answer(*task.receive())
            except FedmktError as error:
                _LOGGER.error("%s", error)
                answer = encode_outcome(Outcome(type(error).__name__, "invitation"))
            task.reply(answer)

    def _answer(self, kind: str, body: bytes) -> bytes:
        if kind == ASK:
            return wire.encode(self._ask(body))
        if kind != SERVE:
            raise PeerError("coordinator: sent a message of an unknown type")
        invitation = decode_serve(body)
        if invitation.contract.contract.channel == "flower":
            return encode_outcome(self._open(invitation))
        return encode_outcome(take_part(self._folder, invitation))

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
            return Refusal("TransportError", "epoch")
        try:
            message: Ask = wire.decode(body, *ASKS)  # type: ignore[assignment]  # one of ASKS
        except ValueError:
            return Refusal("PeerError", "message")
        return serve(self._party, message)


class CoordinatorWorker:
    """The coordinator's side of one run."""

    def __init__(self, root: Path) -> None:
        self._folder = CoordinatorFolder(root)
        self._runtime = runtime_of("coordinator", root)

    def work(self, token: str) -> None:
        """Run one run to its end."""
        with ServerTask(self._runtime.address, token) as task:
            run = find_run(self._folder.runs, task.run())
            if run.status().has_ended:
                _LOGGER.warning("%s has ended", run.name)
                return
            mail = GridMail(task.grid, CALL_SECONDS, _TICK)
            try:
                status = Coordination(self._folder, run, mail, self._nodes()).go()
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
    root = Path(arguments[1])
    worker = PartyWorker(root) if arguments[0] == "party" else CoordinatorWorker(root)
    tokens: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_tokens, args=(tokens,), daemon=True).start()
    while True:
        try:
            token = tokens.get(timeout=_IDLE_SECONDS)
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


def _read_tokens(tokens: "queue.Queue[str]") -> None:
    for line in sys.stdin:
        tokens.put(line.strip())
    tokens.put("")
    # The executor has gone: what is under way cannot be delivered any more.
    threading.Timer(_LAST_SECONDS, os._exit, [1]).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
