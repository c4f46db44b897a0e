"""The noise ledger: what trainings with noise have told one bank, all together, at the partner that added the noise.

Read and written by the turns that begin a training and that open noisy totals (`noisy_growth`). One entry for each run,
in the party's store, so it outlives contracts and keys: which bank, rho and delta of the whole training as it was
planned. A bank is known again as `protocol.counterpart` says. An entry is for all people and columns at once: whoever
leaves out a column or brings another list begins nothing anew. A training is counted in full when it begins, whatever
becomes of it, and all entries are looked at again before each level leaves: of runs that begin at the same moment each
sees the others before its first total, and none opens any beyond the limit. **Trainings without noise are not
counted**: whatever totals such a one told, nothing bounds them, and this ledger says only what the noisy ones add. What
a training takes is in the audit log too, once, before the ledger has it. Who has the store has the ledger: a partner
that removes it protects nobody but its own people less.
"""

import json
import math
from dataclasses import asdict, dataclass

from fedmkt.errors import PolicyRefused
from fedmkt.privacy.noise import FLOODING_DELTA, NoisePlan, epsilon_of
from fedmkt.protocol.core import Spending, Turn
from fedmkt.protocol.counterpart import Counterpart, counterpart_of, known_as


@dataclass(frozen=True)
class Training:
    """One entry: the bank in one spelling, its identity key, rho and delta of all totals of the training."""

    organisation: str
    key: str
    rho: float
    delta: float

    @property
    def bank(self) -> Counterpart:
        """Whom it told."""
        return Counterpart(self.organisation, self.key)


@dataclass(frozen=True)
class Counted:
    """A training in the ledger: what the store shall remember, and what the log shall say if it was not there yet."""

    remember: dict[str, bytes]
    spends: tuple[Spending, ...]


def _entry(run: str) -> str:
    return f"noise/{run}"


def _training(turn: Turn, plan: NoisePlan) -> Training:
    bank = counterpart_of(turn.contract.bank)
    return Training(bank.organisation, bank.key, plan.rho, plan.delta)


def earlier(turn: Turn, of: Training) -> list[Training]:
    """Read the entries of other runs about the same bank."""
    own, prefix = _entry(turn.run.hex()), _entry("")
    names = [name for name in turn.store if name.startswith(prefix) and name != own]
    others = [Training(**json.loads(turn.store[name])) for name in names]
    same = known_as([of.bank], [t.bank for t in others])
    return [t for t in others if t.bank in same]


def epsilon_together(trainings: list[Training]) -> float:
    """Return what trainings are together, at the least delta of any; infinity where that is too small for so many."""
    # Each has a `FLOODING_DELTA`, of which `epsilon_of` takes one off.
    delta = min(t.delta for t in trainings) - (len(trainings) - 1) * FLOODING_DELTA
    return epsilon_of(math.fsum(t.rho for t in trainings), delta) if delta > FLOODING_DELTA else math.inf


def count_training(turn: Turn, plan: NoisePlan) -> Counted:
    """Count a training, once; PolicyRefused where all of them would go beyond the contract."""
    training, most = _training(turn, plan), turn.contract.limits.max_epsilon
    total = epsilon_together([*earlier(turn, training), training])
    if total > most:
        raise PolicyRefused(
            f"with this training, all that {turn.me} told this bank with noise would be epsilon {total:.2f}; "
            f"the contract allows {most:g}",
            "no more trees with noise for this bank, or more noise from the first training on",
        )
    entry = _entry(turn.run.hex())
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
