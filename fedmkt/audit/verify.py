"""Verify the logs of a run folder, offline, with nothing but this file and the package cryptography.

Next to `contract.toml`, in its canonical text and signed by its signers, each of them has `logs/<name>/`:
- `log.jsonl`: every line is the canonical bytes of a record, numbered without gap, under this contract;
- `checkpoint.txt`: the last head, a root over the first lines (RFC 6962), signed by owner and cosigners;
- `peers.json`: the last heads of others that the owner cosigned.
A run that all completed lies below heads that every other signer cosigned. What was received was sent in that epoch,
and the reverse: messages may be lost only from an epoch that was given up, after its last checkpoint. Every
value revealed is a disclosure that the contract allows, to one of its signers.

If the last run is completed, any change of any byte is found. If not, records after the last signed head are
well-formed but unsigned: the report counts them, and a change there may go unfound. No log shows that the keys belong
to those organisations (`--pin name=key`), or what a party did with its own data elsewhere.
"""

import argparse
import base64
import functools
import hashlib
import json
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FILES = ("log.jsonl", "checkpoint.txt", "peers.json")
EVENT = re.compile(
    r"contract\.(proposed|amended|signed)|approval\.(granted|denied)|policy\.(loaded|refused)|(dataset|session)\.opened|log\.cut|"
    r"(epoch|run|step)\.started|(run|step|match)\.completed|run\.(resumed|aborted)|message\.(sent|received|rejected)|list\.counted|"
    r"(consent|minors)\.filtered|optout\.applied|checkpoint\.saved|value\.revealed|budget\.spent|head\.cosigned|scores\.released|model\.exported"
)
ENDS = ("epoch.started", "run.completed", "run.aborted")
MAX_LEAF_BYTES = 16 * 1024
T = TypeVar("T")


class VerifyError(ValueError):
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
            lost = f" ({run.lost} lost in epochs that were given up)" if run.lost else ""
            counts = f"{run.messages} messages{lost}, {run.disclosures} disclosures"
            lines += [f"run {run.run}: {run.outcome}", f"  {counts}, all allowed by the contract"]
        for log in self.logs:
            by = ", ".join(log.cosigners) or "nobody"
            lines += [f"{log.party}: {log.records} records, cosigned by {by}", f"  root {log.root or 'none'}"]
            if tail := log.records - log.signed:
                lines.append(f"  not closed: {tail} records after the signed head; a change may go unfound")
        return lines


class _Contract(NamedTuple):
    digest: str
    keys: Mapping[str, bytes]
    disclosures: frozenset[str]


class _Record(NamedTuple):
    party: str
    run: str
    epoch: int
    type: str
    body: Mapping[str, object]
    leaf: bytes


class _Head(NamedTuple):
    size: int
    root: str
    kept: Mapping[str, Mapping[str, str]]  # by cosigner, what it must have in its peers.json


_Logs = Mapping[str, Sequence[_Record]]
_Heads = Mapping[str, _Head]
_Sent = set[tuple[str, int, str, str, str]]  # run, epoch, sender, reader, digest


def verify_run(folder: Path, pinned: Mapping[str, str] | None = None) -> Report:
    """Verify a run folder; `pinned` : the keys by signer, hexadecimal, that the contract must have."""
    try:
        files = {"contract.toml": (folder / "contract.toml").read_bytes()}
        for path in (path for path in folder.glob("logs/*/*") if path.name in FILES):
            files[path.relative_to(folder).as_posix()] = path.read_bytes()
    except OSError as error:
        raise VerifyError(f"{error.filename}: {error.strerror}") from None
    return verify_files(files, pinned)


