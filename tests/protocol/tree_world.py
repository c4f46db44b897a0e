"""A small joint world for boosted trees: numbers with gaps and categories at the bank and its partners."""

import dataclasses
from typing import Any

import numpy as np

from fedmkt.contract import Contract
from fedmkt.privacy.disclosure import DEFAULT
from fedmkt.protocol.core import data_parties
from fedmkt.terms import BinTerms, ModelTerms, TreeTerms, needed_disclosures
from tests.protocol.plain_caller import (
    BANK,
    SHOP,
    TELECOM,
    JointData,
    PlainCaller,
    contract_of,
    joint_data,
    start_aligned,
)

TOWNS = np.array(["north", "south", "east", "west", "rare", None], dtype=object)


def tree_contract(parties: int = 2, reveal: str = "sides", bins: int = 8, **terms: Any) -> Contract:
    """Make a contract for boosted trees; `terms` are those of `TreeTerms`."""
    trees = TreeTerms(**({"reveal": reveal, "trees": 3, "depth": 3, "min_rows": 20, "rate": 0.3} | terms))
    model = ModelTerms(kind="trees", checkpoint_every=1)
    kinds = (*DEFAULT, *(k for k in needed_disclosures(model, trees) if k not in DEFAULT))
    contract = contract_of(
        parties, columns=(3, 3, 2), disclosures=kinds, categories={BANK: ("job",), SHOP: ("town",)}
    )
    changed = contract.model_copy(update={"model": model, "trees": trees, "bins": BinTerms(count=bins)})
    return Contract.model_validate(changed.model_dump())


def tree_data(contract: Contract, n: int = 1500, seed: int = 1) -> JointData:
    """Draw people whose numbers have gaps and whose categories have rare and missing levels."""
    data = joint_data(contract, n, seed)
    random = np.random.default_rng(seed + 50)
    for party in data_parties(contract):
        customers, columns = data.local[party]
        numbers = {k: v.copy() for k, v in columns.numbers.items()}  # type: ignore[attr-defined]
        numbers["x0"][random.random(n) < 0.2] = np.nan
        named = contract.party(party).categories
        drawn = {c: random.choice(TOWNS, n, p=[0.4, 0.2, 0.15, 0.1, 0.01, 0.14]) for c in named}
        changed = dataclasses.replace(columns, numbers=numbers, categories=drawn)  # type: ignore[type-var]
        data.local[party] = (customers, changed)
    return data


def tree_caller(contract: Contract, n: int = 1500, seed: int = 1, **options: Any) -> PlainCaller:
    """Make a caller that stands where the split leaves a run."""
    return start_aligned(tree_data(contract, n, seed), seed=seed, **options)


__all__ = ["BANK", "SHOP", "TELECOM", "tree_caller", "tree_contract", "tree_data"]
