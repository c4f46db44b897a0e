"""A party's side of a run: check the contract, open the own data, answer the coordinator's asks till the end.

Runs in a process of its own for each run (`worker`), so that data and state are loaded once and end with it.
"""

import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedmkt.config.tables import id_list
from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.contract.signatures import check_signatures
from fedmkt.deploy.contracts import Participant, check_own_place
from fedmkt.deploy.folders import PartyFolder, load_party_folder, read_identity, read_secret
from fedmkt.deploy.messages import Outcome, Serve
from fedmkt.deploy.places import place_of
from fedmkt.deploy.provision import read_coordinator
from fedmkt.deploy.rights import withdrawals_of
from fedmkt.deploy.runs import began, is_worker
from fedmkt.deploy.statement_files import own_revocations
from fedmkt.errors import ConfigError, FedmktError, PolicyRefused
from fedmkt.party.handle import Party
from fedmkt.party.journal import write_atomically
from fedmkt.party.node import Sources, check_contract, open_data, open_party
from fedmkt.transport.driver import reason_of, serve
from fedmkt.transport.hub_endpoint import serve_session
from fedmkt.transport.hub_identity import ClientTls
from fedmkt.transport.hub_session import HubSession, SessionLimits

_LOGGER = logging.getLogger("fedmkt.party")
_YIELD_SECONDS = 20.0
GONE_SECONDS = 90.0
"""How long a connection may be cut before a run's attempt is given up."""


@dataclass(frozen=True)
class Serving:
    """What a process at work wrote down, so that another can announce its end or take its place."""

    process: int
    began: str
    contract: str
    session: str

    @property
    def is_at_work(self) -> bool:
        """Whether that very process still serves."""
        return is_worker(self.process) and began(self.process) == self.began


def serving_file(folder: PartyFolder, contract: Contract) -> Path:
    """Return the file that says who serves this contract now."""
    return folder.state / "serving" / f"{digest(contract).hex()[:32]}.json"


def read_serving(path: Path) -> Serving | None:
    """Read it; None if nobody serves."""
    try:
        return Serving(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def open_own_party(folder: PartyFolder, invitation: Serve) -> Party:
    """Check the contract against the own policy and open the own data; nothing has left by then.

    Raises what the policy refuses, and ConfigError or DataError for own files.
    """
    config, table = load_party_folder(folder)
    signed, contract = invitation.contract, invitation.contract.contract
    check_own_place(Participant(config, table, folder.identity, read_coordinator(folder).name), signed)
    if invitation.seed is not None and not contract.rehearsal:
        raise PolicyRefused("rule seed: keys and masks follow from a number in a rehearsal only")
    statements = (*invitation.statements, *own_revocations(folder))
    place = place_of(folder, contract)

    def sources() -> Sources:
        return Sources.of(invitation.seed, config.name, invitation.epoch, contract.created)

    # Before anything is written for it, but a refusal in our log.
    check_contract(config.name, signed, config, place, sources(), statements)
    if contract.task == "overlap":
        table = id_list(table)
    gone = withdrawals_of(folder)
    data = open_data(table, folder.root / config.node.data, contract.created.date(), gone)
    place.keep_contract(signed)
    return open_party(
        config.name, signed, config, data, place, sources(), statements, withdrawn=gone.of_table
    )


def session_of(folder: PartyFolder, session: bytes) -> HubSession:
    """Dial the coordinator's hub as this party."""
    config, coordinator = load_party_folder(folder)[0], read_coordinator(folder)
    tls = ClientTls(
        read_secret(folder.tls_key), folder.tls_certificate.read_bytes(), folder.authority.read_bytes()
    )
    return HubSession(
        f"{coordinator.host}:{coordinator.hub_port}", tls, read_identity(folder.identity), session, config.name,
        limits=SessionLimits(gone_seconds=GONE_SECONDS),
    )  # fmt: skip


def take_part(
    folder: PartyFolder, invitation: Serve, accept: Callable[[Outcome], None], is_stopped: Callable[[], bool]
) -> None:
    """Serve a contract over a hub session until the coordinator says goodbye; why it ended otherwise is logged.

    accept : told once, as soon as it is known that we serve, or why not. A SuperNode delivers nothing else
    before its message is answered: neither another run's, nor a later invitation to this one.
    is_stopped : a later invitation has come, or nobody waits for us any longer.
    """
    contract = invitation.contract.contract
    mark = serving_file(folder, contract)
    step, party = "opening", None
    try:
        check_signatures(invitation.contract)  # else anything with this contract's text would end its run
        _take_over(mark)
        party = open_own_party(folder, invitation)
        _mark(mark, contract, invitation.session)
        step = "serving"
        accept(Outcome())
        _LOGGER.info("%s: serving %s", party.me, contract.name)
        with contextlib.closing(session_of(folder, invitation.session)) as session:
            answered = serve_session(
                session, contract.coordinator.name, lambda ask: serve(party, ask), is_stopped=is_stopped
            )
            _LOGGER.info(
                "%s: answered %d messages, %d bytes sent, %d received",
                party.me, answered, session.bytes_sent, session.bytes_received,
            )  # fmt: skip
        outcome = Outcome()
    except FedmktError as error:
        _LOGGER.error("%s: %s: %s", contract.name, step, error)
        outcome = Outcome(type(error).__name__, step)
    except OSError as error:
        _LOGGER.error("%s: %s: %s", contract.name, step, reason_of(error))
        outcome = Outcome("TransportError", step)
    except Exception as error:
        # Its text may hold a private value: only its kind is written, even here.
        _LOGGER.error("%s: %s: %s", contract.name, step, type(error).__name__)
        outcome = Outcome("PeerError", step)
    finally:
        if party is not None:
            party.release()
        if (found := read_serving(mark)) is not None and found.process == os.getpid():
            mark.unlink(missing_ok=True)
    if step == "opening":
        accept(outcome)


def _mark(mark: Path, contract: Contract, session: bytes) -> None:
    mark.parent.mkdir(parents=True, exist_ok=True)
    serving = Serving(os.getpid(), began(os.getpid()), digest(contract).hex(), session.hex())
    write_atomically(mark, json.dumps(serving.__dict__).encode())


def _take_over(mark: Path) -> None:
    """End an earlier process of ours that still serves this contract for an attempt that was given up."""
    found = read_serving(mark)
    if found is None or found.process == os.getpid() or not found.is_at_work:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(found.process, signal.SIGTERM)
    until = time.monotonic() + _YIELD_SECONDS
    while found.is_at_work:
        if time.monotonic() > until:
            raise ConfigError("another process of ours still serves this contract")
        time.sleep(0.05)


def announce_end(folder: PartyFolder, mark: Path) -> None:
    """Say goodbye for a process of ours that died: the others need not wait for it any longer."""
    found = read_serving(mark)
    if found is None or found.is_at_work:
        return
    mark.unlink(missing_ok=True)
    with (
        contextlib.suppress(FedmktError, ValueError),
        contextlib.closing(session_of(folder, bytes.fromhex(found.session))) as session,
    ):
        session.wait_for((), 5.0)
