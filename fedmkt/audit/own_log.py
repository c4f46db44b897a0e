"""Verify the one log that an organisation has, with what its peers signed of it; pure.

One log shows that nothing was taken out of it or changed below its signed head, that the others counter-signed
that head, and which heads of theirs its owner counter-signed. Whether what it says was sent did arrive, and what
others revealed, only all logs together show: `fedmkt.audit.verify`.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedmkt.audit.checkpoint import (
    Checkpoint,
    log_origin,
    parse_body,
    signatures_of,
    verify_cosignature,
    verify_note,
)
from fedmkt.audit.disclosures import REVEALED, report
from fedmkt.audit.records import Record, read_leaf
from fedmkt.contract.agreement import Contract
from fedmkt.contract.canonical import digest
from fedmkt.contract.files import from_toml, to_toml
from fedmkt.contract.signatures import SignedContract, check_signatures, log_keys
from fedmkt.crypto.sign import KEY_BYTES
from fedmkt.crypto.tree import HASH_BYTES, leaf_hash, root_of_hashes
from fedmkt.errors import AuditError, ConfigError, PolicyRefused

COMPLETED = "completed"
_ENDS = {"run.completed": COMPLETED, "run.aborted": "aborted", "epoch.started": "not completed"}


@dataclass(frozen=True)
class PeerHead:
    """The last head of another's log that the owner counter-signed: number of records and root (base64)."""

    party: str
    records: int
    root: str


@dataclass(frozen=True)
class OwnReport:
    """What was verified of one log. signed : how many records its head covers; outcome : of the last run."""

    contract: str
    party: str
    signers: tuple[str, ...]
    run: str
    outcome: str
    records: int
    pruned: int
    signed: int
    root: str
    cosigners: tuple[str, ...]
    peers: tuple[PeerHead, ...]
    disclosures: int

    @property
    def missing(self) -> tuple[str, ...]:
        """Signers whose logs are not here."""
        return tuple(name for name in self.signers if name != self.party)

    def lines(self) -> list[str]:
        """Say in plain words what was verified, and what one log cannot show."""
        lines = [f"contract {self.contract}", f"run {self.run or 'none'}: {self.outcome}"]
        lines.append(
            f"{self.party}: {self.records} records, cosigned by {', '.join(self.cosigners) or 'nobody'}"
        )
        lines.append(f"  root {self.root or 'none'}")
        if self.pruned:
            lines.append(f"  expired: records 0 to {self.pruned - 1} were removed, their hashes verify")
        if tail := self.records - self.signed:
            lines.append(f"  not closed: {tail} records after the signed head; a change may go unfound")
        lines.append(f"  {self.disclosures} disclosures to others, all allowed by the contract")
        for peer in self.peers:
            lines += [f"{peer.party}: we cosigned {peer.records} records", f"  root {peer.root}"]
        others = ", ".join(self.missing)
        lines.append(f"this is one log of {len(self.signers)}: not here are those of {others}")
        return [*lines, "  fedmkt audit collect puts all together: only then messages are compared"]


def verify_own(files: Mapping[str, bytes], pinned: Mapping[str, str] | None = None) -> OwnReport:
    """Verify an organisation's log; AuditError says in which file and what is wrong.

    files : contract.toml, log.jsonl, checkpoint.txt, peers.json, pruned.hashes, the last three if they are there.
    pinned : the keys of all signers as compared out of band, hexadecimal.
    """
    signed = _contract(files["contract.toml"], pinned)
    contract, keys = signed.contract, log_keys(signed)
    records, hashes = _records(files["log.jsonl"], files.get("pruned.hashes", b""), contract)
    party = records[0].party
    if party not in keys:
        raise AuditError(f"log.jsonl: {party[:40]!r} is no signer of the contract")
    report({party: records}, contract)  # refuses what the contract does not allow
    head, cosigners = _head(files.get("checkpoint.txt"), party, keys, digest(contract), hashes)
    peers = _peers(files.get("peers.json", b"{}\n"), party, keys, digest(contract))
    run = next((r.run for r in reversed(records) if r.run), "")
    return OwnReport(
        contract=digest(contract).hex(),
        party=party,
        signers=tuple(keys),
        run=run,
        outcome=_outcome(run, records, head.size, set(keys) - {party}, cosigners, peers),
        records=len(hashes),
        pruned=records[0].seq,
        signed=head.size,
        root=base64.b64encode(head.root).decode() if head.size else "",
        cosigners=cosigners,
        peers=peers,
        disclosures=sum(r.type == REVEALED for r in records),
    )


def _outcome(
    run: str,
    records: Sequence[Record],
    signed: int,
    others: set[str],
    cosigners: Sequence[str],
    peers: Sequence[PeerHead],
) -> str:
    outcome = next((_ENDS[r.type] for r in reversed(records) if r.run == run and r.type in _ENDS), "")
    if not run or not outcome:
        return "no run was begun"
    if outcome != COMPLETED:
        return outcome
    if any(r.run and r.seq >= signed for r in records):
        return "completed, but records after it are not signed"
    if absent := sorted(others - set(cosigners)):
        return f"completed, but not cosigned to its end by {', '.join(absent)}"
    if absent := sorted(others - {peer.party for peer in peers}):
        raise AuditError(f"peers.json: without a head of {', '.join(absent)}, though the run was completed")
    return COMPLETED


