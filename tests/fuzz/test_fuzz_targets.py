"""Every decoder on its seeds and on mutated ones: the short form of `make fuzz`, without a coverage-guided fuzzer."""

import pytest

from tests.fuzz.mutate import mutants
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_decoder_accepts_what_the_product_writes(name: str) -> None:
    target = TARGETS[name]
    seeds = target.seeds()
    assert seeds and all(target(seed) for seed in seeds)
    assert len(seeds) == len(set(seeds))


@pytest.mark.parametrize("name", TARGETS)
def test_a_decoder_refuses_mutated_bytes_in_its_own_words(name: str) -> None:
    target = TARGETS[name]
    for data in mutants(target.seeds(), target.tried, seed=7):
        target(data)
