"""Verify the logs of a run folder, offline, with nothing but this file and the package cryptography.

A run folder holds `contract.toml` and, for every signer of the contract, `logs/<name>/` with `log.jsonl`,
`checkpoint.txt` and `peers.json`. What is demanded:

- the contract is in its one canonical text and signed by exactly its signers;
- every line of a log is the canonical bytes of a record, numbered without gap, under this contract;
- a head is the root over the first lines (RFC 6962), signed by the log's owner; `checkpoint.txt` is the last
  one, `peers.json` holds the last heads of others that the owner cosigned;
- a run that all completed lies below heads that every other signer cosigned, and nobody else;
- what was received was sent in the same epoch, and what was sent was received, by digest of the sealed
  bytes; only from an epoch that was given up, and after its last checkpoint, messages may be lost;
- every value that was revealed is a disclosure that the contract allows, to one of its signers.

If the last run is completed, any change of any byte is found. If it is not, records after the last signed
head are well-formed but unsigned: the report counts them, and a change there may go unfound. No log shows
that the keys belong to those organisations (compare them: `--pin name=key`), or what a party did with its
own data outside the run.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FILES = ("log.jsonl", "checkpoint.txt", "peers.json")
EVENT = re.compile(
    r"contract\.signed|policy\.(loaded|refused)|dataset\.opened|session\.opened|epoch\.started|log\.cut|"
    r"run\.(started|resumed|completed|aborted)|step\.(started|completed)|message\.(sent|received|rejected)|"
    r"value\.revealed|head\.cosigned|checkpoint\.saved|match\.completed|scores\.released|model\.exported"
)
ENDS = ("epoch.started", "run.completed", "run.aborted")
MAX_LEAF_BYTES = 16 * 1024
MAX_INTEGER = (1 << 53) - 1
EXIT_CODE = 7

T = TypeVar("T")


class VerifyError(Exception):
    """The run folder does not verify; the text says which file and which proof."""


@dataclass(frozen=True)
class LogReport:
    """One log: owner, number of records, how many its last head covers, that head's root and cosigners."""

    party: str
    records: int
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

    def lines(self) -> list[str]:
        """Say in plain words what was verified, and what is not signed."""
        lines = [f"contract {self.contract}"]
        for run in self.runs:
            lost = f", {run.lost} of them lost in epochs that were given up" if run.lost else ""
            lines += [f"run {run.run}: {run.outcome}", f"  {run.messages} messages{lost}"]
            lines.append(f"  {run.disclosures} disclosures, all allowed by the contract")
        for log in self.logs:
            by, tail = ", ".join(log.cosigners) or "nobody", log.records - log.signed
            lines += [f"{log.party}: {log.records} records, cosigned by {by}", f"  root {log.root or '(none)'}"]
            if tail:
                lines.append(f"  not closed: {tail} records after the last signed head, a change may go unfound")
        return lines


@dataclass(frozen=True)
class _Contract:
    digest: str
    keys: Mapping[str, bytes]
    disclosures: frozenset[str]


@dataclass(frozen=True)
class _Record:
    party: str
    run: str
    epoch: int
    type: str
    body: Mapping[str, object]


@dataclass(frozen=True)
class _Head:
    size: int
    root: str
    # What each cosigner must have kept in its peers.json, by cosigner.
    kept: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class _Log:
    party: str
    leaves: Sequence[bytes]
    records: Sequence[_Record]


_Heads = Mapping[str, _Head]
_Sealed = tuple[str, int, str, str, str]  # run, epoch, sender, reader, digest


def verify_run(folder: Path, pinned: Mapping[str, str] | None = None) -> Report:
    """Verify a run folder; VerifyError at the first thing that is wrong.

    pinned : hexadecimal keys by signer, as compared out of band; the contract's must be exactly these.
    """
    try:
        files = {"contract.toml": (folder / "contract.toml").read_bytes()}
        for name, log in ((name, log) for log in sorted((folder / "logs").iterdir()) for name in FILES):
            if (log / name).exists():
                files[f"logs/{log.name}/{name}"] = (log / name).read_bytes()
    except OSError as error:
        raise VerifyError(f"{error.filename}: {error.strerror}") from None
    return verify_files(files, pinned)


