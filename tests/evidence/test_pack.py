import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedmkt import sbom
from fedmkt.audit import verify_proof
from fedmkt.audit.verify import verify_run
from fedmkt.cli.app import main
from fedmkt.contract.canonical import digest
from fedmkt.contract.files import from_toml
from fedmkt.crypto.sign import Identity
from fedmkt.errors import AuditError, ConfigError
from fedmkt.evidence.pack import make_pack, verify_pack
from fedmkt.learn.identifiers import normalise_ids
from fedmkt.report.message_ledger import read_ledger
from fedmkt.simulation.run import RunResult
from tests.evidence.governed import PLANTED_ID, PLANTED_LEVEL, PLANTED_VALUE, governed_run

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(verify_proof.__file__).parents[2])}
DRAFTS = ("gdpr-art-30-record", "jrt-0196-self-check", "pipl-55-impact-assessment", "pipl-56-handling-record")


@pytest.fixture(scope="module")
def governed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return governed_run(tmp_path_factory.mktemp("governed")).folder


@pytest.fixture(scope="module", autouse=True)
def materials() -> Iterator[None]:
    """Read once what is installed: it takes most of the time of a pack."""
    found = sbom.installed()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sbom, "installed", lambda: found)
        yield


def key_of(run: Path, name: str = "bank") -> Identity:
    return Identity((run / "parties" / name / "identity.key").read_bytes())


@pytest.fixture(scope="module")
def pack(governed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packs") / "pack"
    make_pack(governed, out, "bank", key_of(governed))
    return out


@pytest.fixture
def copy(pack: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pack, tmp_path / "copy"))


