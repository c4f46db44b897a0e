"""What side products of two partners send, planned from whose splits they were, against what was sent."""

from collections import Counter
from types import SimpleNamespace

import pytest

from fedmkt.protocol.core import data_parties, dealer
from fedmkt.protocol.trees.totals.shared_boosting import fit
from fedmkt.protocol.trees.totals.shared_growth import TreeOwners
from fedmkt.protocol.trees.totals.shared_scoring import score
from fedmkt.protocol.trees.tree_columns import cut_columns
from fedmkt.simulation.rehearsal import Planned
from fedmkt.simulation.shared_traffic import CONTENT
from fedmkt.simulation.traffic import Sizes
from fedmkt.simulation.tree_traffic import TreeFacts
from tests.protocol.shared_world import contract
from tests.protocol.tree_world import BANK, tree_caller

STEPS = tuple(f"{what}_sides" for what in ("fit.open", "fit.deal", "fit.take")) + tuple(
    f"{label}.{what}" for label in ("values", "scores") for what in ("open", "deal", "take")
)


@pytest.mark.parametrize("parties", [2, 3])
def test_planned_bytes_are_the_real_ones_once_it_is_known_whose_splits_were(parties):
    caller = tree_caller(contract(parties, trees=4))
    terms, bins = caller.contract, cut_columns(caller, caller.contract)
    told, sent = len(caller.told), len(caller.sent)
    fit(caller, terms, caller.overlap, bins)
    score(caller, terms, caller.overlap)
    owners = caller.recall(BANK, TreeOwners).trees
    # Every party splits somewhere, and not all trees are full.
    assert {owner for tree in owners for _, owner in tree} == set(range(parties))
    lists = dict.fromkeys(data_parties(terms), 1500)
    known, unknown = (
        Sizes(terms, caller.overlap, {}, lists, TreeFacts(bins, (), found)) for found in (owners, ())
    )
    real: Counter[tuple[int, str]] = Counter()
    for message in caller.sent[sent:]:
        real[message.round, message.sender] += len(message.data)
    made: Counter[tuple[str, str]] = Counter()
    planned: Counter[str] = Counter()
    most: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for call in caller.told[told:]:
        if call.step in STEPS:
            asked = Planned(call.party, SimpleNamespace(name=call.step), made[call.party, call.step])
            content, readers = CONTENT[call.step](known, asked)
            there = real[call.round, call.party]
            assert content <= there <= content + 400 * readers, (call, content, there)
            planned[call.party] += content
            most[call.party] += CONTENT[call.step](unknown, asked)[0]
            found[call.party] += there
            made[call.party, call.step] += 1
    for party in (*data_parties(terms), dealer(terms)):
        assert planned[party] == pytest.approx(found[party], rel=0.15)
        assert most[party] >= planned[party]