def verify_files(files: Mapping[str, bytes], pinned: Mapping[str, str] | None = None) -> Report:
    """Verify the files of a run folder, given by their names within it; VerifyError if anything is wrong."""
    with _at("contract.toml"):
        contract = _read_contract(files["contract.toml"])
        if pinned is not None and {name: key.hex() for name, key in contract.keys.items()} != dict(pinned):
            raise ValueError("the signers and their keys are not the pinned ones")
    logs_needed = {f"logs/{name}/log.jsonl" for name in contract.keys}
    known = {f"logs/{name}/{file}" for name in contract.keys for file in FILES} | {"contract.toml"}
    if wrong := logs_needed - set(files) | set(files) - known:
        raise VerifyError(f"missing or not of a signer: {', '.join(sorted(wrong))}")
    logs = {name: _read_log(files, contract, name) for name in sorted(contract.keys)}
    heads, seen = _read_heads(files, contract, logs)
    with _at("logs"):
        return _across(logs, heads, seen, contract)


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Say where a check failed; what is malformed in a way nobody thought of fails too."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        detail = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise VerifyError(f"{where}: {detail}") from None


def _read_contract(data: bytes) -> _Contract:
    values = tomllib.loads(data.decode())
    if "".join(_toml_lines(values, "")).encode() != data:
        raise ValueError("not the canonical text of a contract")
    signatures = _table(values.pop("signatures"))
    if values["version"] != 1:
        raise ValueError("not a contract of version 1")
    signers = [_table(item) for item in [*_list(values["parties"]), values["coordinator"]]]
    keys = {_text(signer["name"]): _hex(signer["key"], 32) for signer in signers}
    if len(keys) != len(signers) or len(set(keys.values())) != len(signers):
        raise ValueError("two signers share a name or a key")
    if set(signatures) != set(keys):
        raise ValueError(f"signed by {sorted(signatures)}, the signers are {sorted(keys)}")
    digest = hashlib.sha256(b"fedmkt contract v1\n" + _canonical(values).encode()).digest()
    for name, key in keys.items():
        _check_signature(key, _hex(signatures[name], 64), digest, f"of {name}")
    disclosures = frozenset(_text(kind) for kind in _list(values["disclosures"]))
    return _Contract(digest.hex(), keys, disclosures)


def _read_log(files: Mapping[str, bytes], contract: _Contract, party: str) -> _Log:
    path = f"logs/{party}/log.jsonl"
    data = files[path]
    with _at(path):
        if not data.endswith(b"\n"):
            raise ValueError("the last line is cut")
        leaves = data[:-1].split(b"\n")
    records = []
    epochs: dict[str, int] = {}
    for seq, leaf in enumerate(leaves):
        with _at(f"{path}: line {seq + 1}"):
            records.append(_read_record(leaf, seq, party, contract, epochs))
    return _Log(party, leaves, records)


def _read_record(leaf: bytes, seq: int, party: str, contract: _Contract, epochs: dict[str, int]) -> _Record:
    if len(leaf) > MAX_LEAF_BYTES:
        raise ValueError(f"a record of {len(leaf)} bytes; at most {MAX_LEAF_BYTES}")
    values = _table(json.loads(leaf))
    if _canonical(values).encode() != leaf:
        raise ValueError("not the canonical bytes of a record")
    if set(values) != {"v", "seq", "time", "party", "run", "type", "contract", "body"}:
        raise ValueError("the record has other fields")
    found = (values["v"], values["seq"], values["party"], values["contract"])
    if found != (1, seq, party, contract.digest):
        raise ValueError(f"not record {seq} of {party} under this contract")
    event, run, body = _text(values["type"]), _text(values["run"]), _table(values["body"])
    if EVENT.fullmatch(event) is None:
        raise ValueError(f"unknown event {event!r}")
    if event == "epoch.started":
        if _as(int, body["epoch"]) <= epochs.get(run, 0):
            raise ValueError(f"epoch {body['epoch']} after epoch {epochs[run]}")
        epochs[run] = _as(int, body["epoch"])
    return _Record(party, run, epochs.get(run, 0), event, body)


