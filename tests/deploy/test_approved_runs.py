"""What a party of a deployment does with approvals and revocations before a run: each test opens real folders."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedmkt.audit import statements
from fedmkt.audit.checkpoint import log_origin
from fedmkt.audit.verify import VerifyError, verify_run
from fedmkt.cli import app as commands
from fedmkt.contract.approvals import approval, denial, revocation
from fedmkt.contract.canonical import digest
from fedmkt.contract.files import to_toml
from fedmkt.contract.signatures import SignedContract, sign
from fedmkt.crypto.dsse import Envelope, Signature, to_json
from fedmkt.crypto.sign import Identity
from fedmkt.deploy.coordinate import Coordination
from fedmkt.deploy.ended import note_ended
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder, load_coordinator_folder, read_identity
from fedmkt.deploy.messages import Serve, decode_serve, encode_serve
from fedmkt.deploy.operate import start_run
from fedmkt.deploy.places import place_of
from fedmkt.deploy.runs import new_run
from fedmkt.deploy.statement_files import MOST_STATEMENTS, folder_beside, write_statement
from fedmkt.deploy.take_part import open_own_party
from fedmkt.errors import AuditError, ConfigError, PeerError, PolicyRefused
from fedmkt.evidence.facts import gather
from fedmkt.party.acts_log import read_acts
from fedmkt.party.audit_log import AuditLog
from fedmkt.party.contract_past import UNKNOWN, note_replaced, past_of
from fedmkt.party.governance_events import keep_statements
from fedmkt.party.handle import Party
from fedmkt.party.node import Sources, open_party
from fedmkt.party.store import Store
from fedmkt.report.approvals import check_approvals
from fedmkt.report.collect import collect
from fedmkt.report.folder import find_files
from fedmkt.report.scores import read_scores
from tests.deploy.own_folders import Circle, circle

NOW = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
PEOPLE = {
    (party, role): Identity(bytes([10 * i + j]) * 32)
    for i, party in enumerate(("bank", "partner"), 1)
    for j, role in enumerate(("data-owner", "compliance"))
}


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Circle:
    """Three organisations and a contract with terms of governance that all have signed."""
    found = circle(tmp_path_factory.mktemp("founded"))
    old = found.signed.contract
    terms = {
        "datasets": [
            {
                "party": p.name, "name": "customers", "people": "customers who agreed", "purposes": [old.purpose],
                "basis": ["PIPL-13-2"],
                "columns": [{"name": c, "level": 2, "category": "C1", "kind": "demography"} for c in p.columns],
            }
            for p in old.parties
        ],
        "locations": {s.name: "CN" for s in old.signers},
        "countries": ["CN"],
        "impact": {
            "sha256": "ab" * 32, "purpose": old.purpose, "parties": ["bank", "partner"],
            "expires": old.expires + timedelta(days=400),
        },
        "approvers": [
            {"name": f"{party}-{role}", "party": party, "role": role, "key": identity.public.hex()}
            for (party, role), identity in PEOPLE.items()
        ],
        "recipients": [{"result": "scores", "to": "bank", "use": "letters"}],
        "use": "service",
    }  # fmt: skip
    contract = type(old).model_validate({**dict(old), "governance": terms})
    names = [s.name for s in contract.signers]
    keys = {name: read_identity(PartyFolder(found.folder(name)).identity) for name in names}
    signatures = {name: sign(contract, name, keys[name]) for name in names}
    return Circle(found.root, found.job, SignedContract(contract=contract, signatures=signatures))


@pytest.fixture
def it(founded: Circle, tmp_path: Path) -> Circle:
    """A copy of it: each test has folders of its own."""
    for name in ("bank", "partner", "coordinator"):
        shutil.copytree(founded.folder(name), tmp_path / name)
    return Circle(tmp_path, founded.job, founded.signed)


def approvals(it: Circle, make=approval, more: tuple[str, ...] = ()) -> tuple[Envelope, ...]:  # type: ignore[no-untyped-def]
    contract = it.signed.contract
    assert contract.governance is not None
    return tuple(
        statements.sign(make(contract, a, NOW, *more), PEOPLE[a.party, a.role])
        for a in contract.governance.approvers
    )


def revoked_by(it: Circle, name: str) -> Envelope:
    identity = read_identity(PartyFolder(it.folder(name)).identity)
    return statements.sign(revocation(it.signed.contract, name, NOW, "called off"), identity)


def open_bank(it: Circle, given: tuple[Envelope, ...]) -> list[dict[str, object]]:
    """Open the bank as its worker does, and return the records of its log."""
    invitation = decode_serve(encode_serve(Serve(it.signed, b"", statements=given)))
    open_own_party(PartyFolder(it.folder("bank")), invitation).release()
    return [json.loads(line) for line in (it.own("bank") / "log" / "log.jsonl").read_text().splitlines()]


def assert_wrote_the_refusal_alone(it: Circle, *kept: str) -> None:
    files = [path for path in it.own("bank").rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == {"log", *kept}
    (record,) = map(json.loads, (it.own("bank") / "log" / "log.jsonl").read_text().splitlines())
    assert record["type"] == "policy.refused" and record["body"]["why"] == "PolicyRefused"


def test_a_party_opens_with_all_approvals_and_its_log_says_who_approved(it: Circle) -> None:
    given = approvals(it)
    records = open_bank(it, given)
    assert [r["type"] for r in records[:2]] == ["contract.proposed", "contract.signed"]
    granted = [r["body"] for r in records if r["type"] == "approval.granted"]
    assert [g["envelope"] for g in granted] == [to_json(e).decode().rstrip() for e in given]
    assert granted[0]["party"] == "bank" and granted[0]["role"] == "data-owner"
    kept = sorted(p.read_bytes() for p in (it.own("bank") / "approvals").iterdir())
    assert kept == sorted(map(to_json, given))


def test_what_the_log_has_said_it_does_not_say_again_and_what_is_new_it_does(it: Circle) -> None:
    given = approvals(it)
    before = open_bank(it, given)
    late = approvals(it, denial, ("too late",))[:1]
    again = statements.sign(
        approval(it.signed.contract, it.signed.contract.governance.approvers[0], NOW + timedelta(hours=1)),
        PEOPLE["bank", "data-owner"],
    )
    assert open_bank(it, given) == before
    after = open_bank(it, (*given, *late, again))
    assert [r["type"] for r in after[len(before) :]] == ["approval.denied", "approval.granted"]


@pytest.mark.parametrize("absent", [0, 3])
def test_a_party_does_not_open_without_an_approval_of_any_party(it: Circle, absent: int) -> None:
    given = [e for i, e in enumerate(approvals(it)) if i != absent]
    with pytest.raises(PolicyRefused, match=r"C18 approvals: (bank|partner): 1 of 2 approvals"):
        open_bank(it, tuple(given))
    assert_wrote_the_refusal_alone(it)


@pytest.mark.parametrize("signer", ["bank", "partner", "coordinator"])
def test_a_party_refuses_what_a_signer_revoked_though_nobody_sends_it_along(it: Circle, signer: str) -> None:
    own = PartyFolder(it.folder("bank")).revocations
    write_statement(own, "received", revoked_by(it, signer))
    with pytest.raises(PolicyRefused, match=f"rule revoked: {signer} ended the contract .* called off"):
        open_bank(it, approvals(it))
    assert_wrote_the_refusal_alone(it, "approvals")


def test_a_party_refuses_what_is_sent_along_as_revoked(it: Circle) -> None:
    with pytest.raises(PolicyRefused, match="rule revoked: partner"):
        open_bank(it, (*approvals(it), revoked_by(it, "partner")))


def test_what_was_said_against_a_contract_is_not_forgotten_when_nobody_sends_it_again(it: Circle) -> None:
    """A coordinator that leaves out a revocation or a denial the next time has no run of it."""
    given = approvals(it)
    no = approvals(it, denial, ("too broad",))[0]
    with pytest.raises(PolicyRefused, match="C18 approvals: bank: 1 of 2"):
        open_bank(it, (*given, no))
    with pytest.raises(PolicyRefused, match="C18 approvals: bank: 1 of 2"):
        open_bank(it, given)
    with pytest.raises(PolicyRefused, match="rule revoked"):
        open_bank(it, (*given, revoked_by(it, "partner")))
    with pytest.raises(PolicyRefused, match="rule revoked"):
        open_bank(it, given)
    log = (it.own("bank") / "log" / "log.jsonl").read_text()
    records = list(map(json.loads, log.splitlines()))
    assert [r["type"] for r in records] == ["approval.denied", "policy.refused", "policy.refused"]
    assert records[0]["body"]["envelope"] == to_json(no).decode().rstrip()


def test_who_denied_and_approves_again_later_has_approved(it: Circle) -> None:
    no, contract = approvals(it, denial, ("too broad",))[0], it.signed.contract
    with pytest.raises(PolicyRefused, match="C18"):
        open_bank(it, (*approvals(it), no))
    assert contract.governance is not None
    first = contract.governance.approvers[0]
    yes = statements.sign(approval(contract, first, NOW + timedelta(hours=1)), PEOPLE["bank", "data-owner"])
    open_bank(it, (*approvals(it), yes))


def test_what_nobody_of_the_contract_signed_is_neither_kept_nor_logged(it: Circle) -> None:
    contract, eve = it.signed.contract, Identity(b"e" * 32)
    assert contract.governance is not None
    forged = [statements.sign(denial(contract, a, NOW, "no"), eve) for a in contract.governance.approvers] + [
        statements.sign(revocation(contract, "bank", NOW, "no"), eve)
    ]
    records = open_bank(it, (*approvals(it), *forged))
    assert "approval.denied" not in {r["type"] for r in records}
    assert len(list((it.own("bank") / "approvals").iterdir())) == 4


def test_a_contract_that_ran_out_is_logged_once_and_no_clock_brings_it_back(
    it: Circle, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract, real, time = it.signed.contract, Sources.of, {"now": NOW}

    def of(*arguments: object) -> Sources:
        return replace(real(*arguments), clock=lambda: time["now"])  # type: ignore[arg-type]

    monkeypatch.setattr(Sources, "of", staticmethod(of))
    for now in (contract.expires, contract.expires + timedelta(days=1), contract.created):
        time["now"] = now
        with pytest.raises(PolicyRefused, match="rule not-expired"):
            open_bank(it, approvals(it))
    log = (it.own("bank") / "log" / "log.jsonl").read_text()
    records = [r for r in map(json.loads, log.splitlines()) if r["type"] != "clock.stepped"]
    assert [r["type"] for r in records] == ["contract.expired", "policy.refused", "policy.refused"]
    assert records[0]["body"] == {"expires": contract.expires.strftime("%Y-%m-%dT%H:%M:%SZ")}
    assert "its clock is behind now" in records[2]["body"]["rule"]


def test_a_statement_in_another_envelope_is_not_heard_as_a_new_one(it: Circle) -> None:
    """Neither keyid nor further signatures are signed: whoever has a statement can write it in any number of ways."""
    open_bank(it, approvals(it))
    no = approvals(it, denial, ("too broad",))[0]
    size = len(approvals(it)) + 1
    for number in range(3):
        junk = Signature(f"{number}", bytes([number]) * 64)
        given = [replace(e, signatures=(*e.signatures, junk)) for e in (*approvals(it), no)]
        with pytest.raises(PolicyRefused, match="C18 approvals: bank: 1 of 2"):
            open_bank(it, tuple(given))
    assert len(list((it.own("bank") / "approvals").iterdir())) == size
    log = (it.own("bank") / "log" / "log.jsonl").read_text()
    assert log.count('"approval.denied"') == 1 and log.count('"approval.granted"') == 4


def test_a_clock_that_was_ahead_once_is_told_with_the_way_out(
    it: Circle, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract, real, time = it.signed.contract, Sources.of, {"now": NOW}

    def of(*arguments: object) -> Sources:
        return replace(real(*arguments), clock=lambda: time["now"])  # type: ignore[arg-type]

    monkeypatch.setattr(Sources, "of", staticmethod(of))
    for now in (contract.expires, NOW):
        time["now"] = now
        with pytest.raises(PolicyRefused, match="rule not-expired") as refused:
            open_bank(it, approvals(it))
    assert "its clock is behind now, or was ahead then" in str(refused.value)
    assert refused.value.hint == "it stays over here, whichever clock was wrong: fedmkt contract renew"
    path = it.root / "over.toml"
    path.write_text(to_toml(it.signed))
    assert commands.main(["contract", "renew", str(path), "--out", str(it.root / "renewed.toml")]) == 0


def amended_circle(it: Circle) -> Circle:
    """The next version of the contract, signed by all."""
    old = it.signed.contract
    assert old.governance is not None
    terms = old.governance.model_copy(update={"revision": 2, "amends": digest(old).hex()})
    new = old.model_copy(update={"governance": terms})
    keys = {s.name: read_identity(PartyFolder(it.folder(s.name)).identity) for s in new.signers}
    signatures = {name: sign(new, name, key) for name, key in keys.items()}
    return Circle(it.root, it.job, SignedContract(contract=new, signatures=signatures))


def open_log(it: Circle) -> list[dict[str, object]]:
    invitation = Serve(it.signed, b"", statements=approvals(it))
    open_own_party(PartyFolder(it.folder("bank")), invitation).release()
    place = place_of(PartyFolder(it.folder("bank")), it.signed.contract)
    return [json.loads(line) for line in (place.logs / "log.jsonl").read_text().splitlines()]


def test_once_a_later_version_ran_the_earlier_one_runs_no_more(it: Circle) -> None:
    new = amended_circle(it)
    open_log(it)
    open_log(it)
    assert "contract.amended" in {r["type"] for r in open_log(new)}
    with pytest.raises(PolicyRefused, match=r"^rule replaced: the version [0-9a-f]{16} of the contract took"):
        open_log(it)
    path = it.root / "old.toml"
    path.write_text(to_toml(it.signed))
    for number, envelope in enumerate(approvals(it)):
        write_statement(folder_beside(path), str(number), envelope)
    assert commands.main(["contract", "verify", str(path), "--dir", str(it.folder("bank"))]) == 4
    assert commands.main(["controls", str(path), "--dir", str(it.folder("bank"))]) == 4
    assert commands.main(["contract", "verify", str(path), "--dir", str(it.folder("partner"))]) == 0


def test_a_contract_of_other_signers_replaces_nothing(it: Circle) -> None:
    store, old = Store(it.root / "store"), it.signed.contract
    new = amended_circle(it).signed.contract
    others = (old.parties[0], old.parties[1].model_copy(update={"key": "ab" * 32}))
    note_replaced(store, new.model_copy(update={"parties": others}))
    assert past_of(store, old) == UNKNOWN
    note_replaced(store, new)
    assert past_of(store, old).replaced_by == digest(new).hex()


def test_a_policy_that_was_changed_between_two_runs_leaves_its_digest_in_the_log(it: Circle) -> None:
    def loaded() -> list[object]:
        return [r["body"]["policy"] for r in open_log(it) if r["type"] == "policy.loaded"]  # type: ignore[index]

    policy = PartyFolder(it.folder("bank")).policy
    first, text = loaded(), policy.read_text()
    assert loaded() == first and len(first) == 1
    policy.write_text(text + "require_approvals = false\n")
    looser = loaded()
    policy.write_text(text + "# put back\n")
    assert len(set(looser)) == 2 and loaded() == [*looser, first[0]]


def test_a_coordinator_starts_no_run_without_approvals_and_none_that_was_revoked(it: Circle) -> None:
    home = CoordinatorFolder(it.folder("coordinator"))
    path = it.root / "c.toml"
    path.write_text(to_toml(it.signed))
    with pytest.raises(PolicyRefused, match="C18 approvals: bank: 0 of 2 approvals; partner: 0 of 2"):
        start_run(home, path)
    for number, envelope in enumerate(approvals(it)):
        write_statement(folder_beside(path), str(number), envelope)
    write_statement(home.revocations, "received", revoked_by(it, "bank"))
    with pytest.raises(PolicyRefused, match="rule revoked: bank"):
        start_run(home, path)
    assert list(home.runs.iterdir()) == []


def test_the_coordinator_sends_the_approvals_of_the_run_along_and_logs_them_itself(it: Circle) -> None:
    home = CoordinatorFolder(it.folder("coordinator"))
    run = new_run(home.runs, it.signed, None)
    keep_statements(run.approvals, approvals(it))
    mail, nodes = Mail(), {"bank": 1, "partner": 2}
    coordination = Coordination(home, run, mail, lambda: nodes)  # type: ignore[arg-type]
    coordination._invite(b"")
    assert len(mail.bodies) == 2
    for body in mail.bodies:
        assert set(decode_serve(body).statements) == set(approvals(it))
    coordination._open_dealer().release()
    records = [
        json.loads(line) for line in (it.own("coordinator") / "log" / "log.jsonl").read_text().splitlines()
    ]
    assert [r["type"] for r in records].count("approval.granted") == 4


class Mail:
    """Keeps what is posted, and delivers it to nobody."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def post(self, node: int, kind: str, body: bytes, name: str, seconds: float) -> None:
        self.bodies.append(body)


