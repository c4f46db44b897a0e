from pathlib import Path

import pytest

from fedmkt.sbom import Component, installed
from supply.licences import PAGE, READ, page, rows, strong
from supply.lock import FILES, read

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / PAGE).read_text()


def test_the_page_lists_the_locked_packages_at_their_versions() -> None:
    locked = {name: pin.version for name, pin in read((ROOT / FILES["run"]).read_text()).items()}
    assert {row.name: row.version for row in rows(TEXT)} == locked


def test_nothing_that_fedmkt_runs_on_is_under_the_gpl() -> None:
    assert list(strong(Component(row.name, row.version, row.licence) for row in rows(TEXT))) == []
    assert list(strong(installed()[1])) == []  # also where newer ones are installed than the locked
    assert all(row.licence.strip() for row in rows(TEXT))


def test_the_page_is_what_its_rows_make_it() -> None:
    said = {name for name in READ if f"| {name} | {READ[name]} |" in TEXT}
    assert page([Component(row.name, row.version, row.licence) for row in rows(TEXT)], said) == TEXT


@pytest.mark.parametrize(
    ("licence", "refused"),
    [
        ("GPL-3.0-or-later", True),
        ("AGPL-3.0-only", True),
        ("MIT AND GPL-2.0-only", True),
        ("GNU General Public License v3 (GPLv3)", True),
        ("GNU Affero General Public License v3", True),
        ("GPLv2", True),
        ("LGPL-2.1-only", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("MIT OR GPL-2.0-only", False),
        ("Apache-2.0", False),
        ("MPL-2.0", False),
    ],
)
def test_a_licence_that_binds_whoever_passes_fedmkt_on_is_found(licence: str, refused: bool) -> None:
    assert list(strong([Component("a", "1", licence)])) == (["a"] if refused else [])