def _read_heads(
    files: Mapping[str, bytes], contract: _Contract, logs: Mapping[str, _Log]
) -> tuple[dict[str, _Head], dict[str, dict[str, _Head]]]:
    """Read each log's own head, and by signer the heads of others that it cosigned last."""
    heads = dict.fromkeys(logs, _Head(0, "", {}))
    seen: dict[str, dict[str, _Head]] = {name: {} for name in logs}
    for name in logs:
        if (path := f"logs/{name}/checkpoint.txt") in files:
            with _at(path):
                heads[name] = _read_head(files[path].decode(), contract, logs[name])
    for name in logs:
        path = f"logs/{name}/peers.json"
        with _at(path):
            peers = _table(json.loads(files.get(path, b"{}\n")))
            if (_canonical(peers) + "\n").encode() != files.get(path, b"{}\n"):
                raise ValueError("not canonical")
            for peer, entry in peers.items():
                note, line = (_text(_table(entry)[key]) for key in ("note", "cosignature"))
                seen[name][peer] = head = _read_head(note + line, contract, logs[peer])
                if head.kept != {name: entry} or head.size > heads[peer].size:
                    raise ValueError(f"not exactly the last head of {peer} as cosigned by {name}")
            for peer, head in heads.items():
                if name in head.kept and (peer not in seen[name] or seen[name][peer].size < head.size):
                    raise ValueError(f"without the last head of {peer}, which {name} cosigned")
    return heads, seen


def _read_head(note: str, contract: _Contract, log: _Log) -> _Head:
    text, _, rest = note.partition("\n\n")
    origin, number, _ = text.split("\n")
    size = int(number) if re.fullmatch("[1-9][0-9]{0,17}", number) else 0
    if not 0 < size <= len(log.leaves):
        raise ValueError(f"signed for another log: {number} records, it has {len(log.leaves)}")
    root = base64.b64encode(_root(log.leaves[:size])).decode()
    if text != f"fedmkt/{contract.digest}/{log.party}\n{size}\n{root}":
        raise ValueError(f"signed for another log than {log.party}'s first {size} records with root {root}")
    body, lines = text + "\n", rest.removesuffix("\n").split("\n")
    names = [line.split(" ")[1] for line in lines]
    others = sorted(set(names) & set(contract.keys) - {log.party})
    if not rest.endswith("\n") or names != [log.party, *others]:
        raise ValueError(f"a signature of {log.party} is needed, then those of other signers in order")
    signature = _signature_bytes(lines[0], log.party, 1, contract.keys[log.party])
    _check_signature(contract.keys[log.party], signature, body.encode(), f"of {log.party}")
    for line, name in zip(lines[1:], others, strict=True):
        value = _signature_bytes(line, name, 4, contract.keys[name])
        time = int.from_bytes(value[:8], "big")
        message = f"cosignature/v1\ntime {time}\n{body}".encode()
        _check_signature(contract.keys[name], value[8:], message, f"of {name}")
    own = f"{body}\n{lines[0]}\n"
    kept = {n: {"cosignature": f"{line}\n", "note": own} for n, line in zip(others, lines[1:], strict=True)}
    return _Head(size, root, kept)


def _across(logs: Mapping[str, _Log], heads: _Heads, seen: Mapping[str, _Heads], contract: _Contract) -> Report:
    records = [record for log in logs.values() for record in log.records]
    revealed = [record for record in records if record.type == "value.revealed"]
    for record in revealed:
        _check_revealed(record, contract)
    # In the order of their last records: only the last run may be open.
    runs = list(dict.fromkeys(record.run for record in reversed(records) if record.run))[::-1]
    ends = {run: _end(run, logs) for run in runs}
    completed = {run: epoch for run, (epoch, outcome) in ends.items() if outcome == "completed"}
    for run in completed:
        for log in logs.values():
            _check_cosigned(log, heads[log.party], seen, run, is_last=run == runs[-1])
    sent, missing = _match_messages(logs.values(), contract, completed)
    told = tuple(
        RunReport(
            run, ends[run][1], sum(m[0] == run for m in sent), sum(m[0] == run for m in missing),
            sum(r.run == run for r in revealed),
        )
        for run in runs
    )  # fmt: skip
    own = tuple(
        LogReport(name, len(log.records), heads[name].size, heads[name].root, tuple(sorted(heads[name].kept)))
        for name, log in logs.items()
    )
    last = told[-1] if told else RunReport("", "no run was begun", 0, 0, 0)
    return Report(contract.digest, last.run, last.outcome, told, own, len(sent), len(revealed))


