"""Joint models whose bank has an offset and row weights: worlds to train in, and the optimum that they are held to."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmkt.contract.agreement import Contract
from fedmkt.learn import glm
from fedmkt.protocol.alignment.align import Split
from fedmkt.protocol.core import Name, data_parties
from fedmkt.protocol.linear import targets
from fedmkt.protocol.linear.logistic import fit
from fedmkt.protocol.prepare import Columns, real
from tests.protocol.hidden_world import hidden_contract, hidden_data, real_matrix, start_hidden
from tests.protocol.plain_caller import (
    BANK,
    JointData,
    PlainCaller,
    contract_of,
    joint_data,
    prepared_matrix,
    reconstructed_weights,
    start_aligned,
    unwhitened,
)


def special(contract: Contract, names: Mapping[str, str]) -> Contract:
    """Return the contract with columns of the bank that are no features."""
    values = contract.model_dump()
    bank, *partners = values["parties"]
    return Contract.model_validate(values | {"parties": [bank | dict(names), *partners]})


def draw(columns: Columns, names: Mapping[str, str], seed: int) -> Columns:
    """Give the bank's rows an offset and weights of mean about 1, if it has such columns."""
    random, n = np.random.default_rng(seed + 100), len(columns.label)
    return dataclasses.replace(
        columns,
        offset=random.normal(0, 0.8, n).clip(-2, 2) if "offset" in names else None,
        weight=random.choice([0.25, 0.5, 1.0, 2.5], n) if "weight" in names else None,
    )


def world(
    k: int = 2, names: Mapping[str, str] | None = None, n: int = 1500, seed: int = 1, signal: float = 0.6,
    columns: tuple[int, ...] = (5, 4, 3), model: Mapping[str, Any] | None = None, **options: Any,
) -> JointData:  # fmt: skip
    """Draw people, and what the bank alone knows of them."""
    contract = special(contract_of(k, columns=columns, model=dict(model or {}), **options), names or {})
    data = joint_data(contract, n, seed, signal)
    customers, own = data.local[BANK]
    own = draw(own, names or {}, seed)
    if contract.model.kind in ("linear", "poisson"):
        own = dataclasses.replace(own, label=numbers(data, own, contract.model.kind, seed))
    return dataclasses.replace(data, local=data.local | {BANK: (customers, own)})


def numbers(data: JointData, own: Columns, kind: str, seed: int) -> NDArray[np.float64]:
    """Draw labels that depend on all parties' columns and on the offset: sums of money, or counts of mean near 0.4."""
    random, person = np.random.default_rng(seed + 200), np.argsort(data.order[BANK])
    z = np.zeros(len(person))
    for x in data.x.values():
        z += 0.25 * (x[person] @ random.normal(0, 1, x.shape[1])).clip(-4, 4)
    z += 0 if own.offset is None else own.offset
    missing = np.isnan(own.label)
    if kind == "linear":
        y = 300 + 40 * (z + random.standard_t(4, len(z)))
    else:
        y = random.poisson(0.4 * np.exp(z.clip(-3, 2))).astype(np.float64)
    return np.where(missing, np.nan, y)


def hidden_caller(
    names: Mapping[str, str], model: Mapping[str, Any], n: int = 2000, seed: int = 1
) -> PlainCaller:
    """Make a caller with a hidden match whose bank has such columns."""
    contract = special(hidden_contract((4, 3), model=dict(model)), names)
    data = hidden_data(contract, n, seed=seed)
    customers, own = data.local[BANK]
    data.local[BANK] = (customers, draw(own, names, seed))
    return start_hidden(data, seed=seed)


def trained(data: JointData, seed: int = 1) -> PlainCaller:
    """Train on a world."""
    caller = start_aligned(data, seed=seed)
    fit(caller, data.contract, caller.overlap, caller.columns())
    return caller


def known_rows(caller: PlainCaller, part: str = "train") -> glm.Rows:
    """Return what the bank knows of real rows, in the units of training, weights as they count."""
    return caller.recall(BANK, targets.Units).scale.rows(raw_rows(caller, part))


def raw_rows(caller: PlainCaller, part: str = "train") -> glm.Rows:
    """Return the same as the bank's table has it."""
    columns, split = caller.recall(BANK, Columns), caller.recall(BANK, Split)
    return targets.known_rows(caller.contract.model, columns, real(getattr(split, part)))


def matrix(caller: PlainCaller, part: str = "train") -> Any:
    """Return all parties' prepared columns of the real rows."""
    if caller.contract.align.hidden:
        return real_matrix(caller)
    return prepared_matrix(caller, lambda s: getattr(s, part))


def found(caller: PlainCaller) -> Any:
    """Return the joint model's intercept and weights on prepared columns."""
    return unwhitened(caller, reconstructed_weights(caller))


def weight_error(caller: PlainCaller, reference: Any) -> float:
    """Return |w - w*| / |w*|, intercept included."""
    return float(np.linalg.norm(found(caller) - reference) / np.linalg.norm(reference))


def draws(caller: PlainCaller) -> dict[Name, list[tuple[object, ...]]]:
    """Record all mask addresses that are drawn from now on, by who draws them."""
    drawn: dict[Name, list[tuple[object, ...]]] = {name: [] for name in caller.masks}

    def record(name: Name, original: Any) -> Any:
        def draw(of: Any, label: Any, count: Any, shape: Any, *, to: str = "", block: int = 0) -> Any:
            drawn[name].append((of, label, count, to, block))
            return original(of, label, count, shape, to=to, block=block)

        return draw

    for name, masks in caller.masks.items():
        for kind in ("words", "half_words"):
            setattr(masks, kind, record(name, getattr(masks, kind)))
    return drawn


def check_addresses(caller: PlainCaller, drawn: dict[Name, list[tuple[object, ...]]]) -> None:
    """Each party's masks have addresses of their own, which the dealer draws too."""
    by_parties = [a for name in data_parties(caller.contract) for a in drawn[name]]
    assert len(set(by_parties)) == len(by_parties)
    assert all(a[0] == name for name in data_parties(caller.contract) for a in drawn[name])
    assert set(by_parties) <= set(drawn[Name("coordinator")])