def verify_files(files: Mapping[str, bytes], pinned: Mapping[str, str] | None = None) -> Report:
    """Verify the files of a run folder, given by their names within it; VerifyError if anything is wrong."""
    with _at("contract.toml"):
        contract = _read_contract(files["contract.toml"])
        if pinned is not None and {name: key.hex() for name, key in contract.keys.items()} != dict(pinned):
            raise ValueError("the signers and their keys are not the pinned ones")
    needed = {"contract.toml", *(f"logs/{name}/log.jsonl" for name in contract.keys)}
    known = needed | {f"logs/{name}/{file}" for name in contract.keys for file in FILES}
    if wrong := needed - set(files) | set(files) - known:
        raise VerifyError(f"missing or not of a signer: {', '.join(sorted(wrong))}")
    logs, heads, seen = dict[str, Sequence[_Record]](), dict[str, _Head](), dict[str, _Heads]()
    for name in sorted(contract.keys):
        logs[name] = _read_log(files[f"logs/{name}/log.jsonl"], contract, name)
        with _at(where := f"logs/{name}/checkpoint.txt"):
            heads[name] = _read_head(files.get(where), contract, name, logs[name])
    for name in logs:
        with _at(where := f"logs/{name}/peers.json"):
            seen[name] = _read_peers(files.get(where, b"{}\n"), contract, logs, name, heads)
    with _at("logs"):
        return _across(contract, logs, heads, seen)


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Say where a check failed; what is malformed in a way nobody thought of fails too."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        detail = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise VerifyError(f"{where}: {detail}") from None


def _read_contract(data: bytes) -> _Contract:
    if "".join(_toml_lines(tomllib.loads(data.decode()), "")).encode() != data:
        raise ValueError("not the canonical text of a contract")
    values = tomllib.loads(data.decode(), parse_float=_number)
    signatures = _as(dict, values.pop("signatures"))
    signers = [_as(dict, item) for item in [*_as(list, values["parties"]), values["coordinator"]]]
    keys = {_as(str, signer["name"]): _hex(signer["key"], 32) for signer in signers}
    if len(keys) != len(signers) or len(set(keys.values())) != len(signers):
        raise ValueError("two signers share a name or a key")
    if values["version"] != 1 or set(signatures) != set(keys):
        raise ValueError(f"not of version 1, or signed by {sorted(signatures)} instead of {sorted(keys)}")
    digest = hashlib.sha256(b"fedmkt contract v1\n" + _canonical(values).encode()).digest()
    for name, key in keys.items():
        _check_signature(key, _hex(signatures[name], 64), digest, f"of {name}")
    return _Contract(digest.hex(), keys, frozenset(_as(str, kind) for kind in values["disclosures"]))


def _read_log(data: bytes, contract: _Contract, party: str) -> Sequence[_Record]:
    records, epochs = list[_Record](), dict[str, int]()
    with _at(f"logs/{party}/log.jsonl"):
        if not data.endswith(b"\n"):
            raise ValueError("the last line is cut")
        for seq, leaf in enumerate(data[:-1].split(b"\n")):
            with _at(f"line {seq + 1}"):
                records.append(_read_record(leaf, seq, party, contract, epochs))
    return records


def _read_record(leaf: bytes, seq: int, party: str, contract: _Contract, epochs: dict[str, int]) -> _Record:
    values = _as(dict, json.loads(leaf, parse_int=_number, parse_float=_number, parse_constant=_number))
    if _canonical(values).encode() != leaf or len(leaf) > MAX_LEAF_BYTES:
        raise ValueError(f"not the canonical bytes of a record, at most {MAX_LEAF_BYTES}")
    fixed = {"v": 1, "seq": seq, "party": party, "contract": contract.digest}
    if values.keys() != {*fixed, "time", "run", "type", "body"} or not fixed.items() <= values.items():
        raise ValueError(f"not record {seq} of {party} under this contract")
    run, body = _as(str, values["run"]), _as(dict, values["body"])
    if EVENT.fullmatch(event := _as(str, values["type"])) is None:
        raise ValueError(f"unknown event {event!r}")
    if event == "epoch.started":
        if _as(int, body["epoch"]) <= epochs.get(run, 0):
            raise ValueError("an epoch that is not later than the one before")
        epochs[run] = body["epoch"]
    return _Record(party, run, epochs.get(run, 0), event, body, leaf)


def _read_head(note: bytes | None, contract: _Contract, party: str, log: Sequence[_Record]) -> _Head:
    if note is None:
        return _Head(0, "", {})
    text, _, rest = note.decode().partition("\n\n")
    size = int(text.split("\n")[1])
    if not 0 < size <= len(log):
        raise ValueError(f"signed for another log: {size} records, it has {len(log)}")
    root = base64.b64encode(_root(r.leaf for r in log[:size])).decode()
    if text != f"fedmkt/{contract.digest}/{party}\n{size}\n{root}":
        raise ValueError(f"signed for another log than {party}'s first {size} records with root {root}")
    body, lines = text + "\n", rest.removesuffix("\n").split("\n")
    names = [line.split(" ")[1] for line in lines]
    if not rest.endswith("\n") or names != [party, *sorted(set(names) & set(contract.keys) - {party})]:
        raise ValueError(f"a signature of {party} is needed, then those of other signers in order")
    for name, line in zip(names, lines, strict=True):
        _check_line(line, name, contract.keys[name], body, cosigns=name != party)
    own = f"{body}\n{lines[0]}\n"
    kept = {n: {"cosignature": f"{c}\n", "note": own} for n, c in zip(names[1:], lines[1:], strict=True)}
    return _Head(size, root, kept)