def _check_revealed(record: _Record, contract: _Contract) -> None:
    kind, reader = _text(record.body["kind"]), _text(record.body["to"])
    if kind not in contract.disclosures:
        raise ValueError(f"{record.party} revealed {kind} to {reader}, which the contract does not allow")
    if reader != "all" and reader not in contract.keys:
        raise ValueError(f"{record.party} revealed {kind} to {reader}, who is no signer")


def _end(run: str, logs: Mapping[str, _Log]) -> tuple[int, str]:
    """Return the last epoch of a run and how it ended there, by the last word of every log."""
    ends = {
        r.party: (r.epoch, r.type) for log in logs.values() for r in log.records if r.run == run and r.type in ENDS
    }
    epoch = max((at for at, _ in ends.values()), default=0)
    if all(ends.get(party) == (epoch, "run.completed") for party in logs):
        return epoch, "completed"
    return epoch, "aborted" if (epoch, "run.aborted") in ends.values() else "not completed by everyone"


def _check_cosigned(log: _Log, head: _Head, seen: Mapping[str, _Heads], run: str, *, is_last: bool) -> None:
    kept = {name: heads[log.party] for name, heads in seen.items() if log.party in heads}
    size = max(n for n, r in enumerate(log.records, 1) if is_last or (r.run, r.type) == (run, "run.completed"))
    if missing := sorted(set(seen) - {log.party} - {name for name, h in kept.items() if h.size >= size}):
        raise ValueError(f"{log.party} completed the run {run}, {', '.join(missing)} did not cosign all of it")
    if is_last and head.kept != {name: h.kept[name] for name, h in kept.items()}:
        raise ValueError(f"the checkpoint of {log.party} has not exactly the cosignatures that its peers kept")


def _match_messages(
    logs: Iterable[_Log], contract: _Contract, completed: Mapping[str, int]
) -> tuple[set[_Sealed], set[_Sealed]]:
    """Return what was sent, and what of it was lost: never before a checkpoint or in a completed epoch."""
    sent, received, settled = set(), set(), set()
    for log in logs:
        waiting: set[_Sealed] = set()
        for r in log.records:
            if r.type in ("message.sent", "message.received"):
                ends = (r.party, _text(r.body["to"])) if r.type == "message.sent" else (_text(r.body["from"]), r.party)
                (waiting if r.type == "message.sent" else received).add(
                    (r.run, r.epoch, *ends, _hex(r.body["sha256"], 32).hex())
                )
            elif r.type in ("checkpoint.saved", "run.completed"):
                # A party saves and completes after the receipts of all rounds before: all was read.
                settled |= {m for m in waiting if m[:2] == (r.run, r.epoch)}
        sent |= waiting
    for _, _, sender, reader, digest in sorted(received - sent):
        raise ValueError(f"{reader} received {digest} from {sender}, whose log does not show it")
    for run, epoch, sender, reader, digest in sorted(sent - received):
        if reader not in contract.keys:
            raise ValueError(f"{sender} sent {digest} to {reader}, who is no signer")
        if (run, epoch, sender, reader, digest) in settled or completed.get(run) == epoch:
            raise ValueError(f"{sender} sent {digest} to {reader}, whose log does not show it")
    return sent, sent - received


