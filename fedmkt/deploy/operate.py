"""What the operator of a coordinator does with runs: start, wait, go on, stop."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from fedmkt.contract.approvals import check_approved, check_not_revoked
from fedmkt.contract.canonical import digest
from fedmkt.contract.checks import check_roles, check_time
from fedmkt.contract.signatures import SignedContract, check_signatures
from fedmkt.deploy.contracts import read_contract
from fedmkt.deploy.executor import control_of, submit
from fedmkt.deploy.folders import CoordinatorFolder, load_coordinator_folder
from fedmkt.deploy.registry import read_registry
from fedmkt.deploy.runs import RunFolder, RunStatus, is_worker, new_run, runs_of
from fedmkt.deploy.statement_files import statements_on
from fedmkt.errors import ConfigError, FedmktError, PolicyRefused, TransportError
from fedmkt.party.governance_events import keep_statements
from fedmkt.party.journal import write_atomically

_LOOK = 0.3
_PATIENCE = 60.0
_STOP_SECONDS = 30.0


def start_run(
    folder: CoordinatorFolder, contract: Path, resume: bool = False, seed: int | None = None
) -> RunFolder:
    """Start a run of a signed contract, or take up its latest run; returns at once.

    Refuses a contract that not exactly its parties signed, that has expired, or whose parties are not admitted.
    """
    signed = read_contract(contract)
    check_startable(folder, signed, datetime.now(UTC))
    statements = statements_on(contract, signed.contract, folder.root)
    check_not_revoked(signed.contract, statements)
    check_approved(signed.contract, statements)
    if seed is not None and not signed.contract.rehearsal:
        raise PolicyRefused(
            "a seed is for rehearsals: this contract is not one", "start the run without --seed"
        )
    if not resume:
        _check_none_is_running(folder, signed)
    run = _latest(folder, signed) if resume else new_run(folder.runs, signed, seed)
    keep_statements(run.approvals, statements)
    run.stop.unlink(missing_ok=True)
    try:
        submit(folder, run, replace(run.status(), taken_up=0))
    except FedmktError as error:
        text = f"{type(error).__name__}: {error}"
        run.write(replace(run.status(), state="failed", error=text, exit_code=error.exit_code))
        raise
    return run


def _check_none_is_running(folder: CoordinatorFolder, signed: SignedContract) -> None:
    """Refuse a second run: a party serves one of a contract at a time, two would take it from each other."""
    for run in runs_of(folder.runs, signed.contract.name):
        if run.status().contract == digest(signed.contract).hex() and not run.status().has_ended:
            raise ConfigError(
                f"{run.name}: a run of this contract is under way", f"wait for it, or: fedmkt stop {run.name}"
            )


def _latest(folder: CoordinatorFolder, signed: SignedContract) -> RunFolder:
    found = runs_of(folder.runs, signed.contract.name)
    if not found:
        raise ConfigError(f"{signed.contract.name}: no run to resume")
    run = found[-1]
    if run.signed() != signed:
        raise ConfigError(f"{run.name}: began with another contract")
    status = run.status()
    if status.state == "done":
        raise ConfigError(f"{run.name}: is complete, nothing is left to resume")
    if is_worker(status.process) and not status.has_ended:
        raise ConfigError(f"{run.name}: is running", f"fedmkt logs {run.name}")
    return run


def check_startable(folder: CoordinatorFolder, signed: SignedContract, now: datetime) -> None:
    """Refuse a contract that is not signed by exactly its signers, or that we and the registry know otherwise."""
    contract, registry, settings = (
        signed.contract,
        read_registry(folder.registry),
        load_coordinator_folder(folder),
    )
    check_signatures(signed)
    check_roles(contract)
    check_time(contract, now)
    if contract.coordinator.name != settings.name:
        raise PolicyRefused(
            f"the contract names the coordinator {contract.coordinator.name}: we are {settings.name}"
        )
    for party in contract.parties:
        if registry.admitted(party.name).identity != party.key:
            raise PolicyRefused(f"{party.name} signs with another key than the one that was admitted")


def wait_for(run: RunFolder, watch: Callable[[RunStatus], None]) -> RunStatus:
    """Look at a run until it has ended; TransportError if nobody works on it for a minute."""
    heard = time.monotonic()
    while True:
        status = run.status()
        watch(status)
        if status.has_ended:
            return status
        if is_worker(status.process):
            heard = time.monotonic()
        if time.monotonic() - heard > _PATIENCE:
            raise TransportError(f"{run.name}: nobody works on it", "is `fedmkt coordinator up` running?")
        time.sleep(_LOOK)


def stop_run(folder: CoordinatorFolder, run: RunFolder) -> RunStatus:
    """Ask a run to stop after the call under way, and wait until it has; it can be resumed later."""
    status = run.status()
    if status.has_ended:
        return status
    write_atomically(run.stop, b"stop\n", mode=0o644)
    until = time.monotonic() + _STOP_SECONDS
    while not (status := run.status()).has_ended:
        if not is_worker(status.process):
            run.write(replace(status, state="stopped", error="stopped by the operator", exit_code=130))
            with contextlib.suppress(TransportError), contextlib.closing(control_of(folder)) as control:
                control.stop(status.number)
            return run.status()
        if time.monotonic() > until:
            raise TransportError(f"{run.name}: has not stopped yet", "a call under way ends first")
        time.sleep(_LOOK)
    return status
