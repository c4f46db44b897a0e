"""What the operator of a coordinator does with runs: start, wait, go on, stop."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from fedmkt.contract import SignedContract, check_roles, check_signatures, from_toml
from fedmkt.deploy.executor import control_of
from fedmkt.deploy.folders import CoordinatorFolder, load_coordinator_folder, read_text
from fedmkt.deploy.registry import read_registry
from fedmkt.deploy.runs import RunFolder, RunStatus, is_alive, new_run, runs_of
from fedmkt.errors import ConfigError, PolicyRefused, TransportError
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
    signed = from_toml(read_text(contract), str(contract))
    check_startable(folder, signed, datetime.now(UTC))
    if seed is not None and not signed.contract.rehearsal:
        raise PolicyRefused(
            "a seed is for rehearsals: this contract is not one", "start the run without --seed"
        )
    run = _latest(folder, signed) if resume else new_run(folder.runs, signed, seed)
    run.stop.unlink(missing_ok=True)
    with contextlib.closing(control_of(folder)) as control:
        number = control.start(run.name)
    run.write(replace(run.status(), state="submitted", number=number, error="", exit_code=0, process=0))
    return run


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
    if is_alive(status.process) and not status.has_ended:
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
    if not contract.created <= now < contract.expires:
        raise PolicyRefused(
            f"the contract is valid from {contract.created} to {contract.expires}", "draft a new one"
        )
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
        if is_alive(status.process):
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
        if not is_alive(status.process):
            run.write(replace(status, state="stopped", error="stopped by the operator", exit_code=130))
            with contextlib.suppress(TransportError), contextlib.closing(control_of(folder)) as control:
                control.stop(status.number)
            return run.status()
        if time.monotonic() > until:
            raise TransportError(f"{run.name}: has not stopped yet", "a call under way ends first")
        time.sleep(_LOOK)
    return status
