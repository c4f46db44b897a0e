"""Verify the logs of a run folder, offline, with nothing but this file and the package cryptography.

Next to `contract.toml`, in its canonical text and signed by its signers, each of them has `logs/<name>/`: numbered
records under this contract (`log.jsonl`), hashes of first ones that were removed when their time was over
(`pruned.hashes`), the last head, a root over the first records (RFC 6962) signed by owner and cosigners
(`checkpoint.txt`), the last heads of others that the owner cosigned (`peers.json`). A run that all completed lies
below heads that every other signer cosigned. What was received was sent in that epoch, and the reverse: messages may
be lost only from an epoch that was given up, after its last checkpoint. Every value revealed is a disclosure that the
contract allows, to one of its signers. Records after a signed head are well-formed but unsigned: the report counts
them. Any other change of any byte is found. No log shows that the keys belong to those organisations
(`--pin name=key`), or what a party did elsewhere.
"""

import argparse
import base64
import hashlib
import json
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

FILES = ("log.jsonl", "checkpoint.txt", "peers.json", "pruned.hashes")
LATEST = datetime.max.replace(tzinfo=UTC)
T = TypeVar("T")
Pins = Mapping[str, str] | None
_P, _Y = 2**255 - 19, 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER = {y.to_bytes(32, "little") for y in (0, 1, _P - 1, _P, _P + 1, _Y, _P - _Y)}


class VerifyError(ValueError):
    """The run folder does not verify; the text says which file and which proof."""


@dataclass(frozen=True)
class LogReport:
    """One log: its records, how many were removed, how many its last head covers, that head's root and cosigners."""

    party: str
    records: int
    pruned: int
    signed: int
    root: str
    cosigners: tuple[str, ...]


@dataclass(frozen=True)
class RunReport:
    """One run: its outcome, its messages, how many of them were lost with an epoch, its disclosures."""

    run: str
    outcome: str
    messages: int
    lost: int
    disclosures: int


@dataclass(frozen=True)
class Report:
    """What was verified: digest of the contract, the last run and its outcome, all runs, logs, totals."""

    contract: str
    run: str
    outcome: str
    runs: tuple[RunReport, ...]
    logs: tuple[LogReport, ...]
    messages: int
    disclosures: int


class _Contract(NamedTuple):
    digest: str
    keys: Mapping[str, bytes]  # Ed25519; after it, where suite says so, ML-DSA-44
    disclosures: frozenset[str]
    days: int | None  # after which records may be removed
    now: datetime  # no record says truly that it was written later


class _Record(NamedTuple):
    seq: int
    time: str
    party: str
    run: str
    epoch: int
    type: str
    body: Mapping[str, object]


class _Log(NamedTuple):
    hashes: list[bytes]  # of all records, those that were removed too
    records: list[_Record]
    expired: str  # the first records were removed, none of them later than this; "" if all are here


class _Head(NamedTuple):
    size: int = 0
    root: str = ""
    kept: Mapping[str, Mapping[str, str]] = {}  # by cosigner, what it must have in its peers.json


_Heads = Mapping[str, _Head]
_Logs = Mapping[str, _Log]
_Gone = dict[str, set[str]]  # by run, who removed its records
_Sent = set[tuple[str, int, str, str, str]]  # run, epoch, sender, reader, digest


@contextmanager
def _at(where: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # what is malformed in a way nobody thought of fails too
        detail = f"no {error}" if isinstance(error, KeyError) else str(error) or "does not verify"
        raise VerifyError(f"{where}: {detail}") from None


def verify_run(folder: Path, pinned: Pins = None, now: datetime = LATEST) -> Report:
    """Verify a run folder. pinned : the keys by signer, hexadecimal, that the contract must have; now : the time."""
    with _at(str(folder)):
        paths = [folder / "contract.toml", *(p for p in folder.glob("logs/*/*") if p.name in FILES)]
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths if not p.is_fifo()}
    return verify_files(files, pinned, now)


