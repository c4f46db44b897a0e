"""The noise ledger: what trainings with noise have told one bank, all together, at the partner that added the noise.

Read and written by the turn that opens noisy totals (`noisy_growth`). One entry for each run, in the party's store, so
it outlives contracts and keys: which bank, rho and delta of the whole training as it was planned. A bank is known again
by its organisation or by its key, and an entry is for all people and columns at once: whoever leaves out a column or
brings another list begins nothing anew. A training is counted in full before its first total leaves, whatever becomes
of it; all entries are looked at again before each level, so of two runs at the same time neither goes on beyond the
limit. Who has the store has the ledger: a partner that removes it protects nobody but its own people less.
"""

import json
import math
from dataclasses import asdict, dataclass

from fedmkt.errors import PolicyRefused
from fedmkt.privacy.noise import NoisePlan, epsilon_of
from fedmkt.protocol.core import Turn


@dataclass(frozen=True)
class Training:
    """One entry: the bank in one spelling, its identity key, rho and delta of all totals of the training."""

    organisation: str
    key: str
    rho: float
    delta: float


def _entry(run: str) -> str:
    return f"noise/{run}"


def _training(turn: Turn, plan: NoisePlan) -> Training:
    bank = turn.contract.bank
    return Training(" ".join(bank.organisation.casefold().split()), bank.key, plan.rho, plan.delta)


def earlier(turn: Turn, of: Training) -> list[Training]:
    """Read the entries of other runs about the same bank."""
    own, prefix = _entry(turn.run.hex()), _entry("")
    names = [name for name in turn.store if name.startswith(prefix) and name != own]
    found = [Training(**json.loads(turn.store[name])) for name in names]
    return [t for t in found if t.organisation == of.organisation or t.key == of.key]


def epsilon_together(trainings: list[Training]) -> float:
    """Return what trainings are together, at the least delta of any."""
    return epsilon_of(math.fsum(t.rho for t in trainings), min(t.delta for t in trainings))


def count_level(turn: Turn, plan: NoisePlan) -> dict[str, bytes]:
    """Count one more level of a training, and the training once; PolicyRefused beyond the plan or the contract.

    Returns what the store shall remember. A resumed run is the same training: levels that it grows again are planned.
    """
    levels = f"noisy levels/{turn.run.hex()}"
    opened = int(turn.store.get(levels, b"0")) + 1
    if opened > plan.levels:
        raise PolicyRefused(f"{opened} levels of trees are asked for, noise was planned for {plan.levels}")
    training, most = _training(turn, plan), turn.contract.limits.max_epsilon
    total = epsilon_together([*earlier(turn, training), training])
    if total > most:
        raise PolicyRefused(
            f"with this training, all that {turn.me} told this bank with noise would be epsilon {total:.2f}; "
            f"the contract allows {most:g}",
            "no more trees with noise for this bank, or more noise from the first training on",
        )
    # The training first: killed between the two, a party counts too much rather than too little.
    entry = _entry(turn.run.hex())
    return {entry: json.dumps(asdict(training)).encode(), levels: str(opened).encode()}