def _root(leaves: Iterable[bytes]) -> bytes:
    """RFC 6962 section 2.1: keep the roots of full subtrees, join two whenever they have equal size."""
    peaks: list[bytes] = []
    for index, leaf in enumerate(leaves):
        node = hashlib.sha256(b"\0" + leaf).digest()
        while index & 1:
            node = hashlib.sha256(b"\1" + peaks.pop() + node).digest()
            index >>= 1
        peaks.append(node)
    node = peaks.pop()
    while peaks:
        node = hashlib.sha256(b"\1" + peaks.pop() + node).digest()
    return node


def _signature_bytes(line: str, name: str, kind: int, key: bytes) -> bytes:
    """Read a line of a signed note (C2SP); its one form only, so that no byte of it is free."""
    identifier = hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + key).digest()[:4]
    data = base64.b64decode(line.split(" ")[-1], validate=True)
    if line != f"— {name} {base64.b64encode(data).decode()}" or data[:4] != identifier:
        raise ValueError(f"not a signature line of {name} with its key of the contract")
    return data[4:]


def _check_signature(key: bytes, signature: bytes, message: bytes, whose: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        raise ValueError(f"the signature {whose} does not verify") from None


def _canonical(value: object) -> str:
    """Canonical JSON (RFC 8785) of contracts and records; times become text in UTC."""
    if isinstance(value, Mapping):
        ordered = sorted(value, key=lambda key: _text(key).encode("utf-16-be"))
        return "{" + ",".join(f"{_canonical(key)}:{_canonical(value[key])}" for key in ordered) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_canonical(item) for item in value) + "]"
    if isinstance(value, datetime):
        return f'"{_zulu(value)}"'
    if isinstance(value, float):
        # The fractions of a contract lie where Python and ECMAScript write the same digits.
        return str(int(value)) if value.is_integer() else repr(value)
    if value is None or isinstance(value, bool | str) or (type(value) is int and abs(value) <= MAX_INTEGER):
        return json.dumps(value, ensure_ascii=False)
    raise ValueError(f"a value of type {type(value).__name__} is not canonical")


def _toml_lines(table: Mapping[str, object], path: str) -> list[str]:
    """Write the one text of a contract: keys sorted, plain values before tables."""
    firsts = {key: value[0] if isinstance(value, list) and value else value for key, value in table.items()}
    tables = {key for key, first in firsts.items() if isinstance(first, dict)}
    lines = [f"{key} = {_toml_value(table[key])}\n" for key in sorted(set(table) - tables)]
    for key in sorted(tables):
        value = table[key]
        if isinstance(value, Mapping):
            lines += [f"\n[{path}{key}]\n", *_toml_lines(value, f"{path}{key}.")]
        else:
            for item in _list(value):
                lines += [f"\n[[{path}{key}]]\n", *_toml_lines(_table(item), f"{path}{key}.")]
    return lines


def _toml_value(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return _zulu(value) if isinstance(value, datetime) else json.dumps(value, ensure_ascii=False)


def _zulu(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(value: object) -> str:
    return _as(str, value)


def _list(value: object) -> list[object]:
    return _as(list, value)


def _table(value: object) -> dict[str, object]:
    return _as(dict, value)


def _as(kind: type[T], value: object) -> T:
    if isinstance(value, kind):
        return value
    raise ValueError(f"{kind.__name__} is needed, not {type(value).__name__}")


def _hex(value: object, length: int) -> bytes:
    text = _text(value)
    if re.fullmatch(f"[0-9a-f]{{{2 * length}}}", text) is None:
        raise ValueError(f"{length} bytes in hexadecimal are needed")
    return bytes.fromhex(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line: prints what was verified, or the first thing that is wrong; 0 or 7."""
    parser = argparse.ArgumentParser(description="Verify the logs of a fedmkt run folder, offline.")
    parser.add_argument("run", type=Path, help="folder with contract.toml and logs/")
    parser.add_argument("--pin", action="append", metavar="NAME=KEY", help="a key, compared out of band")
    options = parser.parse_args(arguments)
    pinned = None if options.pin is None else dict(pin.partition("=")[::2] for pin in options.pin)
    try:
        report = verify_run(options.run, pinned)
    except VerifyError as error:
        print(f"fedmkt: error: {error}", file=sys.stderr)
        return EXIT_CODE
    print("\n".join(report.lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
