"""Make the evidence pack of a run, and verify one.

    FOLDER/index.html               everything on one page, without script or external resource
           run/                     contract and logs as they were: `fedmkt audit verify FOLDER/run`
           ledger.json, ledger.csv  every message
           disclosures.json, .txt   what each party learned
           proofs/                  single records with their path to the signed head
           model-card.md
           sbom.cdx.json            what the program runs on
           attack-lab.json          if the lab ran against the run
           drafts/                  records and assessments for counsel
           manifest.json            SHA-256 of every file
           manifest.dsse.json       the signed statement about the manifest
No table, no key, no score and no model goes in.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fedmkt import sbom
from fedmkt.audit import verified
from fedmkt.audit.verify import VerifyError, verify_run
from fedmkt.contract.agreement import Contract
from fedmkt.crypto.sign import Identity, fingerprint
from fedmkt.errors import AuditError, ConfigError
from fedmkt.evidence.document import Document, Language, Words
from fedmkt.evidence.facts import APPROVALS, ATTACK_LAB, Facts, gather, statement_files
from fedmkt.evidence.gdpr import gdpr_record
from fedmkt.evidence.model_card import model_card
from fedmkt.evidence.page import render
from fedmkt.evidence.pipl import pipl_assessment, pipl_record
from fedmkt.evidence.proofs import proofs
from fedmkt.evidence.seal import Seal, seal, verify_seal
from fedmkt.evidence.self_check import self_check
from fedmkt.party.journal import write_atomically
from fedmkt.report import message_ledger
from fedmkt.report.collect import verify_one
from fedmkt.report.folder import CONTRACT, LOG_FILES, find_files

RUN = "run"
DRAFTS = "drafts"
PROOFS = "proofs"
PAGE = "index.html"


@dataclass(frozen=True)
class Pack:
    """A pack that was made. missing : facts that nobody stated, by draft."""

    folder: Path
    run: str
    by: str
    files: int
    missing: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Verified:
    """A pack that verifies. is_signer : whether its maker is a signer of the contract, with that key; logs : lines."""

    seal: Seal
    is_signer: bool
    is_pinned: bool
    proofs: int
    logs: tuple[str, ...]

    def lines(self) -> list[str]:
        """Say what was verified, and what nothing vouches for."""
        whose = f"{self.seal.by}, key {self.seal.fingerprint}"
        known = "a signer of the contract with that key" if self.is_signer else "no signer of the contract"
        lines = [
            f"{len(self.seal.files)} files as they were signed by {whose}",
            f"  {known}; {'the key is the pinned one' if self.is_pinned else 'compare the key out of band: --pin'}",
            f"{self.proofs} proofs of single records; ledger and disclosures are what the logs give",
        ]
        return [*lines, *self.logs]


def make_pack(run: Path, out: Path, by: str, identity: Identity, language: Language = "en") -> Pack:
    """Write the pack of a run, or of an organisation's latest, into a new folder and sign it.

    by : who makes it; where the contract has that name, the key must be its own.
    """
    facts = gather(run)
    _check_maker(facts.contract, by, identity)
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise ConfigError(f"{out}: exists and is not empty", "give the name of a new folder with --out")
    say = Words(language)
    card, drafts = model_card(facts, say), documents(facts, say)
    materials = sbom.bill(*sbom.installed())
    try:
        for name, data in _files(facts, say, card, drafts, materials).items():
            write_atomically(out / name, data, mode=0o644)
        page = render(facts, say, card, drafts, materials, f"{by} ({fingerprint(identity.public)})")
        write_atomically(out / PAGE, page.encode(), mode=0o644)
        seal(out, by, identity, facts.run, facts.digest)
    except OSError as error:
        raise ConfigError(f"{out}: {error.strerror}", "give a folder that can be written") from None
    files = sum(path.is_file() for path in out.rglob("*"))
    return Pack(out, facts.run, by, files, {d.name: d.missing for d in drafts if d.missing})


def documents(facts: Facts, say: Words) -> tuple[Document, ...]:
    """Make all drafts."""
    return (
        pipl_record(facts, say),
        pipl_assessment(facts, say),
        gdpr_record(facts, say),
        self_check(facts, say),
    )


def _check_maker(contract: Contract, by: str, identity: Identity) -> None:
    keys = {signer.name: signer.key for signer in contract.signers}
    if by in keys and keys[by] != identity.public.hex():
        raise ConfigError(
            f"the key {fingerprint(identity.public)} is not the one that the contract has for {by}"
        )


def _files(
    facts: Facts, say: Words, card: Document, drafts: tuple[Document, ...], materials: Mapping[str, object]
) -> dict[str, bytes]:
    found = _run_files(facts)
    texts = {
        "ledger.json": _json(message_ledger.to_json(facts.ledger)),
        "ledger.csv": message_ledger.to_csv(facts.ledger),
        "disclosures.json": _json(_disclosures(facts)),
        "disclosures.txt": "\n".join(facts.disclosures.lines()) + "\n",
        f"{card.name}.md": card.markdown(say),
        **{f"{DRAFTS}/{draft.name}.md": draft.markdown(say) for draft in drafts},
    }
    if facts.attack_lab is not None:
        texts[ATTACK_LAB] = _json(facts.attack_lab)
    found |= {f"{PROOFS}/{name}": proof for name, proof in proofs(facts.files, facts.run).items()}
    found |= {name: text.encode() for name, text in texts.items()}
    return found | {"sbom.cdx.json": sbom.encode(materials)}


def _run_files(facts: Facts) -> dict[str, bytes]:
    """Copy contract, logs and signed statements, laid out so that `fedmkt audit verify` reads them."""
    files = facts.files
    paths = {CONTRACT: files.root / CONTRACT}
    for name, folder in files.logs.items():
        place = "log" if files.owner else f"logs/{name}"
        paths |= {f"{place}/{file}": folder / file for file in LOG_FILES if (folder / file).exists()}
    paths |= {f"{APPROVALS}/{path.name}": path for path in statement_files(files)}
    return {f"{RUN}/{name}": path.read_bytes() for name, path in paths.items()}


def _disclosures(facts: Facts) -> dict[str, object]:
    found = facts.disclosures
    return {
        "readers": found.readers,
        "learned": [{**asdict(i), "disclosure": i.disclosure.record()} for i in found.learned],
        "unread": [asdict(item) for item in found.unread],
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def verify_pack(folder: Path, pins: Mapping[str, str] | None = None) -> Verified:
    """Check a pack: signature, every file, logs, proofs, and that ledger and disclosures are what the logs give.

    pins : keys as compared out of band, hexadecimal: of the maker alone, or of the maker and all signers.
    """
    found = verify_seal(folder)
    run = folder / RUN
    facts = gather(run, found.run)
    keys = {signer.name: signer.key for signer in facts.contract.signers}
    _check_pins(found, keys, pins or {}, folder)
    if facts.digest != found.contract or not facts.bodies("epoch.started"):
        raise AuditError(f"{run}: another contract or run than the pack was signed for")
    if found.by in keys and keys[found.by] != found.key:
        raise AuditError(f"{folder}: signed as {found.by}, with another key than the contract has for it")
    signers = {name: key for name, key in (pins or {}).items() if name in keys}
    logs = _verify_logs(run, signers if len(signers) == len(keys) else None)
    for name, value in (
        ("ledger.json", message_ledger.to_json(facts.ledger)),
        ("disclosures.json", _disclosures(facts)),
    ):
        if (folder / name).read_text(encoding="utf-8") != _json(value):
            raise AuditError(f"{folder / name}: not what the logs in {RUN}/ give")
    return Verified(found, found.by in keys, found.by in (pins or {}), _verify_proofs(folder, facts), logs)


def _check_pins(found: Seal, keys: Mapping[str, str], pins: Mapping[str, str], folder: Path) -> None:
    if pins and pins.get(found.by) != found.key:
        raise AuditError(
            f"{folder}: signed by {found.by} with the key {found.fingerprint}, which is not pinned"
        )
    given = {name for name in pins if name != found.by}
    if given and given | {found.by} < set(keys):
        missing = ", ".join(sorted(set(keys) - set(pins)))
        raise ConfigError(f"--pin: without {missing}", "pin the maker alone, or all signers")
    if unknown := sorted(given - set(keys)):
        raise ConfigError(f"--pin: {unknown[0]} neither made the pack nor signed the contract")


def _verify_logs(run: Path, pinned: Mapping[str, str] | None) -> tuple[str, ...]:
    files = find_files(run)
    if files.owner:
        return tuple(verify_one(files, pinned).lines())
    try:
        return tuple(verified.lines(verify_run(run, pinned)))
    except VerifyError as error:
        raise AuditError(f"{run}: {error}", "nothing in this pack can be relied on") from None


def _verify_proofs(folder: Path, facts: Facts) -> int:
    """Compare each proof with the one that the logs give; their heads are verified with the logs."""
    made = proofs(facts.files, facts.run)
    for name, proof in made.items():
        path = folder / PROOFS / name
        try:
            if path.read_bytes() != proof:
                raise AuditError(f"{path}: not the proof that the log gives")
        except OSError as error:
            raise AuditError(f"{path}: {error.strerror}") from None
    return len(made)
