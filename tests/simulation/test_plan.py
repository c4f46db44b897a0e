import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fedmkt
from fedmkt.crypto.sign import Identity
from fedmkt.errors import ConfigError, DataError
from fedmkt.privacy.disclosure import plain_text_of
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.deals import auditor_terms
from fedmkt.simulation.rehearsal import Planned
from fedmkt.simulation.run import RunResult
from fedmkt.simulation.traffic import Sizes, bytes_sent
from fedmkt.simulation.world import generate, write_world
from tests.protocol.engine_cases import draw
from tests.protocol.plain_caller import BANK, SHOP, contract_of


@pytest.fixture(scope="module")
def job(small_run: RunResult) -> Path:
    return small_run.folder.parent / "files" / "job.toml"


def test_planned_and_real_bytes_agree_within_15_percent(small_run: RunResult, job: Path) -> None:
    unlabelled = small_run.facts["common"]["unlabelled"]
    models = small_run.folder / "parties"
    columns = {
        p: len(json.loads((models / p / "model" / "model.json").read_text())["columns"])
        for p in ("bank", "partner")
    }
    planned = fedmkt.plan(job, common=700, labelled=700 - unlabelled, columns=columns)
    for party, real in small_run.summary.bytes_sent.items():
        assert planned.bytes_sent[party] == pytest.approx(real, rel=0.15), party


def test_planned_rounds_are_the_real_ones(small_run: RunResult, job: Path) -> None:
    assert fedmkt.plan(job).rounds == small_run.summary.rounds


def test_without_expectations_nothing_costs_more_than_planned(small_run: RunResult, job: Path) -> None:
    planned = fedmkt.plan(job)
    assert planned.common == planned.labelled == 1000
    assert all(planned.bytes_sent[p] >= real for p, real in small_run.summary.bytes_sent.items())
    assert len(planned.assumptions) == 4


def test_with_two_partners_too_every_step_has_a_size(tmp_path: Path) -> None:
    job = write_world(generate(1, 600, 700, 400, 2), tmp_path, minimum=100)
    planned = fedmkt.plan(job)
    assert set(planned.bytes_sent) == {"bank", "partner", "partner2", "coordinator"}
    job.write_text(job.read_text().replace("[model]", 'disclosures_ = ""\n[model]'))
    with pytest.raises(ConfigError, match="unknown key"):
        fedmkt.plan(job)


@pytest.mark.parametrize("engine", ["ot", "vole"])
def test_the_traffic_of_an_engine_is_that_of_its_run(engine: str) -> None:
    case = draw(np.random.default_rng(1), engine)
    caller = case.run()
    contract = contract_of(align={"engine": engine})
    sizes = Sizes(contract, Overlap(0, 0, 0, 0), {}, {BANK: len(case.bank), SHOP: len(case.shop)})
    made: Counter[tuple[str, str]] = Counter()
    planned: Counter[str] = Counter()
    sent: Counter[str] = Counter()
    for told in caller.told:
        step = SimpleNamespace(name=told.step, shows=None)
        planned[told.party] += bytes_sent(sizes, Planned(told.party, step, made[told.party, told.step]))
        made[told.party, told.step] += 1
    for message in caller.sent:
        sent[message.sender] += len(message.data)
    assert all(sent[p] <= planned[p] <= sent[p] + 300 * len(caller.told) for p in (BANK, SHOP))


def test_a_step_without_a_known_size_is_no_silent_zero(small_run: RunResult, job: Path) -> None:
    from fedmkt.protocol.witness import CLOSE
    from fedmkt.simulation.rehearsal import Planned

    strange = Planned("bank", replace(CLOSE, name="run.sing"), 0)
    with pytest.raises(ValueError, match=r"run\.sing"):
        bytes_sent(None, strange)


def test_every_disclosure_stands_there_with_its_whole_text(small_run: RunResult, job: Path) -> None:
    planned = fedmkt.plan(job)
    learned = {line.kind for line in small_run.summary.disclosures}
    assert learned <= {d.kind for d in planned.disclosures}
    text = " ".join(" ".join(planned.lines()).split())
    assert all(plain_text_of(d.kind) in text for d in planned.disclosures)
    checks = {d.kind: d.releases for d in planned.disclosures}
    assert checks["RangeBit"] == 5 and checks["Scores"] == 1


def test_seeds_for_an_auditor_are_planned_once(job: Path) -> None:
    terms = auditor_terms("auditor", "Audit House", Identity(bytes(range(32))))
    audited = job.with_name("audited.toml")
    lines = "".join(f'{name} = "{value}"\n' for name, value in terms.model_dump().items())
    audited.write_text(f"{job.read_text()}\n[auditor]\n{lines}")
    assert {d.kind: d.releases for d in fedmkt.plan(audited).disclosures}["DealerSeeds"] == 1
    assert "DealerSeeds" not in {d.kind for d in fedmkt.plan(job).disclosures}


def test_the_bounds_hold_up_to_the_norm_that_the_plan_names(job: Path) -> None:
    planned = fedmkt.plan(job)
    assert all(bound.holds for bound in planned.bounds)
    assert planned.row_norm < planned.max_row_norm <= 1000


def test_lines_fit_80_columns_and_json_is_json(job: Path) -> None:
    planned = fedmkt.plan(job)
    assert max(map(len, planned.lines())) <= 80
    assert json.loads(json.dumps(planned.to_json()))["bytes"] == planned.bytes_sent


def test_a_plan_reads_no_cell_and_leaves_nothing_behind(job: Path, tmp_path: Path) -> None:
    for name in ("job.toml", "bank.csv", "partner.csv"):
        (tmp_path / name).write_bytes((job.parent / name).read_bytes())
    bank = (tmp_path / "bank.csv").read_bytes()
    (tmp_path / "bank.csv").write_bytes(bank.replace(b",", b"?"))
    before = sorted(tmp_path.iterdir())
    assert fedmkt.plan(tmp_path / "job.toml").parties[0].rows == 1000
    assert sorted(tmp_path.iterdir()) == before


def test_what_cannot_be_is_refused(job: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="accepted: 1 to 1000"):
        fedmkt.plan(job, common=5000)
    with pytest.raises(ConfigError, match="labelled = 701"):
        fedmkt.plan(job, common=700, labelled=701)
    with pytest.raises(ConfigError, match=r"job\.toml: No such file"):
        fedmkt.plan(tmp_path / "job.toml")
    (tmp_path / "job.toml").write_text(job.read_text())
    with pytest.raises(ConfigError, match=r"bank\.csv: No such file"):
        fedmkt.plan(tmp_path / "job.toml")
    (tmp_path / "bank.csv").write_text("phone,age\n")
    (tmp_path / "partner.csv").write_text("phone,spend\n1,2\n")
    with pytest.raises(DataError, match="no rows"):
        fedmkt.plan(tmp_path / "job.toml")
