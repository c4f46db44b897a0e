"""A small joint world for boosted trees: numbers with gaps and categories at the bank and its partners."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.contract.model_terms import BinTerms, ModelTerms, TreeTerms, needed_disclosures
from fedmkt.learn import boosting
from fedmkt.learn.trees import Bools, Table
from fedmkt.privacy.disclosure import DEFAULT
from fedmkt.protocol.alignment.align import Split, Validation
from fedmkt.protocol.core import Name, data_parties
from fedmkt.protocol.prepare import real
from fedmkt.protocol.trees.bin_layout import BinSizes
from fedmkt.protocol.trees.sides.boosting import fit as fit_trees
from fedmkt.protocol.trees.sides.tree_growth import Draws, Forest, columns_of, settings_of
from fedmkt.protocol.trees.tree_columns import common_bins, cut_columns, own_codes, table_values
from tests.protocol.plain_caller import (
    BANK,
    SHOP,
    TELECOM,
    JointData,
    PlainCaller,
    contract_of,
    joint_data,
    labels,
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


def grown(caller: PlainCaller) -> PlainCaller:
    """Cut the columns and grow the trees."""
    fit_trees(caller, caller.contract, caller.overlap, cut_columns(caller, caller.contract))
    return caller


def pooled(caller: PlainCaller, rows_of: Callable[[Split], NDArray[np.int64]]) -> Table:
    """Put all parties' bins side by side for some real rows, as nobody in a run could."""
    contract = caller.contract
    parts = []
    for party in data_parties(contract):
        rows = real(rows_of(caller.recall(party, Split)))
        codes = own_codes(caller.turn(party), rows)
        sizes = caller.publics[party, BinSizes]
        parts.append(table_values(codes, sizes, common_bins(contract)))  # type: ignore[arg-type]
    return Table(columns_of(contract), np.concatenate(parts), common_bins(contract))


def by_owner(table: Table) -> dict[str, Table]:
    """Take a pooled table apart."""
    owners = [c.owner for c in table.columns]
    return {
        o: Table(
            tuple(c for c in table.columns if c.owner == o), table.values[np.array(owners) == o], table.bins
        )
        for o in dict.fromkeys(owners)
    }


def twin(caller: PlainCaller) -> boosting.Fitted:
    """Train in plain on the pooled table, with the random numbers that the bank drew."""
    table = pooled(caller, lambda split: split.train)
    y = labels(caller, lambda split: split.train)
    draws = Draws(caller.recall(BANK, Forest).key)
    rows = boosting.divided(boosting.Labelled(table, y), validates(caller, BANK))
    return boosting.fit(rows.train, settings_of(caller.contract), draws, rows.held)


def validates(caller: PlainCaller, party: Name) -> Bools | None:
    """Tell which real train rows of a party say when to stop; None where none do."""
    if Validation not in caller.states[party]:
        return None
    found: Bools = caller.recall(party, Validation).rows[: len(real(caller.recall(party, Split).train))]
    return found


__all__ = [
    "BANK",
    "SHOP",
    "TELECOM",
    "by_owner",
    "pooled",
    "tree_caller",
    "tree_contract",
    "tree_data",
    "twin",
    "validates",
]
