"""A small finished run of three signers, as the files of its folder."""

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedmkt.audit.checkpoint import log_origin
from fedmkt.contract.agreement import Contract, PartyTerms, Signer
from fedmkt.contract.canonical import digest
from fedmkt.contract.files import to_toml
from fedmkt.contract.governance import GovernanceTerms
from fedmkt.contract.model_terms import ModelTerms
from fedmkt.contract.signatures import SignedContract, second_keys, sign
from fedmkt.crypto.sign import Identity
from fedmkt.party.audit_log import WITNESS, AuditLog
from fedmkt.privacy.disclosure import RangeBit, Scores
from tests.contract.agreed import governance

NAMES = ("bank", "coordinator", "shop")
IDENTITIES = {name: Identity(bytes([i + 1]) * 32) for i, name in enumerate(NAMES)}
START = datetime(2030, 1, 1, tzinfo=UTC)
Events = Mapping[str, list[tuple[str, dict[str, object]]]]
SEALED = "5e" * 32
RUN: Events = {
    "bank": [
        ("run.started", {"epoch": 1}),
        ("epoch.started", {"epoch": 1}),
        ("message.sent", {"index": 2, "step": "fit.sum", "to": "shop", "sha256": SEALED, "bytes": 9}),
        ("value.revealed", {"index": 3, "step": "CHECK", **RangeBit(to="all").record()}),
        ("run.completed", {}),
    ],
    "coordinator": [("run.started", {"epoch": 1}), ("epoch.started", {"epoch": 1}), ("run.completed", {})],
    "shop": [
        ("run.started", {"epoch": 1}),
        ("epoch.started", {"epoch": 1}),
        ("message.received", {"index": 2, "from": "bank", "sha256": SEALED, "bytes": 9}),
        (
            "value.revealed",
            {"index": 4, "step": "SCORE", **Scores(to="bank", low=1000, high=2000, decimals=2).record()},
        ),
        ("run.completed", {}),
    ],
}


def make_contract(governance: GovernanceTerms | None = None) -> SignedContract:
    keys = {name: identity.public.hex() for name, identity in IDENTITIES.items()}
    contract = Contract(
        name="spring",
        purpose='cards "gold"',
        family="cards",
        created=START,
        expires=START + timedelta(days=30),
        coordinator=Signer(name="coordinator", organisation="Notary", key=keys["coordinator"]),
        parties=(
            PartyTerms(
                name="bank",
                organisation="Bänk",
                key=keys["bank"],
                role="bank",
                id_kind="phone",
                numbers=("age",),
                label="y",
            ),
            PartyTerms(
                name="shop",
                organisation="Shop",
                key=keys["shop"],
                role="partner",
                id_kind="phone",
                categories=("top",),
            ),
        ),
        model=ModelTerms(penalty=0.25),
        governance=governance,
    )
    return SignedContract(
        contract=contract,
        signatures={name: sign(contract, name, identity) for name, identity in IDENTITIES.items()},
    )


def write_run(
    folder: Path,
    *phases: Events,
    tail: Events | None = None,
    runs: Sequence[str] = ("run1",),
    terms: GovernanceTerms | None = None,
    every: int = 1000,
) -> dict[str, bytes]:
    """Play phases of events, cosign all logs after each, return all files by their names.

    tail : what is logged after the last head. runs : to which runs phases and tail belong; the last goes on.
    terms : the contract's governance. every : after so many records of a log all heads are cosigned.
    """
    logs = open_logs(folder, make_contract(terms), lambda: START)
    names = [*runs, *[runs[-1]] * len(phases)]
    for run, events in zip(names, phases, strict=False):
        for start in range(0, max(map(len, events.values())), every):
            play(logs, run, {name: listed[start : start + every] for name, listed in events.items()})
            cosign_all(logs)
    play(logs, names[len(phases)], tail or {})
    return files_of(folder, logs)


def open_logs(
    folder: Path, signed: SignedContract, clock: Callable[[], datetime], names: Sequence[str] = NAMES
) -> dict[str, AuditLog]:
    """Open the logs of signers in a run's folder, beside their contract."""
    agreed = digest(signed.contract)
    (folder / "contract.toml").write_text(to_toml(signed))
    return {
        name: AuditLog(
            folder / "logs" / name,
            log_origin(agreed, name),
            IDENTITIES[name],
            clock,
            "run1",
            name,
            agreed,
            second_keys(signed),
        )
        for name in names
    }


def play(logs: Mapping[str, AuditLog], run: str, events: Events) -> None:
    """Have each signer log its events."""
    for name, log in logs.items():
        log.run = run
        log.append_all(events.get(name, []))


def cosign_all(logs: Mapping[str, AuditLog]) -> None:
    """Have every log's head cosigned by all others."""
    keys = {name: identity.public for name, identity in IDENTITIES.items()}
    for name, log in logs.items():
        head = log.head()
        lines = {}
        for peer in set(NAMES) - {name}:
            seen = logs[peer].peer_size(name)
            proof = log.extension(seen) if seen else ()
            lines |= {peer: logs[peer].cosign({name: (head, proof)}, keys)[name]}
        log.add_cosignatures(lines, keys)


def files_of(folder: Path, logs: Mapping[str, AuditLog]) -> dict[str, bytes]:
    """Let go of the logs and return all files by their names."""
    for log in logs.values():
        log.release()
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != WITNESS]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def witness_of(folder: Path) -> dict[str, bytes]:
    """Return what stands beside the logs, by their names."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.glob(f"logs/*/{WITNESS}")}


def write_pruned(folder: Path, age: int = 100, is_governed: bool = True) -> dict[str, bytes]:
    """Play a run, and another `age` days later; then the bank removes the first from its log.

    Where the contract is governed it keeps records for 30 days.
    """
    countries = dict.fromkeys(NAMES, "CN")
    terms = governance(locations=countries, retention={"record_days": 30}) if is_governed else None
    now = [START]
    logs = open_logs(folder, make_contract(terms), lambda: now[0])
    for run in ("run1", "run2"):
        play(logs, run, RUN)
        cosign_all(logs)
        now[0] = START + timedelta(days=age)
    logs["bank"].prune(len(RUN["bank"]), 30)
    return files_of(folder, logs)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    return functools.partial(write_run, tmp_path)


@pytest.fixture
def write_governed(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    return functools.partial(write_pruned, tmp_path)


@pytest.fixture
def events() -> dict[str, list[tuple[str, dict[str, object]]]]:
    return {name: list(items) for name, items in RUN.items()}


@pytest.fixture
def signed() -> SignedContract:
    return make_contract()
