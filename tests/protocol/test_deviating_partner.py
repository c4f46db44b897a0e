"""Trees in mode totals, the first of two partners deviates: what shows, and what is opened of the other one's."""

import numpy as np
import pytest

from fedmkt.errors import PeerError
from fedmkt.privacy.disclosure import TreeShape
from fedmkt.protocol.alignment.align import Validation
from fedmkt.protocol.trees.side_product import narrow, widen
from fedmkt.protocol.trees.totals.duos import PartnerShares
from tests.protocol.shared_world import Watch, contract, grown
from tests.protocol.tree_world import TELECOM, tree_caller


def test_a_partner_refuses_shares_of_another_shape_from_the_other():
    def cut(sent):
        if sent.step == "fit.take_sides" and isinstance(sent.message, PartnerShares):
            return PartnerShares(tuple(v[:, :-1] for v in sent.message.vectors))
        return sent.message

    with pytest.raises(ValueError, match="bytes of"):
        grown(tree_caller(contract(3), change=cut))


def spoiled(step, add):
    """Make a first partner that passes on other numbers than it holds; add : changes to the last lane's, (k, n)."""

    def change(sent):
        if sent.step != step or not isinstance(sent.message, PartnerShares):
            return sent.message
        *others, last = sent.message.vectors
        bits = 8 * last.shape[-1]
        numbers = widen(last, last.shape[:-1], bits)
        return PartnerShares((*others, narrow(numbers + add(numbers.shape).astype(numbers.dtype), bits)))

    return change


def one_more(row):
    def add(shape):
        out = np.zeros(shape, np.int64)
        out[:, row] = 1
        return out

    return add


def test_a_first_partner_that_passes_on_other_shares_than_it_holds_shows_in_the_totals():
    """The columns of both partners are added up from different rows: the bank compares their sums."""
    caller = tree_caller(contract(3, depth=4), change=spoiled("fit.take_sides", one_more(5)))
    with pytest.raises(PeerError, match="do not add up"):
        grown(caller)
    assert [step for step, d in caller.revealed if isinstance(d, TreeShape)] == ["fit.choose_splits"]


def test_it_does_not_show_where_what_it_adds_makes_up_for_itself(monkeypatch):
    """Not prevented, and said in the documentation: cells of the second partner's open that are too small."""

    def moved(shape):
        drawn = np.random.default_rng(1).integers(-6, 7, (shape[0], 300))
        return np.concatenate([drawn, -drawn, np.zeros((shape[0], shape[1] - 600), np.int64)], axis=1)

    cuts = []
    for change in ({}, {"change": spoiled("fit.take_sides", moved)}):
        watch = Watch(monkeypatch)
        grown(tree_caller(contract(3, trees=1, depth=2, bins=16), **change))
        monkeypatch.undo()
        cuts.append([c[:, -2:] for _, c in watch.cuts])
    (root, honest), (same, spoilt) = cuts
    assert np.array_equal(root, same) and (spoilt & ~honest).any()


def first_row(caller, validates):
    return int(np.flatnonzero(caller.recall(TELECOM, Validation).rows == validates)[0])


@pytest.mark.parametrize("validates", [False, True], ids=["trains", "validates"])
def test_the_second_partner_refuses_a_root_whose_members_are_others_than_the_rows_that_train(validates):
    caller = tree_caller(contract(3, patience=2, validation_fraction=0.3))
    caller.change = spoiled("fit.plant_shares", lambda shape: one_more(first_row(caller, validates))(shape))
    with pytest.raises(ValueError, match="members of the root"):
        grown(caller)


def test_the_second_partner_refuses_gradients_of_rows_that_validate():
    def told(sent):
        if sent.step != "fit.plant_shares" or not isinstance(sent.message, PartnerShares):
            return sent.message
        gradients, *rest = sent.message.vectors
        gradients = gradients.copy()
        gradients[0, first_row(caller, True), 0] = 1
        return PartnerShares((gradients, *rest))

    caller = tree_caller(contract(3, patience=2, validation_fraction=0.3), change=told)
    with pytest.raises(ValueError, match="members of the root"):
        grown(caller)
