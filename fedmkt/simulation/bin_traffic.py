"""How many bytes the steps about bins send: totals per bin, and WoE of these; by the numbers of bins assumed."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from fedmkt.protocol.alignment.align import train_rows
from fedmkt.protocol.scorecard.minimum import layer_sizes
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.ring.side_bits import packed_words
from fedmkt.simulation.tree_traffic import Content

if TYPE_CHECKING:
    from fedmkt.simulation.rehearsal import Planned
    from fedmkt.simulation.traffic import Sizes

OfPartner = Callable[[BinSizes, int, int], tuple[int, int]]
"""Bytes and readers, given a partner's bins, the training rows, and how often the step was called about it before."""
_WORD, _HALF = 8, 4


def _silent(sizes: "Sizes", call: "Planned") -> tuple[int, int]:
    return 0, 0


def _of_partner(content: OfPartner, calls: Callable[[BinSizes, int], int] = lambda bins, rows: 1) -> Content:
    """Find out whom a call is about: the bank and the dealer go from partner to partner.

    calls : how many calls of the step each partner takes.
    """

    def found(sizes: "Sizes", call: "Planned") -> tuple[int, int]:
        partners, rows, before = sizes.parties[1:], train_rows(sizes.contract, sizes.overlap), call.before
        if call.party in partners:
            return content(sizes.trees.bins[call.party], rows, before)
        for bins in (sizes.trees.bins[p] for p in partners):
            if before < calls(bins, rows):
                return content(bins, rows, before)
            before -= calls(bins, rows)
        raise ValueError(f"{call.step.name} is called more often than planned")

    return found


def _block(sizes: BinSizes, rows: int, block: int) -> int:
    blocks = sizes.blocks(rows)
    # The last call only takes in.
    return blocks[block].stop - blocks[block].start if block < len(blocks) else 0


def _cells(sizes: BinSizes) -> int:
    groups, width = sizes.compared
    return groups * width


def _packed(bits: int) -> int:
    return _HALF * packed_words(bits)


def _dealt(sizes: BinSizes, rows: int, before: int) -> tuple[int, int]:
    products = sum(_packed(size) for size in layer_sizes(sizes.compared))
    return _HALF * (sizes.width + _cells(sizes)) + products, 1


def _weighed(sizes: "Sizes", call: "Planned") -> tuple[int, int]:
    found = [sizes.trees.bins[p] for p in sizes.parties[1:]]
    return sum((_HALF + _WORD) * s.width + _WORD * len(s.sizes) for s in found), len(found)


def _blocks(sizes: BinSizes, rows: int) -> int:
    return len(sizes.blocks(rows)) + 1


CONTENT: dict[str, Content] = {
    "scorecard.bin": _silent,
    "totals.begin": _silent,
    "totals.deal": _of_partner(_dealt),
    "totals.mask_bins": _of_partner(lambda s, n, k: (_HALF * s.width * _block(s, n, k), 1), _blocks),
    "totals.mask_labels": _of_partner(lambda s, n, k: (_HALF * _block(s, n, k), 1), _blocks),
    "totals.open_values": _of_partner(lambda s, n, k: (_HALF * _cells(s), 1)),
    "totals.open_layer": _of_partner(
        lambda s, n, k: (2 * _packed(layer_sizes(s.compared)[k]), 1),
        lambda s, n: len(layer_sizes(s.compared)),
    ),
    "totals.share_passes": _of_partner(lambda s, n, k: (_packed(s.compared[0]), 1)),
    "totals.release": _of_partner(lambda s, n, k: ((_HALF + _WORD) * s.width, 1)),
    "totals.take": _silent,
    "scorecard.weigh": _weighed,
    "scorecard.take": _silent,
}
"""By the name of the step."""
