"""The rows of a level's nodes go left or right: the products of the splits that were recorded, in blocks of rows.

The turns after `NodeOwners` in modes `totals` and `nothing`; the steps stand in `shared_growth`, with tags in
`share_tags`. Who learns what and against whom it is safe: `side_product`, `duos`, `share_tags`.
"""

from functools import partial

from fedmkt.contract.agreement import Contract
from fedmkt.protocol.core import Caller, Silent, Step, ask, data_parties, dealer
from fedmkt.protocol.row_blocks import RowBlock, blocks_of, close_rows, of_rows
from fedmkt.protocol.trees.side_product import MaskedSides, width
from fedmkt.protocol.trees.totals.duos import DealtDuos, PartnerShares, share_parts
from fedmkt.protocol.trees.totals.lanes import Lanes
from fedmkt.protocol.trees.totals.share_tags import take_sides
from fedmkt.protocol.trees.totals.shared_growth import (
    deal_node_sides,
    open_node_sides,
    pool_node_sides,
    take_node_sides,
)
from fedmkt.protocol.trees.totals.shared_values import both

TAKE_SIDES = Step("fit.take_sides", take_node_sides, Silent, reads=(MaskedSides, DealtDuos))
POOL_SIDES = Step("fit.pool_sides", pool_node_sides, Silent, reads=(PartnerShares,))
_TAG_BYTES = 8


def side_blocks(lanes: Lanes, splits: int) -> list[RowBlock]:
    """Split the rows by what the largest message about a level's products holds of one."""
    product = sum(map(width, lanes.share_bits)) + 1
    if lanes.checker is not None:
        # Tags of v, of the product, and of u in each lane.
        product = max(product, _TAG_BYTES * (2 + len(lanes.limits)))
    return blocks_of(lanes.rows, splits * product)


def part_rows(call: Caller, contract: Contract, lanes: Lanes, splits: int) -> None:
    """Share the vectors of the children of so many nodes: `LevelShares` of the nodes at all before, of them after."""
    for block in side_blocks(lanes, splits):
        _part_block(call, contract, lanes.of(block), block)


def _part_block(call: Caller, contract: Contract, lanes: Lanes, block: RowBlock) -> None:
    parties, maker = data_parties(contract), dealer(contract)
    opens = of_rows(block, Step("fit.open_sides", partial(open_node_sides, lanes), Silent))
    deal = Step("fit.deal_sides", partial(deal_node_sides, lanes), Silent)
    sides, (dealt,) = call.both([ask(p, opens) for p in parties], [ask(maker, deal)])
    if lanes.checker is None:
        taken = call.all([ask(p, of_rows(block, TAKE_SIDES), *both(sides, dealt, p)) for p in parties])
        share_parts(call, contract, of_rows(block, POOL_SIDES), taken)
    else:
        take_sides(call, contract, lanes, block, sides, dealt)
    close_rows(call, "fit", parties, block)
