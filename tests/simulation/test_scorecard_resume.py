"""A scorecard's run that is killed while totals and WoE are on their way ends with the same WoE."""

from pathlib import Path

import pytest

from fedmkt.config.files import parse_job
from fedmkt.party.node import open_data
from fedmkt.protocol.prepare import OwnEvidence
from fedmkt.protocol.scorecard.scorecard import EvidenceTable
from tests.engine import BANK, Killed, Tap, World, job_config, world_of


def scorecard_world(folder: Path) -> World:
    job_config(folder / "data", rows=(900, 950, 800), iterations=1)
    text = (folder / "data" / "job.toml").read_text().replace("[model]\n", '[model]\nkind = "scorecard"\n')
    config = parse_job(text, "job.toml")
    tables = {p.name: open_data(p, folder / "data") for p in config.parties}
    return world_of(config, folder, tables, seed=4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, int], list[object]]:
    """A run that nobody kills: the first call of each step, and what it ends with."""
    world, tap = scorecard_world(tmp_path_factory.mktemp("whole")), Tap()
    world.run(tap)
    first: dict[str, int] = {}
    for passing in tap.requests:
        first.setdefault(passing.message.step, passing.message.index)
    return first, results(world)


def results(world: World) -> list[object]:
    table = world.parties[BANK].recall(EvidenceTable)
    totals = {p: {n: t.tolist() for n, t in c.items()} for p, c in table.totals.items()}
    own = [world.parties[n].recall(OwnEvidence).columns for n in (BANK, "partner")]
    return [totals, table.kept, *own]


@pytest.mark.parametrize("step", ["totals.mask_bins", "totals.take", "scorecard.take"])
def test_a_run_that_was_killed_ends_with_the_same_woe(
    step: str, whole: tuple[dict[str, int], list[object]], tmp_path: Path
) -> None:
    first, expected = whole
    world = scorecard_world(tmp_path)
    with pytest.raises(Killed):
        world.run(Tap(stop_at=first[step]))
    world.run(resume=True)
    assert results(world) == expected
