import numpy as np
import pytest

from fedmkt.privacy.disclosure import DEFAULT
from fedmkt.simulation.run import RunResult, simulate
from fedmkt.simulation.world import generate, write_world

BANK_ROWS, COMMON = 3000, 1500


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("left")
    job = write_world(generate(3, BANK_ROWS, 2500, COMMON), folder, minimum=300)
    kinds = ", ".join(f'"{kind}"' for kind in (*DEFAULT, "JoinedRows"))
    job.write_text(f'disclosures = [{kinds}]\n{job.read_text()}\n[align]\njoin = "left"\n')
    return simulate(job, out=folder / "run", seed=1)


def test_all_customers_of_the_bank_are_scored_and_the_common_ones_are_counted(run: RunResult) -> None:
    scores = np.load(run.folder / "parties" / "bank" / "model" / "scores.npz")
    train = np.load(run.folder / "parties" / "bank" / "model" / "train.npy")
    assert len(np.unique(np.concatenate([scores["rows"], train]))) == len(scores["rows"]) + len(train)
    known = np.load(run.folder / "parties" / "bank" / "model" / "known.npy")
    assert known.sum() == COMMON and len(known) == len(scores["rows"]) + len(train)


def test_the_joint_model_is_the_pooled_one_with_rows_of_zeros(run: RunResult) -> None:
    models = run.summary.models
    assert models.centralised is not None and models.joint_exact is not None
    assert abs(models.joint_exact.metrics.auc - models.centralised.metrics.auc) < 2e-3
    assert models.joint.metrics.auc > models.bank.metrics.auc + 0.02
