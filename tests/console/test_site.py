"""The console: each page by role, sign-in and sessions, decisions of approvers, and what the acts say of it all."""

import re
import string
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

import fedmkt.console
from fedmkt.audit.acts import Act, Actor
from fedmkt.cli.roles import COMMANDS
from fedmkt.console.sessions import SessionLimits, Sessions
from fedmkt.console.site import PAGES
from fedmkt.console.words import WORDS
from fedmkt.crypto.key_file import to_pem
from fedmkt.deploy import accounts
from fedmkt.deploy.accounts import ROLES, Accounts, Cost
from fedmkt.deploy.contracts import read_contract
from fedmkt.errors import ConfigError
from fedmkt.party.acts_log import read_acts
from fedmkt.party.contract_past import note_expired
from fedmkt.party.store import Store
from tests.console.world import (
    CHEAP,
    HOST,
    NAMES,
    PASSPHRASE,
    WORD,
    Browser,
    Clock,
    Console,
    console_of,
    found,
    key_of,
)
from tests.deploy.signers import EVE, write_party

RUN = "ab" * 32


@pytest.fixture
def console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setattr(accounts, "Cost", lambda *given: Cost(*given) if given else CHEAP)
    return console_of(found(tmp_path))


def acts(console: Console) -> tuple[Act, ...]:
    return read_acts(console.folder / "state").acts


def address(console: Console, browser: Browser) -> str:
    text = browser.get("/").text
    start = text.index("/contracts/")
    return text[start : start + len("/contracts/") + 64]


def decide(browser: Browser, where: str, what: str, key: bytes, **fields: str) -> httpx.Response:
    token = browser.token(where)
    return browser.post(
        f"{where}/{what}",
        {"token": token, **fields},
        files={"key": ("ann.key", key, "application/octet-stream")},
    )


def test_every_page_and_form_stands_for_a_command_of_the_table() -> None:
    assert {page.command for page in PAGES} <= set(COMMANDS)
    assert not any(COMMANDS[page.command].is_free for page in PAGES)
    # What changes something is a form, and what is a form changes something: reading roles have none.
    for page in PAGES:
        assert COMMANDS[page.command].changes == (page.method == "POST") or page.command == "report"
        if page.method == "POST":
            assert not COMMANDS[page.command].roles & {"auditor", "analyst"}


@pytest.mark.parametrize("role", ROLES)
def test_every_page_is_refused_to_the_roles_that_may_not_run_its_command(console: Console, role: str) -> None:
    browser = console.browser(role)
    token = browser.token("/")
    for page in PAGES:
        path = page.matcher.pattern.replace("\\Z", "")
        path = path.replace("(?P<contract>[0-9a-f]{64})", RUN).replace("(?P<run>[0-9a-f]{64})", RUN)
        path = path.replace("(?P<file>[A-Za-z0-9._/-]{1,200})", "sbom.cdx.json")
        answer = browser.get(path) if page.method == "GET" else browser.post(path, {"token": token})
        allowed = role in COMMANDS[page.command].roles
        assert (answer.status_code == 403) == (not allowed), (page.command, path)
        assert answer.status_code != 500, path
        last = acts(console)[-1]
        if not allowed:
            assert (last.body["command"], last.body["outcome"]) == (page.command, "refused")
            assert last.actor["id"] == NAMES[role]


def test_nothing_is_shown_without_a_session(console: Console) -> None:
    browser = console.browser()
    for path in ("/", "/acts", "/controls", f"/runs/{RUN}", "/no-such-page"):
        answer = browser.get(path)
        assert (answer.status_code, answer.headers["location"], answer.text) == (303, "/sign-in", "")
    assert browser.get("/style.css").status_code == 200
    assert "spring" not in browser.get("/sign-in").text


