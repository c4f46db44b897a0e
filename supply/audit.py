"""Ask a database of known weaknesses about every locked package, and say in one line what came of it.

    python -m supply.audit PIP_AUDIT      (`make audit`)

pip-audit ends with 0 also where an index knows no weaknesses at all and it so looked at nothing: such an answer
counts here as none. Exit code: 0 all were looked up and none is known, 1 some are, 3 not all could be looked up.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supply.lock import FILES

SERVICES = ("pypi", "osv")


def verdict(answer: Mapping[str, Any]) -> tuple[int, str]:
    """Read pip-audit's JSON: the exit code and the line; every package that was skipped counts as not looked up."""
    listed = answer["dependencies"]
    looked_up = [one for one in listed if "skip_reason" not in one]
    known = [
        f"{one['name']} {one['version']}: {weakness['id']}" for one in looked_up for weakness in one["vulns"]
    ]
    if known:
        return 1, f"{len(known)} known in {len(looked_up)} of {len(listed)} packages: {', '.join(known)}"
    if not listed or len(looked_up) < len(listed):
        return 3, f"not audited: only {len(looked_up)} of {len(listed)} packages could be looked up"
    return 0, f"none known in {len(listed)} packages"


def ask(pip_audit: str, service: str, root: Path) -> tuple[int, str]:
    """Run pip-audit on the three locks, in a minute; code 3 if its database does not answer."""
    command = [pip_audit, "--vulnerability-service", service, "--format", "json", "--progress-spinner", "off"]
    command += ["--disable-pip", "--require-hashes", "--timeout", "10"]
    for name in FILES.values():
        command += ["--requirement", str(root / name)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=60)
        return verdict(json.loads(done.stdout))
    except (subprocess.TimeoutExpired, ValueError):
        return 3, "not audited: the database does not answer from this machine"


def main() -> None:
    """Ask one service after the other until one has looked at everything."""
    root = Path(__file__).resolve().parents[1]
    code, line = 3, "not audited"
    for service in SERVICES:
        code, line = ask(sys.argv[1], service, root)
        print(f"pip-audit, {service}: {line}")
        if code != 3:
            break
    sys.exit(code)


if __name__ == "__main__":
    main()
