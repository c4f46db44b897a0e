"""Verify the logs of a run folder, offline, with nothing but this file and the package cryptography.

A run folder holds `contract.toml` and, for every signer of the contract, `logs/<name>/` with `log.jsonl`,
`checkpoint.txt` and `peers.json`. What is demanded:

- the contract is in its one canonical text and signed by exactly its signers;
- every line of a log is the canonical bytes of a record, numbered without gap, under this contract;
- the root over the lines (RFC 6962) is the one in the checkpoint, signed by the log's owner and cosigned
  by every other signer, and by nobody else; `peers.json` holds exactly those cosigned heads;
- what was received was sent, and what was sent was received, by digest of the sealed bytes;
- every value that was revealed is a disclosure that the contract allows, to one of its signers.

So any change of any byte of these files is found. What it cannot show: that the keys belong to those
organisations (compare them: `--pin name=key`), or what a party did with its own data outside the run.
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
MAX_LEAF_BYTES = 16 * 1024
MAX_INTEGER = (1 << 53) - 1
EXIT_CODE = 7

T = TypeVar("T")


class VerifyError(Exception):
    """The run folder does not verify; the text says which file and which proof."""


@dataclass(frozen=True)
class LogReport:
    """One verified log: its owner, number of records, root (base64), and who cosigned it."""

    party: str
    records: int
    root: str
    cosigners: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """A verified run: digest of the contract (hexadecimal), run id, outcome, logs, messages, disclosures."""

    contract: str
    run: str
    outcome: str
    logs: tuple[LogReport, ...]
    messages: int
    disclosures: int

    def lines(self) -> list[str]:
        """Say in plain words what was verified."""
        return [
            f"contract {self.contract}",
            f"run {self.run or '(none)'}: {self.outcome}",
            f"{self.messages} messages, {self.disclosures} disclosures, all allowed by the contract",
            *(
                f"{log.party}: {log.records} records, cosigned by {', '.join(log.cosigners)}\n  root {log.root}"
                for log in self.logs
            ),
        ]


@dataclass(frozen=True)
class _Contract:
    digest: str
    keys: Mapping[str, bytes]
    disclosures: frozenset[str]


@dataclass(frozen=True)
class _Record:
    party: str
    run: str
    type: str
    body: Mapping[str, object]


@dataclass(frozen=True)
class _Log:
    report: LogReport
    records: tuple[_Record, ...]
    # What each cosigner must have kept in its peers.json, by cosigner.
    kept: Mapping[str, Mapping[str, str]]


def verify_run(folder: Path, pinned: Mapping[str, str] | None = None) -> Report:
    """Verify a run folder; VerifyError at the first thing that is wrong.

    pinned : hexadecimal keys by signer, as compared out of band; the contract's must be exactly these.
    """
    try:
        files = {"contract.toml": (folder / "contract.toml").read_bytes()}
        for log in sorted((folder / "logs").iterdir()):
            files |= {f"logs/{log.name}/{name}": (log / name).read_bytes() for name in FILES}
    except OSError as error:
        raise VerifyError(f"{error.filename}: {error.strerror}") from None
    return verify_files(files, pinned)


def verify_files(files: Mapping[str, bytes], pinned: Mapping[str, str] | None = None) -> Report:
    """Verify the files of a run folder, given by their names within it; VerifyError if anything is wrong."""
    with _at("contract.toml"):
        contract = _read_contract(files["contract.toml"])
        if pinned is not None and {name: key.hex() for name, key in contract.keys.items()} != dict(pinned):
            raise ValueError("the signers and their keys are not the pinned ones")
    expected = {"contract.toml"} | {f"logs/{name}/{file}" for name in contract.keys for file in FILES}
    if set(files) != expected:
        raise VerifyError(f"missing or not of a signer: {', '.join(sorted(set(files) ^ expected))}")
    logs = [_read_log(files, contract, name) for name in sorted(contract.keys)]
    for log in logs:
        own = log.report.party
        with _at(f"logs/{own}/peers.json"):
            kept = {other.report.party: other.kept[own] for other in logs if other is not log}
            if files[f"logs/{own}/peers.json"] != _canonical(kept).encode() + b"\n":
                raise ValueError(f"not exactly the last heads of the peers as cosigned by {own}")
    with _at("logs"):
        return _across(logs, contract)


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
    for seq, leaf in enumerate(leaves):
        with _at(f"{path}: line {seq + 1}"):
            records.append(_read_record(leaf, seq, party, contract))
    root = base64.b64encode(_root(leaves)).decode()
    with _at(f"logs/{party}/checkpoint.txt"):
        kept = _read_checkpoint(files[f"logs/{party}/checkpoint.txt"], contract, party, len(leaves), root)
    return _Log(LogReport(party, len(records), root, tuple(sorted(kept))), tuple(records), kept)


def _read_record(leaf: bytes, seq: int, party: str, contract: _Contract) -> _Record:
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
    event = _text(values["type"])
    if EVENT.fullmatch(event) is None:
        raise ValueError(f"unknown event {event!r}")
    return _Record(party, _text(values["run"]), event, _table(values["body"]))


def _read_checkpoint(
    data: bytes, contract: _Contract, party: str, size: int, root: str
) -> dict[str, dict[str, str]]:
    text, _, rest = data.decode().partition("\n\n")
    origin = text.split("\n")[0]
    if re.fullmatch(f"fedmkt/{contract.digest}/{re.escape(party)}(/[a-z0-9-]+)?", origin) is None:
        raise ValueError(f"the origin {origin!r} is not this log's")
    if text != f"{origin}\n{size}\n{root}":
        raise ValueError(f"signed for another log than these {size} records with root {root}")
    body = text + "\n"
    lines = rest.removesuffix("\n").split("\n")
    cosigners = sorted(set(contract.keys) - {party})
    if not rest.endswith("\n") or [line.split(" ")[1] for line in lines] != [party, *cosigners]:
        raise ValueError(f"signatures of {', '.join([party, *cosigners])} are needed, in this order")
    signature = _signature_bytes(lines[0], party, 1, contract.keys[party])
    _check_signature(contract.keys[party], signature, body.encode(), f"of {party}")
    for line, name in zip(lines[1:], cosigners, strict=True):
        value = _signature_bytes(line, name, 4, contract.keys[name])
        time = int.from_bytes(value[:8], "big")
        message = f"cosignature/v1\ntime {time}\n{body}".encode()
        _check_signature(contract.keys[name], value[8:], message, f"of {name}")
    note = f"{body}\n{lines[0]}\n"
    return {
        name: {"cosignature": line + "\n", "note": note}
        for line, name in zip(lines[1:], cosigners, strict=True)
    }


def _across(logs: Sequence[_Log], contract: _Contract) -> Report:
    records = [record for log in logs for record in log.records]
    runs = {record.run for record in records} - {""}
    if len(runs) > 1:
        raise ValueError(f"records of {len(runs)} runs in one run folder")
    revealed = [record for record in records if record.type == "value.revealed"]
    for record in revealed:
        _check_revealed(record, contract)
    types = {record.type for record in records}
    aborted = "run.aborted" in types
    messages = _check_messages(logs, contract, aborted)
    closed = all(any(r.type == "run.completed" for r in log.records) for log in logs)
    outcome = "aborted" if aborted else "completed" if closed else "not completed by everyone"
    logs_read = tuple(log.report for log in logs)
    return Report(contract.digest, "".join(runs), outcome, logs_read, messages, len(revealed))


def _check_revealed(record: _Record, contract: _Contract) -> None:
    kind, reader = _text(record.body["kind"]), _text(record.body["to"])
    if kind not in contract.disclosures:
        raise ValueError(f"{record.party} revealed {kind} to {reader}, which the contract does not allow")
    if reader != "all" and reader not in contract.keys:
        raise ValueError(f"{record.party} revealed {kind} to {reader}, who is no signer")


def _check_messages(logs: Iterable[_Log], contract: _Contract, aborted: bool) -> int:
    """Compare what was sent with what was received; only an epoch that was given up may lose messages."""
    sent: dict[tuple[str, str, str], int] = {}
    received, last_epoch = set(), 0
    for log in logs:
        epoch = 0
        for record in log.records:
            if record.type == "message.sent":
                sent[record.party, _text(record.body["to"]), _hex(record.body["sha256"], 32).hex()] = epoch
            elif record.type == "message.received":
                received.add(
                    (_text(record.body["from"]), record.party, _hex(record.body["sha256"], 32).hex())
                )
            elif record.type == "epoch.started":
                epoch = _as(int, record.body["epoch"])
        last_epoch = max(last_epoch, epoch)
    for sender, reader, digest in sorted(received - set(sent)):
        raise ValueError(f"{reader} received {digest} from {sender}, whose log does not show it")
    for sender, reader, digest in sorted(set(sent) - received):
        if reader not in contract.keys:
            raise ValueError(f"{sender} sent {digest} to {reader}, who is no signer")
        if not aborted and sent[sender, reader, digest] == last_epoch:
            raise ValueError(f"{sender} sent {digest} to {reader}, whose log does not show it")
    return len(sent)


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