def verify_files(files: Mapping[str, bytes], pinned: Pins = None, now: datetime = LATEST) -> Report:
    """Verify the files of a run folder, given by their names within it; VerifyError if anything is wrong."""
    contract = _read_contract(files.get("contract.toml", b""), pinned, now)
    known = {"contract.toml", *(f"logs/{name}/{file}" for name in contract.keys for file in FILES)}
    if wrong := set(files) - known | {f"logs/{name}/log.jsonl" for name in contract.keys} - set(files):
        raise VerifyError(f"missing or not of a signer: {', '.join(sorted(wrong))}")
    logs, heads, seen = dict[str, _Log](), dict[str, _Head](), dict[str, _Heads]()
    for name in sorted(contract.keys):
        with _at(where := f"logs/{name}/log.jsonl"):
            pruned = files.get(f"logs/{name}/pruned.hashes", b"")
            logs[name] = _read_log(files[where], pruned, contract, name)
        with _at(where := f"logs/{name}/checkpoint.txt"):
            heads[name] = _read_head(files[where], contract, name, logs[name]) if where in files else _Head()
    for name in logs:
        with _at(where := f"logs/{name}/peers.json"):
            seen[name] = _read_peers(files.get(where, b"{}\n"), contract, logs, name, heads)
    with _at("logs"):
        return _across(contract, logs, heads, seen)


@_at("contract.toml")
def _read_contract(data: bytes, pinned: Pins, now: datetime) -> _Contract:
    if _toml(tomllib.loads(data.decode())).encode() != data:
        raise ValueError("not the canonical text of a contract")
    values = tomllib.loads(data.decode(), parse_float=_number)
    signatures = _as(dict, values.pop("signatures"))
    signers = [_as(dict, item) for item in [*_as(list, values["parties"]), values["coordinator"]]]
    keys = {_as(str, signer["name"]): bytes.fromhex(signer["key"]) for signer in signers}
    is_small = any(key[:31] + bytes([key[31] & 0x7F]) in _SMALL_ORDER for key in keys.values())
    if len(keys) != len(signers) or len(set(keys.values())) != len(signers) or is_small:
        raise ValueError("two signers share a name or a key, or anybody signs under a key of small order")
    if values["version"] != 1 or set(signatures) != set(keys):
        raise ValueError(f"not of version 1, or signed by {sorted(signatures)} instead of {sorted(keys)}")
    digest = hashlib.sha256(b"fedmkt contract v1\n" + _canonical(values).encode()).digest()
    terms, label = values.get("governance", {}), b"fedmkt second key v1\n"
    for name, key in keys.items():
        with _at(f"signature of {name}"):
            keys[name] += (second := (value := bytes.fromhex(signatures[name]))[64:1376])
            if ("+ml-dsa-44" in terms.get("suite", "")) != bool(second) or value.hex() != signatures[name]:
                raise ValueError("not with the keys that the contract asks for, or written in another way")
            Ed25519PublicKey.from_public_bytes(key).verify(value[:64], digest + second)
            if second:
                MLDSA44PublicKey.from_public_bytes(second).verify(value[1376:], label + digest)
    given = keys if pinned is None else {n: bytes.fromhex(key) for n, key in pinned.items()}
    if given.keys() != keys.keys() or any(given[n] not in (key, key[:32]) for n, key in keys.items()):
        raise ValueError("the signers and their keys are not the pinned ones")
    kinds = frozenset(_as(str, kind) for kind in values["disclosures"])
    return _Contract(digest.hex(), keys, kinds, terms["retention"]["record_days"] if terms else None, now)


