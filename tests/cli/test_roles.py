"""Roles: one table, a login where an organisation has accounts, every act with its actor."""

import json
import os
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer

from fedmkt.audit.acts import Actor, Chain, read_chain
from fedmkt.cli import roles
from fedmkt.cli.app import app, main
from fedmkt.cli.roles import ACCOUNT, COMMANDS, NEW_PASSWORD_FILE, PASSWORD_FILE, leaves
from fedmkt.deploy import accounts
from fedmkt.deploy.accounts import ROLES, Accounts, Cost
from fedmkt.deploy.acts import verify_acts
from fedmkt.errors import AuditError, ConfigError, PolicyRefused
from fedmkt.party.acts_log import ActsLog

CHEAP = Cost(64, 1, 1)
WORD, OTHER = "correct horse battery", "staple that is wrong"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2031, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an organisation's folder; guesses are cheap and the machine's user has no account."""
    monkeypatch.setattr(accounts, "Cost", lambda *given: Cost(*given) if given else CHEAP)
    monkeypatch.setattr(roles, "machine_user", lambda: "olga")
    for name in (ACCOUNT, PASSWORD_FILE, NEW_PASSWORD_FILE):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "bank"
    root.mkdir()
    (root / "party.toml").write_text("")
    return root


def secret(folder: Path, text: str, name: str = "word") -> str:
    path = folder.parent / name
    path.write_text(text + "\n")
    path.chmod(0o600)
    return str(path)


def acts(folder: Path) -> list[tuple[object, str, object, object]]:
    found = ActsLog(folder / "state", Clock()).chain().acts
    return [(a.actor["id"], a.type, a.body.get("command"), a.body.get("outcome")) for a in found]


def test_every_command_is_in_the_table_and_nothing_else_is() -> None:
    found = dict(leaves(typer.main.get_command(app)))
    options = {f"{path} {o}" for path, command in found.items() for p in command.params for o in p.opts}
    assert set(found) <= set(COMMANDS)
    assert set(COMMANDS) <= set(found) | options
    assert {role for may in COMMANDS.values() for role in may.roles} == set(ROLES)


def test_who_signs_does_not_run_and_who_audits_changes_nothing() -> None:
    assert all(COMMANDS[f"contract {act}"].roles == {"approver"} for act in ("approve", "deny", "sign"))
    changing = {name for name, may in COMMANDS.items() if may.changes}
    own = {"audit auditor-key", "audit deals"}  # an auditor's own key, and its own word about the dealer
    assert {name for name in changing if "auditor" in COMMANDS[name].roles} <= own
    assert all(COMMANDS[name].roles == {"auditor"} for name in own)
    drafting = {
        "contract new",
        "contract propose",
        "contract amend",
        "contract renew",
        "contract merge",
        "run",
    }
    assert drafting <= changing and not any("approver" in COMMANDS[name].roles for name in drafting)


def test_a_password_is_kept_as_argon2id_and_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    store = Accounts(tmp_path, cost=CHEAP)
    store.add("ann", ["operator", "analyst"], WORD)
    text = store.path.read_text()
    assert WORD not in text and json.loads(text)["ann"]["password"]["cost"] == [64, 1, 1]
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert store.log_in("ann", WORD).roles == ("operator", "analyst")
    store.path.chmod(0o640)
    with pytest.raises(ConfigError, match="others can read"):
        store.all()
    assert Cost() == Cost(65_536, 3, 1), "RFC 9106, second recommended choice, one lane"


def test_an_unknown_name_and_a_wrong_password_look_and_cost_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Accounts(tmp_path, cost=Cost(4096, 2, 1))
    store.add("ann", ["operator"], WORD)
    store.add("svc", ["operator"], None, "fedmkt")
    derived: list[Cost] = []
    true = accounts._derive
    monkeypatch.setattr(accounts, "_derive", lambda p, s, c: derived.append(c) or true(p, s, c))
    said, seconds = set(), []
    for name in ("ann", "nobody", "svc"):
        begun = time.process_time()
        with pytest.raises(PolicyRefused) as caught:
            store.log_in(name, OTHER)
        seconds.append(time.process_time() - begun)
        said.add((str(caught.value), caught.value.hint))
    assert said == {("wrong name or password", "")} and derived == [Cost(4096, 2, 1)] * 3
    assert min(seconds) > 0.001, "each of them did the work"


@pytest.mark.parametrize("name", ["ann", "nobody"])
def test_after_five_failures_each_attempt_waits_twice_as_long(tmp_path: Path, name: str) -> None:
    clock = Clock()
    store = Accounts(tmp_path, clock, CHEAP)
    store.add("ann", ["operator"], WORD)
    for _ in range(5):
        with pytest.raises(PolicyRefused, match="wrong name or password"):
            store.log_in(name, OTHER)
    for wait in (30, 60, 120):
        with pytest.raises(PolicyRefused, match="too many failed logins"):
            store.log_in(name, WORD)
        clock.now += timedelta(seconds=wait - 1)
        with pytest.raises(PolicyRefused, match="too many failed logins"):
            store.log_in(name, WORD)
        clock.now += timedelta(seconds=1)
        with pytest.raises(PolicyRefused, match="wrong name or password"):
            store.log_in(name, OTHER)
    clock.now += timedelta(hours=1)
    if name == "ann":
        store.log_in("ann", WORD)
        with pytest.raises(PolicyRefused, match="wrong name or password"):
            store.log_in("ann", OTHER)


def test_accounts_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    store = Accounts(tmp_path, cost=CHEAP)
    for name, chosen, word, match in (
        ("ann", ["auditor"], WORD, "the first account is an operator's"),
        ("Ann", ["operator"], WORD, "small letters"),
        ("ann", ["boss"], WORD, "accepted: operator"),
        ("ann", [], WORD, "a role at least"),
        ("ann", ["operator", "approver"], WORD, "stand alone"),
        ("ann", ["operator"], "short", "12 letters"),
        ("ann", ["operator"], None, "one of the two"),
    ):
        with pytest.raises(ConfigError, match=match):
            store.add(name, chosen, word)
    assert not store.exist
    store.add("ann", ["operator"], WORD)
    with pytest.raises(PolicyRefused, match="last operator"):
        store.remove("ann")


def test_without_accounts_only_changes_are_written_under_the_machines_user(folder: Path) -> None:
    assert main(["accounts", "list", "--dir", str(folder)]) == 0
    assert acts(folder) == []
    assert main(["expire", "--yes", "--dir", str(folder)]) == 2
    assert acts(folder) == [
        ("olga", "act.begun", "expire", None), ("olga", "act.ended", "expire", "ConfigError"),
    ]  # fmt: skip


def test_with_accounts_a_command_asks_who_runs_it_and_says_so_in_the_acts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(NEW_PASSWORD_FILE, secret(folder, WORD))
    assert main(["accounts", "add", "ann", "--role", "operator", "--dir", str(folder)]) == 0
    assert main(["accounts", "list", "--dir", str(folder)]) == 4
    assert "none for the user olga" in capsys.readouterr().err
    monkeypatch.setenv(ACCOUNT, "ann")
    monkeypatch.setenv(PASSWORD_FILE, secret(folder, WORD))
    assert (
        main(["accounts", "add", "eve", "--role", "auditor", "--os-user", "olga", "--dir", str(folder)]) == 0
    )
    monkeypatch.delenv(ACCOUNT)
    assert main(["accounts", "list", "--dir", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "eve" in out and "user olga" in out and max(map(len, out.splitlines())) <= 80
    assert main(["expire", "--yes", "--dir", str(folder)]) == 4
    err = capsys.readouterr().err
    assert "is for operator" in err and "eve is auditor" in err
    monkeypatch.setenv(ACCOUNT, WORD)  # typed in the wrong place
    assert main(["accounts", "list", "--dir", str(folder)]) == 4
    found = acts(folder)
    assert [(who, what) for who, what, _, _ in found if what != "act.begun"] == [
        ("olga", "account.added"), ("olga", "act.ended"), ("ann", "account.added"), ("ann", "act.ended"),
        ("eve", "act.ended"), ("eve", "act.ended"), ("olga", "login.refused"),
    ]  # fmt: skip
    assert ("eve", "act.ended", "expire", "refused") in found
    for path in folder.rglob("*"):
        assert not path.is_file() or WORD.encode() not in path.read_bytes(), path


def test_a_command_that_the_table_does_not_have_is_refused_where_there_are_accounts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Accounts(folder / "keys", cost=CHEAP).add("ann", ["operator"], None, "olga")
    assert main(["accounts", "list", "--dir", str(folder)]) == 0
    monkeypatch.delitem(COMMANDS, "accounts list")
    assert main(["accounts", "list", "--dir", str(folder)]) == 4
    assert "is for nobody" in capsys.readouterr().err


def test_a_passwords_file_that_others_can_read_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Accounts(folder / "keys", cost=CHEAP).add("ann", ["operator"], WORD)
    monkeypatch.setenv(ACCOUNT, "ann")
    path = secret(folder, WORD)
    os.chmod(path, 0o644)
    monkeypatch.setenv(PASSWORD_FILE, path)
    assert main(["accounts", "list", "--dir", str(folder)]) == 2


def written(folder: Path) -> tuple[ActsLog, Path]:
    log = ActsLog(folder, Clock())
    for number in range(6):
        log.say(Actor("ann", "account", "password", ("operator",)), "act.begun", {"command": f"run {number}"})
    return log, folder / "acts.jsonl"


@pytest.mark.parametrize("what", ["changed", "removed", "swapped", "put in", "cut"])
def test_a_change_of_the_acts_is_found_with_its_line(tmp_path: Path, what: str) -> None:
    _, path = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    if what == "changed":
        lines[2] = lines[2].replace(b"ann", b"bob")
    elif what == "removed":
        del lines[3]
    elif what == "swapped":
        lines[3], lines[4] = lines[4], lines[3]
    elif what == "put in":
        lines.insert(3, lines[3])
    else:
        lines[-1] = lines[-1][:-1]
    found = {"changed": "line 4", "removed": "line 4", "swapped": "line 4", "put in": "line 5", "cut": "cut"}
    with pytest.raises(AuditError, match=found[what]):
        read_chain(b"".join(lines))


def test_acts_that_are_missing_at_the_end_are_found_by_a_head_that_stands_elsewhere(tmp_path: Path) -> None:
    log, path = written(tmp_path)
    whole = log.chain()
    whole.check_anchor(6, whole.head, "a log")
    whole.check_anchor(0, read_chain(b"").head, "a log")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))
    with pytest.raises(AuditError, match="4 acts, a log counted 6"):
        log.chain().check_anchor(6, whole.head, "a log")
    for number in (4, 5):
        log.say(Actor("bob", "account", "password", ("operator",)), "act.begun", {"command": f"run {number}"})
    with pytest.raises(AuditError, match="not those that a log saw"):
        log.chain().check_anchor(6, whole.head, "a log")


def test_half_a_line_that_a_crash_left_is_no_act(tmp_path: Path) -> None:
    log, path = written(tmp_path)
    path.write_bytes(path.read_bytes() + b'{"act')
    log.say(Actor("ann", "account", "password", ("operator",)), "act.ended", {"command": "run"})
    assert len(log.chain().acts) == 7


# ------------------------------------------------------------------------------- what somebody may try


def test_a_link_into_a_folder_does_not_lead_past_the_login(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = folder / "state" / "contracts" / "spring"
    below.mkdir(parents=True)
    Accounts(folder / "keys", cost=CHEAP).add("ann", ["operator"], WORD)
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside" / "link").symlink_to(below)
    monkeypatch.chdir(tmp_path / "aside")
    assert roles.organisations([Path("link")]) == [folder]
    assert main(["audit", "verify", "link"]) == PolicyRefused.exit_code
    # And of one that lies in two, both are asked.
    other = tmp_path / "aside"
    (other / "coordinator.toml").write_text("")
    assert set(roles.organisations([other / "link"])) == {folder, other}


def test_guesses_at_names_of_chance_do_not_make_a_real_account_forget_its_failures(tmp_path: Path) -> None:
    clock = Clock()
    store = Accounts(tmp_path, clock, CHEAP)
    store.add("ann", ["operator"], WORD)
    for _ in range(5):
        with pytest.raises(PolicyRefused, match="wrong name"):
            store.log_in("ann", OTHER)
    attempts = {f"{i:064x}": (1, clock.now.isoformat()) for i in range(accounts.KEPT_NAMES)}
    store._keep({**store._attempts(), **attempts})
    with pytest.raises(PolicyRefused, match="wrong name"):
        store.log_in("somebody", OTHER)
    with pytest.raises(PolicyRefused, match="too many failed logins"):
        store.log_in("ann", WORD)
    assert len(store._attempts()) <= accounts.KEPT_NAMES + 1


@pytest.mark.parametrize("how", ["role", "added", "password", "removed", "acts cut"])
def test_accounts_that_nobody_added_are_found_by_the_acts(
    folder: Path, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(NEW_PASSWORD_FILE, secret(folder, WORD, "new"))
    monkeypatch.setenv(PASSWORD_FILE, secret(folder, WORD))
    monkeypatch.setenv(ACCOUNT, "ann")
    for name, role in (("ann", "operator"), ("carl", "auditor"), ("zoe", "approver")):
        assert main(["accounts", "add", name, "--role", role, "--dir", str(folder)]) == 0
    assert main(["accounts", "remove", "zoe", "--yes", "--dir", str(folder)]) == 0
    assert main(["accounts", "password", "ann", "--dir", str(folder)]) == 0
    verify_acts(folder)
    path, log = folder / "keys" / "accounts.json", folder / "state" / "acts.jsonl"
    entries = json.loads(path.read_text())
    if how == "role":
        entries["carl"]["roles"] = ["operator"]
    elif how == "added":
        entries["eve"] = entries["carl"]
    elif how == "password":
        entries["carl"]["password"] = entries["ann"]["password"]
    elif how == "removed":
        del entries["carl"]
    else:
        lines = log.read_bytes().splitlines(keepends=True)
        last = max(i for i, line in enumerate(lines) if b'"account.added"' in line and b'"carl"' in line)
        log.write_bytes(b"".join(lines[:last]))
    path.write_text(json.dumps(entries))
    with pytest.raises(AuditError, match=r"accounts\.json: (eve|carl|ann|zoe)") as found:
        verify_acts(folder)
    assert found.value.exit_code == 7


def test_an_account_of_before_its_acts_said_what_it_was_is_no_tampering(folder: Path) -> None:
    """Added by fedmkt of before, which wrote no mark into the acts, or by the library."""
    Accounts(folder / "keys", cost=CHEAP).add("ann", ["operator"], WORD)
    log = ActsLog(folder / "state", Clock())
    log.say(Actor("olga", "os-user", "none"), "account.added", {"account": "ann", "roles": ["operator"]})
    verify_acts(folder)


def test_all_acts_are_verified_once_and_again_when_somebody_else_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified, actor = list[int](), Actor("ann", "account", "password", ("operator",))

    def counted(data: bytes) -> Chain:
        verified.append(data.count(b"\n"))
        return read_chain(data)

    monkeypatch.setattr("fedmkt.party.acts_log.read_chain", counted)
    log, path = written(tmp_path)
    assert verified == [0]
    ActsLog(tmp_path, Clock()).say(actor, "act.ended", {})
    log.say(actor, "act.ended", {})
    assert verified == [0, 6, 7]
    changed = path.read_bytes().replace(b"run 3", b"run 4")
    path.write_bytes(changed)
    with pytest.raises(AuditError, match="line 5"):
        log.say(actor, "act.ended", {})
    assert path.read_bytes() == changed
