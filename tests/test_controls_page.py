import re
from pathlib import Path

from fedmkt.deploy.control_sheet import ordered
from fedmkt.party.controls.control import Control

PAGE = Path(__file__).resolve().parents[1] / "docs" / "controls.md"


def row(control: Control) -> str:
    """Write a control as the page has it."""
    number, title = (
        (control.id, control.title) if control.is_numbered else ("", f"`{control.id}`: {control.title}")
    )
    asked = ", ".join(control.moments)
    return f"| {number} | {title} | {asked} | {control.required} | {control.field} | {control.basis} |"


def test_the_page_has_the_registrys_table() -> None:
    head = ["| id | control | asked | on | field | basis |", "|---|---|---|---|---|---|"]
    (table,) = re.findall(r"registry -->\n(.*?)<!-- end", PAGE.read_text(), re.DOTALL)
    assert table.splitlines() == [*head, *map(row, ordered())]