def files_of(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def text_of(folder: Path) -> str:
    return "\n".join(path.read_text() for path in files_of(folder))


def draft(pack: Path, name: str) -> str:
    return (pack / "drafts" / f"{name}.md").read_text()


def test_a_pack_has_what_an_auditor_asks_for_and_verifies(pack: Path, governed: Path) -> None:
    found = verify_pack(pack, {"bank": key_of(governed).public.hex()})
    assert (found.seal.by, found.is_signer, found.is_pinned) == ("bank", True, True)
    assert found.proofs > 10
    names = {path.relative_to(pack).as_posix() for path in files_of(pack)}
    assert names >= {f"drafts/{name}.md" for name in DRAFTS} | {
        "index.html", "run/contract.toml", "ledger.json", "ledger.csv", "disclosures.json", "disclosures.txt",
        "model-card.md", "sbom.cdx.json", "manifest.json", "manifest.dsse.json",
    }  # fmt: skip
    assert verify_run(pack / "run").outcome == "completed"
    assert json.loads((pack / "ledger.json").read_text())["totals"]["bytes"] == read_ledger(governed).size
    assert json.loads((pack / "sbom.cdx.json").read_text())["bomFormat"] == "CycloneDX"


def test_every_proof_of_a_pack_stands_alone_before_the_single_file_verifier(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = sorted((pack / "proofs").iterdir())
    assert len(paths) == verify_pack(pack).proofs
    shown = []
    for path in paths:
        assert verify_proof.main([str(pack / "run/contract.toml"), str(path)]) == 0
        found = json.loads(capsys.readouterr().out)
        record = json.loads(found["record"])
        assert path.name == f"{found['party']}-{found['index']:06}-{record['type']}.tlog-proof"
        assert len(found["cosigners"]) == 2
        shown.append((found["party"], record["type"]))
    revealed = json.loads((pack / "disclosures.json").read_text())["learned"]
    times = {(i["source"], i["disclosure"]["kind"], i["disclosure"]["to"]): i["times"] for i in revealed}
    assert sum(kind == "value.revealed" for _, kind in shown) == sum(times.values())
    assert {party for party, kind in shown if kind == "run.completed"} == {"bank", "partner", "coordinator"}
    command = [
        sys.executable,
        "-m",
        "fedmkt.audit.verify_proof",
        "run/contract.toml",
        f"proofs/{paths[0].name}",
    ]
    done = subprocess.run(command, cwd=pack, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (0, "")


def numbers_of(written: str) -> set[str]:
    """Give all 11 digits that stand together in a text, signs between them left out."""
    runs = re.findall(r"\d{11,}", re.sub(r"[ ().+-]", "", written))
    return {run[i : i + 11] for run in runs for i in range(len(run) - 10)}


def test_no_id_and_no_value_of_a_customer_is_in_the_pack(pack: Path, governed: Path) -> None:
    written = text_of(pack)
    windows, digests = numbers_of(written), set(re.findall(r"[0-9a-f]{64}", written))
    assert PLANTED_ID in numbers_of(f"{written}+86 138 0013-8001")  # the scan finds what it looks for
    files = governed.parent / "files"
    seen = 0
    for name in ("bank", "partner"):
        with (files / f"{name}.csv").open(newline="") as file:
            phones = [row["phone"] for row in csv.DictReader(file) if row["phone"]]
        for phone in {*phones, *normalise_ids("phone", phones, "86").ids}:
            seen += 1
            assert hashlib.sha256(phone.encode()).hexdigest() not in digests
            assert re.sub(r"\D", "", phone)[-11:] not in windows
    assert seen > 2000
    assert PLANTED_ID in (files / "bank.csv").read_text()
    for planted in (PLANTED_ID, PLANTED_VALUE, PLANTED_LEVEL):
        assert planted not in written


def test_no_key_of_anybody_is_in_the_pack(pack: Path, governed: Path) -> None:
    written = b"".join(path.read_bytes() for path in files_of(pack))
    for path in governed.glob("parties/*/*.key"):
        secret = path.read_bytes()
        assert secret not in written and secret.hex().encode() not in written


def test_drafts_say_what_the_contract_says_and_what_it_does_not(pack: Path) -> None:
    record = draft(pack, "pipl-56-handling-record")
    assert "balance: account, level 3, C2, sensitive" in record
    for basis in ("PIPL-13-1", "GDPR-6-1-a", "PIPL-29"):
        assert re.search(rf"bank: [^|<]+ \\\[{basis}\\\]", record)
    gdpr = draft(pack, "gdpr-art-30-record")
    for letter in "abcdefg":
        assert f"## ({letter}) " in gdpr
    assert "signers are in CN, SG" in gdpr and "assessment sha256 cdcd" in gdpr
    assert "customers of the shop" in gdpr and "partner: 365 days" in gdpr
    asked = "ask the data protection officer of Example Bank, Example Shop, Independent Coordinator"
    assert re.search(rf"\| Contact details.*\| \*\*missing: not stated in the contract; {asked}\*\*", gdpr)
    assessment = draft(pack, "pipl-55-impact-assessment")
    assert "a judgement, left to whoever is responsible" in assessment
    for name in DRAFTS:
        assert "Draft for counsel" in draft(pack, name)


def test_a_text_of_the_contract_is_neither_html_nor_markdown_in_a_document(pack: Path) -> None:
    page = (pack / "index.html").read_text()
    assert "<b>with</b>" not in page and "&lt;b&gt;with&lt;/b&gt;" in page
    assert r"customers &lt;b&gt;with&lt;/b&gt; a \| phone" in draft(pack, "gdpr-art-30-record")


def test_a_pack_without_the_attack_lab_says_so_in_words(pack: Path) -> None:
    assert "The attack lab was not run against this run" in (pack / "index.html").read_text()
    assert "the attack lab was not run: fedmkt attack-lab RUN" in draft(pack, "pipl-55-impact-assessment")
    assert not (pack / "attack-lab.json").exists()


def test_the_page_loads_nothing_and_runs_nothing(pack: Path) -> None:
    page = (pack / "index.html").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r"<script|<img|<link|src=|@import|url\(|https?://", page)


def test_a_run_without_terms_has_a_pack_whose_drafts_say_so(small_run: RunResult, tmp_path: Path) -> None:
    run = small_run.folder
    made = make_pack(run, tmp_path / "pack", "partner", key_of(run, "partner"))
    assert verify_pack(tmp_path / "pack").seal.by == "partner"
    assert set(made.missing) == set(DRAFTS)
    assert draft(tmp_path / "pack", "gdpr-art-30-record").count("not stated in the contract") >= 5


def test_an_organisations_own_folder_has_a_pack_of_its_one_log(governed: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(governed / "logs" / "partner", own / "log")
    shutil.copy(governed / "contract.toml", own / "contract.toml")
    make_pack(own, tmp_path / "pack", "partner", key_of(governed, "partner"))
    said = "\n".join(verify_pack(tmp_path / "pack").lines())
    assert "not here are those of bank, coordinator" in said
    page = (tmp_path / "pack" / "index.html").read_text()
    assert "one log here" in page and "bank, coordinator" in page
    assert "not in this folder" in (tmp_path / "pack" / "model-card.md").read_text()


def test_drafts_and_page_are_in_chinese_where_asked(governed: Path, tmp_path: Path) -> None:
    make_pack(governed, tmp_path / "pack", "bank", key_of(governed), "zh")
    verify_pack(tmp_path / "pack")
    page = (tmp_path / "pack" / "index.html").read_text()
    for words in (
        "个人信息处理情况记录",
        "个人信息保护影响评估",
        "合同中未载明",
        "供法务审阅的草稿",
        "名单长度（ListSize）",
    ):
        assert words in page
    assert '<html lang="zh-CN">' in page
    assert "Draft for counsel" not in text_of(tmp_path / "pack" / "drafts")


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(pack: Path) -> None:
        path = pack / name
        data = change(path.read_bytes())
        assert data != path.read_bytes()
        path.write_bytes(data)

    return spoil


def link(pack: Path) -> None:
    target = pack / "ledger.csv"
    target.rename(pack.parent / "ledger.csv")
    target.symlink_to(pack.parent / "ledger.csv")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (rewrite("drafts/gdpr-art-30-record.md", lambda d: d + b"."), "gdpr-art-30-record.md: not as it was"),
        (rewrite("run/logs/bank/log.jsonl", lambda d: d[:-9]), "run/logs/bank/log.jsonl: not as it was"),
        (lambda pack: (pack / "index.html").unlink(), "index.html: missing"),
        (lambda pack: (pack / "more.txt").write_text("x"), "more.txt: not in the manifest"),
        (link, "ledger.csv"),
        (
            rewrite("manifest.json", lambda d: d.replace(b"ledger.csv", b"ledger.cvs")),
            "not the manifest that was signed",
        ),
        (
            rewrite("manifest.dsse.json", lambda d: d.replace(b'"sig":"', b'"sig":"AAAA')),
            "0 valid signatures",
        ),
        (rewrite("manifest.dsse.json", lambda d: d[:40]), "manifest.dsse.json"),
        (rewrite("manifest.dsse.json", lambda d: b"[]"), "manifest.dsse.json"),
    ],
)
def test_a_changed_pack_is_refused_and_the_change_named(
    copy: Path, spoil: Callable[[Path], None], named: str
) -> None:
    spoil(copy)
    with pytest.raises(AuditError, match=re.escape(named)):
        verify_pack(copy)


def reseal(pack: Path, by: str, identity: Identity) -> None:
    from fedmkt.evidence.seal import seal

    manifest = json.loads((pack / "manifest.json").read_text())
    seal(pack, by, identity, manifest["run"], manifest["contract"])


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (
            rewrite("ledger.json", lambda d: d.replace(b'"number": 19', b'"number": 18', 1)),
            "not what the logs in run/ give",
        ),
        (
            rewrite("disclosures.json", lambda d: d.replace(b"ListSize", b"RangeBit", 1)),
            "not what the logs in run/ give",
        ),
        (
            rewrite(
                "run/logs/bank/log.jsonl", lambda d: d.replace(b'"SetSize","low":', b'"SetSize","low":1', 1)
            ),
            "run",
        ),
        (lambda pack: next((pack / "proofs").iterdir()).unlink(), "proofs"),
    ],
)
def test_a_maker_who_changes_facts_and_signs_again_is_found_by_the_logs(
    copy: Path, governed: Path, spoil: Callable[[Path], None], named: str
) -> None:
    spoil(copy)
    reseal(copy, "bank", key_of(governed))
    with pytest.raises(AuditError, match=re.escape(named)):
        verify_pack(copy)


