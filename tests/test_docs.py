import re
import shlex
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import click
import pytest
import typer.main

import fedmkt.protocol
from fedmkt.cli.app import app
from fedmkt.config.files import parse_job
from fedmkt.contract.agreement import Limits, ScoreTerms
from fedmkt.contract.model_terms import AdditiveTerms, ModelTerms, TreeTerms, needed_disclosures
from fedmkt.protocol.core import Step
from fedmkt.protocol.family import FAMILIES

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "parties").rglob("*.md")])
COMMANDS = typer.main.get_command(app)

# Other systems' names for what has a name of its own here.
WRONG_WORDS = re.compile(r"(?<!--)\b(guests?|hosts?|arbiters?)\b", re.IGNORECASE)  # but --host is an option
MAKE_TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def console_lines(text: str) -> list[str]:
    """List what the ```console blocks tell the reader to type."""
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [
        line[2:].partition(" #")[0].strip()
        for block in blocks
        for line in block.splitlines()
        if line[:2] == "$ "
    ]


def missing_in(line: str) -> str:
    """Say what in a `fedmkt` command line does not exist; empty if all does."""
    command: click.Command = COMMANDS
    words = shlex.split(line)[1:]
    options: set[str] = set()
    for word in words:
        if word.startswith("-"):
            options.add(word.partition("=")[0])
        elif isinstance(command, click.Group):
            if word not in command.commands and (default := getattr(command, "default", "")):
                command = command.commands[default]
                continue
            if word not in command.commands:
                return word
            command = command.commands[word]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
    if isinstance(command, click.Group) and not options:
        return f"a command after {words}"
    return ", ".join(sorted(options - known))


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_a_page_shows_only_commands_that_exist(page: Path) -> None:
    for line in console_lines(page.read_text()):
        if line.startswith("fedmkt"):
            assert missing_in(line) == "", line
        elif line.startswith("make"):
            assert set(line.split()[1:]) <= MAKE_TARGETS, line


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_a_page_uses_the_words_of_the_project(page: Path) -> None:
    found = WRONG_WORDS.findall(page.read_text())
    assert found == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_a_page_links_only_to_files_that_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_job_file_in_the_documentation_is_accepted() -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```", (ROOT / "docs" / "job.md").read_text(), re.M | re.S)
    job = parse_job(text, "docs/job.md")
    assert job.limits == Limits() and job.scores == ScoreTerms()  # what it calls defaults are the defaults
    assert job.model == ModelTerms() and job.additive == AdditiveTerms()


def test_the_changelog_names_every_disclosure_that_a_step_of_the_job_may_make() -> None:
    revealed = {kind.__name__ for step in all_steps() for kind in step.reveals}
    named = set(re.findall(r"^- `(\w+)`", (ROOT / "CHANGELOG.md").read_text(), re.M))
    assert revealed == named


def test_the_readme_has_a_row_for_each_family_that_names_what_it_reveals() -> None:
    section = (ROOT / "README.md").read_text().partition("\n## Families\n")[2].partition("\n## ")[0]
    rows = [row for row in section.splitlines() if row.startswith("| `")]
    assert list(dict.fromkeys(row.split("`")[1] for row in rows)) == list(FAMILIES)
    modes = [re.findall(r'`trees.reveal = "(\w+)"`', row) for row in rows]
    assert [mode for found in modes for mode in found] == ["sides", "totals", "nothing"]
    for row, mode in zip(rows, modes, strict=True):
        model = ModelTerms.model_validate({"kind": row.split("`")[1]})
        terms = {"reveal": mode[0]} if mode else {"epsilon": 4.0} if "`trees.epsilon`" in row else {}
        trees = TreeTerms.model_validate(terms)
        assert set(needed_disclosures(model, trees)) == set(re.findall(r"`([A-Z]\w+)`", row))


def all_steps() -> list[Step[Any, Any, Any]]:
    """List the steps of every protocol module."""
    found = walk_packages(fedmkt.protocol.__path__, "fedmkt.protocol.")
    modules = [import_module(m.name) for m in found]
    return [value for module in modules for value in vars(module).values() if isinstance(value, Step)]


def test_the_readme_shows_the_commands_of_the_first_screen() -> None:
    lines = console_lines((ROOT / "README.md").read_text())
    assert {"make demo", "make test", "fedmkt demo"} <= set(lines)


@pytest.mark.parametrize(
    "line",
    ["fedmkt fly", "fedmkt audit fly RUN", "fedmkt plan JOB --fly", "fedmkt demo --fly=1", "fedmkt audit"],
)
def test_a_made_up_command_is_noticed(line: str) -> None:
    assert missing_in(line) != ""


# They run until they are told to end, and print a line when something happens: `status --json` has the facts.
WITHOUT_JSON = {"up", "console"}


def test_every_command_can_print_json_and_says_what_it_does() -> None:
    groups = [COMMANDS]
    for group in groups:
        for command in group.commands.values():
            if isinstance(command, click.Group):
                groups.append(command)
                continue
            assert command.help
            is_silent = not any("--json" in parameter.opts for parameter in command.params)
            assert is_silent == (command.name in WITHOUT_JSON), command.name
