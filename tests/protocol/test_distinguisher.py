"""A trained reader of views: transcripts of real runs beside ones made up from what is disclosed (security.md P2).

The simulator of a party's view is the protocol itself, run by that party with the same masks' law and its own data, and
by the other one with data that are made up: random columns, and labels of a coin. It is given what the contract
declares: who is common, sizes, and, for trees, the splits that the reader was asked for in a real run. It knows nothing
else of the other party. A gradient boosting over features of all messages, of their sums with what the reader sent
itself, and of what changed between two of a kind, learns real from made up on some runs and is tried on others.

The control: masks of which the highest bits are left out. There the same reader tells them apart.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from fedmkt.crypto.prg import SeededRandom, derive
from fedmkt.learn.metrics import auc
from fedmkt.protocol.core import Name, data_parties, dealer
from fedmkt.protocol.linear.logistic import fit
from fedmkt.protocol.prepare import Columns
from fedmkt.protocol.session import AddressedMasks
from fedmkt.protocol.trees.totals import shared_growth
from tests.protocol import shared_world
from tests.protocol.plain_caller import (
    BANK,
    SHOP,
    JointData,
    PlainCaller,
    contract_of,
    joint_data,
    start_aligned,
)
from tests.protocol.tree_world import tree_data

ROWS = 80


class Weak(AddressedMasks):
    """Masks whose eight highest bits are 0."""

    def words(self, *given, **named):
        return super().words(*given, **named) >> np.uint64(8)

    def half_words(self, *given, **named):
        return super().half_words(*given, **named) >> np.uint32(8)


def started(data: JointData, seed: int, masks: type[AddressedMasks]) -> PlainCaller:
    """Stand where the split leaves a run, always the same one, with masks and coins of this seed."""
    caller = start_aligned(data)
    secret = seed.to_bytes(8, "big")
    seeds = {p: derive(secret, b"dealer seed " + p.encode()) for p in data_parties(data.contract)}
    caller.masks = {p: masks({p: s}, draws_again=False) for p, s in seeds.items()}
    caller.masks[dealer(data.contract)] = masks(seeds, draws_again=True)
    caller._random = {n: SeededRandom(secret + n.encode()) for n in caller.masks}
    caller.sent.clear()
    return caller


def made_up(data: JointData, of: Name, seed: int, keep_columns: bool = False) -> JointData:
    """Replace a party's columns by noise, and its labels by those of a coin; who has a label stays."""
    random, local = np.random.default_rng(seed), dict(data.local)
    customers, columns = local[of]
    assert isinstance(columns, Columns)
    n, label = len(data.ids), columns.label
    numbers = columns.numbers if keep_columns else {k: random.standard_normal(n) for k in columns.numbers}
    if label is not None:
        label = np.where(np.isnan(label), np.nan, (random.random(n) < random.uniform(0.1, 0.6)).astype(float))
    local[of] = (customers, replace(columns, numbers=numbers, label=label))
    return replace(data, local=local)


def arrays(message: object) -> Iterator[np.ndarray]:
    """Give all arrays of a message."""
    if isinstance(message, np.ndarray):
        yield message
    elif isinstance(message, tuple):
        for item in message:
            yield from arrays(item)
    elif is_dataclass(message):
        for part in fields(message):
            yield from arrays(getattr(message, part.name))


def features(caller: PlainCaller, reader: Name, own: np.ndarray) -> np.ndarray:
    """Describe a view by numbers: of each array, of its sum with the own one, and of what changed since the last."""
    sent: dict[tuple[str, tuple[int, ...], str], list[np.ndarray]] = {}
    for s in caller.sent:
        if s.sender == reader:
            for a in arrays(s.message):
                sent.setdefault((type(s.message).__name__, a.shape, a.dtype.str), []).append(a)
    found: list[float] = []
    last: dict[tuple[str, tuple[int, ...], str], np.ndarray] = {}
    count: dict[tuple[str, tuple[int, ...], str], int] = {}
    for s in caller.seen_by(reader):
        for a in arrays(s.message):
            if a.dtype.kind != "u" or not a.size:
                continue
            key = (type(s.message).__name__, a.shape, a.dtype.str)
            at = count[key] = count.get(key, -1) + 1
            forms = [a, a + sent[key][at] if at < len(sent.get(key, ())) else a, a - last.get(key, a)]
            for form in forms:
                found += described(form, own)
            last[key] = a
    return np.array(found, np.float32)


def described(words: np.ndarray, own: np.ndarray) -> list[float]:
    """Mean, spread, extremes, high bits, and how the words go with the reader's own columns."""
    u = words.reshape(-1) / 2.0 ** (8 * words.dtype.itemsize)
    wave = np.sin(2 * np.pi * u)
    line = np.resize(wave, len(own)) @ own / np.sqrt(len(own))
    return [
        float(u.mean()),
        float(u.std()),
        float(u.max()),
        float((u < 1 / 16).mean()),
        float(wave.mean()),
        *line.tolist(),
    ]


