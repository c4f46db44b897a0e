"""Verify the proof of one record of a log, offline, with nothing but this file and the package cryptography.

The proof is a text by C2SP tlog-proof: the record as extra data, its number, the path from its hash to the root of
RFC 6962, and the head of the log, signed by its owner and by those who counter-signed it (C2SP signed-note and
tlog-cosignature). Keys and names are those of the contract beside it, which all its signers signed.

Shown is that the record stood at this place of this log when the head was signed. Not shown: that the keys belong to
those organisations (`--pin NAME=KEY`), that what the record says is true, or anything about other records.
"""

import argparse
import base64
import hashlib
import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

_P, _Y = 2**255 - 19, 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER = {y.to_bytes(32, "little") for y in (0, 1, _P - 1, _P, _P + 1, _Y, _P - _Y)}


class ProofError(ValueError):
    """The proof does not hold; the text says why."""


@dataclass(frozen=True)
class ProofReport:
    """What was shown: this record is number `index` of the first `signed` of the log of `party`.

    cosigners : who signed the head besides the owner. record : as it was logged, in canonical JSON.
    """

    contract: str
    party: str
    index: int
    signed: int
    root: str
    cosigners: tuple[str, ...]
    record: str


def verify_proof(contract: bytes, proof: bytes, pinned: Mapping[str, str] | None = None) -> ProofReport:
    """Verify a proof, given the text of the contract; `pinned` : the keys by signer that it must have."""
    try:
        return _verify(*_read_contract(contract, pinned), proof)
    except InvalidSignature:
        raise ProofError("a signature does not verify") from None
    except ProofError:
        raise
    except Exception as error:  # what is malformed in a way that nobody thought of is no proof either
        raise ProofError(f"malformed: {error}") from None


def _read_contract(data: bytes, pinned: Mapping[str, str] | None) -> tuple[str, dict[str, bytes]]:
    values = tomllib.loads(data.decode(), parse_float=_number)
    signatures = values.pop("signatures")
    keys = {
        signer["name"]: bytes.fromhex(signer["key"]) for signer in [*values["parties"], values["coordinator"]]
    }
    if set(signatures) != set(keys) or len(set(keys.values())) != 1 + len(values["parties"]):
        raise ProofError("the contract is not signed by exactly its signers, each with a key of its own")
    if any(key[:31] + bytes([key[31] & 0x7F]) in _SMALL_ORDER for key in keys.values()):
        raise ProofError("a key is a point of small order: anybody signs anything under it")
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_zulu)
    digest = hashlib.sha256(b"fedmkt contract v1\n" + text.encode()).digest()
    is_double = "+ml-dsa-44" in values.get("governance", {}).get("suite", "")
    for name, key in keys.items():
        value = bytes.fromhex(signatures[name])
        keys[name] += (second := value[64:1376])
        if is_double != bool(second):
            raise ProofError(f"{name} did not sign with the keys that the contract asks for")
        Ed25519PublicKey.from_public_bytes(key).verify(value[:64], digest + second)
        if second:
            message = b"fedmkt second key v1\n" + digest
            MLDSA44PublicKey.from_public_bytes(second).verify(value[1376:], message)
    given = keys if pinned is None else {n: bytes.fromhex(key) for n, key in pinned.items()}
    if given.keys() != keys.keys() or any(given[n] not in (key, key[:32]) for n, key in keys.items()):
        raise ProofError("the signers and their keys are not the pinned ones")
    return digest.hex(), keys


def _verify(contract: str, keys: Mapping[str, bytes], proof: bytes) -> ProofReport:
    top, _, note = proof.decode().partition("\n\n")
    first, extra, number, *hashes = top.split("\n")
    leaf, index = base64.b64decode(extra[6:]), int(number[6:])
    path = [base64.b64decode(line) for line in hashes]
    written = [f"extra {_text(leaf)}", f"index {index}", *map(_text, path)]
    if [first, *written] != ["c2sp.org/tlog-proof@v1", extra, number, *hashes]:
        raise ProofError("not in the one form of a tlog-proof")
    record = json.loads(leaf)
    party = record["party"]
    if json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() != leaf:
        raise ProofError("not the canonical bytes of a record, so that readers may differ about what it says")
    if (record["contract"], record["seq"]) != (contract, index):
        raise ProofError(f"not record {index} of a log under this contract")
    body, _, signatures = note.partition("\n\n")
    origin, size, root = body.split("\n")
    if origin != f"fedmkt/{contract}/{party}" or size != str(int(size)):
        raise ProofError(f"the head is not of the log of {party} under this contract")
    if root != _text(_climb(hashlib.sha256(b"\0" + leaf).digest(), index, int(size), path)):
        raise ProofError("the path does not lead from the record to the signed root")
    cosigners = _check_signatures(body + "\n", signatures, party, keys)
    return ProofReport(contract, party, index, int(size), root, cosigners, leaf.decode())


