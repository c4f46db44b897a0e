"""What a training of boosted trees in mode nothing sends beyond what it shares with mode totals: its phases.

Trees are complete, so only whose splits they are is assumed; what is chosen is as long for either.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from fedmkt.protocol.blind_boosting import blind_lanes, leaves_of
from fedmkt.protocol.blind_gains import gain_phases
from fedmkt.protocol.blind_growth import groups_of, weighing
from fedmkt.protocol.blind_leaves import leaf_phases
from fedmkt.ring import phases
from fedmkt.ring.phases import Phase

if TYPE_CHECKING:
    from fedmkt.simulation.rehearsal import Planned
    from fedmkt.simulation.traffic import Sizes

WORD = 8
Content = Callable[["Sizes", "Planned"], tuple[int, int]]


def _gains(s: "Sizes") -> list[tuple[Phase, ...]]:
    """Return the phases of a tree, of each level's groups of nodes in turn."""
    lanes = blind_lanes(s.contract, s.overlap, s.trees.bins)
    plans = [weighing(s.contract, lanes, s.trees.bins, 1 << d) for d in range(s.contract.trees.depth)]
    return [gain_phases(replace(plan, nodes=g.stop - g.start)) for plan in plans for g in groups_of(plan)]


def _leaves(s: "Sizes") -> list[tuple[Phase, ...]]:
    lanes = blind_lanes(s.contract, s.overlap, s.trees.bins)
    return [leaf_phases(leaves_of(s.contract, lanes.rows))]


def _of(
    lists: Callable[["Sizes"], list[tuple[Phase, ...]]], count: Callable[[tuple[Phase, ...]], list[int]]
) -> Content:
    def content(s: "Sizes", call: "Planned") -> tuple[int, int]:
        sizes = [size for todo in lists(s) for size in count(todo)]
        return sizes[call.before % len(sizes)], 1

    return content


def _content(label: str, lists: Callable[["Sizes"], list[tuple[Phase, ...]]]) -> dict[str, Content]:
    return {
        f"{label}.deal": _of(lists, lambda todo: [phases.dealt(todo)]),
        f"{label}.open": _of(lists, lambda todo: phases.opened(todo)[:1]),
        f"{label}.next": _of(lists, lambda todo: phases.opened(todo)[1:]),
    }


def _silent(s: "Sizes", call: "Planned") -> tuple[int, int]:
    return 0, 0


def _owners(s: "Sizes", call: "Planned") -> tuple[int, int]:
    lanes = blind_lanes(s.contract, s.overlap, s.trees.bins)
    plans = [weighing(s.contract, lanes, s.trees.bins, 1 << d) for d in range(s.contract.trees.depth)]
    sizes = [g.stop - g.start for plan in plans for g in groups_of(plan)]
    return sizes[call.before % len(sizes)], 1


def _nodes(each: int) -> Content:
    return lambda s, call: (each << call.before % s.contract.trees.depth, 1)


CONTENT: dict[str, Content] = {
    **dict.fromkeys(("fit.take_totals", "fit.record_choice"), _silent),
    **_content("gains", _gains),
    **_content("leaves", _leaves),
    "fit.share_owners": _owners,
    "fit.tell_owners": _nodes(WORD),
}
"""Bytes of the arrays that a call sends, and to how many readers."""
