"""Targets: what an organisation keeps beside its runs and passes on with them: a disk or a hand may change it."""

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from fedmkt.audit import proof, statements, verify
from fedmkt.audit.acts import FIRST, Act, read_chain
from fedmkt.audit.disclosures import report as collect_disclosures
from fedmkt.audit.ledger import ledger
from fedmkt.audit.log_view import read_view
from fedmkt.audit.own_log import verify_own
from fedmkt.audit.records import Record, leaf, read_leaf
from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.contract.files import from_toml
from fedmkt.crypto import dsse
from fedmkt.crypto.prg import SeededRandom
from fedmkt.crypto.tree import leaf_hash
from fedmkt.deploy.accounts import Accounts, Cost
from fedmkt.errors import AuditError, FedmktError
from fedmkt.evidence import attacks, facts, seal
from fedmkt.evidence.document import Words
from fedmkt.party.keys import KeyColumns
from fedmkt.party.store import Store
from fedmkt.party.withdrawals import Listed, Withdrawals
from fedmkt.protocol import budget_ledger
from tests.audit.conftest import IDENTITIES, write_pruned
from tests.fuzz.of_logs import run_files
from tests.fuzz.target import Target

NOW = datetime(2030, 1, 1, tzinfo=UTC)
MAIL = KeyColumns("email", ("mail",))
COST = Cost(64, 1, 1)


@functools.cache
def _folder(process: int, name: str) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-{process}-")


def _place(name: str) -> Path:
    return Path(_folder(os.getpid(), name).name)


# --------------------------------------------------------------------------- logs


@functools.cache
def _pruned_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return write_pruned(Path(folder))


HASHES = "logs/bank/pruned.hashes"


def _in_pruned(data: bytes) -> None:
    files = _pruned_files() | {HASHES: data}
    own = {k.rpartition("/")[2]: v for k, v in files.items() if k.startswith("logs/bank/") or "/" not in k}
    accepted = 0
    for check in (lambda: verify.verify_files(files), lambda: verify_own(own)):
        try:
            check()
            accepted += 1
        except (verify.VerifyError, AuditError):
            continue
    if accepted and data != _pruned_files()[HASHES]:
        raise AssertionError("a change of pruned.hashes was accepted")


def _in_view(name: str) -> Callable[[bytes], object]:
    own = {k.rpartition("/")[2]: v for k, v in _pruned_files().items() if k.startswith("logs/bank/")}
    return lambda data: read_view(own | {name: data}, "bank")


MESSAGE = {"step": "fit.open", "index": 4, "sha256": "01" * 32, "bytes": 9}
REVEALED = {"step": "fit.open", "index": 4, "to": "all", "kind": "Iteration", "amount": {"count": 3}}


def _log(party: str, *events: tuple[str, dict[str, object]]) -> list[bytes]:
    listed = [("epoch.started", {"epoch": 1}), *events, ("run.completed", {"index": 9})]
    return [
        leaf(Record(i, NOW.isoformat(), party, "ab" * 32, event, "cd" * 32, body))
        for i, (event, body) in enumerate(listed)
    ]


def _sender_logs() -> Sequence[bytes]:
    return [
        b"\n".join(_log("bank", ("message.sent", MESSAGE | {"to": "shop"}), ("value.revealed", REVEALED)))
    ]


def _read_ledger(data: bytes) -> None:
    """Match messages with those of another log, the records of this one well-formed and otherwise anything."""
    theirs = _log("shop", ("message.received", MESSAGE | {"from": "bank"}))
    logs = {"bank": data.splitlines(), "shop": theirs}
    ledger({name: [read_leaf(line) for line in lines] for name, lines in logs.items()})


def _read_disclosures(data: bytes) -> None:
    collect_disclosures({"bank": [read_leaf(line) for line in data.splitlines()]}, _agreed())


def _proofs() -> Sequence[bytes]:
    lines = run_files()["logs/bank/log.jsonl"].splitlines()
    tree = proof.tree_of([leaf_hash(line) for line in lines])
    note = run_files()["logs/bank/checkpoint.txt"]
    return [bytes(proof.prove(lines[i], i, tree, note)) for i in (0, 1)]


# --------------------------------------------------------------------------- evidence


def _make_pack() -> Path:
    folder = _place("pack")
    if not (folder / seal.MANIFEST).exists():
        (folder / "part").mkdir(exist_ok=True)
        (folder / "part" / "one.txt").write_text("one")
        (folder / "two.json").write_text("{}")
        seal.seal(folder, "bank", IDENTITIES["bank"], "r" * 64, "c" * 64)
    return folder


