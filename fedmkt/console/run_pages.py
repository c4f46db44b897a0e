"""The pages of one run: what was learned, its messages, its log verified, its report, its evidence pack."""

import os
import stat
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from fedmkt.audit.disclosures import report as collect_disclosures
from fedmkt.audit.ledger import Ledger
from fedmkt.audit.own_log import COMPLETED
from fedmkt.console.door import DOCUMENT_POLICY
from fedmkt.console.shelf import NotHere, Run
from fedmkt.console.visit import HTML, Answer, Visit
from fedmkt.deploy.acts import verify_acts
from fedmkt.errors import AuditError, ConfigError
from fedmkt.evidence.attacks import Attack, table
from fedmkt.evidence.document import Words
from fedmkt.evidence.facts import ATTACK_LAB, read_attack_lab
from fedmkt.evidence.pack import verify_pack
from fedmkt.evidence.page import learned_lines
from fedmkt.evidence.seal import MANIFEST, SIGNATURE
from fedmkt.report import message_ledger
from fedmkt.report.collect import verify_one
from fedmkt.report.folder import find_files
from fedmkt.report.logs import logs_of
from fedmkt.report.summary import DisclosureLine

LARGEST_DOCUMENT = 64 << 20


@dataclass(frozen=True)
class Stage:
    """How many steps of one stage there were, and how long they took together."""

    name: str
    steps: int
    took: timedelta


def run(visit: Visit) -> Answer:
    """Show a run: how it ended, who learned what, its steps, and what lies beside it."""
    found = visit.shelf.run(visit.ids["run"])
    return visit.show(
        "run.html.j2", run=found, learned=_learned(visit, found), stages=_stages(found),
        attacks=_attacks(visit, found), tab="run",
    )  # fmt: skip


def _learned(visit: Visit, found: Run) -> tuple[DisclosureLine, ...]:
    logs = logs_of(find_files(found.folder)).of_run(found.name)
    return learned_lines(collect_disclosures(logs.records, logs.contract), visit.language)


def _stages(found: Run) -> list[Stage]:
    """Sum up by stage, in the order in which they began; a step lasts since the one before it."""
    stages, before = dict[str, Stage](), found.began
    for step in found.steps:
        stage = stages.get(step.stage, Stage(step.stage, 0, timedelta(0)))
        stages[step.stage] = Stage(step.stage, stage.steps + 1, stage.took + (step.time - before))
        before = step.time
    return list(stages.values())


def _attacks(visit: Visit, found: Run) -> tuple[Attack, ...]:
    contract = visit.shelf.contract(found.contract).contract
    for place in (found.evidence, found.folder):
        if place is not None and (report := read_attack_lab(place / ATTACK_LAB, contract)) is not None:
            return table(report, Words(visit.language)).attacks
    return ()


def messages(visit: Visit) -> Answer:
    """Show how many messages and bytes left, from whom to whom, at which stage."""
    found = visit.shelf.run(visit.ids["run"])
    ledger = _ledger(found)
    return visit.show(
        "messages.html.j2", run=found, ledger=ledger, pairs=ledger.totals("sender", "reader", "kind"),
        stages=ledger.totals("stage"), summary=message_ledger.summary_line(ledger), tab="messages",
    )  # fmt: skip


def messages_table(visit: Visit) -> Answer:
    """Give every message as one line of a table."""
    found = visit.shelf.run(visit.ids["run"])
    body = message_ledger.to_csv(_ledger(found)).encode()
    return _attachment(body, f"messages-{found.name[:16]}.csv", "text/csv; charset=utf-8")


def _ledger(found: Run) -> Ledger:
    files = find_files(found.folder)
    return message_ledger.ledger_of(files, logs_of(files)).of_run(found.name)


def verification(visit: Visit) -> Answer:
    """Verify our log of a run's contract, and the acts that it saw."""
    found = visit.shelf.run(visit.ids["run"])
    try:
        checked = verify_one(find_files(found.folder))
        chain = verify_acts(visit.folder.root)
    except AuditError as error:
        return visit.show(
            "verify.html.j2", run=found, lines=(), broken=str(error), open="", acts=0, tab="verify"
        )
    is_open = "" if checked.outcome == COMPLETED else checked.outcome
    return visit.show(
        "verify.html.j2", run=found, lines=checked.lines(), broken="", open=is_open,
        acts=0 if chain is None else len(chain.acts), tab="verify",
    )  # fmt: skip


def report(visit: Visit) -> Answer:
    """Give the page of a run as it was written, apart from ours: no script, no form, another origin."""
    page = visit.shelf.run(visit.ids["run"]).report
    if page is None:
        raise NotHere("no report was written yet", "fedmkt report")
    return _document(_read(page))


def evidence(visit: Visit) -> Answer:
    """Show the evidence pack: whether it verifies, and its files."""
    found = visit.shelf.run(visit.ids["run"])
    place = found.evidence
    if place is None:
        return visit.show("evidence.html.j2", run=found, files=(), lines=(), of="", broken="", tab="evidence")
    try:
        checked = verify_pack(place)
        lines, of, broken = checked.lines(), checked.seal.run, ""
    except (AuditError, ConfigError) as error:
        lines, of, broken = [], "", str(error)
    return visit.show(
        "evidence.html.j2", run=found, files=_names(place), lines=lines, of=of, broken=broken, tab="evidence"
    )


def evidence_page(visit: Visit) -> Answer:
    """Give the pack's own page as it was made, apart from ours."""
    place = _pack(visit)
    return _document(_read(place / "index.html"))


def evidence_file(visit: Visit) -> Answer:
    """Give one file of the pack, if its list of files has it."""
    place, wanted = _pack(visit), visit.ids["file"]
    found = next((name for name in _names(place) if name == wanted), None)
    if found is None:
        raise NotHere("there is no such file in the pack")
    return _attachment(_read(place / found), found.rpartition("/")[2], "application/octet-stream")


def _pack(visit: Visit) -> Path:
    place = visit.shelf.run(visit.ids["run"]).evidence
    if place is None:
        raise NotHere("no evidence pack was made yet", "fedmkt evidence")
    return place


def _names(place: Path) -> list[str]:
    """List the files of a pack as they lie there; links are left out."""
    found = [
        path.relative_to(place).as_posix()
        for path in place.rglob("*")
        if path.is_file() and not path.is_symlink() and path.resolve().is_relative_to(place.resolve())
    ]
    return sorted(found, key=lambda name: (name not in ("index.html", MANIFEST, SIGNATURE), name))


def _read(path: Path) -> bytes:
    """Read a plain file of bounded size, never through a link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{path.name}: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > LARGEST_DOCUMENT:
            raise ConfigError(f"{path.name}: no plain file, or longer than {LARGEST_DOCUMENT:,} bytes")
        return file.read(LARGEST_DOCUMENT)


def _document(body: bytes) -> Answer:
    return Answer(body, kind=HTML, headers={"content-security-policy": DOCUMENT_POLICY})


def _attachment(body: bytes, name: str, kind: str) -> Answer:
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
    headers = {
        "content-disposition": f'attachment; filename="{safe}"',
        "content-security-policy": DOCUMENT_POLICY,
    }
    return Answer(body, kind=kind, headers=headers)
