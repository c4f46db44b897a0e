"""People of whom the bank knows some and the partner all: a caller that stands where the hidden match is found."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import AlignTerms, Contract
from fedmkt.learn.prepare import Preparation
from fedmkt.protocol.alignment.align import Slots, Split, split
from fedmkt.protocol.alignment.items import NO_ROW
from fedmkt.protocol.alignment.psi import Aligned, Customers, Overlap
from fedmkt.protocol.core import State, data_parties
from fedmkt.protocol.linear.predictor import Weights
from fedmkt.protocol.prepare import Columns, Prepared, prepare_columns, prepared_rows
from tests.protocol.plain_caller import BANK, SHOP, PlainCaller, contract_of

Floats = NDArray[np.float64]


@dataclass
class HiddenData:
    """The partner's list, and who of it banks at the bank.

    x : each party's numbers by person of the partner's list; y : nan without label; common : who is the bank's too;
    slots : the person in each slot; row_of : the bank's row of each person, NO_ROW for strangers.
    """

    contract: Contract
    x: dict[str, Floats]
    y: Floats
    common: NDArray[np.bool_]
    slots: NDArray[np.int64]
    row_of: NDArray[np.int64]
    local: dict[Any, tuple[State, ...]]


def hidden_contract(
    columns: tuple[int, int] = (4, 3), align: dict[str, Any] | None = None, **options: Any
) -> Contract:
    """Make a contract of a bank and one partner that hides the match."""
    contract = contract_of(2, columns=columns, **options)
    kinds = tuple(k for k in contract.disclosures if k not in ("CampaignRows", "SetSize"))
    terms = AlignTerms(match="hidden", **(align or {}))
    return Contract.model_validate(contract.model_dump() | {"align": terms, "disclosures": kinds})


def hidden_data(
    contract: Contract, n: int = 2000, rate: float = 0.4, seed: int = 1, signal: float = 0.6, selection: float = 0.5,
    base: float = -1.0, labelled: float = 0.85,
) -> HiddenData:  # fmt: skip
    """Draw people; common ones differ from the others by `selection` in mean and variance of the partner's columns."""
    random = np.random.default_rng(seed)
    common = random.random(n) < rate
    factor = random.standard_normal(n)
    x, z = {}, np.full(n, base)
    for terms in contract.parties:
        d = len(terms.numbers)
        values = random.standard_normal((n, d)) + 0.5 * factor[:, None]
        z += signal * (values @ random.normal(0, 1, d)) / np.sqrt(d)
        if terms.role == "partner":
            values[common] = values[common] * (1 + selection) + selection
        values[:, 0] = np.exp(0.7 * values[:, 0])
        x[terms.name] = values
    y = (random.random(n) < 1 / (1 + np.exp(-z))).astype(np.float64)
    y[random.random(n) >= labelled] = np.nan
    return place(contract, x, y, common, random.permutation(n), random)


def place(
    contract: Contract, x: dict[str, Floats], y: Floats, common: NDArray[np.bool_], slots: NDArray[np.int64],
    random: np.random.Generator,
) -> HiddenData:  # fmt: skip
    """Give the bank its own rows, of common people and of as many others whom the partner does not know."""
    n, people = len(y), np.flatnonzero(common)
    rows = random.permutation(2 * len(people))
    row_of = np.full(n, NO_ROW)
    row_of[people] = rows[: len(people)]
    ids, label = [f"other-{i}" for i in range(len(rows))], np.full(len(rows), np.nan)
    numbers = random.standard_normal((len(rows), x[BANK].shape[1]))
    for person in people:
        ids[row_of[person]] = f"person-{person:06d}"
    label[row_of[people]], numbers[row_of[people]] = y[people], x[BANK][people]
    bank = (Customers(tuple(ids), ~np.isnan(label)), Columns(_columns(numbers), {}, label))
    everybody = tuple(f"person-{i:06d}" for i in range(n))
    shop = (Customers(everybody, None), Columns(_columns(x[SHOP]), {}, None))
    return HiddenData(contract, x, y, common, slots, row_of, {BANK: bank, SHOP: shop})


def _columns(values: Floats) -> dict[str, Floats]:
    return {f"x{j}": np.ascontiguousarray(values[:, j]) for j in range(values.shape[1])}


def start_hidden(data: HiddenData, seed: int = 0, **options: Any) -> PlainCaller:
    """Make a caller that stands where match and split leave a run, then prepare the columns."""
    caller = PlainCaller(data.contract, data.local, seed=seed, **options)
    none = np.empty(0, np.int64)
    caller.states[SHOP][Aligned] = Aligned(data.slots, none)
    caller.states[BANK][Aligned] = Aligned(data.row_of[data.slots], none)
    n = len(data.slots)
    caller.publics[BANK, Overlap] = Overlap(data.contract.limits.min_common - 1, n, 0, 0, n)
    split(caller, data.contract)
    prepare_columns(caller, data.contract)
    return caller


def real_matrix(caller: PlainCaller, training: bool = True) -> Floats:
    """Put both parties' prepared columns side by side, for the joint rows that count."""
    rows = {p: caller.recall(p, Slots) for p in data_parties(caller.contract)}
    rows = {p: s.train if training else s.scored for p, s in rows.items()}
    counts = rows[BANK] != NO_ROW
    found = []
    for party, own in rows.items():
        fitted = Preparation.from_json(caller.recall(party, Prepared).preparation)
        found.append(prepared_rows(fitted, caller.recall(party, Columns), own[counts]))
    return np.concatenate(found, axis=1)


def real_labels(caller: PlainCaller, training: bool = True) -> Floats:
    """Return the bank's labels in the order of `real_matrix`."""
    slots = caller.recall(BANK, Slots)
    rows = slots.train if training else slots.scored
    found: Floats = caller.recall(BANK, Columns).label[rows[rows != NO_ROW]]
    return found


__all__ = ["BANK", "SHOP", "HiddenData", "Split", "Weights", "hidden_contract", "hidden_data", "start_hidden"]