def _read_peers(data: bytes, contract: _Contract, logs: _Logs, name: str, heads: _Heads) -> _Heads:
    """Read the last heads of others that `name` cosigned; `heads` : the logs' own."""
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
    records = [record for log in logs.values() for record in log]
    revealed = [record for record in records if record.type == "value.revealed"]
    for record in revealed:
        kind, reader = _as(str, record.body["kind"]), _as(str, record.body["to"])
        if kind not in contract.disclosures:
            raise ValueError(f"{record.party} revealed {kind} to {reader}, which the contract does not allow")
        if reader not in {"all", *contract.keys}:
            raise ValueError(f"{record.party} revealed {kind} to {reader}, who is no signer")
    # In the order of their last records: only the last run may be open.
    names = list(dict.fromkeys(record.run for record in reversed(records) if record.run))[::-1]
    ends = {name: _end(name, records, contract) for name in names}
    completed = {(name, epoch) for name, (epoch, outcome) in ends.items() if outcome == "completed"}
    for name, _ in completed:
        _check_cosigned(name, logs, heads, seen, is_last=name == names[-1])
    sent, lost = _match_messages(records, completed)
    counts = [Counter(m[0] for m in sent), Counter(m[0] for m in lost), Counter(r.run for r in revealed)]
    runs = tuple(RunReport(name, ends[name][1], *(count[name] for count in counts)) for name in names)
    shown = tuple(LogReport(n, len(logs[n]), h.size, h.root, tuple(h.kept)) for n, h in heads.items())
    run, outcome = (runs[-1].run, runs[-1].outcome) if runs else ("", "no run was begun")
    return Report(contract.digest, run, outcome, runs, shown, len(sent), len(revealed))


def _end(run: str, records: Iterable[_Record], contract: _Contract) -> tuple[int, str]:
    """Return the last epoch of a run and how it ended there, by the last word of every log."""
    ends = {r.party: (r.epoch, r.type) for r in records if r.run == run and r.type in ENDS}
    epoch = max((epoch for epoch, _ in ends.values()), default=0)
    if ends == dict.fromkeys(contract.keys, (epoch, "run.completed")):
        return epoch, "completed"
    return epoch, "aborted" if (epoch, "run.aborted") in ends.values() else "not completed by everyone"


def _check_cosigned(run: str, logs: _Logs, heads: _Heads, seen: Mapping[str, _Heads], is_last: bool) -> None:
    for party, log in logs.items():
        size = max(n for n, r in enumerate(log, 1) if is_last or (r.run, r.type) == (run, "run.completed"))
        kept = {name: of[party] for name, of in seen.items() if party in of and of[party].size >= size}
        if missing := sorted(set(logs) - {party} - set(kept)):
            raise ValueError(f"{party} completed the run, {', '.join(missing)} did not cosign it to its end")
        if is_last and heads[party].kept != {name: head.kept[name] for name, head in kept.items()}:
            raise ValueError(f"the cosignatures of the log of {party} are not those that its peers kept")


def _match_messages(records: Iterable[_Record], completed: set[tuple[str, int]]) -> tuple[_Sent, _Sent]:
    """Return what was sent, and what of it was lost: nothing before a checkpoint or in a completed epoch."""
    sent, received, settled = _Sent(), _Sent(), _Sent()
    for r in records:
        if r.type == "message.sent":
            sent.add((r.run, r.epoch, r.party, _as(str, r.body["to"]), _as(str, r.body["sha256"])))
        elif r.type == "message.received":
            received.add((r.run, r.epoch, _as(str, r.body["from"]), r.party, _as(str, r.body["sha256"])))
        elif r.type in ("checkpoint.saved", "run.completed"):
            # Parties save and complete only after the receipts of all rounds before: all was read.
            settled |= {message for message in sent if message[:3] == (r.run, r.epoch, r.party)}
    lost = sent - received
    for *_, sender, reader, digest in sorted(received - sent):
        raise ValueError(f"{reader} received {digest} from {sender}, whose log does not show it")
    for *_, sender, reader, digest in sorted(m for m in lost if m in settled or m[:2] in completed):
        raise ValueError(f"{sender} sent {digest} to {reader}, whose log does not show it")
    return sent, lost


