"""The command: a finished run is run again under watch, and the table lies beside its other files."""

import json

import numpy as np
import pytest

from fedmkt.attack_lab.finding import Finding, Limit, mean_of, worst, worst_of_partners
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


def test_of_what_is_counted_the_worst_of_several_seeds_counts():
    found = [Finding(3, "a", "rows", 90.0 - here, here, Limit(0)) for here in (0.0, 2.0, 0.0)]
    put = mean_of(found)
    assert (put.here, put.undefended, put.verdict) == (2.0, 88.0, "BROKEN")
    assert put.to_json()["runs"] == [{"undefended": f.undefended, "here": f.here} for f in found]


def test_a_leak_too_small_for_one_run_to_show_is_found_by_twenty():
    found = [Finding(1, "a", "AUC", 1.0, 0.56 + 0.01 * (-1) ** i, Limit(0.55), error=0.02) for i in range(20)]
    assert {f.verdict for f in found} == {"held"}
    assert mean_of(found[:2]).verdict == "held"
    assert mean_of(found).verdict == "BROKEN"


def test_ten_seeds_show_no_more_than_their_mean_and_its_error():
    found = [
        Finding(1, "a", "AUC", 1.0, 0.545 + 0.03 * (-1) ** i, Limit(0.55), error=0.03) for i in range(10)
    ]
    assert mean_of(found).verdict == "BROKEN"  # .545 +- .01: not shown to be within .55
    below = [Finding(1, "a", "AUC", 1.0, f.here - 0.03, Limit(0.55), error=0.03) for f in found]
    assert mean_of(below).verdict == "held"
    loud = [*below, Finding(1, "a", "AUC", 1.0, 0.7, Limit(0.55), error=0.03)]
    assert mean_of(loud).verdict == "BROKEN"  # one run alone is beyond doubt


def test_of_two_partners_the_one_of_more_concern_counts_and_both_are_named():
    one, other = (Finding(1, "a", "AUC", 1.0, here, Limit(0.55), "arrays") for here in (0.5, 0.9))
    put = worst_of_partners([("shop", one), ("telecom", other)])
    assert put.here == 0.9 and put.note == "shop 0.500, telecom 0.900; of the worst: arrays"
    assert worst_of_partners([("shop", one)]) is one


def test_the_worst_finding_is_the_one_of_most_concern():
    found = [Finding(1, "a", "AUC", 1.0, here, Limit(0.55)) for here in (0.51, 0.54, 0.5)]
    assert worst(found) is found[1]
    broken = Finding(1, "a", "AUC", 1.0, 0.9, Limit(0.55), declared=("Scores",))
    assert worst([*found, broken]) is broken
    least = [Finding(5, "a", "MSE", 0.0, here, Limit(0.9, is_least=True)) for here in (1.1, 0.95)]
    assert worst(least) is least[1]