def test_an_invitation_without_statements_is_read_as_before(it: Circle) -> None:
    values = json.loads(encode_serve(Serve(it.signed, b"")))
    del values["statements"]
    assert decode_serve(json.dumps(values).encode()) == Serve(it.signed, b"")


@pytest.mark.parametrize(
    "given", [3, {}, ["x"], [7], ["{}"], [None], ["[" * 5000]], ids=str
)  # fmt: skip
def test_an_invitation_with_something_else_than_statements_is_refused(it: Circle, given: object) -> None:
    values = json.loads(encode_serve(Serve(it.signed, b"")))
    with pytest.raises(PeerError):
        decode_serve(json.dumps(values | {"statements": given}).encode())


def test_an_invitation_holds_no_more_statements_than_a_folder(it: Circle) -> None:
    one = to_json(approvals(it)[0]).decode()
    values = json.loads(encode_serve(Serve(it.signed, b"")))
    with pytest.raises(PeerError):
        decode_serve(json.dumps(values | {"statements": [one] * (MOST_STATEMENTS + 1)}).encode())


def test_the_digest_in_the_log_is_the_contracts(it: Circle) -> None:
    assert open_bank(it, approvals(it))[0]["contract"] == digest(it.signed.contract).hex()


class Approved(Circle):
    """A circle whose participants are sent all approvals."""

    def open(self, name: str) -> Party:
        if name != self.job.coordinator.name:
            return open_own_party(
                PartyFolder(self.folder(name)), Serve(self.signed, b"", statements=approvals(self))
            )
        home = CoordinatorFolder(self.folder(name))
        config = load_coordinator_folder(home).party({s.name: s.key for s in self.signed.contract.signers})
        place = place_of(home, self.signed.contract)
        place.keep_contract(self.signed)
        return open_party(
            name, self.signed, config, None, place, Sources.of(None, name), statements=approvals(self)
        )


