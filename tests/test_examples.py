import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedmkt.config.files import parse_job
from fedmkt.deploy.folders import (
    CoordinatorFolder,
    PartyFolder,
    load_coordinator_folder,
    load_party_folder,
)

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
# A script directly in examples/ runs as it is; one in a folder may need a file, and then says so with --help.
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
TOOLS = sorted(EXAMPLES.glob("*/*.py"))
JOBS = sorted(EXAMPLES.rglob("*.toml"))
SECONDS = 90


def run(script: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in an empty folder, with the fedmkt of this source tree."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "FLWR_TELEMETRY_ENABLED": "0"}
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_an_example_runs(script: Path, tmp_path: Path) -> None:
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("tool", TOOLS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_tool_of_an_example_says_what_it_needs(tool: Path, tmp_path: Path) -> None:
    done = run(tool, tmp_path, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


@pytest.mark.parametrize("job", JOBS, ids=lambda p: str(p.relative_to(EXAMPLES)))
def test_a_job_file_of_an_example_is_accepted(job: Path) -> None:
    parse_job(job.read_text(), str(job))


@pytest.mark.parametrize("script", [*SCRIPTS, *TOOLS], ids=lambda p: p.name)
def test_an_example_says_what_it_shows_in_its_first_line(script: Path) -> None:
    assert script.read_text().startswith('"""')


@pytest.mark.parametrize("party", ["bank", "partner"])
def test_the_template_of_an_organisation_is_accepted(party: str) -> None:
    settings, schema = load_party_folder(PartyFolder(ROOT / "parties" / party))
    assert settings.name == schema.name == party
    assert set(settings.policy.columns) == set(schema.columns)
    assert settings.policy.purposes == ()


def test_the_template_of_the_coordinator_is_accepted() -> None:
    settings = load_coordinator_folder(CoordinatorFolder(ROOT / "parties" / "coordinator"))
    assert settings.name == "coordinator"
    assert (settings.policy.columns, settings.policy.purposes) == ((), ())
