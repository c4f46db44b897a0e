"""What an auditor does with the logs in folders: prove a record, compare two places, export."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmkt.audit import export
from fedmkt.audit.compare import Comparison, compare
from fedmkt.audit.locate import Place, locate
from fedmkt.audit.log_view import LogView, read_view
from fedmkt.audit.proof import prove
from fedmkt.audit.tiles import tiles
from fedmkt.contract.agreement import Contract
from fedmkt.contract.signatures import log_keys
from fedmkt.errors import AuditError, ConfigError
from fedmkt.party.journal import write_atomically
from fedmkt.report.folder import CONTRACT, LOG_FILES, RunFiles, find_files, read_signed

FORMATS = ("ocsf", "openlineage", "csv", "tiles")


@dataclass(frozen=True)
class Views:
    """The logs that a folder holds, the contract beside them, the keys under heads by signer."""

    contract: Contract
    keys: Mapping[str, bytes]
    logs: tuple[LogView, ...]

    def log(self, party: str) -> LogView:
        """Return one party's log; ConfigError if it is not here."""
        found = next((log for log in self.logs if log.party == party), None)
        if found is None:
            raise ConfigError(
                f"no log of {party!r} here", f"here: {', '.join(log.party for log in self.logs)}"
            )
        return found


def read_views(folder: Path) -> Views:
    """Read the logs of a run's folder, of collected logs, or of an organisation's own."""
    files = find_files(folder)
    logs = []
    for path in files.logs.values():
        data = {name: (path / name).read_bytes() for name in LOG_FILES if (path / name).is_file()}
        if LOG_FILES[0] in data:
            logs.append(read_view(data, str(path)))
    if not logs:
        raise ConfigError(f"{folder}: no log there")
    return Views(files.contract, log_keys(read_signed(files.root)), tuple(logs))


def located(files: RunFiles) -> tuple[Place, ...]:
    """Say where logs of a folder were changed, as far as heads that others keep tell."""
    data = {CONTRACT: (files.root / CONTRACT).read_bytes()}
    for party, folder in files.logs.items():
        for name in LOG_FILES:
            if (folder / name).is_file():
                data[f"logs/{party}/{name}"] = (folder / name).read_bytes()
    return locate(data)


def prove_event(folder: Path, event: str, out: Path | None = None) -> Path:
    """Write the proof of a record, PARTY:NUMBER or, of one's own log, NUMBER; returns its file."""
    views = read_views(folder)
    party, _, number = event.rpartition(":")
    if not number.isdecimal() or (not party and len(views.logs) > 1):
        raise ConfigError(f"{event!r}: give PARTY:NUMBER, as fedmkt audit show prints them")
    log, index = views.log(party or views.logs[0].party), int(number)
    if not log.note:
        raise AuditError(f"the log of {log.party} has no signed head")
    try:
        proof = prove(log.leaf(index), index, log.tree, log.note)
    except ValueError as error:
        raise AuditError(f"{folder}: {error}", hint="what no head covers yet cannot be proven") from None
    path = out or Path(f"{log.party}-{index}.tlog-proof")
    write_atomically(path, bytes(proof), mode=0o644)
    return path


def compare_folders(left: Path, right: Path) -> Comparison:
    """Compare the logs of two folders under one contract; AuditError if the contracts differ."""
    ours, theirs = read_views(left), read_views(right)
    if (ours.contract, ours.keys) != (theirs.contract, theirs.keys):
        raise AuditError(f"{left} and {right} are under different contracts")
    return compare(ours.logs, theirs.logs, ours.keys)


def export_logs(folder: Path, form: str, out: Path) -> list[Path]:
    """Write a folder's logs in a form of `FORMATS`, one file (tiles: one folder) for each party; returns them."""
    views = read_views(folder)
    made = []
    for log in views.logs:
        if form == "tiles":
            made.append(out / log.party)
            for name, data in _tiles(log):
                write_atomically(out / log.party / name, data, mode=0o644)
            continue
        lines = _lines(form, log, views.contract)
        made.append(out / f"{log.party}.{'csv' if form == 'csv' else form + '.jsonl'}")
        write_atomically(made[-1], "".join(lines).encode(), mode=0o644)
    return made


def _tiles(log: LogView) -> Sequence[tuple[str, bytes]]:
    try:
        return list(tiles(log))
    except ValueError as error:
        raise AuditError(str(error)) from None


def _lines(form: str, log: LogView, contract: Contract) -> list[str]:
    if form == "csv":
        return list(export.csv_lines(log))
    if form == "ocsf":
        return [export.json_line(event) for event in export.ocsf(log)]
    if form == "openlineage":
        return [export.json_line(event) for event in export.open_lineage(log, contract)]
    raise ConfigError(f"{form!r} is no format", f"one of {', '.join(FORMATS)}")
