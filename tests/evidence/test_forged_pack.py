"""A pack that somebody changed, put together from two runs, or signed for somebody else."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fedmkt import sbom
from fedmkt.audit import statements
from fedmkt.audit.statements import Statement
from fedmkt.cli.app import main
from fedmkt.contract.canonical import digest
from fedmkt.crypto import dsse
from fedmkt.crypto.sign import Identity
from fedmkt.errors import AuditError, ConfigError
from fedmkt.evidence import pack as packs
from fedmkt.evidence import seal as sealing
from fedmkt.evidence import stated
from fedmkt.evidence.facts import Figure, gather
from fedmkt.evidence.pack import make_pack, verify_pack
from fedmkt.evidence.seal import seal
from fedmkt.report.message_ledger import to_csv
from fedmkt.simulation.run import RunResult
from tests.audit.conftest import IDENTITIES
from tests.contract.agreed import APPROVERS
from tests.evidence.offline import contract_of, play_run, terms

Change = Callable[[Path], None]


@pytest.fixture(scope="module", autouse=True)
def materials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sbom, "installed", lambda: (sbom.Component("fedmkt", "1"), [sbom.Component("x", "2", "MIT")])
        )
        yield


@pytest.fixture(scope="module")
def governed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return play_run(tmp_path_factory.mktemp("played") / "run")


def key_of(run: Path, name: str = "bank") -> Identity:
    return IDENTITIES[name]


@pytest.fixture(scope="module")
def pack(governed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packs") / "pack"
    make_pack(governed, out, "bank", key_of(governed))
    return out


@pytest.fixture
def copy(pack: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pack, tmp_path / "copy"))


def reseal(pack: Path, identity: Identity, by: str = "bank") -> None:
    manifest = json.loads((pack / "manifest.json").read_text())
    seal(pack, by, identity, manifest["run"], manifest["contract"])


def put(name: str, old: str, new: str) -> Change:
    def change(pack: Path) -> None:
        text = (pack / name).read_text()
        assert old in text
        (pack / name).write_text(text.replace(old, new))

    return change


def add(name: str) -> Change:
    def change(pack: Path) -> None:
        (pack / name).parent.mkdir(parents=True, exist_ok=True)
        (pack / name).write_text("no objections")

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (put("index.html", "RangeBit", "SetSize"), "index.html: not what"),
        (put("index.html", "<h1>", "<h1>approved by the regulator, "), "index.html: not what"),
        (put("disclosures.txt", "coordinator:", "coordinator: "), "disclosures.txt: not what"),
        (put("ledger.csv", "protocol", "heads"), "ledger.csv: not what"),
        (put("model-card.md", "age", "income"), "model-card.md: not what"),
        (put("drafts/gdpr-art-30-record.md", "all signers are in CN", "all signers are in SG"), "gdpr-art-30"),
        (lambda pack: (pack / "drafts/jrt-0196-self-check.md").unlink(), "jrt-0196-self-check.md: missing"),
        (add("drafts/opinion-of-counsel.md"), "drafts/opinion-of-counsel.md: not a file of a pack"),
        (add("proofs/bank-000001-value.revealed.json"), "not a file of a pack"),
        (add("run/logs/auditor/log.jsonl"), "not of a signer: logs/auditor/log.jsonl"),
        (add("Index.html"), "Index.html"),
        (add("run/approvals/a\u202elmth.exe.dsse.json"), "approvals"),
        (add("attack-lab.json"), "attack-lab.json"),
    ],
)  # fmt: skip
def test_a_maker_who_changes_a_page_or_adds_a_file_and_signs_again_is_found(
    copy: Path, governed: Path, change: Change, named: str
) -> None:
    change(copy)
    with pytest.raises(AuditError):
        verify_pack(copy)
    with pytest.raises((AuditError, ConfigError), match=re.escape(named)):
        reseal(copy, key_of(governed))
        verify_pack(copy)


def test_what_another_release_made_is_said_not_to_be_compared(
    copy: Path, governed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stated, "installed_code", lambda: "12" * 32)
    found = verify_pack(copy)
    assert not found.is_compared
    assert "page, drafts and model card are not compared" in "\n".join(found.lines())
    put("ledger.json", '"number": 3', '"number": 2')(copy)
    reseal(copy, key_of(governed))
    with pytest.raises(AuditError, match=r"ledger\.json: not what the logs"):
        verify_pack(copy)


def test_figures_rest_on_the_maker_and_stand_in_page_and_card_alike(copy: Path, governed: Path) -> None:
    put(
        "stated.json",
        '"figures": []',
        '"figures": [\n  {\n   "name": "AUC",\n   "bank": "1",\n   "joint": "1"\n  }\n ]',
    )(copy)
    reseal(copy, key_of(governed))
    with pytest.raises(AuditError, match=r"(index\.html|model-card\.md): not what"):
        verify_pack(copy)


@pytest.mark.parametrize(
    "figures",
    [
        (Figure("approved by the regulator", "", "yes, without conditions"),),
        (Figure("AUC", "see the report", "0.9"),),
        (Figure("AUC", "0.7", "0.8"), Figure("AUC", "0.7", "0.9")),
        (Figure("KS", "0.7", "0.8 (certified)"),),
    ],
)
def test_a_maker_states_figures_and_no_sentences(
    governed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: tuple[Figure, ...]
) -> None:
    """Made by the same release: what it says would stand on the page as if the run had said it."""
    with monkeypatch.context() as forging:
        forging.setattr(packs, "gather", lambda run: replace(gather(run), figures=figures))
        make_pack(governed, tmp_path / "pack", "bank", key_of(governed))
    with pytest.raises(AuditError, match=r"stated\.json: not what the maker of a pack states"):
        verify_pack(tmp_path / "pack")


def test_a_maker_states_numbers_and_names_that_can_be(copy: Path) -> None:
    said = stated.read_stated((copy / "stated.json").read_text())
    for change in (
        {"measured_on": (-1, 0)}, {"measured_on": (3, 5)}, {"version": "9.9 certified"}, {"code": "none"},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="not what the maker"):
            stated.read_stated(replace(said, **change).to_json())  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["[]", "{", '{"by": 1}', "[" * 100_000, '{"by":"bank","by":"bank"}'])
@pytest.mark.parametrize("name", ["stated.json", "sbom.cdx.json", "attack-lab.json"])
def test_a_malformed_part_that_its_maker_signed_is_refused_in_one_line(
    copy: Path, governed: Path, name: str, text: str
) -> None:
    (copy / name).write_text(text)
    reseal(copy, key_of(governed))
    with pytest.raises(AuditError, match=re.escape(name)):
        verify_pack(copy)


def with_manifest(copy: Path, identity: Identity, text: str) -> None:
    """Sign a manifest as it is given."""
    import hashlib

    (copy / "manifest.json").write_text(text)
    old = json.loads(text)
    said = Statement(
        "evidence",
        {"manifest.json": hashlib.sha256(text.encode()).hexdigest()},
        {"by": "bank", "key": identity.public.hex(), "run": old["run"], "contract": old["contract"],
         "files": len(old["files"])},
    )  # fmt: skip
    (copy / "manifest.dsse.json").write_bytes(dsse.to_json(statements.sign(said, identity)))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('{\n "contract"', '{\n "contract": "other",\n "contract"', 1),
        lambda text: text.replace(' "files": {', ' "files": {},\n "files": {', 1),
        lambda text: text.replace("index.html", "../index.html"),
        lambda text: text.replace("index.html", "/etc/passwd"),
        lambda text: text.replace("index.html", "drafts\\\\index.html"),
        lambda text: text.replace("index.html", "drafts//index.html"),
        lambda text: text.replace("index.html", "./index.html"),
        lambda text: text.replace("index.html", "index.html\\u202e"),
        lambda text: text.replace(" ", "  "),
        lambda text: text.rstrip("\n"),
    ],
)
def test_a_manifest_that_reads_in_two_ways_is_refused(
    copy: Path, governed: Path, change: Callable[[str], str]
) -> None:
    text = (copy / "manifest.json").read_text()
    with_manifest(copy, key_of(governed), text)
    verify_pack(copy)
    assert change(text) != text
    with_manifest(copy, key_of(governed), change(text))
    with pytest.raises(AuditError, match="not the manifest of an evidence pack"):
        verify_pack(copy)


def test_names_that_differ_in_case_alone_are_refused(copy: Path, governed: Path) -> None:
    (copy / "drafts" / "GDPR-art-30-record.md").write_text("x")
    with pytest.raises(ConfigError, match="differ in case"):
        reseal(copy, key_of(governed))


def test_a_folder_that_is_a_link_is_refused(copy: Path) -> None:
    (copy / "drafts").rename(copy.parent / "elsewhere")
    (copy / "drafts").symlink_to(copy.parent / "elsewhere")
    with pytest.raises(AuditError, match="drafts"):
        verify_pack(copy)


def test_a_pipe_in_place_of_a_file_is_refused_without_waiting(copy: Path) -> None:
    import os

    (copy / "ledger.csv").unlink()
    os.mkfifo(copy / "ledger.csv")
    with pytest.raises(AuditError, match="not a plain file"):
        verify_pack(copy)


@pytest.mark.parametrize("is_named", [False, True])
def test_the_contract_of_another_run_does_not_pass(
    copy: Path, governed: Path, small_run: RunResult, tmp_path: Path, is_named: bool
) -> None:
    other = play_run(tmp_path / "other", agreed=terms(max_size_runs=3))
    for contract in (other, small_run.folder):
        shutil.copy(contract / "contract.toml", copy / "run" / "contract.toml")
        manifest = json.loads((copy / "manifest.json").read_text())
        agreed = digest(contract_of(contract)).hex() if is_named else manifest["contract"]
        seal(copy, "bank", key_of(governed), manifest["run"], agreed)
        with pytest.raises(AuditError):
            verify_pack(copy)


def test_a_pack_does_not_name_a_run_that_is_not_in_its_logs(copy: Path, governed: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    seal(copy, "bank", key_of(governed), "cd" * 32, manifest["contract"])
    with pytest.raises(AuditError, match="another contract or run"):
        verify_pack(copy)


def test_a_report_of_the_attack_lab_on_another_contract_is_refused(governed: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(governed, tmp_path / "run"))
    (run / "attack-lab.json").write_text(json.dumps({"contract": "ab" * 32, "findings": []}))
    with pytest.raises(ConfigError, match="of another contract"):
        make_pack(run, tmp_path / "pack", "bank", key_of(run))


@pytest.mark.parametrize("by", ["bank\u202e", "Bank", "the bank", "", "<b>bank</b>", "=bank", "b" * 40])
def test_a_maker_has_a_name_as_signers_have(governed: Path, tmp_path: Path, by: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        make_pack(governed, tmp_path / "pack", by, Identity(b"\x07" * 32))


def test_a_pack_in_whose_seal_the_maker_has_a_strange_name_is_refused(copy: Path) -> None:
    reseal(copy, Identity(b"\x07" * 32), "bank\x1b[2K")
    with pytest.raises(AuditError, match="not the manifest of an evidence pack"):
        verify_pack(copy)


def test_an_approver_who_signs_is_named_as_one_and_not_as_the_party(governed: Path, tmp_path: Path) -> None:
    (approver,) = (a for a in terms().approvers if (a.party, a.role) == ("bank", "compliance"))
    person, run = APPROVERS["bank", "compliance"], governed
    with pytest.raises(ConfigError, match="not the one that the contract has for bank"):
        make_pack(run, tmp_path / "pack", "bank", person)
    make_pack(run, tmp_path / "pack", approver.name, person)
    found = verify_pack(tmp_path / "pack")
    assert not found.is_signer
    said = f"the key of {approver.name}, compliance of bank: a person who approves, not the organisation"
    assert said in "\n".join(found.lines())


def test_no_cell_of_the_ledger_is_a_formula(pack: Path) -> None:
    from dataclasses import replace

    from fedmkt.report.message_ledger import read_ledger

    found = read_ledger(pack / "run")
    first = found.messages[0]
    for start in (
        "=",
        "+",
        "-",
        "@",
        "\t",
        "\r",
        "\n",
        "\uff1d",
        "\uff0b",
        "\uff0d",
        "\uff20",
        " =",
        "\u200b=",
    ):
        table = to_csv(replace(found, messages=(replace(first, step=f"{start}1+1"),)))
        assert f"'{start}1+1" in table


def test_a_run_that_was_not_completed_is_never_called_so(copy: Path, governed: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "log").mkdir(parents=True)
    shutil.copy(governed / "contract.toml", own)
    lines = (governed / "logs/bank/log.jsonl").read_bytes().splitlines(keepends=True)
    (own / "log/log.jsonl").write_bytes(b"".join(line for line in lines[:-1] if b"run.completed" not in line))
    make_pack(own, tmp_path / "pack", "bank", key_of(governed))
    assert "completed<" not in (tmp_path / "pack/index.html").read_text().split("</h1>")[0]
    said = verify_pack(tmp_path / "pack")
    assert said.outcome == "not completed by everyone"
    assert "not completed" in said.lines()[0]
    put("index.html", ": not completed by everyone</h1>", ": completed</h1>")(tmp_path / "pack")
    reseal(tmp_path / "pack", key_of(governed))
    with pytest.raises(AuditError, match=r"index\.html: not what"):
        verify_pack(tmp_path / "pack")


def test_the_command_says_first_how_the_run_ended(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evidence", "verify", str(pack)]) == 0
    assert re.match(r"run run1: completed\n", capsys.readouterr().out)


def test_a_manifest_is_written_in_its_one_form(pack: Path) -> None:
    assert sealing.verify_seal(pack).files == tuple(
        sorted(json.loads((pack / "manifest.json").read_text())["files"])
    )
