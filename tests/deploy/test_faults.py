"""A whole deployment on loopback survives what happens to it; the long form is `python -m tests.deploy.faults`."""

import random
from collections.abc import Iterator

import pytest

from tests.deploy.deployment import COORDINATOR
from tests.deploy.faults import FullDisk, Kill, Lab, Storm

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("faults")
    with Lab(folder, rows=(1500, 1800, 1200), iterations=2, every=1, auc_bound=2e-4) as lab:
        lab.refer()
        yield lab


def test_a_killed_worker_is_replaced_and_the_model_stays_the_same(lab: Lab) -> None:
    kill = Kill(lab, lab.it.names[0], "worker", "fit late", random.Random(1))
    finding, _ = lab.watch(kill.name, kill, kill.when)
    assert finding.wrong == [] and finding.ending == "done" and finding.epochs == 2


def test_a_killed_hub_and_faults_in_the_byte_streams_go_unnoticed_by_the_run(lab: Lab) -> None:
    storm, kill = (
        Storm(lab, 6, random.Random(2)),
        Kill(lab, COORDINATOR, "hub", "fit early", random.Random(3)),
    )
    storm()
    finding, _ = lab.watch("hub killed, faults", kill, kill.when)
    assert storm.count() > 0
    assert finding.wrong == [] and finding.ending == "done" and finding.epochs == 1


def test_a_full_disk_ends_the_run_with_one_clear_line_and_it_can_be_resumed(lab: Lab) -> None:
    full = FullDisk(lab, lab.it.names[1], random.Random(4))
    finding, _ = lab.watch(full.name, full, full.when, heal=full.heal)
    assert finding.wrong == [] and finding.ending == "failed, then done" and finding.exit_code == 6
    assert lab.it.names[1] in finding.error
