"""What a training with noise takes of the budget at the partner that adds the noise: `protocol.budget_ledger`.

Read and written by the turns that begin a training and that open noisy totals (`noisy_growth`). A training is counted
in full when it begins, rho and delta as they were planned, whatever becomes of it, and all entries are looked at again
before each level leaves. Of runs that begin at the same moment the entry of one is written first, and the others are
refused where both would go beyond the limit (`party.budget_guard`). **Trainings without noise are not counted**:
whatever totals such a one told, nothing bounds them. What a training takes is in the audit log too, once, before the
ledger has it.
"""

import json
from dataclasses import asdict, dataclass

from fedmkt.errors import PolicyRefused
from fedmkt.privacy.noise import NoisePlan
from fedmkt.protocol.budget_ledger import Training, check_budget, earlier, entry_name
from fedmkt.protocol.core import Spending, Turn
from fedmkt.protocol.counterpart import counterpart_of


@dataclass(frozen=True)
class Counted:
    """A training in the ledger: what the store shall remember, and what the log shall say if it was not there yet."""

    remember: dict[str, bytes]
    spends: tuple[Spending, ...]


def _training(turn: Turn, plan: NoisePlan) -> Training:
    bank = counterpart_of(turn.contract.bank)
    return Training(bank.organisation, bank.key, plan.rho, plan.delta)


def count_training(turn: Turn, plan: NoisePlan) -> Counted:
    """Count a training, once; PolicyRefused where all of them would go beyond the contract."""
    training, run = _training(turn, plan), turn.run.hex()
    told = [*earlier(turn.store, training, run), training]
    total = check_budget(told, turn.contract.limits.max_epsilon, turn.me, "training", "this bank")
    entry = entry_name(training, run)
    spending = Spending(turn.parties[0], "discrete Gaussian noise on totals", plan.epsilon, plan.delta, total)
    return Counted({entry: json.dumps(asdict(training)).encode()}, () if entry in turn.store else (spending,))


def count_level(turn: Turn, plan: NoisePlan) -> dict[str, bytes]:
    """Count one more level of a training, and the training once; PolicyRefused beyond the plan or the contract.

    Returns what the store shall remember. A resumed run is the same training: levels that it grows again are planned.
    """
    levels = f"noisy levels/{turn.run.hex()}"
    opened = int(turn.store.get(levels, b"0")) + 1
    if opened > plan.levels:
        raise PolicyRefused(f"{opened} levels of trees are asked for, noise was planned for {plan.levels}")
    return count_training(turn, plan).remember | {levels: str(opened).encode()}
