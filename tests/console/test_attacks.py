"""What somebody tries who has an account, another port of this machine, or good timing."""

import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fedmkt.audit.acts import Actor
from fedmkt.console import shelf
from fedmkt.console.sessions import SessionLimits, Sessions
from fedmkt.contract.canonical import digest
from fedmkt.contract.reading.phrases_en import ENGLISH
from fedmkt.deploy import accounts
from fedmkt.deploy.accounts import Accounts, Cost
from fedmkt.deploy.contracts import read_contract, write_draft
from fedmkt.deploy.life import renewed
from fedmkt.party.acts_log import ACTS_FILE, read_acts
from tests.console.world import CHEAP, HOST, Clock, Console, console_of, found

UDO = Actor("udo", "account", "password", ("auditor",))


@pytest.fixture
def console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setattr(accounts, "Cost", lambda *given: Cost(*given) if given else CHEAP)
    return console_of(found(tmp_path))


def test_two_requests_at_once_do_not_end_a_session() -> None:
    clock, slow, other_used = Clock(), threading.Event(), threading.Event()

    def now() -> datetime:
        if threading.current_thread().name != "slow":
            return clock.now + timedelta(milliseconds=1)
        slow.set()
        other_used.wait(0.3)  # whoever asks for the time first may be the last to use the session
        return clock.now

    sessions = Sessions(now)
    sessions._clock = clock
    name, _ = sessions.begin(UDO, "mark")
    sessions._clock = now
    results = list[object]()
    thread = threading.Thread(target=lambda: results.append(sessions.find(name)), name="slow")
    thread.start()
    slow.wait()
    assert sessions.find(name) is not None
    other_used.set()
    thread.join()
    assert results != [None]


@pytest.mark.parametrize("change", ["removed", "another role"])
def test_an_account_that_changes_while_its_password_is_judged_gets_no_session(
    console: Console, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    log_in, keys = Accounts.log_in, Accounts(console.folder / "keys", cost=CHEAP)

    def slow(self: Accounts, name: str, password: str) -> accounts.Account:
        found = log_in(self, name, password)
        keys.remove("udo")
        if change == "another role":
            keys.add("udo", ["analyst"], password)
        return found

    monkeypatch.setattr(Accounts, "log_in", slow)
    browser = console.browser()
    browser.sign_in("udo")
    assert browser.get("/acts").headers.get("location") == "/sign-in"


def test_the_session_that_gives_way_to_one_too_many_is_written_down(console: Console) -> None:
    site = console.door._inside
    site._sessions = Sessions(console.clock, SessionLimits(most=2))
    for role in ("auditor", "operator", "analyst"):
        console.clock.now += timedelta(seconds=1)
        console.browser(role)
    said = [
        (a.actor["id"], a.body["why"]) for a in read_acts(console.folder / "state").acts if "why" in a.body
    ]
    assert said == [("udo", "too many sessions")]


def test_no_page_is_shown_that_could_not_be_written_down(console: Console) -> None:
    browser = console.browser("auditor")
    acts = console.folder / "state" / ACTS_FILE
    acts.write_bytes(acts.read_bytes().replace(b"password", b"os-user", 1))
    acts.write_bytes(acts.read_bytes() + b"{}\n")
    for _ in range(2):
        answer = browser.get("/controls")
        assert answer.status_code == 400 and "C07" not in answer.text


def test_no_link_of_a_page_leads_to_a_host_that_an_address_names(console: Console) -> None:
    text = console.browser("auditor").get(f"http://{HOST}//evil.example/").text
    assert 'href="?language=zh"' in text and "evil.example" not in text


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
def test_another_port_of_this_machine_cannot_open_pages_in_a_persons_name(
    console: Console, site: str
) -> None:
    browser = console.browser("auditor")
    before = read_acts(console.folder / "state").acts
    assert browser.get("/acts", headers={"sec-fetch-site": site}).status_code == 403
    assert read_acts(console.folder / "state").acts == before
    for ours in ("same-origin", "none"):
        assert browser.get("/acts", headers={"sec-fetch-site": ours}).status_code == 200


def test_what_expires_while_a_page_is_made_is_one_line_and_the_rest_is_shown(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = console.folder / "contracts" / "spring.contract.toml"
    read = shelf.statements_on

    def gone(path: Path, *rest: object) -> object:
        if path.name.startswith("a."):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return read(path, *rest)

    file.with_name("a.contract.toml").write_bytes(file.read_bytes())
    monkeypatch.setattr(shelf, "statements_on", gone)
    answer = console.browser("auditor").get("/")
    assert answer.status_code == 200 and "No such file" in answer.text and "/contracts/" in answer.text


def test_a_file_that_went_away_is_no_fault_of_ours(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*given: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "/a/private/place")

    browser = console.browser("auditor")
    monkeypatch.setattr("fedmkt.console.pages.verify_acts", gone)
    answer = browser.get("/acts")
    assert answer.status_code == 503 and "open the page again" in answer.text
    assert "/a/private/place" not in answer.text and "fault" not in answer.text


def test_what_a_contract_amends_is_shown_with_its_state_or_as_missing(console: Console) -> None:
    first = console.folder / "contracts" / "spring.contract.toml"
    second = renewed(read_contract(first).contract, console.clock.now, None)
    write_draft(second, first.with_name("again.contract.toml"))
    browser, path = console.browser("approver"), f"/contracts/{digest(second.contract).hex()}"
    text = browser.get(path).text
    assert text.count("proposed: 0 of 4 approvals") == 2, "its own, and that of the version before"
    first.unlink()
    text = browser.get(path).text
    assert "a version that is not here" in text and ENGLISH["changes_missing"] in text
    assert ENGLISH["changes_first"] not in text
