"""What the stand-alone verifier found, in plain words."""

from fedmkt.audit.verify import LogReport, Report


def lines(report: Report) -> list[str]:
    """Say what was verified, and what is not signed."""
    said = [f"contract {report.contract}"]
    for run in report.runs:
        lost = f" ({run.lost} lost in epochs that were given up)" if run.lost else ""
        counts = f"{run.messages} messages{lost}, {run.disclosures} disclosures"
        said += [f"run {run.run}: {run.outcome}", f"  {counts}, all allowed by the contract"]
    return [*said, *(line for log in report.logs for line in _log_lines(log))]


def _log_lines(log: LogReport) -> list[str]:
    by = ", ".join(log.cosigners) or "nobody"
    lines = [f"{log.party}: {log.records} records, cosigned by {by}", f"  root {log.root or 'none'}"]
    if log.pruned:
        lines.append(f"  expired: records 0 to {log.pruned - 1} were removed, their hashes verify")
    if tail := log.records - log.signed:
        lines.append(f"  not closed: {tail} records after the signed head; a change may go unfound")
    return lines
