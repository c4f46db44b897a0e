import json

import pytest

from fedmkt.errors import ConfigError
from fedmkt.report.stability import FILE, SHIFT, moved


@pytest.mark.parametrize(
    ("facts", "lines"),
    [
        ({"columns": {"age": 0.25, "job": 0.01}, "scores": 0.25}, []),
        ({"columns": {"age": 0.251, "job": 0.01, "x": 1.5}, "scores": None}, ["age 0.25, x 1.50"]),
        ({"columns": {"age": 0.1}, "scores": 0.4}, ["held-out ones (0.40)"]),
        ({"columns": {"age": 2.0}}, ["age 2.00"]),
    ],
)
def test_what_moved_is_warned_of(facts, lines, tmp_path):
    (tmp_path / FILE).write_text(json.dumps(facts))
    found = moved(tmp_path)
    assert len(found) == len(lines) and all(line in text for line, text in zip(lines, found, strict=True))


def test_a_model_that_is_no_scorecard_moves_nothing(tmp_path):
    assert moved(tmp_path) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"columns": {"age": "far"}}'])
def test_a_file_that_no_run_wrote_is_refused(text, tmp_path):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigError, match="not what a run wrote"):
        moved(tmp_path)


def test_the_index_of_each_column_against_the_reference_is_shown(tmp_path):
    (tmp_path / SHIFT).write_text(json.dumps({"columns": {"age": 1.5, "job": 0.012}, "left_out": ["age"]}))
    (line,) = moved(tmp_path)
    assert "age 1.50 left out, job 0.01" in line
    (tmp_path / SHIFT).write_text('{"columns": {"age": 1.5}}')
    with pytest.raises(ConfigError, match="not what a run wrote"):
        moved(tmp_path)