def _root(leaves: Iterable[bytes]) -> bytes:
    """RFC 6962 section 2.1: keep the roots of full subtrees, join two whenever they have equal size."""
    peaks: list[bytes] = []
    for index, leaf in enumerate(leaves):
        node = hashlib.sha256(b"\0" + leaf).digest()
        while index & 1:
            node = hashlib.sha256(b"\1" + peaks.pop() + node).digest()
            index >>= 1
        peaks.append(node)
    return functools.reduce(lambda right, left: hashlib.sha256(b"\1" + left + right).digest(), peaks[::-1])


def _check_line(line: str, name: str, key: bytes, body: str, *, cosigns: bool) -> None:
    """Check a line of a signed note (C2SP) in its one form, so that no byte of it is free."""
    identifier = hashlib.sha256(name.encode() + (b"\n\4" if cosigns else b"\n\1") + key).digest()[:4]
    data = base64.b64decode(line.split(" ")[-1], validate=True)
    if line != f"— {name} {base64.b64encode(data).decode()}" or data[:4] != identifier:
        raise ValueError(f"not a signature line of {name} with its key of the contract")
    signed = f"cosignature/v1\ntime {int.from_bytes(data[4:12], 'big')}\n{body}" if cosigns else body
    _check_signature(key, data[12 if cosigns else 4 :], signed.encode(), f"of {name}")


def _check_signature(key: bytes, signature: bytes, message: bytes, whose: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        raise ValueError(f"the signature {whose} does not verify") from None


def _canonical(value: object) -> str:
    """Canonical JSON (RFC 8785), for values whose keys are ASCII and whose numbers went through `_number`."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_zulu)


def _number(text: str) -> int | float:
    # The fractions of a contract lie where Python and ECMAScript write the same digits.
    if not abs(value := float(text)) < 1 << 53:
        raise ValueError(f"the number {text[:40]} is not canonical")
    return int(value) if value.is_integer() else value


def _toml_lines(table: Mapping[str, object], path: str) -> list[str]:
    """Write the one text of a contract: keys sorted, plain values before tables."""
    firsts = {key: value[0] if isinstance(value, list) and value else value for key, value in table.items()}
    lines = []
    for key in sorted(table, key=lambda key: (isinstance(firsts[key], dict), key)):
        value = table[key]
        if isinstance(firsts[key], dict):
            title = f"\n[[{path}{key}]]\n" if isinstance(value, list) else f"\n[{path}{key}]\n"
            for item in value if isinstance(value, list) else [value]:
                lines += [title, *_toml_lines(_as(dict, item), f"{path}{key}.")]
        else:
            text = _zulu(value) if isinstance(value, datetime) else json.dumps(value, ensure_ascii=False)
            lines.append(f"{key} = {text}\n")
    return lines


def _zulu(value: object) -> str:
    return _as(datetime, value).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _as(kind: type[T], value: object) -> T:
    if isinstance(value, kind):
        return value
    raise ValueError(f"{kind.__name__} is needed, not {type(value).__name__}")


def _hex(value: object, length: int) -> bytes:
    if re.fullmatch(f"[0-9a-f]{{{2 * length}}}", text := _as(str, value)) is None:
        raise ValueError(f"{length} bytes in hexadecimal are needed")
    return bytes.fromhex(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line: prints what was verified, or what is wrong; 0 only for a closed run, else 7."""
    parser = argparse.ArgumentParser(description="Verify the logs of a fedmkt run folder, offline.")
    parser.add_argument("run", type=Path, help="folder with contract.toml and logs/")
    parser.add_argument("--pin", action="append", metavar="NAME=KEY", help="a key, compared out of band")
    options = parser.parse_args(arguments)
    pinned = None if options.pin is None else dict(pin.partition("=")[::2] for pin in options.pin)
    try:
        report = verify_run(options.run, pinned)
    except VerifyError as error:
        print(f"fedmkt: error: {error}", file=sys.stderr)
        return 7
    print("\n".join(report.lines()))
    return 0 if report.outcome == "completed" else 7


if __name__ == "__main__":
    sys.exit(main())
