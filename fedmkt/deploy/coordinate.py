"""The coordinator's side of a run: invite the parties, run the script over their sessions, deal the masks.

Runs in a process of its own for each run (`worker`). An attempt that loses a party or a connection is followed
by another, in a new epoch with new masks, as often as the contract allows.
"""

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace

from fedmkt.contract.agreement import Contract
from fedmkt.deploy.contracts import open_participant
from fedmkt.deploy.folders import CoordinatorFolder, load_coordinator_folder, read_identity, read_secret
from fedmkt.deploy.messages import SERVE, Serve, decode_outcome, encode_serve
from fedmkt.deploy.places import place_of
from fedmkt.deploy.runs import RunFolder, RunStatus, log_to
from fedmkt.deploy.statement_files import read_statements
from fedmkt.deploy.take_part import GONE_SECONDS
from fedmkt.errors import DataError, FedmktError, PeerError, PolicyRefused, TransportError
from fedmkt.party.handle import Party
from fedmkt.party.node import Sources, open_party
from fedmkt.party.outputs import pair_facts
from fedmkt.protocol.alignment.cardinality import Overlaps
from fedmkt.protocol.alignment.psi import common_band
from fedmkt.protocol.core import Name
from fedmkt.protocol.pipeline import SCRIPTS, Finished
from fedmkt.transport import driver
from fedmkt.transport.driver import Coordinator, Endpoint
from fedmkt.transport.flower_grid import FlowerEndpoint, GridMail
from fedmkt.transport.hub_endpoint import HubEndpoint
from fedmkt.transport.hub_identity import ClientTls
from fedmkt.transport.hub_session import HubSession, SessionLimits
from fedmkt.transport.memory import MemoryEndpoint

_LOGGER = logging.getLogger("fedmkt.run")
CALL_SECONDS = 600.0
"""How long one call of a party may take."""
JOIN_SECONDS = 60.0
"""How long the parties may take to join: Flower needs some ten seconds for a message. It may lose one."""
GIVE_UP_SECONDS = 150.0
"""After how long without a new epoch a run fails: a node that was restarted is taken again after a minute."""
_PAUSE = 1.0
_LOOK = 0.1
_BRANCHES = {c.__name__: c for c in (DataError, PolicyRefused, PeerError)}


class Stopped(FedmktError):
    """The operator asked for it."""

    exit_code = 130


class Abandoned(FedmktError):
    """Flower no longer carries this process's messages: the run goes on in another one."""


