"""What an organisation of a deployment has after a run: its scores, its page, its log, and nobody else's."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import fedmkt
from fedmkt.audit.own_log import verify_own
from fedmkt.audit.verify import verify_run
from fedmkt.cli.app import main
from fedmkt.contract.files import to_toml
from fedmkt.contract.signatures import SignedContract
from fedmkt.deploy.folders import CoordinatorFolder, PartyFolder
from fedmkt.deploy.messages import Serve
from fedmkt.deploy.operate import start_run
from fedmkt.deploy.take_part import open_own_party
from fedmkt.errors import AuditError, ConfigError, PolicyRefused
from fedmkt.report.collect import collect, verify_one
from fedmkt.report.folder import find_files
from fedmkt.report.logs import disclosures, logs_of
from fedmkt.report.own import bank_summary, report
from tests.deploy.own_folders import Circle, circle

NAMES = ("bank", "partner", "coordinator")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Circle:
    """Three organisations after one run; for reading only."""
    found = circle(tmp_path_factory.mktemp("ran"))
    found.run()
    return found


@pytest.fixture
def copied(finished: Circle, tmp_path: Path) -> Circle:
    """The same, to be changed."""
    for name in NAMES:
        shutil.copytree(finished.folder(name), tmp_path / name)
    return replace(finished, root=tmp_path)


def said(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == code
    shown = capsys.readouterr()
    return shown.out if code == 0 else shown.err


def test_the_signed_contract_lies_beside_each_log(finished: Circle) -> None:
    for name in NAMES:
        assert (finished.own(name) / "contract.toml").read_text() == to_toml(finished.signed)


def test_the_bank_scores_from_its_folder_or_from_the_contracts(copied: Circle, tmp_path: Path) -> None:
    path = fedmkt.score(copied.folder("bank"))
    assert path == copied.own("bank") / "model" / "scores.csv"
    assert path.stat().st_mode & 0o077 == 0
    lines = path.read_text().splitlines()
    stored = np.load(copied.own("bank") / "model" / "scores.npz")
    assert lines[0] == "row,set,score,decile,probability" and len(lines) == 1 + len(stored["units"])
    again = fedmkt.score(copied.own("bank"), format="csv", out=tmp_path / "s.csv")
    assert again.read_bytes() == path.read_bytes()
    assert fedmkt.score(copied.folder("bank"), format="parquet").suffix == ".parquet"


@pytest.mark.parametrize("name", ["partner", "coordinator"])
def test_only_the_bank_has_scores(
    finished: Circle, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, "score", finished.folder(name), "--out", tmp_path / "s.csv", code=2)
    assert f"the folder of {name}" in text and list(tmp_path.iterdir()) == []


def test_the_banks_page_shows_what_the_bank_can_measure_and_no_more(copied: Circle) -> None:
    files = find_files(copied.folder("bank"))
    summary = bank_summary(files, logs_of(files))
    stored = np.load(copied.own("bank") / "model" / "scores.npz")
    held = stored["held_out"]
    for result, scores in (
        (summary.models.joint, stored["units"]),
        (summary.models.bank, stored["bank_only"]),
    ):
        assert result.metrics.auc == pytest.approx(roc_auc_score(stored["label"][held], scores[held]))
    assert (summary.models.joint_exact, summary.models.centralised, summary.common_exact) == (
        None,
        None,
        None,
    )
    assert not summary.simulated and summary.seed is None and summary.convergence == ()
    assert summary.common_band[0] < 700 <= summary.common_band[1]
    assert set(summary.seconds) >= {"psi", "fit", "score"} and sum(summary.seconds.values()) < 60
    assert set(summary.bytes_sent) == {"bank, to others", "partner, to bank", "coordinator, to bank"}
    page = report(copied.folder("bank"))
    text = page.read_text()
    assert page.parent == copied.own("bank") / "model" and page.stat().st_mode & 0o077 == 0
    assert f"{summary.models.joint.metrics.auc:.4f}" in text and summary.run in text
    assert "Centralised" not in text and "simulation only" not in text
    assert "Scores" in text and "see the log of partner" in text
    first = page.read_bytes()
    assert report(copied.own("bank")).read_bytes() == first


@pytest.mark.parametrize("name", ["partner", "coordinator"])
def test_others_get_a_page_of_their_log_without_any_figure(copied: Circle, name: str) -> None:
    text = report(copied.folder(name)).read_text()
    assert f"What the log of {name} shows" in text and "AUC" not in text and "<svg" not in text
    for head in verify_one(find_files(copied.folder(name))).peers:
        assert head.root in text.replace("&#43;", "+")


def test_the_pages_of_a_folder_show_nothing_of_another(finished: Circle, tmp_path: Path) -> None:
    shutil.copytree(finished.folder("bank"), tmp_path / "alone")
    report(tmp_path / "alone")
    fedmkt.score(tmp_path / "alone")


def test_disclosures_say_which_logs_are_not_here(
    finished: Circle, capsys: pytest.CaptureFixture[str]
) -> None:
    found = disclosures(finished.folder("bank"))
    assert found.of("bank") == () and {item.source for item in found.of("partner")} == {"bank"}
    ours = next(item for item in found.unread if item.reader == "bank")
    assert ours.sources == ("partner",) and "Scores" in ours.kinds and "CampaignRows" not in ours.kinds
    text = said(capsys, "disclosures", finished.folder("bank"))
    assert "what partner revealed to it" in text and "learned nothing" not in text
    facts = json.loads(said(capsys, "disclosures", finished.folder("bank"), "--json"))
    assert {item["reader"] for item in facts["unread"]} == {"bank", "coordinator"}


def test_what_one_log_calls_unread_is_what_the_other_shows(finished: Circle, tmp_path: Path) -> None:
    collect(tmp_path / "all", [finished.folder(name) for name in NAMES])
    whole = disclosures(tmp_path / "all")
    assert whole.unread == ()
    for name in NAMES:
        own = disclosures(finished.folder(name))
        for reader in NAMES:
            known = {(i.source, i.disclosure) for i in own.of(reader)}
            hidden = [u for u in own.unread if u.reader == reader]
            for item in whole.of(reader):
                allowed = any(item.source in u.sources and item.disclosure.kind in u.kinds for u in hidden)
                assert ((item.source, item.disclosure) in known) != allowed


@pytest.mark.parametrize("name", NAMES)
def test_one_log_is_verified_and_called_one_of_three(
    finished: Circle, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, "audit", "verify", finished.folder(name))
    assert "completed" in text and "one log of 3" in text
    assert max(map(len, text.splitlines())) <= 80
    facts = json.loads(said(capsys, "audit", "verify", finished.own(name), "--json"))
    assert facts["outcome"] == "completed" and facts["records"] == facts["signed"]
    assert {peer["party"] for peer in facts["peers"]} == set(NAMES) - {name}
    assert list(json.loads(said(capsys, "audit", "show", finished.folder(name), "--json"))["logs"]) == [name]


@pytest.mark.parametrize("name", NAMES)
def test_the_heads_of_one_log_are_those_that_all_together_have(
    finished: Circle, name: str, tmp_path: Path
) -> None:
    collect(tmp_path / "all", [finished.folder(each) for each in NAMES])
    whole = {log.party: log for log in verify_run(tmp_path / "all").logs}
    own = verify_one(find_files(finished.folder(name)))
    assert (own.root, own.records, own.cosigners) == (
        whole[name].root, whole[name].records, whole[name].cosigners,
    )  # fmt: skip
    assert {(p.party, p.root, p.records) for p in own.peers} == {
        (log.party, log.root, log.records) for log in whole.values() if log.party != name
    }


def files_of(finished: Circle, name: str) -> dict[str, bytes]:
    own = finished.own(name)
    paths = [own / "contract.toml", *(own / "log").glob("*.txt"), *(own / "log").glob("*.json*")]
    return {path.name: path.read_bytes() for path in paths}


def test_a_changed_byte_of_any_signed_file_is_found(finished: Circle) -> None:
    files = files_of(finished, "bank")
    assert verify_own(files).outcome == "completed"
    for name in ("contract.toml", "log.jsonl", "checkpoint.txt", "peers.json"):
        data = files[name]
        step = max(1, len(data) // 60)
        for place in range(0, len(data), step):
            changed = bytearray(data)
            changed[place] ^= 1
            with pytest.raises(AuditError):
                verify_own({**files, name: bytes(changed)})


def test_a_line_taken_out_or_put_in_or_a_cut_end_is_found(finished: Circle) -> None:
    files = files_of(finished, "partner")
    lines = files["log.jsonl"].splitlines(keepends=True)
    for changed in (lines[:-1], lines[:5] + lines[6:], [*lines[:5], lines[4], *lines[5:]], []):
        with pytest.raises(AuditError):
            verify_own({**files, "log.jsonl": b"".join(changed)})
    with pytest.raises(AuditError, match="cut"):
        verify_own({**files, "log.jsonl": files["log.jsonl"][:-1]})


def test_the_log_of_another_with_its_own_peers_is_not_taken_for_ours(finished: Circle) -> None:
    bank, partner = files_of(finished, "bank"), files_of(finished, "partner")
    for name in ("checkpoint.txt", "peers.json"):
        with pytest.raises(AuditError, match=name):
            verify_own({**bank, name: partner[name]})
    other = {"bank": "00" * 32, "partner": "11" * 32, "coordinator": "22" * 32}
    with pytest.raises(AuditError, match="pinned"):
        verify_own(bank, other)
    verify_own(bank, {signer.name: signer.key for signer in finished.signed.contract.signers})


def test_a_log_without_its_cosignatures_is_not_closed(
    copied: Circle, capsys: pytest.CaptureFixture[str]
) -> None:
    note = copied.own("bank") / "log" / "checkpoint.txt"
    note.write_bytes(b"".join(note.read_bytes().splitlines(keepends=True)[:-1]))
    text = said(capsys, "audit", "verify", copied.folder("bank"), code=7)
    assert "not cosigned to its end by partner" in text
    peers = copied.own("partner") / "log" / "peers.json"
    peers.unlink()
    assert "without a head of" in said(capsys, "audit", "verify", copied.folder("partner"), code=7)


def test_a_log_that_goes_on_after_its_signed_head_is_not_closed(
    copied: Circle, capsys: pytest.CaptureFixture[str]
) -> None:
    run = json.loads(said(capsys, "audit", "verify", copied.folder("bank"), "--json"))["run"]
    party = copied.open("bank")
    party._log.run = run
    party._log.append("checkpoint.saved", {"index": 0, "step": "fit.update"})
    party.release()
    text = said(capsys, "audit", "verify", copied.folder("bank"), code=7)
    assert "not closed" in text and "not signed" in text


def test_an_auditor_collects_the_folders_of_all(
    finished: Circle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = said(capsys, "audit", "collect", tmp_path / "two", *(finished.folder(n) for n in NAMES[:2]))
    assert "missing: coordinator" in two
    assert "coordinator" in said(capsys, "audit", "verify", tmp_path / "two", code=7)
    facts = json.loads(
        said(
            capsys,
            "audit",
            "collect",
            tmp_path / "all",
            tmp_path / "two",
            finished.own("coordinator"),
            "--json",
        )
    )
    assert (facts["logs"], facts["missing"]) == (list(NAMES), [])
    assert json.loads(said(capsys, "audit", "verify", tmp_path / "all", "--json"))["outcome"] == "completed"
    names = {path.name for path in (tmp_path / "all").rglob("*") if path.is_file()}
    assert names <= {"contract.toml", "log.jsonl", "checkpoint.txt", "peers.json", "witness.jsonl"}
    assert "learned nothing" not in said(capsys, "disclosures", tmp_path / "all").partition("coordinator:")[0]


def test_what_does_not_belong_together_is_not_collected(copied: Circle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    folders = [copied.folder(name) for name in NAMES]
    contract = copied.own("partner") / "contract.toml"
    contract.write_text(contract.read_text().replace("max_runs = 5", "max_runs = 4"))
    with pytest.raises(AuditError, match="not the same"):
        collect(out, folders)
    contract.write_text(to_toml(copied.signed))
    shutil.copytree(copied.folder("bank"), tmp_path / "twin")
    twin = next((tmp_path / "twin" / "state" / "contracts").iterdir()) / "log" / "log.jsonl"
    twin.write_bytes(twin.read_bytes() + b"x")
    with pytest.raises(AuditError, match="not the same"):
        collect(out, [*folders, tmp_path / "twin"])
    log = copied.own("partner") / "log" / "peers.json"
    log.rename(tmp_path / "elsewhere")
    log.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"peers\.json"):
        collect(out, folders)
    assert not out.exists()
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(ConfigError, match="not empty"):
        collect(out, folders)


def test_a_second_run_keeps_the_results_of_the_first(
    copied: Circle, capsys: pytest.CaptureFixture[str]
) -> None:
    fedmkt.score(copied.folder("bank"))
    report(copied.folder("bank"))
    first = {path.name: path.read_bytes() for path in (copied.own("bank") / "model").iterdir()}
    copied.run(2)
    (kept,) = copied.own("bank").glob("model-*")
    run = json.loads(first["model.json"])["run"]
    assert kept.name == f"model-{run[:16]}"
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == first
    latest = json.loads((copied.own("bank") / "model" / "model.json").read_text())["run"]
    assert latest != run and not (copied.own("bank") / "model" / "scores.csv").exists()
    assert report(copied.folder("bank")).read_text().count(latest[:16]) == 1
    # The heads of the logs have moved on since; the figures are those of that run.
    assert (
        report(kept).read_bytes().split(b"Audit logs at close")[0]
        == (first["report.html"].split(b"Audit logs at close")[0])
    )
    assert fedmkt.score(kept).read_bytes() == first["scores.csv"]
    assert "completed" in said(capsys, "audit", "verify", copied.folder("bank"))
    (partners,) = copied.own("partner").glob("model-*")
    assert partners.name == kept.name


def test_several_contracts_are_named(copied: Circle, capsys: pytest.CaptureFixture[str]) -> None:
    own = copied.own("bank")
    shutil.copytree(own, own.with_name("autumn-campaign-00"))
    text = said(capsys, "score", copied.folder("bank"), code=2)
    assert "2 contracts" in text and own.name in text and "autumn-campaign-00" in text
    said(capsys, "score", own)
    shutil.rmtree(copied.folder("bank") / "state" / "contracts")
    (copied.folder("bank") / "state" / "contracts").mkdir()
    assert "no contract was run here" in said(capsys, "report", copied.folder("bank"), code=2)


def test_a_contract_file_that_lies_in_an_organisations_folder_changes_nothing(copied: Circle) -> None:
    (copied.folder("bank") / "contract.toml").write_text("of another job")
    assert find_files(copied.folder("bank")).root == copied.own("bank")


def test_a_party_does_not_open_beside_another_text_of_its_contract(copied: Circle) -> None:
    path = copied.own("bank") / "contract.toml"
    path.write_text(path.read_text() + "# and more\n")
    before = (copied.own("bank") / "log" / "log.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="to the letter"):
        copied.open("bank")
    assert (copied.own("bank") / "log" / "log.jsonl").read_bytes() == before
    path.unlink()  # as a party of an earlier release has it
    copied.open("bank").release()
    assert path.read_text() == to_toml(copied.signed)


def test_a_run_is_started_from_the_canonical_text_only(copied: Circle, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("# agreed: ten days more\n" + to_toml(copied.signed))
    with pytest.raises(ConfigError, match="not written as fedmkt writes it"):
        start_run(CoordinatorFolder(copied.folder("coordinator")), path)


def test_a_contract_that_is_refused_leaves_nothing(copied: Circle) -> None:
    shutil.rmtree(copied.folder("bank") / "state")
    forged = SignedContract(
        contract=copied.signed.contract, signatures={**copied.signed.signatures, "partner": "00" * 64}
    )
    with pytest.raises(PolicyRefused):
        open_own_party(PartyFolder(copied.folder("bank")), Serve(forged, b""))
    assert not (copied.folder("bank") / "state").exists()