def _read_log(data: bytes, pruned: bytes, contract: _Contract, party: str) -> _Log:
    log, epochs = _Log([pruned[i : i + 32] for i in range(0, len(pruned), 32)], [], ""), dict[str, int]()
    if not data.endswith(b"\n") or len(pruned) % 32:
        raise ValueError("the last line is cut" if len(pruned) % 32 == 0 else "pruned.hashes is cut")
    for number, leaf in enumerate(data[:-1].split(b"\n"), 1):
        with _at(f"line {number}"):
            log.records.append(_read_record(leaf, len(log.hashes), party, contract, epochs))
        log.hashes.append(hashlib.sha256(b"\0" + leaf).digest())
    if not (first := log.records[0].seq):
        return log
    said = [r for r in log.records if (r.run, r.type) == ("", "retention.expired")]
    if contract.days is None or not said or said[-1].body["below"] != first:
        raise ValueError(f"without its first {first} records, and no contract or no record of it says why")
    expired = min(datetime.fromisoformat(said[-1].time), contract.now) - timedelta(days=contract.days)
    return log._replace(expired=expired.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


def _read_record(leaf: bytes, seq: int, party: str, contract: _Contract, epochs: dict[str, int]) -> _Record:
    values = _as(dict, json.loads(leaf, parse_int=_number, parse_float=_number, parse_constant=_number))
    if _canonical(values).encode() != leaf or len(leaf) > 1 << 14:
        raise ValueError("not the canonical bytes of a record, at most 16 KiB")
    fixed = {"v": 1, "seq": seq, "party": party, "contract": contract.digest}
    if values.keys() != {*fixed, "time", "run", "type", "body"} or not fixed.items() <= values.items():
        raise ValueError(f"not record {seq} of {party} under this contract")
    time, run, event = (_as(str, values[key]) for key in ("time", "run", "type"))
    body = _as(dict, values["body"])
    if event == "epoch.started":
        if _as(int, body["epoch"]) <= epochs.get(run, 0):
            raise ValueError("an epoch that is not later than the one before")
        epochs[run] = body["epoch"]
    return _Record(seq, time, party, run, epochs.get(run, 0), event, body)


def _read_head(note: bytes, contract: _Contract, party: str, log: _Log) -> _Head:
    text, _, rest = note.decode().partition("\n\n")
    size, root = int(text.split("\n")[1]), text.split("\n")[-1]
    if text != f"fedmkt/{contract.digest}/{party}\n{size}\n{root}":
        raise ValueError(f"signed for another log than that of {party} under this contract")
    if not 0 < size <= len(log.hashes) or root != _root(log.hashes[:size]):
        raise ValueError(f"not the root of the first {size} of these {len(log.hashes)} records of {party}")
    body, lines, each = text + "\n", rest.removesuffix("\n").split("\n"), 1 + (len(contract.keys[party]) > 32)
    lines = ["\n".join(lines[i : i + each]) for i in range(0, len(lines), each)]
    names = [line.split(" ")[1] for line in lines]
    if not rest.endswith("\n") or names != [party, *sorted(set(names) & set(contract.keys) - {party})]:
        raise ValueError(f"a signature of {party} is needed, then those of other signers in order")
    for name, line in zip(names, lines, strict=True):
        with _at(f"signature of {name}"):
            _check_lines(line.split("\n"), name, contract.keys[name], body, cosigns=name != party)
    own = f"{body}\n{lines[0]}\n"
    kept = {n: {"cosignature": f"{c}\n", "note": own} for n, c in zip(names[1:], lines[1:], strict=True)}
    return _Head(size, root, kept)


def _read_peers(data: bytes, contract: _Contract, logs: _Logs, name: str, heads: _Heads) -> _Heads:
    peers, seen = _as(dict, json.loads(data)), {}
    if _canonical(peers).encode() + b"\n" != data:
        raise ValueError("not canonical")
    for peer, entry in peers.items():
        seen[peer] = _read_head((entry["note"] + entry["cosignature"]).encode(), contract, peer, logs[peer])
        if seen[peer].kept != {name: entry} or seen[peer].size > heads[peer].size:
            raise ValueError(f"not exactly the last head of {peer} as cosigned by {name}")
    for peer, head in heads.items():
        if name in head.kept and seen[peer].size != head.size:
            raise ValueError(f"without the last head of {peer}, which {name} cosigned")
    return seen


def _across(contract: _Contract, logs: _Logs, heads: _Heads, seen: Mapping[str, _Heads]) -> Report:
    records, by_run = [record for log in logs.values() for record in log.records], dict[str, list[_Record]]()
    for r in records:
        by_run.setdefault(r.run, []).append(r)
        if r.type == "value.revealed":
            kind, to = r.body["kind"], r.body["to"]
            if kind not in contract.disclosures or to not in ("all", *contract.keys):
                raise ValueError(f"{r.party} revealed {kind} to {to}, which the contract does not allow")
    names = list(dict.fromkeys(r.run for r in reversed(records) if r.run))[::-1]  # only the last may be open
    has = {run: {r.party for r in by_run[run]} for run in names}
    gone = {run: {p for p, log in logs.items() if log.expired and p not in has[run]} for run in names}
    for r in records:
        if early := sorted(party for party in gone.get(r.run, ()) if r.time > logs[party].expired):
            raise ValueError(f"{early[0]} removed run {r.run} before its {contract.days} days were over")
    ends = {name: _end(by_run[name], logs.keys() - gone[name]) for name in names}
    completed = {(name, epoch) for name, (epoch, outcome) in ends.items() if outcome == "completed"}
    for name, _ in completed:
        # Records that belong to no run may follow the last one: the report counts them as unsigned.
        of = [r for r in records if r.run] if (last := name == names[-1]) else by_run[name]
        done = {r.party: r.seq for r in of if last or r.type == "run.completed"}
        _check_cosigned({p: end for p, end in done.items() if p not in gone[name]}, heads, seen, last)
    sent, lost = _match(records, completed, gone)
    revealed = Counter(r.run for r in records if r.type == "value.revealed")
    counts = [Counter(m[0] for m in sent), Counter(m[0] for m in lost), revealed]
    runs = tuple(RunReport(name, ends[name][1], *(count[name] for count in counts)) for name in names)
    totals = [(n, len(log.hashes), log.records[0].seq, heads[n]) for n, log in logs.items()]
    shown = tuple(LogReport(n, all_, first, h.size, h.root, tuple(h.kept)) for n, all_, first, h in totals)
    run, outcome = (runs[-1].run, runs[-1].outcome) if runs else ("", "no run was begun")
    return Report(contract.digest, run, outcome, runs, shown, len(sent), revealed.total())


def _end(records: Iterable[_Record], parties: Iterable[str]) -> tuple[int, str]:
    words = ("epoch.started", "run.completed", "run.aborted")
    ends = {r.party: (r.epoch, r.type) for r in records if r.type in words}
    epoch = max((epoch for epoch, _ in ends.values()), default=0)
    if ends == dict.fromkeys(parties, (epoch, "run.completed")):
        return epoch, "completed"
    return epoch, "aborted" if (epoch, "run.aborted") in ends.values() else "not completed by everyone"


def _check_cosigned(ends: Mapping[str, int], heads: _Heads, seen: Mapping[str, _Heads], last: bool) -> None:
    for party, end in ends.items():
        kept = {name: of[party] for name, of in seen.items() if party in of and of[party].size > end}
        if missing := sorted(set(heads) - {party} - set(kept)):
            raise ValueError(f"{party} completed the run, {', '.join(missing)} did not cosign it to its end")
        if last and heads[party].kept != {name: head.kept[name] for name, head in kept.items()}:
            raise ValueError(f"the cosignatures of the log of {party} are not those that its peers kept")


def _match(records: list[_Record], done: set[tuple[str, int]], gone: _Gone) -> tuple[_Sent, _Sent]:
    """Return what was sent, and what of it was lost: nothing before a checkpoint or in a completed epoch."""
    sent, received, settled, later = _Sent(), _Sent(), _Sent(), dict[tuple[str, int, str], _Sent]()
    for r in records:
        if r.type == "message.sent":
            sent.add(m := (r.run, r.epoch, r.party, _as(str, r.body["to"]), _as(str, r.body["sha256"])))
            later.setdefault(m[:3], _Sent()).add(m)
        elif r.type == "message.received":
            received.add((r.run, r.epoch, _as(str, r.body["from"]), r.party, _as(str, r.body["sha256"])))
        elif r.type in ("checkpoint.saved", "run.completed"):
            # Parties save and complete only after the receipts of all rounds before: all was read.
            settled |= later.pop((r.run, r.epoch, r.party), _Sent())
    lost = {message for message in sent - received if message[3] not in gone[message[0]]}
    for *_, sender, reader, digest in sorted(m for m in received - sent if m[2] not in gone[m[0]]):
        raise ValueError(f"{reader} received {digest} from {sender}, whose log does not show it")
    for *_, sender, reader, digest in sorted(m for m in lost if m in settled or m[:2] in done):
        raise ValueError(f"{sender} sent {digest} to {reader}, whose log does not show it")
    return sent, lost


def _root(nodes: list[bytes]) -> str:
    """RFC 6962 section 2.1: join neighbours level by level; the last one, if it has none, climbs as it is."""
    while len(nodes) > 1:
        pairs = zip(nodes[::2], nodes[1::2], strict=False)
        nodes = [hashlib.sha256(b"\1" + a + b).digest() for a, b in pairs] + nodes[len(nodes) & ~1 :]
    return base64.b64encode(nodes[0]).decode()


def _check_lines(lines: list[str], name: str, key: bytes, body: str, *, cosigns: bool) -> None:
    time = b"" if cosigns else bytes(8)
    pairs = [(4 if cosigns else 1, key[:32]), (6, key[32:])][: 1 + (len(key) > 32)]
    for line, (kind, public) in zip(lines, pairs, strict=True):
        data = base64.b64decode(line.split(" ")[-1], validate=True)
        identifier = hashlib.sha256(f"{name}\n".encode() + bytes([kind]) + public).digest()[:4]
        if line != f"— {name} {base64.b64encode(data).decode()}" or data[:4] != identifier:
            raise ValueError(f"not a signature line of {name} with its key of the contract")
        time = time or data[4:12]
        if kind == 6 and data[4:12] == time:  # one time for both
            origin, size, root = body.encode().splitlines()
            who, what = (bytes([len(text)]) + text for text in (name.encode(), origin))
            tree = bytes(8) + int(size).to_bytes(8, "big") + base64.b64decode(root)
            said = b"subtree/v1\n\0" + who + time + what + tree
            MLDSA44PublicKey.from_public_bytes(public).verify(data[12:], said)
        else:
            head = f"cosignature/v1\ntime {int.from_bytes(time, 'big')}\n" if cosigns else ""
            signature = data[12 if cosigns else 4 :]
            Ed25519PublicKey.from_public_bytes(public).verify(signature, (head + body).encode())


def _canonical(value: object) -> str:
    # RFC 8785, for values whose keys are ASCII and whose numbers went through `_number`.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_zulu)


def _number(text: str) -> int | float:
    if not abs(value := float(text)) < 1 << 53:
        raise ValueError(f"the number {text[:40]} is not canonical")
    return int(value) if value.is_integer() else value  # Python and ECMAScript write the fractions here alike


def _toml(table: Mapping[str, object], path: str = "") -> str:
    plain, tables = "", ""
    for key, value in sorted(table.items()):
        items = value if isinstance(value, list) else [value]
        if items and isinstance(items[0], dict):
            title = f"\n[[{path}{key}]]\n" if isinstance(value, list) else f"\n[{path}{key}]\n"
            tables += "".join(title + _toml(_as(dict, item), f"{path}{key}.") for item in items)
        else:
            text = _zulu(value) if isinstance(value, datetime) else json.dumps(value, ensure_ascii=False)
            plain += f"{key} = {text}\n"
    return plain + tables


def _zulu(value: object) -> str:
    return _as(datetime, value).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _as(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise ValueError(f"{kind.__name__} is needed, not {type(value).__name__}")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line: prints what was verified, or what is wrong; 0 only for a closed run, else 7."""
    parser = argparse.ArgumentParser(description="Verify the logs of a fedmkt run folder, offline.")
    parser.add_argument("run", type=Path, help="folder with contract.toml and logs/")
    parser.add_argument("--pin", action="append", default=[], metavar="NAME=KEY", help="compared out of band")
    parser.add_argument("--now", type=datetime.fromisoformat, default=LATEST, help="as 2030-01-01T00:00Z")
    given = parser.parse_args(arguments)
    try:
        report = verify_run(given.run, dict(pin.partition("=")[::2] for pin in given.pin) or None, given.now)
    except VerifyError as error:
        print(f"fedmkt: error: {error}", file=sys.stderr)
        return 7
    print(json.dumps(asdict(report), indent=2, ensure_ascii=False))
    return 0 if report.outcome == "completed" else 7


if __name__ == "__main__":
    sys.exit(main())