def test_nobody_signs_in_the_name_of_a_signer_with_another_key(
    copy: Path, governed: Path, tmp_path: Path
) -> None:
    other = Identity(b"\x07" * 32)
    reseal(copy, "bank", other)
    with pytest.raises(AuditError, match="another key than the contract has"):
        verify_pack(copy)
    with pytest.raises(ConfigError, match="not the one that the contract has for bank"):
        make_pack(governed, tmp_path / "pack", "bank", other)


def test_an_auditor_who_is_no_signer_makes_a_pack_and_is_pinned(governed: Path, tmp_path: Path) -> None:
    auditor = Identity(b"\x07" * 32)
    make_pack(governed, tmp_path / "pack", "auditor", auditor)
    assert not verify_pack(tmp_path / "pack").is_signer
    assert verify_pack(tmp_path / "pack", {"auditor": auditor.public.hex()}).is_pinned
    with pytest.raises(AuditError, match="which is not pinned"):
        verify_pack(tmp_path / "pack", {"auditor": "00" * 32})


def test_pins_of_all_signers_are_compared_with_the_contract(pack: Path, governed: Path) -> None:
    signed = from_toml((governed / "contract.toml").read_text(), "contract.toml")
    pins = {signer.name: signer.key for signer in signed.contract.signers}
    assert verify_pack(pack, pins).is_pinned
    with pytest.raises(AuditError, match="not the pinned ones"):
        verify_pack(pack, pins | {"partner": "00" * 32})
    with pytest.raises(ConfigError, match="without coordinator"):
        verify_pack(pack, {name: pins[name] for name in ("bank", "partner")})