def _contract(data: bytes, pinned: Mapping[str, str] | None) -> SignedContract:
    text = _text(data, "contract.toml")
    try:
        signed: SignedContract = from_toml(text, "contract.toml")
    except ConfigError as error:
        raise AuditError(str(error)) from None
    if to_toml(signed) != text:
        raise AuditError("contract.toml: not the canonical text of a contract")
    try:
        check_signatures(signed)
    except PolicyRefused as error:
        raise AuditError(f"contract.toml: {error}") from None
    if pinned is not None and {s.name: s.key for s in signed.contract.signers} != dict(pinned):
        raise AuditError("contract.toml: the signers and their keys are not the pinned ones")
    return signed


def _records(data: bytes, pruned: bytes, contract: Contract) -> tuple[tuple[Record, ...], list[bytes]]:
    """Read what records there are, and the hashes of all, also of those that were removed."""
    if not data.endswith(b"\n"):
        raise AuditError("log.jsonl: empty, or the last line is cut")
    hashes = [pruned[i : i + HASH_BYTES] for i in range(0, len(pruned), HASH_BYTES)]
    records, agreed = list[Record](), digest(contract).hex()
    for number, leaf in enumerate(data[:-1].split(b"\n"), start=1):
        try:
            record = read_leaf(leaf)
        except ValueError as error:
            raise AuditError(f"log.jsonl: line {number}: {error}") from None
        seq, party = len(hashes), records[0].party if records else record.party
        if (record.seq, record.party, record.contract) != (seq, party, agreed):
            raise AuditError(f"log.jsonl: line {number}: not record {seq} of {party} under this contract")
        records.append(record)
        hashes.append(leaf_hash(leaf))
    if first := records[0].seq:
        said = [r.body.get("below") for r in records if (r.run, r.type) == ("", "retention.expired")]
        if contract.governance is None or said[-1:] != [first]:
            raise AuditError(
                f"log.jsonl: without its first {first} records, and no contract or no record says why"
            )
    return tuple(records), hashes


def _head(
    data: bytes | None, party: str, keys: Mapping[str, bytes], contract: bytes, hashes: Sequence[bytes]
) -> tuple[Checkpoint, tuple[str, ...]]:
    """Check the signed head against the records below it, and every cosignature of it."""
    if data is None:
        return Checkpoint("", 0, bytes(32)), ()
    try:
        note = verify_note(data, party, keys[party])
        head = parse_body(note.text)
        if head.origin != log_origin(contract, party) or not 0 < head.size <= len(hashes):
            raise ValueError(f"signed for another log: {head.size} records, it has {len(hashes)}")
        if root_of_hashes(hashes[: head.size]) != head.root:
            raise ValueError(f"the log was changed below its signed head of {head.size} records")
        each = 2 if len(keys[party]) > KEY_BYTES else 1
        names = [line.name for line in note.lines[::each]]
        if note.lines[:each] != signatures_of(note, party, keys[party]):
            raise ValueError(f"the signatures of {party} are not the first")
        ordered = [party, *sorted(set(names) & set(keys) - {party})]
        if [line.name for line in note.lines] != [name for name in ordered for _ in range(each)]:
            raise ValueError(f"a signature of {party} is needed, then those of other signers in order")
        for at in range(each, len(note.lines), each):
            lines = b"".join(bytes(line) for line in note.lines[at : at + each])
            verify_cosignature(note.text, lines, note.lines[at].name, keys[note.lines[at].name])
    except ValueError as error:
        raise AuditError(f"checkpoint.txt: {error}") from None
    return head, tuple(names[1:])


def _peers(data: bytes, party: str, keys: Mapping[str, bytes], contract: bytes) -> tuple[PeerHead, ...]:
    """Check the heads of others that the owner cosigned: by their keys, and by ours."""
    found = []
    try:
        peers = json.loads(_text(data, "peers.json"))
        if _canonical(peers) != data:
            raise ValueError("not as it was written")
        for peer, entry in peers.items():
            if peer not in keys or peer == party or set(entry) != {"note", "cosignature"}:
                raise ValueError(
                    f"{str(peer)[:40]!r} is not another signer with its note and our cosignature"
                )
            note = verify_note(entry["note"].encode(), peer, keys[peer])
            head = parse_body(note.text)
            if head.origin != log_origin(contract, peer) or note.lines != signatures_of(
                note, peer, keys[peer]
            ):
                raise ValueError(f"not a head of {peer} under this contract, signed by it alone")
            verify_cosignature(note.text, entry["cosignature"].encode(), party, keys[party])
            found.append(PeerHead(peer, head.size, base64.b64encode(head.root).decode()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AuditError(f"peers.json: {error}") from None
    return tuple(found)


def _canonical(peers: object) -> bytes:
    text = json.dumps(peers, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode() + b"\n"


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise AuditError(f"{where}: not UTF-8") from None
