"""What the audit log costs: durable events per second, its share of a run, tiles, a million records verified.

    python -m benchmarks.audit_log [--events 5000] [--rows 20000] [--verify 1000000]

CPU seconds of this process, and of waits for the disk the time by the clock: those depend on the disk of DIR.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedmkt.audit.checkpoint import body, cosign, log_origin, parse_note, sign_note
from fedmkt.audit.log_view import read_view
from fedmkt.audit.records import Json, Record, leaf, timestamp
from fedmkt.audit.tiles import tiles
from fedmkt.audit.verify import verify_files
from fedmkt.contract.agreement import Contract, PartyTerms, Signer
from fedmkt.contract.canonical import digest
from fedmkt.contract.files import to_toml
from fedmkt.contract.model_terms import ModelTerms
from fedmkt.contract.signatures import SignedContract, sign
from fedmkt.crypto.sign import Identity
from fedmkt.crypto.tree import Tree
from fedmkt.party.audit_log import AuditLog

NAMES = ("bank", "coordinator", "shop")
IDENTITIES = {name: Identity(bytes([i + 1]) * 32) for i, name in enumerate(NAMES)}
START = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Spent:
    """CPU seconds and seconds by the clock."""

    cpu: float
    wall: float


class Watch:
    """Count what a block of code spends."""

    def __enter__(self) -> "Watch":
        self._begun = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        cpu, wall = self._begun
        self.spent = Spent(time.process_time() - cpu, time.perf_counter() - wall)


def contract() -> SignedContract:
    """Return a contract of two parties and a coordinator, signed."""
    keys = {name: identity.public.hex() for name, identity in IDENTITIES.items()}
    sides = {"bank": {"role": "bank", "label": "y"}, "shop": {"role": "partner"}}
    parties = tuple(
        PartyTerms.model_validate(
            {"name": n, "organisation": n, "key": keys[n], "id_kind": "phone", "numbers": ("age",), **side}
        )
        for n, side in sides.items()
    )
    notary = Signer(name="coordinator", organisation="notary", key=keys["coordinator"])
    agreed = Contract(
        name="bench", purpose="bench", family="bench", created=START, expires=START + timedelta(days=1),
        coordinator=notary, parties=parties, model=ModelTerms(penalty=1.0),
    )  # fmt: skip
    return SignedContract(contract=agreed, signatures={n: sign(agreed, n, i) for n, i in IDENTITIES.items()})


def message(number: int) -> dict[str, Json]:
    """Return the body of a record of a message, as long as they are in a run."""
    return {"index": number, "step": "fit.residual", "to": "shop", "sha256": f"{number:064x}", "bytes": 8192}


def append_rates(folder: Path, events: int) -> dict[str, float]:
    """Measure durable events per second: each by itself, in fives as a step writes them, and with a head per 100.

    Right after each, how many bare writes of as many bytes, each synced, the same disk takes: no log writes more often.
    """
    agreed = digest(contract().contract)
    found = {}
    for name, batch, heads in (("one", 1, 0), ("five", 5, 0), ("head", 1, 100)):
        origin = log_origin(agreed, "bank")
        log = AuditLog(folder / name, origin, IDENTITIES["bank"], lambda: START, "run", "bank", agreed)
        with Watch() as watch:
            for at in range(0, events, batch):
                log.append_all([("message.sent", message(at + i)) for i in range(batch)])
                if heads and at % heads == 0:
                    log.head()
        log.release()
        found[f"{name}_per_s"] = events / watch.spent.wall
        found[f"{name}_cpu_us"] = 1e6 * watch.spent.cpu / events
        descriptor = os.open(folder / f"bare_{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with Watch() as watch:
            for _ in range(events // batch):
                os.write(descriptor, bytes(400 * batch))
                os.fsync(descriptor)
        os.close(descriptor)
        found[f"{name}_bare_writes_per_s"] = events / batch / watch.spent.wall
        found[f"{name}_bare_cpu_us"] = 1e6 * watch.spent.cpu / events
    return found


def share_of_a_run(folder: Path, rows: int) -> dict[str, float]:
    """Run the whole job on invented data and count what all its parties spend on their logs, signing heads included."""
    from fedmkt.simulation.demo import demo

    spent, calls, events = [0.0], [0], [0]

    def counted(name: str) -> None:
        method: Callable[..., object] = getattr(AuditLog, name)

        def timed(self: AuditLog, *given: object, **named: object) -> object:
            begun = time.thread_time()
            try:
                return method(self, *given, **named)
            finally:
                spent[0] += time.thread_time() - begun
                if name == "append_all" and isinstance(given[0], Sequence):
                    calls[0], events[0] = calls[0] + 1, events[0] + len(given[0])

        setattr(AuditLog, name, timed)

    for name in ("append_all", "append_beside", "head", "extension", "cosign", "add_cosignatures"):
        counted(name)
    with Watch() as watch:
        demo(folder / "run", seed=1, bank_rows=rows, partner_rows=rows, common=rows // 2)
    share = spent[0] / watch.spent.cpu
    return {
        "run_cpu_s": watch.spent.cpu,
        "log_cpu_s": spent[0],
        "share": share,
        "events": events[0],
        "appends": calls[0],
    }


def tile_cost(folder: Path) -> dict[str, float]:
    """Measure what it costs to make all tiles of a log from its lines."""
    files = {n: (folder / "head" / n).read_bytes() for n in ("log.jsonl", "checkpoint.txt")}
    with Watch() as watch:
        made = dict(tiles(read_view(files, "bench")))
    return {
        "export_cpu_s": watch.spent.cpu,
        "records": len(files["log.jsonl"].splitlines()),
        "files": len(made),
    }


def big_run(records: int) -> dict[str, bytes]:
    """Make the files of completed runs with this many records in all, one of two a message that the other received."""
    signed = contract()
    agreed = digest(signed.contract)
    per_run, now = 5000, timestamp(START)
    leaves: dict[str, list[bytes]] = {name: [] for name in NAMES}

    def write(name: str, run: str, event: str, content: Mapping[str, Json]) -> None:
        record = Record(len(leaves[name]), now, name, run, event, agreed.hex(), content)
        leaves[name].append(leaf(record))

    for number in range(max(1, records // (2 * per_run))):
        run = f"{number:032x}"
        for name in NAMES:
            write(name, run, "epoch.started", {"epoch": 1})
        for i in range(per_run):
            write("bank", run, "message.sent", message(i))
            write(
                "shop",
                run,
                "message.received",
                {k: v for k, v in message(i).items() if k != "to"} | {"from": "bank"},
            )
        for name in NAMES:
            write(name, run, "run.completed", {"index": per_run})
    files = {"contract.toml": to_toml(signed).encode()}
    peers: dict[str, dict[str, dict[str, str]]] = {name: {} for name in NAMES}
    for name in NAMES:
        text = body(log_origin(agreed, name), len(leaves[name]), Tree(leaves[name]).root())
        note = sign_note(text, name, IDENTITIES[name])
        lines = {
            other: cosign(text, 1_900_000_000, other, IDENTITIES[other]) for other in NAMES if other != name
        }
        for other, line in lines.items():
            peers[other][name] = {"cosignature": line.decode(), "note": bytes(parse_note(note)).decode()}
        files[f"logs/{name}/log.jsonl"] = b"".join(data + b"\n" for data in leaves[name])
        files[f"logs/{name}/checkpoint.txt"] = note + b"".join(lines.values())
    for name, entries in peers.items():
        text_of = json.dumps(entries, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        files[f"logs/{name}/peers.json"] = text_of.encode() + b"\n"
    return files


def main() -> None:
    """Print everything as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5000)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--verify", type=int, default=1_000_000)
    parser.add_argument(
        "--dir", type=Path, help="where to write; by default the system's folder for such files"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        found: dict[str, object] = {
            "machine": platform.platform(),
            **append_rates(Path(folder), options.events),
        }
        found["tiles"] = tile_cost(Path(folder))
        found["run"] = share_of_a_run(Path(folder), options.rows)
    files = big_run(options.verify)
    with Watch() as watch:
        report = verify_files(files)
    records = sum(log.records for log in report.logs)
    found |= {"verified_records": records, "verify_cpu_s": watch.spent.cpu, "outcome": report.outcome}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