def test_the_attack_labs_report_is_in_the_pack_if_there_is_one(governed: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(governed, tmp_path / "run"))
    finding = {
        "row": 3,
        "attack": "direct label",
        "metric": "count",
        "undefended": 1.0,
        "here": 0,
        "verdict": "held",
    }
    agreed = digest(from_toml((run / "contract.toml").read_text(), "").contract).hex()
    (run / "attack-lab.json").write_text(json.dumps({"contract": agreed, "findings": [finding]}))
    make_pack(run, tmp_path / "pack", "bank", key_of(run))
    page = (tmp_path / "pack" / "index.html").read_text()
    assert "<td>3 direct label</td>" in page and "known ways" in page and ": 1 held. The report" in page
    assert "was not run" not in page + draft(tmp_path / "pack", "pipl-55-impact-assessment")
    assert json.loads((tmp_path / "pack" / "attack-lab.json").read_text())["findings"] == [finding]
    verify_pack(tmp_path / "pack")
    (run / "attack-lab.json").write_text("[")
    with pytest.raises(ConfigError, match=r"attack-lab\.json"):
        make_pack(run, tmp_path / "again", "bank", key_of(run))


def test_the_commands_make_and_verify(
    governed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pack"
    assert main(["evidence", str(governed), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["by"] == "bank"
    assert main(["evidence", "verify", str(out), "--pin", f"bank={key_of(governed).public.hex()}"]) == 0
    assert "the key is the pinned one" in capsys.readouterr().out
    (out / "sbom.cdx.json").write_text("{}")
    assert main(["evidence", "verify", str(out)]) == 7
    assert "sbom.cdx.json: not as it was" in capsys.readouterr().err


def test_an_organisation_signs_with_the_key_of_its_folder(governed: Path, tmp_path: Path) -> None:
    place = tmp_path / "shop" / "state" / "contracts" / "spring-0123"
    shutil.copytree(governed / "logs" / "partner", place / "log")
    shutil.copy(governed / "contract.toml", place)
    keys = tmp_path / "shop" / "keys"
    keys.mkdir(mode=0o700)
    shutil.copy(governed / "parties" / "partner" / "identity.key", keys)
    for number, folder in enumerate((tmp_path / "shop", place)):
        out = tmp_path / str(number)
        assert main(["evidence", str(folder), "--out", str(out)]) == 0
        assert verify_pack(out).seal.by == "partner"
    assert main(["evidence", str(place), "--by", "bank"]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["evidence", "{empty}"],
        ["evidence", "verify", "{empty}"],
        ["evidence", "{run}", "--out", "{run}"],
        ["evidence", "{run}", "--by", "nobody"],
        ["evidence", "{run}", "--by", "partner", "--key", "{run}/parties/bank/identity.key"],
        ["evidence", "{run}", "--lang", "fr"],
        ["evidence", "verify", "{empty}", "--pin", "x"],
    ],
)
def test_bad_input_ends_with_one_line(
    governed: Path, tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = [a.format(empty=tmp_path, run=governed) for a in arguments]
    assert main(given) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("fedmkt: error: ") and len(said) <= 2
