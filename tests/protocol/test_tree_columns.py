"""Columns of boosted trees: bins of a party's own, of which only the sizes leave."""

import numpy as np
import pytest

from fedmkt.errors import PeerError
from fedmkt.learn.bins import Binning, CategoryBins, NumberBins
from fedmkt.learn.trees import Column, Table
from fedmkt.privacy.disclosure import MatrixShape
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.core import Outcome, Step, data_parties
from fedmkt.protocol.prepare import Columns, real
from fedmkt.protocol.scorecard.totals import OwnBins
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.tree_columns import (
    codes_of,
    common_bins,
    cut_columns,
    in_order,
    missing_apart,
    own_codes,
    table_values,
)
from fedmkt.ring.rlwe import NO_BIN
from tests.protocol.tree_world import BANK, SHOP, tree_caller, tree_contract


def binned(parties=2, **terms):
    caller = tree_caller(tree_contract(parties, **terms))
    sizes = cut_columns(caller, caller.contract)
    return caller, sizes


def test_every_party_has_bins_of_enough_train_rows_for_each_of_its_columns() -> None:
    caller, sizes = binned(3)
    for party in data_parties(caller.contract):
        binning = Binning.from_json(caller.recall(party, OwnBins).binning)
        terms = caller.contract.party(party)
        assert tuple(b.name for b in binning.columns) == (*terms.numbers, *terms.categories)
        codes = own_codes(caller.turn(party), real(caller.recall(party, Split).train))
        for code, bins, size in zip(codes, binning.columns, sizes[party].sizes, strict=True):
            rows = np.bincount(code, minlength=size)
            assert bins.count == size == len(rows) and rows.min() >= caller.contract.limits.min_support
        assert sizes[party].apart[0] and not sizes[party].apart[1]


def test_only_sizes_leave() -> None:
    caller, sizes = binned()
    told = [t for t in caller.told if t.step == "prepare.bins"]
    assert [t.value for t in told] == list(sizes.values())
    assert not [s for s in caller.sent if s.step == "prepare.bins"]
    assert {type(d) for step, d in caller.revealed if step == "prepare.bins"} == {MatrixShape}


def test_rows_of_a_table_have_their_missing_values_at_one_place_and_no_padding() -> None:
    caller, sizes = binned()
    split, bins = caller.recall(SHOP, Split), common_bins(caller.contract)
    assert (split.train == NO_ROW).any()
    codes = own_codes(caller.turn(SHOP), split.train)
    assert ((codes == NO_BIN) == (split.train == NO_ROW)).all()
    with pytest.raises(ValueError, match="padding"):
        table_values(codes, sizes[SHOP], bins)
    rows = real(split.train)
    values = table_values(own_codes(caller.turn(SHOP), rows), sizes[SHOP], bins)
    columns = caller.recall(SHOP, Columns)
    assert ((values[0] == bins) == np.isnan(columns.numbers["x0"][rows])).all()
    assert ((values[3] == bins) == (columns.categories["town"][rows] == None)).all()  # noqa: E711
    names = caller.contract.party(SHOP).columns
    assert Table(tuple(Column(n, SHOP) for n in names), values, bins).rows == len(rows)


def test_a_level_that_training_has_not_seen_shares_the_bin_of_the_rare_ones() -> None:
    bins = CategoryBins("town", (("b",), ("a",), (), ("(missing)",)), 2)
    columns = Columns({}, {"town": np.array(["a", "new", None, "b"], dtype=object)}, None)
    codes = codes_of(Binning((bins,)), columns, np.array([0, 1, NO_ROW, 2, 3]))
    assert codes.tolist() == [[1, 2, NO_BIN, 3, 0]]
    assert table_values(codes[:, [0, 1, 3, 4]], BinSizes((4,), (True,)), 8).tolist() == [[1, 2, 8, 0]]


def test_levels_stand_in_falling_order_of_worth_and_missing_ones_last() -> None:
    bins = CategoryBins("town", (("(missing)",), ("a",), ("b",), ("c",), ()), 4)
    ordered = in_order(bins, [9.0, 1.0, 2.0, 2.0, 1.5])
    assert ordered == CategoryBins("town", (("b",), ("c",), (), ("a",), ("(missing)",)), 2)
    assert missing_apart(ordered) and not missing_apart(CategoryBins("t", (("a",), ("(missing)", "b")), 1))
    assert missing_apart(NumberBins("n", (1.0,), 2)) and not missing_apart(NumberBins("n", (1.0,), 1))
    with pytest.raises(ValueError, match="5 bins"):
        in_order(bins, [1.0])


def test_the_bank_orders_levels_by_events_and_a_partner_by_rows() -> None:
    caller, _ = binned()
    for party, name in ((BANK, "job"), (SHOP, "town")):
        binning = Binning.from_json(caller.recall(party, OwnBins).binning)
        columns, rows = caller.recall(party, Columns), real(caller.recall(party, Split).train)
        (bins,) = [b for b in binning.columns if b.name == name]
        code = bins.assign(columns.categories[name][rows])
        count = np.bincount(code, minlength=bins.count)
        worth = count if party == SHOP else np.bincount(code, columns.label[rows]) / count
        assert bins.groups[-1] == ("(missing)",)
        assert (np.diff(worth[:-1]) <= 0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        BinSizes((3, 3), (False, False)),
        BinSizes((0, 2, 2, 2), (False,) * 4),
        BinSizes((21, 2, 2, 2), (False,) * 4),
    ],
)
def test_sizes_that_do_not_fit_the_contract_are_refused(wrong, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedmkt.protocol.trees import tree_columns

    caller = tree_caller(tree_contract())
    lying = Step("prepare.bins", lambda turn, inbox: Outcome(wrong), BinSizes)
    monkeypatch.setattr(tree_columns, "FIT_BINS", lying)
    with pytest.raises(PeerError, match="not accepted"):
        cut_columns(caller, caller.contract)
