"""How much of what a dealer deals a sacrifice could check: `python -m benchmarks.dealt_words`.

Runs the attack lab's small job of each family, and counts the numbers in the dealer's messages by what they are. A
sacrifice (one triple given up to check another) checks products of masks, and nothing else: not high bits of masks
and where they wrap around (roundings, lifts), sines and cosines of masks, bits and digits of masks, one-hot vectors.
The table in docs/deals.md is this output.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from fedmkt.attack_lab.jobs import MODELS, write_job
from fedmkt.attack_lab.views import Views
from fedmkt.protocol.core import dealer
from fedmkt.ring.dealt_rounds import Operation
from fedmkt.simulation.run import carry_out, layout_of, read_job

SIZES = (2600, 2400, 2000)
KINDS = ("products", "high bits", "sines", "bits, one-hot")
_BY_FIELD = {
    "product": "products", "products": "products", "z": "products", "g": "products", "shares": "products",
    "high": "high bits", "top": "high bits", "angles": "sines",
    "r": "bits, one-hot", "unit": "bits, one-hot", "last": "bits, one-hot",
}  # fmt: skip
_BY_OPERATION = {
    "Lift": ("high bits", "high bits"), "Round": ("high bits", "high bits"), "Multiply": ("products",),
    "Conjunctions": ("products",), "Select": ("bits, one-hot", "products"),
}  # fmt: skip
"""Of each array that an operation of mode `nothing` deals; all of one that is absent are bits or one-hot."""


def _named(value: object, name: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(value, np.ndarray):
        yield name, value.size
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _named(item, name)
    elif isinstance(value, dict):
        yield from _named(list(value.values()), name)
    elif is_dataclass(value):
        for field in fields(value):
            inner = getattr(value, field.name)
            yield from _named(inner, name if field.name in ("bytes", "words") and name else field.name)


def count(family: str, folder: Path) -> Counter[str]:
    """Run a family's job and count what its dealer dealt."""
    found, views = Counter[str](), Views()

    def counting(kind: type[Operation]) -> Callable[..., Any]:
        deal = kind.deal

        def counted(self: Operation, masks: Sequence[Any]) -> list[Any]:
            dealt = deal(self, masks)
            names = _BY_OPERATION.get(kind.__name__, ("bits, one-hot",) * len(dealt))
            for name, array in zip(names, dealt, strict=True):
                found[name] += array.size
            return dealt

        return counted

    path = write_job(folder / "world", family, 2, SIZES, minimum=500)
    out = layout_of(family, folder / "run", False)
    with ExitStack() as patches:
        for kind in Operation.__subclasses__():
            patches.enter_context(mock.patch.object(kind, "deal", counting(kind)))
        signed = carry_out(read_job(path), path, out, "memory", 3, False, None, None, views.watch).signed
    for moment in views.of(dealer(signed.contract)):
        for _, message in moment.sent:
            if type(message).__name__ != "DealtPhases":  # counted by operation
                for name, size in _named(message):
                    found[_BY_FIELD[name]] += size
    return found


def main() -> None:
    """Print the table."""
    print(f"| kind of model | numbers dealt | {' | '.join(KINDS)} |\n|---|---:|{'---:|' * len(KINDS)}")
    # With trees.checked_shares a dealer deals tags as well, on the parties' word: no audit reaches these.
    for family in sys.argv[1:] or [family for family in MODELS if family != "trees-checked"]:
        with tempfile.TemporaryDirectory() as name:
            found = count(family, Path(name))
        total = sum(found.values())
        shares = " | ".join(f"{found[kind] / total:.1%}" for kind in KINDS)
        print(f"| {family} | {total:,} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
