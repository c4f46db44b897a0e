"""The ledger of a run's messages from the logs that are there: as lines, as plain data and as a table.

One organisation's folder has one log: what it sent and read is listed, and compared with nobody's.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fedmkt.audit.export import safe_cell
from fedmkt.audit.ledger import Ledger, Line, Message, Total, ledger
from fedmkt.errors import AuditError
from fedmkt.report.folder import RunFiles, find_files, read_text
from fedmkt.report.logs import Logs, logs_of

WITNESS = "witness.jsonl"
COLUMNS = (
    "run", "epoch", "number", "stage", "step", "kind", "sender", "reader", "bytes", "sha256", "seen", "revealed",
)  # fmt: skip


def read_ledger(run: Path) -> Ledger:
    """Read the logs of a folder and match their messages; AuditError for a broken record."""
    files = find_files(run)
    return ledger_of(files, logs_of(files))


def ledger_of(files: RunFiles, logs: Logs) -> Ledger:
    """Match the messages of the logs that are there; `logs` : all records of these."""
    beside = {name: _lines(folder / WITNESS) for name, folder in files.logs.items()}
    try:
        return ledger(logs.records, beside)
    except ValueError as error:
        raise AuditError(f"{files.root}: {error}") from None


def _lines(path: Path) -> Sequence[Line]:
    found = []
    for number, text in enumerate(read_text(path).split("\n") if path.exists() else (), start=1):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue  # cut in a crash: it is no record
        match value:
            case {"type": "head.cosigned"}:
                continue  # no message: where a log was changed, `audit.locate` asks it
            case {"run": str(run), "type": str(event), "body": dict(body)}:
                found.append(Line(run, event, body))
            case _:
                raise AuditError(f"{path}: line {number}: not what stands beside a log")
    return found


def check_matched(found: Ledger, where: Path) -> None:
    """Raise AuditError naming the first message of which two logs do not say the same."""
    if found.mismatches:
        more = f" ({len(found.mismatches)} in all)" if len(found.mismatches) > 1 else ""
        raise AuditError(
            f"{where}: {found.mismatches[0]}{more}", "fedmkt audit verify RUN says whose log was changed"
        )


def summary_line(found: Ledger) -> str:
    """Say in one sentence how many messages both sides name alike."""
    if len(found.logs) < 2:
        return f"one log ({', '.join(found.logs)}): nothing to match with; fedmkt audit collect puts all together"
    share = f"{found.matched / found.comparable:.1%}" if found.comparable else "none to match"
    lost = f", {found.lost} lost with an epoch that was given up" if found.lost else ""
    return f"matched: {found.matched} of {found.comparable} messages ({share}){lost}"


def lines(found: Ledger) -> list[str]:
    """Give the ledger as text: by sender and reader, then by step, then the total."""
    out = [f"{'from':14}{'to':14}{'kind':10}{'messages':>9}{'bytes':>15}  revealed with it"]
    for key, total in found.totals("sender", "reader", "kind").items():
        out.append(f"{key[0]:14}{key[1]:14}{key[2]:10}{_amounts(total)}")
    out += ["", f"{'stage':14}{'step':24}{'messages':>9}{'bytes':>15}  revealed with it"]
    for key, total in found.totals("stage", "step").items():
        out.append(f"{key[0]:14}{key[1] or '-':24}{_amounts(total)}")
    if found.told:
        out += ["", "told without a message, in the receipts of calls:"]
        out += [f"{t.sender:14}{t.reader:14}{t.step:24} {t.what}" for t in found.told]
    out += ["", f"all: {len(found.messages)} messages, {found.size:,} bytes in sealed envelopes"]
    return [*out, summary_line(found)]


def _amounts(total: Total) -> str:
    revealed = ", ".join(f"{kind} x{times}" for kind, times in total.revealed.items())
    return f"{total.messages:9}{total.size:15,}  {revealed or '-'}"


def to_json(found: Ledger) -> dict[str, object]:
    """Give everything as plain data, one object per message."""
    return {
        "logs": list(found.logs),
        "messages": [row(m) for m in found.messages],
        "totals": {
            "messages": len(found.messages),
            "bytes": found.size,
            "matched": found.matched,
            "lost": found.lost,
            "pairs": [
                {"sender": k[0], "reader": k[1], "kind": k[2], "messages": t.messages, "bytes": t.size,
                 "revealed": dict(t.revealed)}
                for k, t in found.totals("sender", "reader", "kind").items()
            ],
            "steps": [
                {"stage": k[0], "step": k[1], "messages": t.messages, "bytes": t.size, "revealed": dict(t.revealed)}
                for k, t in found.totals("stage", "step").items()
            ],
        },
        "told": [asdict(t) for t in found.told],
        "mismatches": [str(m) for m in found.mismatches],
    }  # fmt: skip


def row(message: Message) -> dict[str, object]:
    """Give one message as an object with the names of `COLUMNS`."""
    names = {"bytes": "size", "sha256": "digest"}
    return {c: getattr(message, names.get(c, c)) for c in COLUMNS}


def to_csv(found: Ledger) -> str:
    """Give one line per message; a text that a spreadsheet would take for a formula has an apostrophe before it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for message in found.messages:
        values = row(message) | {"revealed": " ".join(message.revealed)}
        writer.writerow(safe_cell(str(value)) for value in values.values())
    return out.getvalue()
