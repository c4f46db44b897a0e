"""How much the bank is told of a partner's bins in mode sides: measured on its messages, held to the planned bound."""

import numpy as np
import pytest

from fedmkt.privacy.row_bits import ColumnBins, bits_per_row, entropy, most_from_sides
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.prepare import real
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.sides import boosting
from fedmkt.protocol.trees.sides.tree_growth import RowSides
from fedmkt.protocol.trees.tree_columns import cut_columns, own_codes
from tests.protocol.tree_world import BANK, SHOP, tree_caller, tree_contract


@pytest.mark.parametrize(("trees", "cap", "least"), [(1, 128, 0.1), (12, 128, 0.7), (12, 1, 0.3)])
def test_the_sides_that_the_bank_receives_tell_no_more_than_was_planned(trees, cap, least) -> None:
    caller = tree_caller(tree_contract(2, trees=trees, max_thresholds=cap, min_rows=4))
    boosting.fit(caller, caller.contract, caller.overlap, cut_columns(caller, caller.contract))
    rows = real(caller.recall(SHOP, Split).train)
    hidden, sizes = own_codes(caller.turn(SHOP), rows), caller.publics[SHOP, BinSizes]
    messages = [s.message for s in caller.seen_by(BANK) if isinstance(s.message, RowSides)]
    told = np.concatenate([np.unpackbits(m.bits, axis=1, count=len(rows)) for m in messages])
    columns = [ColumnBins(n, a) for n, a in zip(sizes.sizes, sizes.apart, strict=True)]
    bound = most_from_sides(columns, cap, len(told), len(rows))
    found = bits_per_row(told, hidden)
    # Sides follow from the bins: they tell the entropy of the classes that they make, and hardly less than all.
    assert found == pytest.approx(entropy(told)) and found <= bound
    assert found / entropy(hidden) > least
    if cap == 1:
        assert bound <= sum(np.log2(c.classes(1)) for c in columns) + 1e-9 < entropy(hidden)
