"""Who is known again as whom, against chains of names and keys drawn at random."""

import numpy as np
import pytest

from fedmkt.protocol.counterpart import Counterpart, counterpart_of, counterparts, known_as
from tests.protocol.plain_caller import BANK, SHOP, contract_of


def test_a_name_or_a_key_is_enough_and_a_chain_of_them():
    shop, renamed, new_key, both = (
        Counterpart(*pair) for pair in (("a", "1"), ("b", "1"), ("b", "2"), ("c", "3"))
    )
    met = [shop, renamed, new_key, both]
    assert known_as([shop], met) == known_as([new_key], met) == {shop, renamed, new_key}
    assert known_as([new_key], [shop, both]) == {new_key}
    assert known_as([both], met) == {both} and known_as([], met) == frozenset()


def test_it_finds_what_is_connected_and_nothing_else():
    random = np.random.default_rng(1)
    for _ in range(50):
        pairs = [Counterpart(str(n), str(k)) for n, k in random.integers(0, 12, (10, 2))]
        # Warshall's closure over all pairs.
        linked = np.array(
            [[a.organisation == b.organisation or a.key == b.key for b in pairs] for a in pairs]
        )
        for k in range(len(pairs)):
            linked |= linked[:, k : k + 1] & linked[k : k + 1]
        for i, one in enumerate(pairs):
            assert known_as([one], pairs) == {p for p, same in zip(pairs, linked[i], strict=True) if same}


@pytest.mark.parametrize("name", ["THE  bank", "the\u00a0bank", "\uff34he bank"])
def test_names_are_compared_in_one_spelling(name):
    bank = contract_of().bank.model_copy(update={"organisation": name})
    assert counterpart_of(bank).organisation == "the bank"


def test_everybody_else_with_data_is_a_counterpart():
    contract = contract_of()
    assert counterparts(contract, BANK) == (counterpart_of(contract.party(SHOP)),)
    assert counterparts(contract, SHOP) == (counterpart_of(contract.bank),)