class Coordination:
    """One run from its folder to its end. `nodes` : asks which parties' nodes are online now."""

    def __init__(
        self,
        folder: CoordinatorFolder,
        run: RunFolder,
        mail: GridMail,
        nodes: Callable[[], Mapping[str, int]],
    ) -> None:
        self._folder = folder
        self._run = run
        self._mail = mail
        self._nodes = nodes
        self._signed = run.signed()
        self._status = run.status()
        self._told = 0.0
        self._until = time.monotonic() + GIVE_UP_SECONDS

    @property
    def _contract(self) -> Contract:
        return self._signed.contract

    def go(self) -> RunStatus:
        """Run to the end; the status says how it ended, and the log why."""
        handler = log_to(self._run.log)
        try:
            self._go()
        except OSError as error:
            # Not even the status: the executor takes up the run when there is room again.
            _LOGGER.error("%s: cannot write its status: %s", self._run.name, driver.reason_of(error))
        finally:
            logging.getLogger("fedmkt").removeHandler(handler)
            handler.close()
        return self._status

    def _go(self) -> None:
        try:
            self._say(state="running", process=os.getpid(), error="", exit_code=0)
            self._finish(self._attempts())
        except Stopped:
            self._say(state="stopped", error="stopped by the operator", exit_code=Stopped.exit_code)
        except Abandoned as error:
            # Left as it is: the executor takes up a run that is under way and has no process.
            _LOGGER.warning("%s: %s", self._run.name, error)
        except FedmktError as error:
            self._say(state="failed", error=f"{_branch_of(error)}: {error}", exit_code=error.exit_code)
            _LOGGER.error("%s: %s", self._run.name, error)
        except OSError as error:
            self._say(state="failed", error=f"cannot write or read: {driver.reason_of(error)}", exit_code=6)
            _LOGGER.error("%s: cannot write or read: %s", self._run.name, driver.reason_of(error))
        except Exception as error:
            self._say(state="failed", error=f"a fault in fedmkt: {type(error).__name__}", exit_code=1)
            _LOGGER.exception("%s: a fault in fedmkt", self._run.name)

    def _finish(self, result: Finished | Overlaps) -> None:
        if isinstance(result, Overlaps):
            self._say(state="done", overlap=tuple(pair_facts(result)))
            _LOGGER.info("%s: done, the common customers are counted", self._run.name)
            return
        self._say(state="done", common_band=common_band(self._contract, result.overlap))
        _LOGGER.info("%s: done", self._run.name)

    def _attempts(self) -> Finished | Overlaps:
        while True:
            before = self._epoch
            try:
                return self._attempt()
            except driver.NotStored:
                raise
            except TransportError as error:
                self._check_stop()
                if self._epoch != before:
                    self._until = time.monotonic() + GIVE_UP_SECONDS
                if time.monotonic() > self._until or self._epoch > self._contract.limits.max_resumes:
                    raise
                if self._mail.has_ended:
                    raise Abandoned(str(error)) from None
                _LOGGER.warning("%s: %s; going on in a new epoch", self._run.name, error)
                time.sleep(_PAUSE)

    @property
    def _epoch(self) -> int:
        return driver.last_epoch(self._run.receipts)[1]

    def _attempt(self) -> Finished | Overlaps:
        is_resumed = self._epoch > 0
        with contextlib.ExitStack() as stack:
            dealer = MemoryEndpoint(self._open_dealer())
            stack.callback(dealer.close)
            endpoints: dict[Name, Endpoint] = {Name(self._contract.coordinator.name): dealer}
            if self._contract.channel == "hub":
                endpoints |= stack.enter_context(self._hub_endpoints())
            else:
                endpoints |= self._flower_endpoints()
            coordinator = Coordinator(
                self._contract, SCRIPTS[self._contract.task], endpoints, self._run.receipts, CALL_SECONDS,
                self._watch,
            )  # fmt: skip
            result = coordinator.run(is_resumed)
            self._watch(coordinator.progress, is_last=True)
        if not isinstance(result, Finished | Overlaps):
            raise PeerError("the job returned something else")
        return result

    def _open_dealer(self) -> Party:
        config = open_participant(self._folder.root, self._contract).settings
        place = place_of(self._folder, self._contract)
        place.keep_contract(self._signed)
        statements = read_statements(self._run.approvals)
        sources = Sources.of(self._status.seed, config.name, self._epoch, self._contract.created)
        return open_party(config.name, self._signed, config, None, place, sources, statements)

    def _invite(self, session: bytes) -> "dict[str, Future[bytes]]":
        body = encode_serve(
            Serve(self._signed, session, self._status.seed, self._epoch, read_statements(self._run.approvals))
        )
        nodes = self._nodes_online()
        # One that is not read in time is of no use: by then there is another session.
        return {n: self._mail.post(node, SERVE, body, n, JOIN_SECONDS) for n, node in nodes.items()}

    def _nodes_online(self) -> dict[str, int]:
        """Wait until the nodes of all parties are online: one that was restarted needs up to a minute."""
        while True:
            try:
                online = self._nodes()
                missing = [p.name for p in self._contract.parties if p.name not in online]
                if not missing:
                    return {p.name: online[p.name] for p in self._contract.parties}
                raise TransportError(
                    f"{missing[0]}: its node is not online", "is `fedmkt party up` running there?"
                )
            except TransportError:
                if time.monotonic() > self._until:
                    raise
            self._check_stop()
            time.sleep(10 * _LOOK)

    @contextlib.contextmanager
    def _hub_endpoints(self) -> Iterator[dict[Name, Endpoint]]:
        names = [p.name for p in self._contract.parties]
        number = secrets.token_bytes(16)
        with contextlib.closing(self._session(number, names)) as session:
            invited = self._invite(number)
            _LOGGER.info("%s: invited %s, session %s", self._run.name, ", ".join(names), number.hex()[:8])
            self._wait_until_joined(session, names, invited)
            endpoints = {Name(n): HubEndpoint(session, n) for n in names}
            try:
                yield dict(endpoints)
            finally:
                for endpoint in endpoints.values():
                    endpoint.close()
                _LOGGER.info(
                    "%s: %d bytes sent to the hub, %d received",
                    self._run.name, session.bytes_sent, session.bytes_received,
                )  # fmt: skip

    def _session(self, number: bytes, names: Sequence[str]) -> HubSession:
        settings = load_coordinator_folder(self._folder)
        tls = ClientTls(
            read_secret(self._folder.tls_key), self._folder.tls_certificate.read_bytes(),
            self._folder.authority.read_bytes(), self._folder.server_certificate.read_bytes(),
        )  # fmt: skip
        return HubSession(
            f"127.0.0.1:{settings.hub_port}", tls, read_identity(self._folder.identity), number,
            settings.name, names, SessionLimits(gone_seconds=GONE_SECONDS),
        )  # fmt: skip

    def _wait_until_joined(
        self, session: HubSession, names: Sequence[str], invited: "Mapping[str, Future[bytes]]"
    ) -> None:
        until = time.monotonic() + JOIN_SECONDS
        while True:
            missing = [n for n in names if not session.is_here(n)]
            if not missing:
                return
            for name in missing:
                if invited[name].done():
                    self._read_outcome(name, invited[name].result())
            if time.monotonic() > until:
                raise TransportError(f"{missing[0]}: did not join within {JOIN_SECONDS:.0f} s")
            self._check_stop()
            time.sleep(_LOOK)

    def _read_outcome(self, name: str, body: bytes) -> None:
        outcome = decode_outcome(body)
        if not outcome.branch:
            return
        if outcome.branch in _BRANCHES:
            raise _BRANCHES[outcome.branch](
                f"{name} refused at {outcome.step}", f"the log of {name} says why"
            )
        raise TransportError(f"{name}: could not serve at {outcome.step}", f"the log of {name} says why")

    def _flower_endpoints(self) -> dict[Name, Endpoint]:
        invited = self._invite(b"")
        for name, answer in invited.items():
            self._read_outcome(name, self._in_time(name, answer))
        nodes = self._nodes_online()
        return {Name(n): FlowerEndpoint(self._mail, node, n) for n, node in nodes.items()}

    def _in_time(self, name: str, answer: "Future[bytes]") -> bytes:
        try:
            return answer.result(2 * JOIN_SECONDS)  # the mail has a deadline of its own
        except FutureTimeout:
            raise TransportError(f"{name}: did not join within {JOIN_SECONDS:.0f} s") from None

    def _check_stop(self) -> None:
        if self._run.stop.exists():
            raise Stopped("stopped by the operator")

    def _watch(self, costs: driver.Progress, is_last: bool = False) -> None:
        self._check_stop()
        if not is_last and time.monotonic() - self._told < 0.5:
            return
        self._told = time.monotonic()
        if costs.step.split(".")[0] != self._status.step.split(".")[0]:
            _LOGGER.info("%s: %s", self._run.name, costs.step.split(".")[0])
        self._say(
            step=costs.step, rounds=costs.rounds, bytes_sent=dict(costs.bytes_sent), seconds=dict(costs.seconds),
            epoch=self._epoch,
        )  # fmt: skip

    def _say(self, **changes: object) -> None:
        self._status = replace(self._status, **changes)  # type: ignore[arg-type]
        self._run.write(self._status)


def _branch_of(error: FedmktError) -> str:
    """Name the branch of the error tree that an error is on."""
    return next(c.__name__ for c in type(error).__mro__ if c.__module__ == FedmktError.__module__)
