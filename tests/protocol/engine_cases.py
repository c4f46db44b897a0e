"""Engines of the intersection against a plain set operation, and against messages that somebody changed.

    python -m tests.protocol.engine_cases sets 10000 [seed]        sizes 0 to 5,000, all overlaps
    python -m tests.protocol.engine_cases changes 2000 [seed]      one changed message in each run

One line at the end; exit 1 if any case is wrong. The tests run a short form of both.
"""

import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmkt.errors import PeerError, PolicyRefused
from fedmkt.protocol.alignment import psi_oprf, psi_ot, psi_vole
from fedmkt.protocol.alignment.items import NO_ROW, Found, Items, ListRows, Match, Offered
from fedmkt.protocol.alignment.psi import Engine
from fedmkt.protocol.core import Message
from tests.protocol.plain_caller import BANK, SHOP, PlainCaller, Sent, contract_of

ENGINES: dict[str, Engine] = {
    "oprf": psi_oprf.intersect, "ot": psi_ot.intersect, "vole": psi_vole.intersect,
}  # fmt: skip
LONGEST = 5_000
LONGEST_OPRF = 300
"""An evaluation in the group takes 0.1 ms: longer lists would take all of the time."""


@dataclass(frozen=True)
class Case:
    """Two lists of items, `common` of them equal."""

    engine: str
    bank: NDArray[np.uint64]
    shop: NDArray[np.uint64]
    seed: int

    def caller(self, change: Callable[[Sent], Message] | None = None) -> PlainCaller:
        """Put the lists where the engine looks for them."""
        lists = {BANK: self.bank, SHOP: self.shop}
        local = {p: (Items(v, np.arange(len(v))),) for p, v in lists.items()}
        caller = PlainCaller(contract_of(), local, seed=self.seed)
        caller.publics = {(p, ListRows): ListRows(len(v)) for p, v in lists.items()}
        if change is not None:
            caller.change = change
        return caller

    def run(self, change: Callable[[Sent], Message] | None = None) -> PlainCaller:
        """Run the engine."""
        caller = self.caller(change)
        sizes = {BANK: len(self.bank), SHOP: len(self.shop)}
        ENGINES[self.engine](caller, caller.contract, sizes)
        return caller

    def plain(self) -> list[int]:
        """Return what a plain set operation finds: the place in the partner's list of each own item."""
        place = {tuple(v): i for i, v in enumerate(self.shop.tolist())}
        return [place.get(tuple(v), NO_ROW) for v in self.bank.tolist()]


def draw(random: np.random.Generator, engine: str, longest: int = LONGEST) -> Case:
    """Draw a case: short lists as often as long ones, every overlap from none to all."""
    longest = min(longest, LONGEST_OPRF) if engine == "oprf" else longest
    n, m = (int(np.exp(random.uniform(0, np.log(longest + 1)))) - int(random.random() < 0.05) for _ in "ab")
    n, m = max(0, n), max(0, m)
    common = int(random.choice([0, min(n, m), random.integers(0, min(n, m) + 1)]))
    everybody = random.integers(0, 2**64, (n + m - common, 2), dtype=np.uint64)
    if random.random() < 0.2:  # items that differ in few bits, or in one half alone
        everybody[:, 0] = 0
        everybody[:, 1] = random.permutation(n + m - common)
    bank, shop = everybody[:n], everybody[n - common :]
    return Case(engine, random.permutation(bank), random.permutation(shop), int(random.integers(2**31)))


def found(caller: PlainCaller) -> Match:
    """Return what the bank found."""
    match = caller.recall(BANK, Found).matches[SHOP]
    assert isinstance(match, Match)
    return match


def check(case: Case) -> None:
    """Compare matches and proofs of an undisturbed run with the plain set operation; AssertionError if they differ."""
    caller = case.run()
    match, plain = found(caller), case.plain()
    assert match.positions.tolist() == plain, f"{case.engine}: {len(case.bank)} and {len(case.shop)} items"
    real = match.positions != NO_ROW
    proofs = caller.recall(SHOP, Offered).proofs
    assert len(proofs) == len(case.shop)
    assert np.array_equal(match.proofs[real], proofs[match.positions[real]])
    assert not match.proofs[~real].any()


