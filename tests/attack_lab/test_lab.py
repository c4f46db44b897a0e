"""The command: a finished run is run again under watch, and the table lies beside its other files."""

import json

import numpy as np
import pytest

from fedmkt.attack_lab.finding import Finding, Limit
from fedmkt.attack_lab.lab import worst
from fedmkt.cli.app import main
from fedmkt.simulation.run import simulate


def test_the_command_watches_the_same_run_bit_for_bit_and_writes_beside_it(linear, tmp_path, capsys):
    simulate(linear.folder.parent / "world" / "job.toml", out=tmp_path / "run", seed=2)
    for name in ("share.npy", "train.npy"):
        one, other = (f / "parties" / "partner" / "model" / name for f in (linear.folder, tmp_path / "run"))
        assert np.array_equal(np.load(one), np.load(other))
    assert main(["attack-lab", str(tmp_path / "run"), "--attacks", "1,3", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    (written,) = said["reports"]
    assert json.loads((tmp_path / "run" / "attack-lab.json").read_bytes()) == written
    assert [f["row"] for f in written["findings"]] == [1, 3]
    assert (tmp_path / "run" / "attack-lab.html").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["attack-lab"], "one of RUN and --all"),
        (["attack-lab", "nowhere"], "not the folder of a simulated run"),
        (["attack-lab", "--all", "--attacks", "x"], "numbers with commas"),
    ],
)
def test_what_cannot_be_attacked_is_said_in_one_line(words, complaint, capsys):
    assert main(words) == 2
    assert complaint in capsys.readouterr().err


def test_of_several_seeds_the_worst_figure_counts():
    found = [Finding(1, "a", "AUC", 1.0, here, Limit(0.55)) for here in (0.51, 0.54, 0.5)]
    assert worst(found) is found[1]
    broken = Finding(1, "a", "AUC", 1.0, 0.9, Limit(0.55), declared=("Scores",))
    assert worst([*found, broken]) is broken
    least = [Finding(5, "a", "MSE", 0.0, here, Limit(0.9, is_least=True)) for here in (1.1, 0.95)]
    assert worst(least) is least[1]
