"""Make the evidence pack of a run, and verify one.

    FOLDER/index.html               everything on one page, without script or external resource
           run/                     contract, statements and logs as they were: `fedmkt audit verify FOLDER/run`
           ledger.json, ledger.csv  every message
           disclosures.json, .txt   what each party learned
           proofs/                  single records, for fedmkt.audit.verify_proof
           model-card.md
           sbom.cdx.json            what the program runs on
           attack-lab.json          if the lab ran against the run
           stated.json              what its maker states and no log shows: who, with which release, figures
           drafts/                  records and assessments for counsel
           manifest.json            SHA-256 of every file
           manifest.dsse.json       the signed statement about the manifest
No table, no key, no score and no model goes in.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fedmkt import sbom
from fedmkt.audit import verified
from fedmkt.audit.verify import VerifyError, verify_run
from fedmkt.contract.agreement import Contract
from fedmkt.crypto.sign import Identity, fingerprint
from fedmkt.errors import AuditError, ConfigError
from fedmkt.evidence.amounts_zh import lines_zh
from fedmkt.evidence.document import Document, Language, Words
from fedmkt.evidence.facts import ATTACK_LAB, Facts, Json, gather, read_attack_lab
from fedmkt.evidence.gdpr import gdpr_record
from fedmkt.evidence.life import file_name
from fedmkt.evidence.model_card import model_card
from fedmkt.evidence.page import licences, render
from fedmkt.evidence.pipl import pipl_assessment, pipl_record
from fedmkt.evidence.proofs import proofs
from fedmkt.evidence.seal import NAME, Seal, seal, verify_seal
from fedmkt.evidence.self_check import self_check
from fedmkt.evidence.stated import Stated, read_stated, state
from fedmkt.party.controls.code import installed_code
from fedmkt.party.journal import write_atomically
from fedmkt.report import message_ledger
from fedmkt.report.approvals import APPROVALS, LARGEST, statement_paths
from fedmkt.report.collect import verify_one
from fedmkt.report.deals import statement_file
from fedmkt.report.folder import CONTRACT, LOG_FILES, find_files, read_plain, read_text

RUN = "run"
DRAFTS = "drafts"
PROOFS = "proofs"
PAGE = "index.html"
STATED = "stated.json"
BILL = "sbom.cdx.json"


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
    """A pack that verifies. outcome : how its run ended; is_signer : whether its maker is a signer of the contract.

    person : whose key of an approver the maker's is, "" if nobody's; is_compared : whether page, drafts and model card
    were made again and are the same; logs : what was verified of the logs, in lines.
    """

    seal: Seal
    outcome: str
    is_signer: bool
    person: str
    is_pinned: bool
    is_compared: bool
    proofs: int
    logs: tuple[str, ...]

    def lines(self) -> list[str]:
        """Say what was verified, and what nothing vouches for."""
        whose = f"{self.seal.by}, key {self.seal.fingerprint}"
        known = "a signer of the contract with that key" if self.is_signer else "no signer of the contract"
        if self.person:
            known = f"the key of {self.person}: a person who approves, not the organisation"
        made = "page, drafts and model card are what they give with the figures that the maker states"
        if not self.is_compared:
            made = "page, drafts and model card are not compared: another release of fedmkt made them"
        lines = [
            f"run {self.seal.run}: {self.outcome}",
            f"{len(self.seal.files)} files as they were signed by {whose}",
            f"  {known}; {'the key is the pinned one' if self.is_pinned else 'compare the key out of band: --pin'}",
            f"{self.proofs} proofs of single records; ledger and disclosures are what the logs give",
            made,
        ]
        return [*lines, *self.logs]


def make_pack(run: Path, out: Path, by: str, identity: Identity, language: Language = "en") -> Pack:
    """Write the pack of a run, or of an organisation's latest, into a new folder and sign it.

    by : who makes it; where the contract has that name, the key must be its own. AuditError for logs that do not
    verify: no pack is made of these.
    """
    if not NAME.fullmatch(by):
        raise ConfigError(f"{by!r} is no name", "small letters, digits and hyphens, as signers are named")
    facts = gather(run)
    _check_maker(facts.contract, by, identity)
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise ConfigError(f"{out}: exists and is not empty", "give the name of a new folder with --out")
    _verify_logs(facts.files.root, None)
    root, components = sbom.installed()
    materials = sbom.bill(replace(root, code_sha256=installed_code()), components)
    stated = state(facts, by, language)
    try:
        for name, data in _files(facts, stated, materials, fingerprint(identity.public)).items():
            write_atomically(out / name, data, mode=0o644)
        seal(out, by, identity, facts.run, facts.digest)
    except OSError as error:
        raise ConfigError(f"{out}: {error.strerror}", "give a folder that can be written") from None
    files = sum(path.is_file() for path in out.rglob("*"))
    drafts = documents(facts, Words(language))
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


def _files(facts: Facts, stated: Stated, materials: Mapping[str, object], key: str) -> dict[str, bytes]:
    """Make all files of a pack but manifest and signature. key : the maker's, as people read it."""
    say = Words(stated.language)
    card, drafts = model_card(facts, say), documents(facts, say)
    told = facts.disclosures.lines() if stated.language == "en" else lines_zh(facts.disclosures)
    texts = {
        **_counted(facts),
        "ledger.csv": message_ledger.to_csv(facts.ledger),
        "disclosures.txt": "\n".join(told) + "\n",
        f"{card.name}.md": card.markdown(say),
        **{f"{DRAFTS}/{draft.name}.md": draft.markdown(say) for draft in drafts},
        STATED: stated.to_json(),
        PAGE: render(facts, say, card, drafts, materials, f"{stated.by} ({key})", stated.code),
    }
    if facts.attack_lab is not None:
        texts[ATTACK_LAB] = _json(facts.attack_lab)
    found = _run_files(facts) | {name: text.encode() for name, text in texts.items()}
    found |= {f"{PROOFS}/{name}": proof for name, proof in proofs(facts.files, facts.run).items()}
    return found | {BILL: sbom.encode(materials)}