def _climb(node: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1.1: the root to which a path leads from leaf `index` of `size`."""
    if not 0 <= index < size or (size == 1) != (not path):
        raise ProofError("the path is not as long as the place of the record asks for")
    if size == 1:
        return node
    middle = 1 << (size - 1).bit_length() - 1
    if index < middle:
        return hashlib.sha256(b"\1" + _climb(node, index, middle, path[:-1]) + path[-1]).digest()
    return hashlib.sha256(b"\1" + path[-1] + _climb(node, index - middle, size - middle, path[:-1])).digest()


def _check_signatures(body: str, text: str, party: str, keys: Mapping[str, bytes]) -> tuple[str, ...]:
    """Check every line below a head: first the owner's, then those of other signers, by name, each once."""
    lines = text.removesuffix("\n").split("\n")
    names, each = [line.split(" ")[1] for line in lines], 1 + (len(keys[party]) > 32)
    ordered = [party, *sorted(set(names) & set(keys) - {party})]
    if text != "".join(f"{line}\n" for line in lines) or names != [n for n in ordered for _ in range(each)]:
        raise ProofError(f"the signatures of {party} are needed, then those of other signers in order")
    for i, name in enumerate(ordered):
        _check_lines(lines[i * each : (i + 1) * each], name, keys[name], body, cosigns=name != party)
    return tuple(ordered[1:])


def _check_lines(lines: Sequence[str], name: str, key: bytes, body: str, *, cosigns: bool) -> None:
    """Check the line of one signer, or its two of one time; the owner's say no time, or time 0."""
    time = b"" if cosigns else bytes(8)
    for line, kind, public in zip(lines, (4 if cosigns else 1, 6), (key[:32], key[32:]), strict=False):
        data = base64.b64decode(line.split(" ")[2])
        identifier = hashlib.sha256(f"{name}\n".encode() + bytes([kind]) + public).digest()[:4]
        if line != f"— {name} {_text(data)}" or data[:4] != identifier:
            raise ProofError(f"not a signature line of {name} with its key of the contract")
        time = time or data[4:12]
        if kind == 6:
            if data[4:12] != time:
                raise ProofError(f"the two signatures of {name} are of different times")
            MLDSA44PublicKey.from_public_bytes(public).verify(data[12:], _tree_message(name, time, body))
        else:
            said = f"cosignature/v1\ntime {int.from_bytes(time, 'big')}\n" if cosigns else ""
            Ed25519PublicKey.from_public_bytes(public).verify(
                data[12 if cosigns else 4 :], (said + body).encode()
            )


def _tree_message(name: str, time: bytes, body: str) -> bytes:
    """C2SP tlog-cosignature: the `cosigned_message` of a whole tree, which type 6 signs."""
    origin, size, root = body.encode().splitlines()
    who, what = (bytes([len(text)]) + text for text in (name.encode(), origin))
    tree = bytes(8) + int(size).to_bytes(8, "big") + base64.b64decode(root)
    return b"subtree/v1\n\0" + who + time + what + tree


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _number(text: str) -> int | float:
    return int(value) if (value := float(text)).is_integer() else value


def _zulu(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line: prints what was shown as JSON, or what is wrong; 0 or 7."""
    parser = argparse.ArgumentParser(description="Verify the proof of one record of a fedmkt log, offline.")
    parser.add_argument("contract", type=Path, help="contract.toml")
    parser.add_argument("proof", type=Path, help="a .tlog-proof")
    parser.add_argument("--pin", action="append", metavar="NAME=KEY", help="a key, compared out of band")
    options = parser.parse_args(arguments)
    pinned = None if options.pin is None else dict(pin.partition("=")[::2] for pin in options.pin)
    try:
        report = verify_proof(options.contract.read_bytes(), options.proof.read_bytes(), pinned)
    except (ProofError, OSError) as error:
        print(f"fedmkt: error: {error}", file=sys.stderr)
        return 7
    print(json.dumps(asdict(report), indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