def _pack_file(name: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [(_make_pack() / name).read_bytes()]


def _in_pack(name: str) -> Callable[[bytes], None]:
    def decode(data: bytes) -> None:
        path = _make_pack() / name
        before = path.read_bytes()
        path.write_bytes(data)
        try:
            seal.verify_seal(path.parent)
        finally:
            path.write_bytes(before)

    return decode


def _signed_manifest(data: bytes) -> None:
    """Verify a manifest that its maker signed: no signature keeps him from writing anything."""
    folder = _make_pack()
    before = {name: (folder / name).read_bytes() for name in (seal.MANIFEST, seal.SIGNATURE)}
    try:
        (folder / seal.MANIFEST).write_bytes(data)
        statement = statements.Statement(
            "evidence",
            {seal.MANIFEST: hashlib.sha256(data).hexdigest()},
            {
                "by": "bank",
                "key": IDENTITIES["bank"].public.hex(),
                "run": "r" * 64,
                "contract": "c" * 64,
                "files": 2,
            },
        )
        signed = statements.sign(statement, IDENTITIES["bank"])
        (folder / seal.SIGNATURE).write_bytes(dsse.to_json(signed))
        seal.verify_seal(folder)
    finally:
        for name, content in before.items():
            (folder / name).write_bytes(content)


def _agreed() -> Contract:
    return from_toml(run_files()["contract.toml"].decode(), "contract.toml").contract


def _lab_reports() -> Sequence[bytes]:
    lines = [
        {"row": "1", "attack": "norm", "metric": "AUC", "undefended": 0.99, "here": 0.5, "verdict": "held"},
        {"row": 5, "attack": "solve", "limit": {"is_least": True, "value": 0.9}, "note": "x", "here": None},
    ]
    beside = {"contract": digest(_agreed()).hex()}
    return [json.dumps({"findings": found} | beside).encode() for found in (lines, [])]


def _read_lab_report(data: bytes) -> None:
    path = _place("lab") / "attack-lab.json"
    path.write_bytes(data)
    attacks.table(facts.read_attack_lab(path, _agreed()), Words("en"))


# --------------------------------------------------------------------------- beside the runs


def _acts() -> Sequence[bytes]:
    before, lines = FIRST, []
    for seq, kind in enumerate(("account.added", "account.added", "consent.withdrawn")):
        line = Act(
            seq, NOW.isoformat(), {"id": "ann", "roles": ["operator"]}, kind, {"name": "x"}, before
        ).line()
        before = hashlib.sha256(line).hexdigest()
        lines.append(line + b"\n")
    return [b"".join(lines), lines[0]]


def _accounts() -> Accounts:
    return Accounts(_place("keys"), lambda: NOW, COST, SeededRandom(b"accounts"))


def _account_files() -> Sequence[bytes]:
    accounts = _accounts()
    if not accounts.exist:
        accounts.add("ann", ["operator"], password="a long pass word")
        accounts.add("bob", ["auditor"], None, os_user="bob")
    return [accounts.path.read_bytes()]


def _read_accounts(data: bytes) -> None:
    _account_files()
    accounts = _accounts()
    accounts.path.write_bytes(data)
    accounts.all()


def _read_attempts(data: bytes) -> None:
    accounts = _accounts()
    accounts._attempts_file.write_bytes(data)
    accounts._attempts()


def _store() -> Store:
    return Store(_place("store"))


def _withdrawn() -> Sequence[bytes]:
    withdrawals = Withdrawals(_store(), SeededRandom(b"withdrawals"))
    withdrawals.add([MAIL], Listed((frozenset({"a@x.pt", "b@x.pt"}),)), NOW)
    return [_store()["withdrawn/ids"]]


def _in_store(name: str, read: Callable[[Store], object]) -> Callable[[bytes], object]:
    def decode(data: bytes) -> object:
        _store().put(name, data)
        return read(_store())

    return decode


def _spent() -> Sequence[bytes]:
    one = {"organisation": "Shop", "key": "k" * 64, "rho": 0.1, "delta": 1e-6}
    return [json.dumps(one).encode()]


def _runs_begun() -> Sequence[bytes]:
    return [json.dumps(["run1", "run2"]).encode(), b"[]"]


def _begin(store: Store) -> None:
    try:
        store.begin_run("run9", "c" * 64, 100)
    finally:
        store.release()


TARGETS = (
    Target("pruned-hashes", _in_pruned, lambda: [_pruned_files()[HASHES]], (), tried=40),
    Target("log-view", _in_view("log.jsonl"), lambda: [_pruned_files()["logs/bank/log.jsonl"]]),
    Target("log-view-peers", _in_view("peers.json"), lambda: [_pruned_files()["logs/bank/peers.json"]]),
    Target("ledger", _read_ledger, _sender_logs, (ValueError, FedmktError)),
    Target(
        "disclosures",
        _read_disclosures,
        lambda: [run_files()["logs/bank/log.jsonl"]],
        (ValueError, FedmktError),
    ),
    Target("record-proof", proof.parse_proof, _proofs, (ValueError,)),
    Target("pack-manifest", _in_pack(seal.MANIFEST), _pack_file(seal.MANIFEST), tried=40),
    Target("pack-manifest-signed", _signed_manifest, _pack_file(seal.MANIFEST), tried=40),
    Target("pack-signature", _in_pack(seal.SIGNATURE), _pack_file(seal.SIGNATURE), tried=40),
    Target("attack-lab-report", _read_lab_report, _lab_reports),
    Target("acts", read_chain, _acts),
    Target("accounts", _read_accounts, _account_files),
    Target("logins", _read_attempts, lambda: [json.dumps({"a" * 64: [3, NOW.isoformat()]}).encode()]),
    Target(
        "store-withdrawn",
        _in_store("withdrawn/ids", lambda s: Withdrawals(s, SeededRandom(b"")).entries()),
        _withdrawn,
    ),
    Target("store-budget", _in_store("noise/run1", lambda s: list(budget_ledger.read_entries(s))), _spent),
    Target("store-runs", _in_store("runs/" + "c" * 64, _begin), _runs_begun),
    Target("store-epoch", _in_store("epoch/run1", lambda s: s.highest_epoch("run1")), lambda: [b"3", b"17"]),
)