def told_apart(real: np.ndarray, simulated: np.ndarray, seed: int = 1) -> float:
    """AUC of the trained reader on runs that it was not trained on: five parts, each once left out."""
    x = np.concatenate([real, simulated])
    y = np.concatenate([np.ones(len(real)), np.zeros(len(simulated))])
    part = np.random.default_rng(seed).permutation(len(y)) % 5
    score = np.empty(len(y))
    for left in range(5):
        learner = HistGradientBoostingClassifier(
            max_iter=60, max_depth=3, min_samples_leaf=5, early_stopping=False, random_state=seed
        )
        score[part == left] = learner.fit(x[part != left], y[part != left]).predict_proba(x[part == left])[
            :, 1
        ]
    return float(np.mean([auc(y[part == left], score[part == left]) for left in range(5)]))


View = Callable[[int, bool, type[AddressedMasks]], np.ndarray]


def logistic_view(reader: Name) -> View:
    """Return what one party sees of a joint logistic regression, by seed; made up or not."""
    contract = contract_of(columns=(3, 3, 3), model={"iterations": 2})
    data = joint_data(contract, ROWS, signal=3.0)
    other = SHOP if reader == BANK else BANK
    own = data.local[reader][1]
    assert isinstance(own, Columns)
    columns = np.stack([v[: ROWS // 2] for v in own.numbers.values()], axis=1)

    def view(seed: int, is_made_up: bool, masks: type[AddressedMasks]) -> np.ndarray:
        caller = started(made_up(data, other, seed) if is_made_up else data, seed, masks)
        fit(caller, contract, caller.overlap, caller.columns())
        return features(caller, reader, columns)

    return view


def trees_view(monkeypatch: pytest.MonkeyPatch) -> View:
    """Return what the partner sees of trees in mode totals, by seed; made up are the labels, given are the splits."""
    contract = shared_world.contract(trees=2, depth=2)
    data = tree_data(contract, 4 * ROWS)
    own = data.local[SHOP][1]
    assert isinstance(own, Columns)
    columns = np.nan_to_num(np.stack([v[:ROWS] for v in own.numbers.values()], axis=1))
    best, chosen = shared_growth.best_splits, []
    given: list[object] = []

    def splits(*arguments, **named):
        found = given.pop(0) if given else best(*arguments, **named)
        chosen.append(found)
        return found

    monkeypatch.setattr(shared_growth, "best_splits", splits)

    def view(seed: int, is_made_up: bool, masks: type[AddressedMasks]) -> np.ndarray:
        given.clear()
        chosen.clear()
        if is_made_up:  # the splits of another real run
            shared_world.grown(started(data, seed + 1_000_000, AddressedMasks))
            given.extend(chosen)
        caller = started(made_up(data, BANK, seed, keep_columns=True) if is_made_up else data, seed, masks)
        shared_world.grown(caller)
        return features(caller, SHOP, columns)

    return view


def measured(view: View, runs: int, masks: type[AddressedMasks] = AddressedMasks) -> float:
    """Run both kinds so many times each, and let the reader try."""
    real, simulated = (
        np.stack([view(2 * seed + kind, bool(kind), masks) for seed in range(runs)]) for kind in (0, 1)
    )
    return told_apart(real, simulated)


def error_of(runs: int) -> float:
    """Return the standard error of the AUC of a reader that knows nothing."""
    return float(np.sqrt((2 * runs + 1) / (12 * runs**2)))


def test_a_trained_reader_finds_masks_of_too_few_bits_in_a_few_runs():
    assert measured(logistic_view(SHOP), 16, Weak) > 0.9


def test_in_a_few_runs_it_finds_nothing_else():
    assert abs(measured(logistic_view(SHOP), 16) - 0.5) < 4 * error_of(16)


@pytest.mark.slow  # hundreds of small runs for each view
@pytest.mark.parametrize(("reader", "runs"), [(SHOP, 700), (BANK, 300)])
def test_a_view_of_a_joint_regression_can_be_made_up_from_what_is_declared(reader, runs):
    view = logistic_view(reader)
    assert abs(measured(view, runs) - 0.5) < 2.6 * error_of(runs)
    assert measured(view, 80, Weak) > 0.75


@pytest.mark.slow  # hundreds of small runs, and as many again for the splits that are given
def test_the_partners_view_of_trees_can_be_made_up_from_its_splits(monkeypatch):
    view = trees_view(monkeypatch)
    assert abs(measured(view, 200) - 0.5) < 2.6 * error_of(200)
    assert measured(view, 40, Weak) > 0.9
