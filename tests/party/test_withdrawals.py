"""The withdrawal list itself: spellings, files of any size, and whose file a table is."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedmkt.config.tables import PartnerConfig
from fedmkt.errors import AuditError
from fedmkt.party.keys import KeyColumns, read_listed
from fedmkt.party.node import open_data
from fedmkt.party.store import Store
from fedmkt.party.withdrawals import Taken, Withdrawals

NOW = datetime(2031, 5, 1, tzinfo=UTC)
PHONE = (KeyColumns("phone", ("phone",)),)
NUMBERS = [f"1332021{i:04d}" for i in range(40)]


def list_in(folder: Path) -> Withdrawals:
    return Withdrawals(Store(folder / "state" / "store"), os.urandom)


def take(it: Withdrawals, ids: list[str]) -> Taken:
    listed, mistake = read_listed(PHONE, "86", lambda _: list(ids))
    assert mistake is None
    return it.add(PHONE, listed, NOW)


def table(folder: Path, ids: list[str]) -> PartnerConfig:
    (folder / "customers.csv").write_text("phone,spend\n" + "".join(f"{one},1\n" for one in ids))
    return PartnerConfig(
        name="shop", organisation="The Shop", file="customers.csv", id="phone", id_kind="phone", country="86",
        numbers=("spend",),
    )  # fmt: skip


@pytest.mark.parametrize(
    "written",
    ["+86 133 2021 0007", "0086 13320210007", "86-133-2021-0007", "(+86) 133.2021.0007", " 13320210007 ",
     "\uff11\uff13\uff13\uff12\uff10\uff12\uff11\uff10\uff10\uff10\uff17", "013320210007"],
)  # fmt: skip
@pytest.mark.parametrize("side", ["list", "table"])
def test_the_same_id_written_otherwise_is_withdrawn_too(tmp_path: Path, written: str, side: str) -> None:
    """Whether the list has another spelling than the table, or the table than the list."""
    (tmp_path / "party.toml").write_text("")
    plain = NUMBERS[7]
    take(list_in(tmp_path), [written if side == "list" else plain])
    rows = NUMBERS if side == "list" else [*NUMBERS[:7], written, *NUMBERS[8:]]
    found = open_data(table(tmp_path, rows), tmp_path)
    assert len(found.ids) == 39 and not any(str(one).endswith(plain) for one in found.ids)
    assert found.dropped.withdrawn == 1


def test_a_simulation_that_reads_an_organisations_file_leaves_out_who_withdrew_there(tmp_path: Path) -> None:
    home, job = tmp_path / "shop", tmp_path / "job"
    (home / "data").mkdir(parents=True)
    job.mkdir()
    config = table(home / "data", NUMBERS)
    take(list_in(home), NUMBERS[:5])
    assert len(open_data(config, home / "data").ids) == 40, "nobody's folder yet"
    (home / "party.toml").write_text("")
    (job / "customers.csv").symlink_to(home / "data" / "customers.csv")
    for folder in (home / "data", job):
        assert len(open_data(config, folder).ids) == 35
    (job / "customers.csv").unlink()
    assert len(open_data(table(job, NUMBERS), job).ids) == 40, "a copy elsewhere is not known as theirs"


def test_a_list_that_was_changed_opens_no_table(tmp_path: Path) -> None:
    (tmp_path / "party.toml").write_text("")
    take(list_in(tmp_path), NUMBERS[:5])
    store = Store(tmp_path / "state" / "store")
    store.put("withdrawn/ids", store["withdrawn/ids"][:-3])
    with pytest.raises(AuditError, match="withdrawal list"):
        open_data(table(tmp_path, NUMBERS), tmp_path)
    store.forget("withdrawn/key")
    store.put("withdrawn/ids", b"")
    with pytest.raises(AuditError, match="its key is missing"):
        take(list_in(tmp_path), NUMBERS[:1])
