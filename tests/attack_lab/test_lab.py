"""The command: a finished run is run again under watch, and the table lies beside its other files."""

import json

import numpy as np
import pytest

from fedmkt.attack_lab.finding import Finding, Limit
from fedmkt.attack_lab.lab import worst
from fedmkt.attack_lab.subject import seed_of, watch_run
from fedmkt.cli.app import main


def test_the_folder_of_a_run_is_watched_again_bit_for_bit(linear, tmp_path):
    assert seed_of(linear.folder) == 2
    again = watch_run(linear.folder, tmp_path / "again", seed_of(linear.folder))
    for name in ("share.npy", "train.npy"):
        one, other = (s.model("partner") / name for s in (linear, again))
        assert np.array_equal(np.load(one), np.load(other))
    assert again.given == linear.folder


def test_the_command_writes_the_table_into_the_folder_of_the_run(linear, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fedmkt.attack_lab.lab.watch_run", lambda run, out, seed: linear)
    assert main(["attack-lab", str(tmp_path), "--attacks", "1,3", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    (written,) = said["reports"]
    assert json.loads((tmp_path / "attack-lab.json").read_bytes()) == written
    assert [f["row"] for f in written["findings"]] == [1, 3]
    assert (tmp_path / "attack-lab.html").exists()


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