def test_a_folder_without_accounts_has_no_console(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no accounts"):
        console_of(write_party(tmp_path / "bank", "bank"))


def test_sign_ins_are_written_down_with_who_it_was_also_those_that_fail(console: Console) -> None:
    browser = console.browser()
    assert browser.sign_in("udo", "not the word at all").status_code == 403
    assert browser.sign_in("a password typed as a name").status_code == 403
    assert browser.sign_in("udo").status_code == 303
    browser.post("/sign-out", {"token": browser.token("/")})
    assert browser.get("/").headers["location"] == "/sign-in"
    said = [(a.type, a.actor["id"], a.body.get("account"), a.body.get("why")) for a in acts(console)]
    assert [said[0], said[1], said[2], said[-1]] == [
        ("login.refused", "machine", "udo", "wrong name or password"),
        ("login.refused", "machine", "unknown", "wrong name or password"),
        ("login.accepted", "udo", None, None),
        ("login.ended", "udo", None, "signed out"),
    ]
    assert WORD not in (console.folder / "state" / "acts.jsonl").read_text()


def test_the_console_and_the_command_line_share_one_lockout(console: Console) -> None:
    browser = console.browser()
    for _ in range(5):
        assert "wrong name or password" in browser.sign_in("udo", "not the word at all").text
    assert "too many failed logins" in browser.sign_in("udo").text
    with pytest.raises(Exception, match="too many failed"):
        Accounts(console.folder / "keys", cost=CHEAP).log_in("udo", WORD)


def test_sign_ins_beyond_a_rate_cost_no_guess_and_no_line(console: Console) -> None:
    browser = console.browser()
    for number in range(10):
        browser.sign_in(f"name-{number}", "some word or other")
    written = len(acts(console))
    assert "too many sign-ins at once" in browser.sign_in("udo").text
    assert len(acts(console)) == written


@pytest.mark.parametrize(
    ("step", "times", "why"),
    [(timedelta(minutes=16), 1, "its time was over"), (timedelta(minutes=14), 36, "its time was over")],
)
def test_a_session_ends_without_use_and_after_a_day_in_any_case(
    console: Console, step: timedelta, times: int, why: str
) -> None:
    browser = console.browser("auditor")
    for _ in range(times):
        console.clock.now += step
        answer = browser.get("/controls")
    assert answer.headers.get("location") == "/sign-in"
    assert [a.body["why"] for a in acts(console) if a.type == "login.ended"] == [why]


@pytest.mark.parametrize("change", ["password", "remove"])
def test_a_session_ends_with_its_account(console: Console, change: str) -> None:
    browser = console.browser("auditor")
    keys = Accounts(console.folder / "keys", cost=CHEAP)
    keys.remove("udo") if change == "remove" else keys.set_password("udo", "another word, longer")
    assert browser.get("/").headers["location"] == "/sign-in"


def test_an_id_from_before_the_sign_in_is_worth_nothing_after_it(console: Console) -> None:
    browser = console.browser()
    browser.get("/sign-in")
    (before,) = (cookie.value for cookie in browser.cookies.jar)
    browser.sign_in("udo")
    (after,) = (cookie.value for cookie in browser.cookies.jar)
    assert before != after
    stranger = console.browser()
    stranger.cookies.set("fedmkt-8470", str(before))
    assert stranger.get("/").headers["location"] == "/sign-in"


def test_the_overview_says_how_each_contract_stands(console: Console) -> None:
    browser = console.browser("approver")
    assert "proposed: 0 of 4 approvals" in browser.get("/").text
    assert decide(browser, address(console, browser), "approve", key_of("ann"), read="yes").status_code == 303
    assert "waiting for approvals: 1 of 4" in browser.get("/").text
    console.clock.now += timedelta(days=31)
    browser.sign_in("carl")
    assert "expired" in browser.get("/").text


def test_what_the_party_remembers_of_a_contract_is_its_state(console: Console) -> None:
    file = console.folder / "contracts" / "spring.contract.toml"
    contract, store = read_contract(file).contract, Store(console.folder / "state" / "store")
    browser = console.browser("approver")
    where = address(console, browser)
    assert "key-approve" in browser.get(where).text
    note_expired(store, contract)
    assert "expired" in browser.get("/").text and "key-approve" not in browser.get(where).text
    answer = decide(browser, where, "approve", key_of("ann"), read="yes")
    assert answer.status_code == 403 and "nobody decides" in answer.text


def test_an_approver_approves_and_denies_with_a_key_that_is_not_kept(console: Console) -> None:
    browser = console.browser("approver")
    where = address(console, browser)
    assert browser.get(where).status_code == 200
    locked = key_of("ann", PASSPHRASE)
    assert decide(browser, where, "approve", locked, passphrase=PASSPHRASE, read="yes").status_code == 303
    assert "approved" in browser.get(where).text
    console.clock.now += timedelta(seconds=5)
    assert decide(browser, where, "deny", key_of("ann"), reason="not <b>yet</b>").status_code == 303
    text = browser.get(where).text
    assert "denied: not &lt;b&gt;yet&lt;/b&gt;" in text
    files = sorted((console.folder / "contracts" / "spring.contract.toml.approvals").iterdir())
    assert [f.name for f in files] == ["bank.ann.approval.dsse.json", "bank.ann.denial.dsse.json"]
    kept = b"".join(p.read_bytes() for p in console.folder.rglob("*") if p.is_file())
    assert PASSPHRASE.encode() not in kept and locked[60:120] not in kept
    said = [
        (a.type, a.body["command"], a.body.get("outcome"))
        for a in acts(console)
        if a.body.get("command", "") in ("contract approve", "contract deny")
    ]
    assert said == [
        ("act.begun", "contract approve", None), ("act.ended", "contract approve", "done"),
        ("act.begun", "contract deny", None), ("act.ended", "contract deny", "done"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "key", "complaint"),
    [
        ({}, key_of("ann"), "confirm that you have read"),
        ({"read": "yes"}, b"", "choose your key file"),
        ({"read": "yes"}, b"no key", "no private key in PEM"),
        ({"read": "yes", "passphrase": "wrong"}, key_of("ann", PASSPHRASE), "another passphrase"),
    ],
)
def test_a_decision_that_lacks_something_writes_nothing(
    console: Console, fields: dict[str, str], key: bytes, complaint: str
) -> None:
    browser = console.browser("approver")
    where = address(console, browser)
    answer = decide(browser, where, "approve", key, **fields)
    assert complaint in answer.text and "Traceback" not in answer.text
    assert not (console.folder / "contracts" / "spring.contract.toml.approvals").exists()
    assert acts(console)[-1].body["outcome"] == "ConfigError"


def test_a_key_that_the_contract_does_not_have_decides_nothing(console: Console) -> None:
    browser = console.browser("approver")
    answer = decide(browser, address(console, browser), "approve", to_pem(EVE, None), read="yes")
    assert "names nobody with this key" in answer.text


def test_what_a_person_opens_is_written_down_once_and_by_name(console: Console) -> None:
    browser = console.browser("approver")
    where = address(console, browser)
    for _ in range(3):
        browser.get(where)
    found = [a for a in acts(console) if a.body.get("page") == where]
    assert [(a.actor["id"], a.type, a.body["command"]) for a in found] == [
        ("carl", "act.ended", "contract review")
    ]


def test_both_languages_have_every_sentence_with_the_same_values() -> None:
    def values(text: str) -> set[str | None]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    assert set(WORDS["en"]) == set(WORDS["zh"])
    assert [key for key in WORDS["en"] if values(WORDS["en"][key]) != values(WORDS["zh"][key])] == []


def test_the_templates_say_every_sentence_and_no_other() -> None:
    folder = Path(fedmkt.console.__file__).parent
    text = "".join(path.read_text() for path in folder.glob("*.j2"))
    starts = ("role.", "state.", "outcome.")
    assert all(f'say("{start}" ~' in text for start in starts)
    assert set(re.findall(r'say\("([a-z_]+)"', text)) <= set(WORDS["en"])
    quoted = set(re.findall(r'"([a-z_]+)"', text))
    assert [key for key in WORDS["en"] if key not in quoted and not key.startswith(starts)] == []


def test_forms_without_the_sessions_token_change_nothing(console: Console) -> None:
    ours, other = console.browser("approver"), console.browser("approver")
    where = address(console, ours)
    assert re.fullmatch("[0-9a-f]{64}", ours.token(where))
    for token in ("", "0" * 64, other.token(where)):
        fields = {"token": token, "read": "yes"}
        answer = ours.post(f"{where}/approve", fields, files={"key": ("k", key_of("ann"), "text/plain")})
        assert answer.status_code == 403 and "not of this session" in answer.text
        assert ours.post("/sign-out", {"token": token}).status_code == 403
    assert ours.get(f"{where}/approve").status_code == 404
    assert not (console.folder / "contracts" / "spring.contract.toml.approvals").exists()
    assert ours.get("/").status_code == 200


def test_a_sign_in_needs_the_page_that_it_came_from(console: Console) -> None:
    token = console.browser().token()
    answer = console.browser().post("/sign-in", {"account": "udo", "password": WORD, "token": token})
    assert answer.status_code == 403 and "not of this session" in answer.text
    assert acts(console) == ()


def test_the_cookie_is_for_this_site_alone_and_no_script_reads_it(console: Console) -> None:
    browser = console.browser()
    for answer in (browser.get("/sign-in"), browser.sign_in("udo")):
        name, _, rest = answer.headers["set-cookie"].partition("=")
        value, *flags = rest.split("; ")
        assert (name, len(value), flags) == ("fedmkt-8470", 64, ["Path=/", "HttpOnly", "SameSite=Strict"])


def test_a_session_is_kept_by_the_hash_of_its_id_alone() -> None:
    sessions = Sessions(Clock())
    name, _ = sessions.begin(Actor("udo", "account", "password", ("auditor",)), "mark")
    assert sessions.find(name) is not None and sessions.find(name[:-1] + "x") is None
    assert name not in repr(vars(sessions)) and bytes.fromhex(name) not in sessions._found
    assert sessions.is_token(name, sessions.token(name)) and not sessions.is_token(name, name)


def test_the_session_used_least_recently_gives_way_to_one_too_many() -> None:
    clock = Clock()
    sessions = Sessions(clock, SessionLimits(most=2))
    actor = Actor("udo", "account", "password", ("auditor",))
    (first, _), (second, _) = sessions.begin(actor, ""), sessions.begin(actor, "")
    clock.now += timedelta(minutes=1)
    assert sessions.find(first) is not None
    third, ended = sessions.begin(actor, "")
    assert ended is not None and ended.began == ended.used
    assert [sessions.find(name) is not None for name in (first, second, third)] == [True, False, True]


def test_a_mistake_of_ours_shows_its_kind_and_nothing_else(
    console: Console, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(folder: object) -> None:
        raise RuntimeError("13800138001 is the phone of somebody")

    browser = console.browser("auditor")
    monkeypatch.setattr("fedmkt.console.visit.read_shelf", fail)
    answer = browser.get("/")
    assert answer.status_code == 500 and "unexpected RuntimeError" in answer.text
    assert "13800138001" not in answer.text + caplog.text and "Traceback" not in answer.text + caplog.text
    assert acts(console)[-1].body["outcome"] == "RuntimeError"


def test_accounts_that_were_lost_while_it_runs_are_one_line(console: Console) -> None:
    browser = console.browser("auditor")
    (console.folder / "keys" / "accounts.json").unlink()
    answer = browser.get("/")
    assert answer.status_code == 400 and "No such file" in answer.text and "Contracts" not in answer.text


def test_a_browser_keeps_its_language(console: Console) -> None:
    browser = console.browser("auditor")
    answer = browser.get("/controls?language=zh")
    assert (answer.status_code, answer.headers["location"]) == (303, "/controls")
    assert 'lang="zh-Hans"' in browser.get("/controls").text
    assert "控制项" in browser.get("/controls").text
    assert browser.get(f"http://{HOST}//evil.example/?language=en").headers["location"] == "/"
    assert browser.get("/a%0d%0aset-cookie:x=1?language=en").headers["location"] == "/"


def test_the_page_of_the_documentation_has_the_commands_and_roles_of_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "console.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    said = {command: roles for _, commands, roles in rows for command in re.findall("`([^`]+)`", commands)}
    assert {page.command for page in PAGES} <= set(said)
    for command, roles in said.items():
        assert set(ROLES if roles == "all" else roles.split(", ")) == COMMANDS[command].roles, command