NAMES = ("bank", "partner", "coordinator")


@pytest.fixture(scope="module")
def finished(founded: Circle, tmp_path_factory: pytest.TempPathFactory) -> Circle:
    """A run of the governed contract, from the first message to the closed logs."""
    root = tmp_path_factory.mktemp("finished")
    for name in NAMES:
        shutil.copytree(founded.folder(name), root / name)
    Approved(root, founded.job, founded.signed).run()
    return Circle(root, founded.job, founded.signed)


@pytest.fixture
def ran(finished: Circle, tmp_path: Path) -> Circle:
    """A copy of it: each test has folders of its own."""
    for name in NAMES:
        shutil.copytree(finished.folder(name), tmp_path / name)
    return Circle(tmp_path, finished.job, finished.signed)


def test_the_logs_of_a_run_with_approvals_verify(ran: Circle, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("bank", "partner"):
        assert commands.main(["audit", "verify", str(ran.folder(name))]) == 0
    text = capsys.readouterr().out
    assert "cosigned by" in text and "approvals: partner 2 of 2" in text


def test_collected_logs_come_with_the_approvals_which_verify_with_them(
    ran: Circle, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ran.root / "all"
    collect(out, [ran.folder(name) for name in NAMES])
    assert sorted(p.read_bytes() for p in (out / "approvals").iterdir()) == sorted(
        map(to_json, approvals(ran))
    )
    assert commands.main(["audit", "verify", str(out)]) == 0
    assert "4 signed statements beside the logs verify" in capsys.readouterr().out
    late = statements.sign(
        denial(ran.signed.contract, ran.signed.contract.governance.approvers[0], NOW, "no"),  # type: ignore[union-attr]
        PEOPLE["bank", "data-owner"],
    )
    keep_statements(out / "approvals", [late, revoked_by(ran, "bank")])
    assert commands.main(["audit", "verify", str(out)]) == 0
    text = capsys.readouterr().out
    assert (
        "NOT IN ANY LOG: 1 of them" in text and "REVOKED by bank" in text and "approvals: bank 2 of 2" in text
    )


@pytest.mark.parametrize("what", ["changed", "renamed", "missing"])
def test_approvals_that_were_tampered_with_are_found(
    what: str, ran: Circle, capsys: pytest.CaptureFixture[str]
) -> None:
    first = min((ran.own("bank") / "approvals").iterdir())
    if what == "changed":
        first.write_bytes(first.read_bytes().replace(b'"sig":"', b'"sig":"A', 1))
    elif what == "renamed":
        first.rename(first.with_name("00" * 16 + ".dsse.json"))
    else:
        first.unlink()
    assert commands.main(["audit", "verify", str(ran.folder("bank"))]) == 7
    assert str(first.parent) in capsys.readouterr().err.replace("\n", "")


def test_a_run_that_began_before_enough_had_approved_is_said_to(ran: Circle) -> None:
    log = ran.own("bank") / "log" / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    # Where no policy asked for approvals: the log has none before the run, whatever lies beside it later.
    kept = [line for line in lines if '"approval.granted"' not in line]
    log.write_text("".join(kept))
    found = check_approvals(find_files(ran.folder("bank")))
    assert found is not None and found.unlogged == 4
    assert [c.lacking for c in found.counts] == ["bank: 0 of 2 approvals", "partner: 0 of 2 approvals"]


def test_what_is_made_of_results_stands_in_the_acts(ran: Circle, capsys: pytest.CaptureFixture[str]) -> None:
    bank = ran.folder("bank")
    row = str(read_scores(ran.own("bank") / "model").file_rows[0])
    for command in (["score", str(bank)], ["report", str(bank)], ["explain", str(bank), row]):
        assert commands.main(command) == 0, capsys.readouterr().err
    acts = {act.type: act for act in read_acts(bank / "state").acts}
    scores = (ran.own("bank") / "model" / "scores.csv").read_bytes()
    assert acts["scores.released"].body == {"file": ".csv", "sha256": hashlib.sha256(scores).hexdigest()}
    assert acts["report.exported"].body["file"] == ".html"
    assert acts["decision.explained"].body == {"contract": digest(ran.signed.contract).hex()}
    assert acts["decision.explained"].actor["type"] == "os-user"


def test_a_command_that_meets_the_end_of_a_contract_says_so_and_the_log_once(
    ran: Circle, capsys: pytest.CaptureFixture[str]
) -> None:
    bank, after = PartyFolder(ran.folder("bank")), ran.signed.contract.expires
    assert note_ended(bank, lambda: after - timedelta(seconds=1)) == []
    with open_own_log(ran) as log:  # a run is under way
        assert [e.is_new for e in note_ended(bank, lambda: after)] == [False]
        log.release()
    assert [e.is_new for e in note_ended(bank, lambda: after)] == [True]
    assert [e.is_new for e in note_ended(bank, lambda: after)] == [False]
    lines = (ran.own("bank") / "log" / "log.jsonl").read_text().splitlines()
    assert [r["type"] for r in map(json.loads, lines)].count("contract.expired") == 1
    assert commands.main(["audit", "verify", str(bank.root)]) == 0
    # Its clock says that the contract holds; it saw the end.
    with pytest.raises(PolicyRefused, match="its clock is behind now"):
        open_bank(ran, approvals(ran))


@contextlib.contextmanager
def open_own_log(it: Circle) -> Iterator[AuditLog]:
    contract, folder = it.signed.contract, PartyFolder(it.folder("bank"))
    origin, identity = log_origin(digest(contract), "bank"), read_identity(folder.identity)
    log = AuditLog(it.own("bank") / "log", origin, identity, lambda: NOW, "", "bank", digest(contract))
    try:
        yield log
    finally:
        log.release()


@pytest.mark.parametrize("what", ["pipe", "link", "long"])
def test_a_statement_that_is_no_plain_file_stops_nobody(
    ran: Circle, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ran.root / "all"
    collect(out, [ran.folder(name) for name in NAMES])
    path = out / "approvals" / f"{'0' * 32}.dsse.json"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "link":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(1 << 34)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(20)
    try:
        assert commands.main(["audit", "verify", str(out)]) == 7
        with pytest.raises((AuditError, ConfigError), match=str(path)):
            collect(ran.root / "more", [out])
        with pytest.raises((AuditError, ConfigError), match=str(path)):
            gather(out)
    finally:
        signal.alarm(0)
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize("name", ["contract.toml", "logs/bank/log.jsonl", "logs/bank/peers.json"])
def test_a_pipe_among_collected_logs_is_named_and_not_waited_for(
    ran: Circle, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ran.root / "all"
    collect(out, [ran.folder(name) for name in NAMES])
    (out / name).unlink()
    os.mkfifo(out / name)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(20)
    try:
        assert commands.main(["audit", "verify", str(out)]) == 7
        with pytest.raises(VerifyError):
            verify_run(out)
    finally:
        signal.alarm(0)
    assert name in capsys.readouterr().err


def _too_long(*_: object) -> None:
    raise TimeoutError("waited for a writer")
