"""What correlations and standard errors send: sizes that follow from columns and padded rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.alignment.psi import Overlap
from fedmkt.protocol.core import Name
from fedmkt.protocol.linear.correlation import CORRELATION
from fedmkt.protocol.linear.cross_product import Factors, products_of, row_blocks
from fedmkt.protocol.linear.standard_errors import CURVATURE
from fedmkt.simulation.rehearsal import Planned

WORD = 8


@dataclass(frozen=True)
class Columns:
    """What the sizes follow from; `of` : prepared columns of each party, the bank first."""

    contract: Contract
    overlap: Overlap
    of: Mapping[Name, int]


Content = Callable[[Columns, Planned], tuple[int, int]]
"""Bytes of the arrays that a call sends, and to how many readers."""


def _silent(columns: Columns, call: Planned) -> tuple[int, int]:
    return 0, 0


def _masked(of: Factors) -> Content:
    def content(columns: Columns, call: Planned) -> tuple[int, int]:
        blocks, others = row_blocks(of, columns.contract, columns.overlap, columns.of), len(columns.of) - 1
        if call.before >= len(blocks):
            return 0, 0
        rows = blocks[call.before].stop - blocks[call.before].start
        return others * WORD * rows * of.widths(columns.of)[call.party], others

    return content


def _dealt(of: Factors) -> Content:
    return lambda columns, call: (3 * WORD * products_of(of, columns.of), 1)


def _opened(of: Factors) -> Content:
    def content(columns: Columns, call: Planned) -> tuple[int, int]:
        others = len(columns.of) - 1
        return others * WORD * products_of(of, columns.of), others

    return content


def _released(columns: Columns, call: Planned) -> tuple[int, int]:
    """Give the size of what a partner releases: its share, and the correlations of its own columns."""
    return WORD * (products_of(CORRELATION, columns.of) + columns.of[call.party] ** 2), 1


def _sums(columns: Columns, call: Planned) -> tuple[int, int]:
    """Give the size of a partner's shares of the other partners' sums."""
    others = [d for p, d in list(columns.of.items())[1:] if p != call.party]
    return WORD * sum(others), len(others)


def _inflations(columns: Columns, call: Planned) -> tuple[int, int]:
    return 2 * WORD * sum(list(columns.of.values())[1:]), len(columns.of) - 1


CONTENT: Mapping[str, Content] = {
    "correlation.measure": _silent,
    "correlation.mask_columns": _masked(CORRELATION),
    "correlation.deal": _dealt(CORRELATION),
    "correlation.open": _opened(CORRELATION),
    "correlation.share": _silent,
    "correlation.release": _released,
    "correlation.read": _silent,
    "errors.mask_columns": _masked(CURVATURE),
    "errors.deal": _dealt(CURVATURE),
    "errors.open": _opened(CURVATURE),
    "errors.share": _silent,
    "errors.release": _sums,
    "errors.inflate": _inflations,
    "errors.take": _silent,
}
"""By step."""
