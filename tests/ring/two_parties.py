"""Runs phases at two parties and a dealer in one place, with masks from a seeded generator."""

import numpy as np

from fedmkt.ring.dealt_rounds import KINDS, add, subtract


def draw(random, field):
    return random.integers(0, 256, field.size * KINDS[field.kind].itemsize, np.uint8).view(KINDS[field.kind])


def run(phases, values, seed=1, watch=None):
    """Return what both hold in the end; values : of the first and of the second party."""
    random, held = np.random.default_rng(seed), list(values)
    for phase in phases:
        inputs = [phase.inputs(v, first) for v, first in zip(held, (True, False), strict=True)]
        results = ([], [])
        for at, operation in enumerate(phase.operations):
            masks = [[draw(random, f) for f in operation.opened] for _ in (0, 1)]
            own = [operation.prepare(first, inputs[i][at]) for i, first in enumerate((True, False))]
            opened = []
            for k, field in enumerate(operation.opened):
                parts = [
                    add(field.kind, own[i][k].astype(KINDS[field.kind]).reshape(-1), masks[i][k])
                    for i in (0, 1)
                ]
                opened.append(add(field.kind, *parts))
                if watch is not None:
                    watch.append(opened[-1])
            sums = [add(f.kind, *(masks[i][k] for i in (0, 1))) for k, f in enumerate(operation.opened)]
            second = [draw(random, f) for f in operation.dealt]
            found = operation.deal(sums)
            first = [
                subtract(f.kind, a.astype(KINDS[f.kind]), b)
                for f, a, b in zip(operation.dealt, found, second, strict=True)
            ]
            for i, dealt in enumerate((first, second)):
                results[i].append(operation.take(i == 0, opened, masks[i], dealt))
        held = [phase.results(v, i == 0, results[i]) for i, v in enumerate(held)]
    return held


def shared(values, seed=2):
    """Split words into two shares."""
    mask = np.random.default_rng(seed).integers(0, 1 << 64, values.shape, np.uint64)
    return values.astype(np.int64).view(np.uint64) - mask, mask
