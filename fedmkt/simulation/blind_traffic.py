"""What a training of boosted trees in mode nothing sends beyond what it shares with mode totals: its phases.

Trees are complete, so only whose splits they are is assumed; what is chosen is as long for either.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from fedmkt.protocol.alignment.align import train_rows
from fedmkt.protocol.trees.nothing.blind_boosting import LIMITS, leaves_of
from fedmkt.protocol.trees.nothing.blind_gains import Weighing, gain_phases
from fedmkt.protocol.trees.nothing.blind_growth import groups_of, weighing
from fedmkt.protocol.trees.nothing.blind_leaves import Leaves, leaf_phases
from fedmkt.protocol.trees.totals.lanes import Lanes
from fedmkt.ring import phases

if TYPE_CHECKING:
    from fedmkt.simulation.rehearsal import Planned
    from fedmkt.simulation.traffic import Sizes

WORD = 8
Content = Callable[["Sizes", "Planned"], tuple[int, int]]


def _sizes(s: "Sizes") -> Mapping[str, tuple[int, ...]]:
    """Return what the steps of a tree send, by the part of it that they belong to."""
    rows = train_rows(s.contract, s.overlap)
    # How totals are encrypted does not matter to what is done with their shares.
    lanes = Lanes(rows, {}, LIMITS[0], 0)
    root = weighing(s.contract, lanes, s.trees.bins, 1)
    return _of_tree(root, s.contract.trees.depth, leaves_of(s.contract, rows))


@lru_cache(maxsize=8)
def _of_tree(root: Weighing, depth: int, leaves: Leaves) -> Mapping[str, tuple[int, ...]]:
    plans = [replace(root, nodes=1 << d) for d in range(depth)]
    groups = [replace(plan, nodes=g.stop - g.start) for plan in plans for g in groups_of(plan)]
    lists = {"gains": [gain_phases(group) for group in groups], "leaves": [leaf_phases(leaves)]}
    found: dict[str, tuple[int, ...]] = {"owners": tuple(group.nodes for group in groups)}
    for label, all_ in lists.items():
        opened = [phases.opened(todo) for todo in all_]
        found[f"{label}.deal"] = tuple(phases.dealt(todo) for todo in all_)
        found[f"{label}.open"] = tuple(sizes[0] for sizes in opened)
        found[f"{label}.next"] = tuple(size for sizes in opened for size in sizes[1:])
    return found


def _of(part: str) -> Content:
    def content(s: "Sizes", call: "Planned") -> tuple[int, int]:
        sizes = _sizes(s)[part]
        return sizes[call.before % len(sizes)], 1

    return content


def _silent(s: "Sizes", call: "Planned") -> tuple[int, int]:
    return 0, 0


def _numbers(s: "Sizes", call: "Planned") -> tuple[int, int]:
    return WORD << call.before % s.contract.trees.depth, 1


CONTENT: dict[str, Content] = {
    **dict.fromkeys(("fit.take_totals", "fit.record_choice"), _silent),
    **{
        f"{label}.{step}": _of(f"{label}.{step}")
        for label in ("gains", "leaves")
        for step in ("deal", "open", "next")
    },
    "fit.share_owners": _of("owners"),
    "fit.tell_owners": _numbers,
}
"""Bytes of the arrays that a call sends, and to how many readers."""
