"""A bank asks again and again about few people of a partner whose set is kept: what one question costs.

    python -m benchmarks.psi_kept --asked 10000 --rows 1000000

Both sides in one process, one step after the other, without sealing. The first run evaluates and sends the whole set;
the second is the question. Prints seconds, CPU seconds and bytes of both, and of the question's part before anything
is sent (hashing and blinding the own ids, for which the bank needs nobody).
"""

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

from fedmkt.protocol.alignment.psi import Customers, psi
from fedmkt.protocol.core import Call, Name, Reply
from tests.protocol.plain_caller import BANK, SHOP, PlainCaller, contract_of

_ALONE = {"psi.announce", "psi.admit", "psi.oprf.keep", "psi.oprf.know", "psi.oprf.blind"}
"""Steps that a party makes with what it has: they can be done before the other side is there."""


class Timed(PlainCaller):
    """Adds up the time of each step by name."""

    def _answer(self, call: Call[Any, Any]) -> Reply[Any, Any]:
        wall, cpu = time.perf_counter(), time.process_time()
        reply = super()._answer(call)
        passed = self.__dict__.setdefault("passed", {})
        before = passed.get(call.step.name, (0.0, 0.0))
        passed[call.step.name] = (
            before[0] + time.perf_counter() - wall, before[1] + time.process_time() - cpu
        )  # fmt: skip
        return reply


def people(start: int, count: int) -> tuple[str, ...]:
    """Invent phone numbers."""
    return tuple(f"+86{13_000_000_000 + 7 * i}" for i in range(start, start + count))


def run(asked: int, rows: int, start: int, stores: dict[Name, dict[str, bytes]]) -> dict[str, object]:
    """Make one run and return what it cost."""
    contract = contract_of(
        align={"engine": "oprf", "reuse": 10 * asked}, limits={"min_list": 1, "min_common": 1}
    )
    local = {
        BANK: (Customers(people(start, asked), None),),
        SHOP: (Customers(people(0, rows), None),),
    }
    caller = Timed(contract, local, seed=start, stores=stores)
    psi(caller, contract)
    stores.update(caller.stores)
    passed: dict[str, tuple[float, float]] = caller.__dict__["passed"]
    online = {name: t for name, t in passed.items() if name not in _ALONE}
    return {
        "online_wall_s": round(sum(t[0] for t in online.values()), 3),
        "online_cpu_s": round(sum(t[1] for t in online.values()), 3),
        "alone_wall_s": round(sum(t[0] for n, t in passed.items() if n in _ALONE), 3),
        "bytes": sum(len(s.data) for s in caller.sent if s.step.startswith("psi")),
        "steps": {name: round(t[0], 3) for name, t in passed.items() if t[0] > 0.005},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both runs as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--asked", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    chosen = parser.parse_args(arguments)
    stores: dict[Name, dict[str, bytes]] = {BANK: {}, SHOP: {}}
    first = run(chosen.asked, chosen.rows, chosen.rows - chosen.asked // 2, stores)
    question = run(chosen.asked, chosen.rows, chosen.rows - chosen.asked // 3, stores)
    print(json.dumps({"first": first, "question": question}, indent=1))


if __name__ == "__main__":
    main()
