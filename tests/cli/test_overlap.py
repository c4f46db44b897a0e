import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedmkt.audit.records import read_leaf
from fedmkt.cli import app as commands
from fedmkt.cli.overlap import overlap_lines
from fedmkt.config.drafts import draft_contract
from fedmkt.config.job import overlap_of
from fedmkt.config.tables import id_list
from fedmkt.contract.signatures import SignedContract
from fedmkt.deploy.contracts import check_own_table
from fedmkt.deploy.sheet import Sheet
from fedmkt.errors import PolicyRefused
from fedmkt.party.node import open_data
from fedmkt.protocol.core import data_parties
from fedmkt.simulation.overlap import count_overlap
from fedmkt.simulation.plan import plan
from fedmkt.simulation.progress import ProgressEvent
from fedmkt.simulation.run import read_job
from fedmkt.simulation.world import generate, write_world
from tests.deploy.deployment import COORDINATOR, Deployment, fedmkt
from tests.engine import Killed, Tap, world_of

COMMON = 463


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job.toml that trains a model: `overlap` needs nothing else."""
    return write_world(generate(11, 800, 900, COMMON), tmp_path_factory.mktemp("overlap"), minimum=300)


@pytest.fixture(scope="module")
def bare_job(job: Path) -> Path:
    """The same job without columns, label and model."""
    text = 'task = "overlap"\n' + re.sub(r"(?m)^(numbers|categories|label) = .*\n", "", job.read_text())
    bare = job.with_name("bare.toml")
    bare.write_text(text)
    return bare


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert commands.main([str(a) for a in arguments]) == 0
    return capsys.readouterr().out


def test_overlap_prints_and_writes_the_band_and_the_rate_and_nothing_else(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, "overlap", job, "--out", tmp_path / "out")
    assert text == (
        "partner: between 460 and 470 customers in common\npartner: 58 to 60 % of the bank's list\n"
    )
    expected = {"overlap": [{"partner": "partner", "common": [460, 470], "rate": [58, 60]}]}
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == expected
    for party in ("bank", "partner"):
        found = json.loads((tmp_path / "out" / "parties" / party / "overlap.json").read_text())
        assert set(found) == {"version", "contract", "run", "overlap"}
        assert found["overlap"] == expected["overlap"]
        assert not (tmp_path / "out" / "parties" / party / "model").exists()


def test_the_exact_number_is_in_no_file_of_the_run(job: Path, tmp_path: Path) -> None:
    count_overlap(job, out=tmp_path / "out", seed=1)
    exact = re.compile(rb"(?<![0-9a-fA-F.:])%d(?![0-9a-fA-F.:])" % COMMON)
    texts = [p for p in (tmp_path / "out").rglob("*") if p.suffix in (".json", ".jsonl", ".toml", ".txt")]
    assert len(texts) > 10
    assert [p.name for p in texts if exact.search(p.read_bytes())] == []


def test_a_job_without_columns_is_counted_alike_and_speaks_json(
    job: Path, bare_job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(said(capsys, "overlap", bare_job, "--out", tmp_path / "out", "--json"))
    assert found == count_overlap(job, out=tmp_path / "again").to_json()
    assert commands.main(["simulate", str(bare_job), "--out", str(tmp_path / "no")]) == 2
    shown = capsys.readouterr()
    assert "trains no model" in shown.err and "fedmkt overlap" in shown.err
    assert not (tmp_path / "no").exists()


def test_what_a_count_disclosed_is_lengths_and_a_band(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = count_overlap(job, out=tmp_path / "out").folder
    for name in ("bank", "partner"):
        records = [read_leaf(x) for x in (folder / "logs" / name / "log.jsonl").read_bytes().splitlines()]
        kinds = {r.body["kind"] for r in records if r.type == "value.revealed"}
        assert kinds == ({"ListSize"} if name == "bank" else {"ListSize", "SetSize"})
        assert [r.type for r in records].count("run.completed") == 1
    text = said(capsys, "disclosures", folder)
    assert "between 460 and 470" in text and max(map(len, text.splitlines())) <= 80
    assert json.loads(said(capsys, "audit", "verify", folder, "--json"))["outcome"] == "completed"
    assert commands.main(["report", str(folder)]) == 2
    assert "fedmkt disclosures" in capsys.readouterr().err


def test_too_few_common_customers_are_refused_without_their_number(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said_of = []
    for minimum in (464, 700):
        strict = job.with_name("strict.toml")
        strict.write_text(job.read_text().replace("min_common = 300", f"min_common = {minimum}"))
        assert commands.main(["overlap", str(strict), "--out", str(tmp_path / str(minimum))]) == 4
        said_of.append(capsys.readouterr().err)
    assert said_of[0] == said_of[1]
    text = " ".join(said_of[0].split()).replace("C09 ", "")  # the number of the control is none of people
    assert "smaller than the contract's minimum" in text and not re.search(r"\d", text)


def test_the_plan_of_a_count_names_its_bytes_and_no_model(
    bare_job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = plan(bare_job)
    text = said(capsys, "plan", bare_job)
    assert "row norm" not in text and "columns" not in text and "SetSize" in text
    assert max(map(len, text.splitlines())) <= 80
    assert json.loads(said(capsys, "plan", bare_job, "--json"))["task"] == "overlap"
    events: list[ProgressEvent] = []
    count_overlap(bare_job, out=tmp_path / "out", progress=events.append)
    assert sum(planned.bytes_sent.values()) == pytest.approx(events[-1].bytes, rel=0.15)
    assert {e.stage for e in events} == {"overlap", "close"}
    assert all(e.done == e.total for e in events[-1:])


def test_a_killed_count_begins_anew_with_fresh_secrets_and_ends_alike(job: Path, tmp_path: Path) -> None:
    config = overlap_of(read_job(job))
    tables = {p.name: open_data(p, job.parent) for p in config.parties}
    world = world_of(config, tmp_path, tables)
    killed, resumed = Tap(stop_after=31), Tap()
    with pytest.raises(Killed):
        world.run(killed)
    found = world.run(resumed, resume=True)
    assert [p.partner for p in found.pairs] == list(data_parties(world.contract))[1:]  # type: ignore[attr-defined]
    assert found.pairs[0].low < COMMON <= found.pairs[0].high  # type: ignore[attr-defined]
    before, after = ({e.digest for e in tap.envelopes} for tap in (killed, resumed))
    assert before and not before & after
    assert json.loads((world.folder_of(data_parties(world.contract)[0]) / "overlap.json").read_text())


def test_two_partners_are_shown_side_by_side(tmp_path: Path) -> None:
    job = write_world(generate(5, 500, 600, 400, partners=2), tmp_path / "data", minimum=300)
    found = count_overlap(job, out=tmp_path / "out").to_json()
    lines = list(overlap_lines(found))
    assert len(lines) == 4 and all("between 390 and 400" in line for line in lines[::2])


def test_a_party_signs_a_count_though_its_table_has_columns(job: Path) -> None:
    config = read_job(job)
    keys = {n: bytes([i + 1]) * 32 for i, n in enumerate(("bank", "partner", "coordinator"))}
    counts = draft_contract(overlap_of(config), keys, datetime.now(UTC))
    for party in config.parties:
        check_own_table(counts, party)
    with pytest.raises(PolicyRefused, match="rule own-table: numbers"):
        check_own_table(draft_contract(config, keys, datetime.now(UTC)), id_list(config.bank))
    shown = "\n".join(Sheet(SignedContract(contract=counts), datetime.now(UTC)).lines())
    assert "count the common customers" in shown and "iterations" not in shown and "decimals" not in shown


@pytest.mark.slow  # real programs, Flower's polls
def test_a_deployment_counts_by_a_contract_whose_task_is_overlap(bare_job: Path, tmp_path: Path) -> None:
    with Deployment(tmp_path, bare_job) as it:
        status = it.run()
        assert status["state"] == "done" and status["common_band"] is None
        assert status["overlap"] == [{"partner": "partner", "common": [460, 470], "rate": [58, 60]}]
        shown = fedmkt("logs", status["run"], "--dir", it.place(COORDINATOR))
        assert "between 460 and 470 customers in common" in shown
        for name in it.names:
            (own,) = (it.place(name) / "state" / "contracts").glob("*/overlap.json")
            assert json.loads(own.read_text())["overlap"] == status["overlap"]
            page = json.loads(fedmkt("report", it.place(name), "--json"))["report"]
            assert "SetSize" in Path(page).read_text() or "customers are common" in Path(page).read_text()
