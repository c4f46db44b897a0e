"""A killed training with offset and row weights goes on after its last checkpoint, under new masks."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fedmkt.party.node import open_data
from fedmkt.protocol.layout import WEIGHT_BITS
from fedmkt.ring.fixed import decode, reconstruct
from tests.engine import Killed, Tap, World, job_config, world_of


def weighted_world(folder: Path, kind: str) -> World:
    """Make the world of a small job whose bank has an offset and weights."""
    config = job_config(folder / "data", iterations=3, checkpoint_every=1)
    tables = {p.name: open_data(p, folder / "data") for p in config.parties}
    random, bank = np.random.default_rng(1), tables[config.bank.name]
    n = len(bank.ids)
    tables[config.bank.name] = dataclasses.replace(
        bank, offset=random.normal(0, 0.3, n), weight=random.choice([0.5, 1.0, 2.0], n)
    )
    terms = {
        "kind": kind,
        "max_offset": 2.0,
        "penalty": 20.0,
        "class_weights": (1.0, 2.0) if kind == "logistic" else None,
    }
    own = config.bank.model_copy(update={"offset": "o", "weight": "v"})
    config = config.model_copy(update={"bank": own, "model": config.model.model_copy(update=terms)})
    return world_of(config, folder / "run", tables, seed=7)


def weights(world: World) -> np.ndarray:
    folders = [world.folder / "parties" / p.name / "model" for p in world.contract.parties]
    return decode(reconstruct([np.load(f / "share.npy") for f in folders]), WEIGHT_BITS)


@pytest.mark.parametrize(
    ("kind", "step"),
    [("logistic", "fit.open_rows"), ("poisson", "fit.open_rows"), ("poisson", "score.share")],
)
def test_a_killed_run_ends_at_the_same_model(tmp_path: Path, kind: str, step: str) -> None:
    whole, stopped = weighted_world(tmp_path / "a", kind), weighted_world(tmp_path / "b", kind)
    tap = Tap()
    whole.run(tap)
    last = max(i for i, passing in enumerate(tap.requests) if passing.message.step == step)
    with pytest.raises(Killed):
        stopped.run(Tap(stop_after=last))
    again = Tap()
    stopped.run(again, resume=True)
    hidden = sum(p.message.step == "fit.hide_row_weight" for p in again.requests)
    assert hidden == (step == "fit.open_rows"), "weights are hidden anew where training goes on"
    assert np.abs(weights(stopped) - weights(whole)).max() < 5e-3
