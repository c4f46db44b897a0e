"""The pages of runs: what they show to whom, what is served apart, and that no path leads out of the lists."""

import csv
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from fedmkt.contract.canonical import digest
from fedmkt.contract.files import from_toml
from fedmkt.crypto.sign import Identity
from fedmkt.deploy import accounts
from fedmkt.deploy.accounts import ROLES, Cost
from fedmkt.evidence.pack import make_pack
from fedmkt.simulation.run import RunResult
from tests.console.world import CHEAP, NAMES, Console, add_accounts, console_of, propose
from tests.deploy.governed import GOVERNED
from tests.deploy.signers import write_party

FINDING = {
    "row": 3, "attack": "<script>x</script>", "metric": "AUC", "undefended": 0.99, "here": 0.5,
    "limit": {"value": 0.55, "is_least": False}, "verdict": "holds",
}  # fmt: skip
PAGE = b"<!DOCTYPE html><title>r</title><style>b{}</style><svg></svg><script>alert(1)</script>"


@pytest.fixture(scope="module")
def ran(small_run: RunResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank's folder as after a run, with a report, an evidence pack and a contract that attacks the page."""
    folder = write_party(tmp_path_factory.mktemp("ran") / "bank", "bank")
    add_accounts(folder)
    place = folder / "state" / "contracts" / "small-0123456789abcdef"
    place.mkdir(parents=True)
    shutil.copy(small_run.folder / "contract.toml", place)
    shutil.copytree(small_run.folder / "logs" / "bank", place / "log")
    model = small_run.folder / "parties" / "bank" / "model"
    shutil.copytree(model, place / "model", ignore=shutil.ignore_patterns("people.*", "left.*"))
    (place / "model" / "report.html").write_bytes(PAGE)
    agreed = digest(from_toml((place / "contract.toml").read_text(), "").contract).hex()
    (place / "attack-lab.json").write_text(json.dumps({"contract": agreed, "findings": [FINDING]}))
    make_pack(place, place / "evidence", "auditor", Identity(b"\x09" * 32))
    (place / "evidence" / "linked").symlink_to(folder / "keys" / "identity.key")
    job = GOVERNED.replace("Shop GmbH", "<script>alert(1)</script>").replace(
        "customers of the bank", "<img src=x onerror=alert(1)>"
    )
    propose(folder, job, folder / "spring.contract.toml")
    return folder


@pytest.fixture
def console(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setattr(accounts, "Cost", lambda *given: Cost(*given) if given else CHEAP)
    shutil.copytree(ran, tmp_path / "bank", symlinks=True)
    return console_of(tmp_path / "bank")


def run_of(console: Console) -> str:
    (run,) = {line for line in linked(console.browser("auditor").get("/").text) if line.startswith("/runs/")}
    return run


def linked(text: str) -> list[str]:
    return [part.partition('"')[0] for part in text.split('href="')[1:]]


def test_a_run_is_listed_with_its_end_and_its_progress_to_those_who_may_see_it(console: Console) -> None:
    for role in ROLES:
        text = console.browser(role).get("/").text
        assert "completed" in text and "Runs used" in text
        assert (" steps, last run.close" in text) == (role in ("operator", "auditor"))


def test_each_role_finds_on_a_run_what_its_commands_show(console: Console) -> None:
    run = run_of(console)
    text = {role: console.browser(role).get(run).text for role in ROLES}
    assert all("Learned that the other side" in text[role] for role in ROLES)
    counts = re.findall(
        r'<tr><td>([a-z]+)</td><td class="n">([0-9]+)</td><td class="n">[0-9.]+ s</td>', text["auditor"]
    )
    listed = re.findall(r"(?:^|<pre>) *[0-9]+  [0-9:]{8}  ([a-z]+)", text["auditor"], re.MULTILINE)
    assert {stage: int(count) for stage, count in counts} == Counter(listed) and len(listed) > 50
    for words, roles in (
        ("Every step", {"operator", "auditor"}),
        (f"{run}/messages", {"operator", "auditor"}),
        (f"{run}/verify", {"operator", "auditor"}),
        ("&lt;script&gt;x", {"operator", "auditor"}),
        (f"{run}/report", {"analyst"}),
    ):
        assert {role for role in ROLES if words in text[role]} == roles, words


def test_what_was_learned_is_said_in_chinese_too(console: Console) -> None:
    browser, run = console.browser("approver"), run_of(console)
    browser.get("/?language=zh")
    text = browser.get(run).text
    assert "得知对方名单有" in text and "谁得知了什么" in text and "Learned" not in text


def test_messages_are_summed_up_and_given_as_a_table(console: Console) -> None:
    browser, run = console.browser("auditor"), run_of(console)
    assert "one log (bank): nothing to match with" in browser.get(f"{run}/messages").text
    answer = browser.get(f"{run}/messages.csv")
    assert answer.headers["content-disposition"].startswith('attachment; filename="messages-')
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert len(rows) > 50 and {row["run"] for row in rows} == {run.removeprefix("/runs/")}


def test_the_log_is_verified_and_a_change_is_named_in_one_line(console: Console) -> None:
    browser, run = console.browser("auditor"), run_of(console)
    text = browser.get(f"{run}/verify").text
    assert "Everything that can be checked alone verifies" in text and "none changed" in text
    log = next(console.folder.glob("state/contracts/*/log/log.jsonl"))
    log.write_bytes(log.read_bytes().replace(b'"bytes":', b'"bytes":1', 1))
    text = browser.get(f"{run}/verify").text
    assert "Does not verify" in text and "changed below its signed head" in text and "Traceback" not in text


def test_reports_and_packs_are_served_apart_in_a_sandbox(console: Console) -> None:
    run = run_of(console)
    for role, path in (("analyst", f"{run}/report"), ("auditor", f"{run}/evidence/page")):
        answer = console.browser(role).get(path)
        policy = answer.headers["content-security-policy"]
        assert answer.status_code == 200 and policy.startswith("sandbox; default-src 'none'")
        assert "allow-" not in policy and "script-src" not in policy and "frame-ancestors 'none'" in policy
        if role == "analyst":
            assert answer.content == PAGE


def test_the_pack_verifies_here_and_gives_its_files_and_no_others(console: Console) -> None:
    browser, run = console.browser("auditor"), run_of(console)
    (console.folder / "state/contracts/small-0123456789abcdef/evidence/linked").unlink()
    text = browser.get(f"{run}/evidence").text
    assert "files as they were signed by auditor" in text
    files = [path for path in linked(text) if "/evidence/files/" in path]
    assert len(files) > 15
    answer = browser.get(f"{run}/evidence/files/drafts/gdpr-art-30-record.md")
    assert answer.headers["content-disposition"] == 'attachment; filename="gdpr-art-30-record.md"'
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    "path",
    [
        "/evidence/files/linked",
        "/evidence/files/../log/log.jsonl",
        "/evidence/files/%2e%2e/log/log.jsonl",
        "/evidence/files/..%2f..%2f..%2f..%2fkeys/identity.key",
        "/evidence/files//etc/passwd",
        "/evidence/files/",
        "/../../keys/identity.key",
    ],
)
def test_no_address_leads_out_of_the_lists(console: Console, path: str) -> None:
    answer = console.browser("auditor").get(run_of(console) + path)
    assert answer.status_code == 404 and "no such" in answer.text


def test_what_does_not_exist_is_one_line(console: Console) -> None:
    browser = console.browser("auditor")
    for path in (f"/runs/{'0' * 64}", f"/contracts/{'0' * 64}", f"/runs/{'0' * 64}/evidence/page", "/runs/x"):
        answer = browser.get(path)
        assert answer.status_code == 404 and "no such" in answer.text


@pytest.mark.parametrize(("language", "roles"), [("en", ROLES), ("zh", ("auditor",))])
def test_no_page_runs_what_a_name_says_or_shows_an_id(
    console: Console, small_run: RunResult, language: str, roles: tuple[str, ...]
) -> None:
    ids = {
        row["phone"]
        for row in csv.DictReader((small_run.folder.parent / "files" / "bank.csv").read_text().splitlines())
    }
    ids = {one for one in ids if len(one) > 8}
    assert len(ids) > 500
    secret = (console.folder / "keys" / "identity.key").read_bytes().hex()
    for role in roles:
        seen = set[str]()
        browser = console.browser(role)
        browser.get(f"/?language={language}")
        waiting = ["/"]
        while waiting:
            path = waiting.pop()
            answer = browser.get(path)
            assert answer.status_code in (200, 303), (role, path)
            seen.add(path)
            if "sandbox" in answer.headers["content-security-policy"] or path == "/style.css":
                continue
            text = answer.text
            assert not [
                mark for mark in ("<script", "<img", "<svg", " style=", "javascript:") if mark in text
            ]
            assert not [one for one in ids if one in text] and secret not in text
            # Files of the pack are downloads, no pages.
            links = [p for p in linked(text) if "?" not in p and "/evidence/files/" not in p]
            waiting += [p for p in links if p not in seen and p not in waiting]
        assert len(seen) > 8 and NAMES[role] in text
