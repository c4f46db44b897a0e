"""The drawn functions of an additive model: on one scale, escaped, and only of the folder that was read."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from fedmkt.errors import ConfigError
from fedmkt.learn.shapes import Level, PairShape, Shape, Shapes
from fedmkt.report.page import render, render_log
from fedmkt.report.shapes import MOST, draw_shapes, read_shapes
from fedmkt.report.summary import LogSummary, PartyShapes, RunSummary
from tests.report.test_page import HOSTILE, read, simulated_run


def number(name: str, height: float = 1.0) -> Shape:
    values = tuple(i / 10 for i in range(11))
    return Shape(
        name, values, tuple(height * v for v in values), (0.2, 0.5, 0.2), (Level("0", -0.3, 0.1),), height
    )


def category(name: str, *levels: str) -> Shape:
    return Shape(name, (), (), (), tuple(Level(level, 0.1 * i, 0.5) for i, level in enumerate(levels)), 0.05)


def of(*columns: Shape, party: str = "bank", pairs: tuple[PairShape, ...] = ()) -> PartyShapes:
    return PartyShapes(party, Shapes(columns, pairs))


@pytest.fixture(scope="module")
def summary() -> RunSummary:
    shapes = (of(number("age"), category("job", "clerk", "none")), of(number("visits"), party="shop"))
    return dataclasses.replace(simulated_run(rows=600), shapes=shapes)


def test_a_summary_with_shapes_survives_json(summary: RunSummary) -> None:
    assert RunSummary.from_json(summary.to_json()) == summary


def test_a_summary_from_before_there_were_shapes_is_read(summary: RunSummary) -> None:
    facts = json.loads(summary.to_json())
    del facts["shapes"]
    assert RunSummary.from_json(json.dumps(facts)) == dataclasses.replace(summary, shapes=())


def test_every_column_has_a_panel_and_no_identifier_is_used_twice(summary: RunSummary) -> None:
    page = render(summary)
    parsed = read(page)
    assert render(summary) == page
    for column in ("age", "job", "visits"):
        assert f"<h3>{column}</h3>" in page
    identifiers = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', page)) <= set(identifiers)


def test_a_run_without_shapes_has_no_such_section(summary: RunSummary) -> None:
    assert "What each column" not in render(dataclasses.replace(summary, shapes=()))


def test_the_page_of_an_organisation_without_scores_draws_its_own() -> None:
    log = LogSummary("job", "why", "r", "d", (), (), (), shapes=(of(number("visits"), party="shop"),))
    text = read(render_log(log, "shop")).text
    assert "What each column of shop adds" in text and "visits" in text and "at 0 −0.30" in text


def test_names_from_outside_are_escaped_and_never_drawn(summary: RunSummary) -> None:
    pairs = (PairShape(HOSTILE, HOSTILE, 0.5),)
    hostile = of(number(HOSTILE), category(HOSTILE, HOSTILE, "x"), party=HOSTILE, pairs=pairs)
    parsed = read(render(dataclasses.replace(summary, shapes=(hostile,))))
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "img"})
    assert parsed.text.count(HOSTILE) >= 6
    (panels,) = draw_shapes([hostile])
    assert all("script" not in panel.drawing and "evil" not in panel.drawing for panel in panels.panels)


def test_all_panels_of_a_page_have_one_scale() -> None:
    one, two = draw_shapes([of(number("small", 0.1)), of(number("large", 5.0), party="shop")])
    ticks = [re.findall(r"[−-]?\d+(?=</text>)", panels.panels[0].drawing)[-5:] for panels in (one, two)]
    assert ticks[0] == ticks[1] and "4" in ticks[0]


def test_the_columns_of_the_largest_effect_come_first_and_the_rest_is_counted() -> None:
    columns = [number(f"c{i}", 1 + i / 10) for i in range(MOST + 3)]
    (panels,) = draw_shapes([of(*columns)])
    assert [p.column for p in panels.panels] == [f"c{i}" for i in range(MOST + 2, 2, -1)]
    assert panels.hidden == 3


def test_columns_without_any_effect_are_drawn_flat() -> None:
    (panels,) = draw_shapes([of(number("nothing", 0.0), party="shop")])
    assert "<svg" in panels.panels[0].drawing


def test_shapes_are_read_back_from_a_model_folder(tmp_path: Path) -> None:
    found = of(number("age"), pairs=(PairShape("age", "job", 0.2),))
    facts = {"version": 1, "party": "bank", **dataclasses.asdict(found.shapes)}
    (tmp_path / "shapes.json").write_text(json.dumps(facts))
    assert read_shapes(tmp_path, "bank") == (found,)
    assert read_shapes(tmp_path / "nothing", "bank") == ()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff", b"{}", b'{"columns": [1], "pairs": []}', b"[" * 99999]
)
def test_a_broken_file_is_one_clear_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "shapes.json").write_bytes(content)
    with pytest.raises(ConfigError, match="not what a run wrote"):
        read_shapes(tmp_path, "bank")