def change_of(random: np.random.Generator, at: int) -> tuple[Callable[[Sent], Message], list[str]]:
    """Change message number `at` of a run somewhere; the list says what was changed once it is done."""
    said: list[str] = []
    count = iter(range(1 << 30))

    def change(sent: Sent) -> Message:
        if next(count) != at:
            return sent.message
        fields = [f.name for f in dataclasses.fields(sent.message)]  # type: ignore[arg-type]
        name = str(random.choice(fields))
        value, how = _changed(random, getattr(sent.message, name))
        said.append(f"{type(sent.message).__name__}.{name} {how}")
        return dataclasses.replace(sent.message, **{name: value})  # type: ignore[type-var]

    return change, said


def _changed(random: np.random.Generator, value: object) -> tuple[object, str]:
    how = str(random.choice(["bit", "short", "long", "zeros", "noise"]))
    if isinstance(value, int):
        return int(random.choice([0, -1, value + 1, 2**31, 2**63 - 1])), "number"
    if isinstance(value, bytes):
        raw = bytearray(value)
        if how == "bit" and raw:
            raw[random.integers(len(raw))] ^= 1 << int(random.integers(8))
        return {
            "bit": bytes(raw), "short": value[:-1], "long": value + b"\0", "zeros": bytes(len(value)),
            "noise": random.bytes(len(value)),
        }[how], how  # fmt: skip
    assert isinstance(value, np.ndarray)
    new = value.copy()
    flat = new.reshape(-1).view(np.uint8)
    if how == "bit" and len(flat):
        flat[random.integers(len(flat))] ^= 1 << int(random.integers(8))
    elif how == "zeros":
        flat[:] = 0
    elif how == "noise":
        flat[:] = random.integers(0, 256, len(flat), np.uint8)
    elif how == "short":
        new = value[:-1].copy()
    else:
        new = np.concatenate([value, value[:1]]) if len(value) else value.copy()
    return new, how


def disturb(random: np.random.Generator, engine: str) -> tuple[str, str]:
    """Change one message of a run; say what, and how the run ended. AssertionError for a match that is none."""
    case = draw(random, engine, longest=400)
    messages = len(case.run().sent)
    change, said = change_of(random, int(random.integers(messages)))
    try:
        match = found(case.run(change))
    except (PeerError, PolicyRefused) as error:
        return said[0] if said else "nothing", type(error).__name__
    plain = np.array(case.plain())
    wrong = (match.positions != NO_ROW) & (match.positions != plain)
    assert not wrong.any(), f"{engine}: {said}: {int(wrong.sum())} matches that are none"
    lost = int((match.positions != plain).sum())
    return said[0] if said else "nothing", "right" if lost == 0 else "matches lost"


def main(arguments: Sequence[str]) -> int:
    """Run one of the two forms."""
    what, count, seed = arguments[0], int(arguments[1]), int(arguments[2]) if len(arguments) > 2 else 1
    random, started, failed = np.random.default_rng(seed), time.monotonic(), 0
    endings: Counter[str] = Counter()
    for i in range(count):
        engine = ("ot", "vole", "oprf")[i % 3]
        try:
            if what == "sets":
                check(draw(random, engine))
                endings[engine] += 1
            else:
                endings[f"{engine}: {disturb(random, engine)[1]}"] += 1
        except Exception as error:
            failed += 1
            print(f"case {i}, {engine}: {type(error).__name__}: {error}", flush=True)
        if i % 500 == 499:
            print(f"{i + 1} of {count}, {time.monotonic() - started:.0f} s", flush=True)
    print(f"{what}: {count} cases, {failed} wrong; {dict(sorted(endings.items()))}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
