"""A second run of the same parties that starts from the first one's model."""

import csv
from pathlib import Path

import numpy as np
import pytest

import fedmkt
from fedmkt.errors import PolicyRefused
from fedmkt.simulation.run import simulate
from fedmkt.simulation.world import generate, write_world


def test_a_second_run_starts_from_the_first_ones_model(tmp_path: Path) -> None:
    job = write_world(generate(5, 1500, 1600, 1200), tmp_path, minimum=300)
    path, random = tmp_path / "partner.csv", np.random.default_rng(4)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [f"n{i}" for i in range(8)]
    for row in rows:
        row |= {name: f"{random.normal():.3f}" for name in names}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    text = job.read_text()
    head, partner = text.split("[[partners]]")
    more = ", ".join(f'"{n}"' for n in names)
    text = f"{head}[[partners]]{partner.replace('numbers = [', f'numbers = [{more}, ', 1)}"
    job.write_text(text.replace("[model]\n", "[model]\niterations = 24\n"))
    first = simulate(job, out=tmp_path / "first", seed=1)
    start = first.facts["contract"]
    job.write_text(text.replace("[model]\n", f'[model]\niterations = 2\nstart = "{start}"\n'))
    with pytest.raises(PolicyRefused, match=r"refused at prepare\.tell_start"):
        simulate(job, out=tmp_path / "without", seed=2)
    again = simulate(job, out=tmp_path / "again", seed=2, after=first.folder)
    # The split is the same people's, so the optimum is: from there two passes are as good as the first run's 24.
    assert again.facts["weight_error"] < 1.2 * first.facts["weight_error"] < 0.02
    assert again.summary.convergence == ()
    planned = fedmkt.plan(job, common=1200)
    assert planned.rounds == again.summary.rounds