def _run_files(facts: Facts) -> dict[str, bytes]:
    """Copy contract, logs and signed statements, laid out so that `fedmkt audit verify` reads them."""
    files = facts.files
    paths = {CONTRACT: files.root / CONTRACT}
    for name, folder in files.logs.items():
        place = "log" if files.owner else f"logs/{name}"
        paths |= {f"{place}/{file}": folder / file for file in LOG_FILES if (folder / file).exists()}
    if facts.deals is not None:
        path = statement_file(files.root, facts.run)
        paths[path.relative_to(files.root).as_posix()] = path
    found = {f"{RUN}/{name}": path.read_bytes() for name, path in paths.items()}
    said = (read_plain(path, LARGEST) for path in statement_paths(files))
    return found | {f"{RUN}/{APPROVALS}/{file_name(data)}": data for data in said}


def _counted(facts: Facts) -> dict[str, str]:
    """Write what any release makes of the logs alike."""
    return {
        "ledger.json": _json(message_ledger.to_json(facts.ledger)),
        "disclosures.json": _json(_disclosures(facts)),
    }


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
    """Check a pack: signature, every file, logs, proofs; ledger, disclosures and page are made again and compared.

    pins : keys as compared out of band, hexadecimal: of the maker alone, or of the maker and all signers.
    """
    found = verify_seal(folder)
    run = folder / RUN
    try:
        facts = gather(run, found.run)
    except ConfigError as error:
        raise AuditError(str(error)) from None
    keys = {signer.name: signer.key for signer in facts.contract.signers}
    _check_pins(found, keys, pins or {}, folder)
    if facts.digest != found.contract or not facts.bodies("epoch.started"):
        raise AuditError(f"{run}: another contract or run than the pack was signed for")
    if found.by in keys and keys[found.by] != found.key:
        raise AuditError(f"{folder}: signed as {found.by}, with another key than the contract has for it")
    signers = {name: key for name, key in (pins or {}).items() if name in keys}
    logs = _verify_logs(run, signers if len(signers) == len(keys) else None)
    stated, materials = _read_stated(folder, found), _read_bill(folder)
    facts = stated.into(replace(facts, attack_lab=_read_lab(folder, facts.contract)))
    if stated.is_of_this_release:
        _compare(folder, found, _files(facts, stated, materials, found.fingerprint))
    else:
        _compare_texts(folder, {name: text.encode() for name, text in _counted(facts).items()})
        _compare_texts(
            folder, {f"{PROOFS}/{n}": proof for n, proof in proofs(facts.files, facts.run).items()}
        )
    approvers = facts.governance.approvers if facts.governance else ()
    return Verified(
        seal=found,
        outcome=facts.outcome,
        is_signer=found.by in keys,
        person=next((f"{a.name}, {a.role} of {a.party}" for a in approvers if a.key == found.key), ""),
        is_pinned=found.by in (pins or {}),
        is_compared=stated.is_of_this_release,
        proofs=len(proofs(facts.files, facts.run)),
        logs=logs,
    )


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
        raise AuditError(f"{run}: {error}", "nothing in these logs can be relied on") from None


def _read_stated(folder: Path, found: Seal) -> Stated:
    path = folder / STATED
    try:
        stated = read_stated(read_text(path))
        if stated.by != found.by:
            raise ValueError(f"of {stated.by!r}, not of {found.by}")
    except ValueError as error:
        raise AuditError(f"{path}: {error}") from None
    return stated


def _read_bill(folder: Path) -> Mapping[str, object]:
    path = folder / BILL
    try:
        materials = json.loads(read_text(path))
        licences(materials)
        if sbom.encode(materials).decode() != read_text(path):
            raise ValueError("not as fedmkt writes it")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise AuditError(f"{path}: no bill of materials: {error}") from None
    return dict(materials)


def _read_lab(folder: Path, contract: Contract) -> dict[str, Json] | None:
    try:
        return read_attack_lab(folder / ATTACK_LAB, contract)
    except ConfigError as error:
        raise AuditError(str(error)) from None


def _compare(folder: Path, found: Seal, expected: Mapping[str, bytes]) -> None:
    """Raise AuditError unless the pack has these files and no other."""
    for name in found.files:
        if name not in expected:
            raise AuditError(f"{folder / name}: not a file of a pack of this run")
    for name in expected:
        if name not in found.files:
            raise AuditError(f"{folder / name}: missing")
    _compare_texts(folder, expected)


def _compare_texts(folder: Path, expected: Mapping[str, bytes]) -> None:
    for name, data in expected.items():
        path = folder / name
        try:
            if path.read_bytes() != data:
                raise AuditError(f"{path}: not what the logs in {RUN}/ give")
        except OSError as error:
            raise AuditError(f"{path}: {error.strerror}") from None
