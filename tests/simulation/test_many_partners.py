from pathlib import Path

import pytest

from fedmkt.errors import ConfigError
from fedmkt.simulation.overlap import count_overlap
from fedmkt.simulation.run import read_job

COMMON = (150, 200, 120, 260)


def write(folder: Path, task: str) -> Path:
    """Invent a bank with 300 customers and four partners who share some of them."""
    people = [f"c{i:05d}" for i in range(2000)]
    lists = {"bank": people[:300]} | {
        f"partner{i}": people[300 - common : 300] + people[400 + 300 * i : 700 + 300 * i - common]
        for i, common in enumerate(COMMON)
    }
    text = f'name = "many"\npurpose = "marketing-response"\ntask = "{task}"\n'
    text += "\n[limits]\nmin_list = 100\nmin_common = 50\n"
    for name, ids in lists.items():
        (folder / f"{name}.csv").write_text("\n".join(["id,x,y", *(f"{i},1,0" for i in ids)]))
        head = "[bank]" if name == "bank" else "[[partners]]"
        label = 'label = "y"\n' if name == "bank" else ""
        text += (
            f'\n{head}\nname = "{name}"\norganisation = "The {name}"\nfile = "{name}.csv"\n'
            f'id = "id"\nid_kind = "raw"\nnumbers = ["x"]\n{label}'
        )
    job = folder / "job.toml"
    job.write_text(text)
    return job


def test_one_bank_counts_with_four_partners_pair_by_pair(tmp_path: Path) -> None:
    result = count_overlap(write(tmp_path, "overlap"), out=tmp_path / "run", seed=1)
    found = {p.partner: (p.low, p.high) for p in result.overlaps.pairs}
    assert set(found) == {f"partner{i}" for i in range(4)}
    for i, common in enumerate(COMMON):
        low, high = found[f"partner{i}"]
        assert low < common <= high and high - low == 10


def test_more_than_two_partners_do_not_train_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"partners.*at most two partners train together"):
        read_job(write(tmp_path, "train"))
