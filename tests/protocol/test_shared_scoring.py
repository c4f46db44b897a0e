"""Scoring of trees in mode totals against the model put together, and what is seen of it."""

import numpy as np
import pytest

from fedmkt.errors import PolicyRefused
from fedmkt.learn.trees import predict
from fedmkt.privacy.disclosure import Scores
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.linear.scoring import Released, ScoreShare
from fedmkt.protocol.prepare import real
from fedmkt.protocol.trees.side_product import MaskedSides
from fedmkt.protocol.trees.totals import shared_scoring
from fedmkt.protocol.trees.totals.shared_scoring import ScoreAngles, ScoreLift, score, tree_groups
from tests.protocol.plain_caller import DEALER, TELECOM, chi_square
from tests.protocol.shared_world import contract, grown, model_of
from tests.protocol.tree_world import BANK, SHOP, by_owner, pooled, tree_caller


def scored(seed=1, **terms):
    caller = grown(tree_caller(contract(**terms), seed=seed))
    caller.sent.clear()
    score(caller, caller.contract, caller.overlap)
    return caller


def exact(caller):
    table = pooled(caller, lambda split: np.concatenate([split.held_out, split.unlabelled]))
    return predict(model_of(caller), by_owner(table))


@pytest.mark.parametrize(("seed", "parties"), [(1, 2), (2, 2), (1, 3)])
def test_scores_are_those_of_the_model_rounded_up_or_down(seed, parties):
    caller = scored(seed, trees=4, parties=parties)
    found, split = caller.recall(BANK, Released), caller.recall(BANK, Split)
    assert np.array_equal(found.rows, real(np.concatenate([split.held_out, split.unlabelled])))
    assert found.held_out == len(real(split.held_out)) < len(found.rows)
    wanted = exact(caller)
    assert np.abs(found.units - 100 * wanted).max() < 1 + 100 * 1e-3
    assert abs((found.units - 100 * wanted).mean()) < 0.1 and wanted.std() > 0.05


def test_trees_in_several_groups_give_the_same(monkeypatch):
    whole = scored(trees=4)
    monkeypatch.setattr(shared_scoring, "BLOCK_BYTES", 4 * 8 * 1000)
    groups = scored(trees=4)
    assert whole.rounds < groups.rounds
    assert np.array_equal(whole.recall(BANK, Released).units, groups.recall(BANK, Released).units)
    assert list(tree_groups(5, 3, 500)) == [slice(0, 2), slice(2, 4), slice(4, 5)]


@pytest.mark.parametrize("parties", [2, 3], ids=["one partner", "two partners"])
def test_only_rounded_shares_are_opened_and_all_else_is_uniform(parties):
    caller = scored(trees=4, depth=4, parties=parties)
    revealed = [d for _, d in caller.revealed if isinstance(d, Scores)]
    assert len(revealed) == parties - 1 and revealed[0].to == BANK and revealed[0].decimals == 2
    assert not [s for s in caller.seen_by(DEALER) if not s.step.startswith("witness.")]
    shares = [s.message for s in caller.sent if isinstance(s.message, ScoreShare)]
    assert len(shares) == parties - 1 and all(abs(chi_square(share.words)) < 5 for share in shares)
    for s in caller.sent:
        if isinstance(s.message, MaskedSides):
            parts = [s.message.bits.words, *(v.words for v in s.message.vectors)]
            assert all(abs(chi_square(p)) < 5 for p in parts if p.size > 2000)
        if isinstance(s.message, ScoreAngles | ScoreLift):
            part = s.message.angles if isinstance(s.message, ScoreAngles) else s.message.halves
            assert abs(chi_square(part.words)) < 5


@pytest.mark.parametrize("partner", [SHOP, TELECOM])
def test_either_partner_refuses_a_second_release_of_its_columns(partner):
    caller = scored(parties=3)
    stores = {p: store for p, store in caller.stores.items() if p == partner}
    again = grown(tree_caller(contract(3), stores=stores))
    again.stores[partner].pop(f"released/{bytes(32).hex()}")
    with pytest.raises(PolicyRefused, match="cap is reached"):
        score(again, again.contract, again.overlap)
