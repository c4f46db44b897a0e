"""Drops and dummies: a list that says little about who belongs on it, and how little.

Of a list of people each one who is common is dropped with probability p, and each one who is not is listed with
probability q. Whoever sees the list learns about each person, against what it knew before, at most a factor e^eps:

    eps = max(|ln((1 - p) / q)|, |ln((1 - q) / p)|)

The first is what being listed tells, the second what being absent tells. p = 0 with q < 1 would tell of everybody who
is absent that he is not common, and q = 1 with p > 0 that he is: both are refused. p = 0 and q = 1 lists everybody and
tells nothing. The bound holds for one list. If the choice were made anew each time, lists would average to the truth,
so it is a keyed hash of the person: the same people, the same choice, while key and probabilities stay.

Source: randomised response (Warner 1965) with unequal probabilities; redteam.md 2.10.
"""

import math
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.bool_]
COIN_BYTES: Final = 8


def epsilon(drop: float, dummies: float) -> float:
    """Return eps of a list; ValueError for probabilities that leave somebody without any protection."""
    if (drop, dummies) == (0.0, 1.0):
        return 0.0
    if not (0 < drop < 1 and 0 < dummies < 1):
        raise ValueError(
            "drop and dummies both between 0 and 1, or drop = 0 with dummies = 1: otherwise the list names people"
        )
    return max(abs(math.log((1 - drop) / dummies)), abs(math.log((1 - dummies) / drop)))


def epsilon_text(drop: float, dummies: float) -> str:
    """Write eps rounded up to two decimals: what is shown is never too small."""
    return f"{math.ceil(epsilon(drop, dummies) * 100 - 1e-9) / 100:.2f}"


def listed(key: bytes, names: NDArray[np.uint64], common: Bits, drop: float, dummies: float) -> Bits:
    """Choose who is on the list: the same for the same key, name and probabilities.

    key : 32 secret bytes. names : (n,) one lasting name for each person; common : (n,).
    Two coins of one hash, one for either case: whoever becomes common is listed independently of what was before.
    """
    person = f"fedmkt superset v1 {drop!r} {dummies!r}".encode()
    start = blake2b(key=key, digest_size=2 * COIN_BYTES)
    start.update(person)
    found = bytearray()
    for name in np.ascontiguousarray(names, "<u8").view("V8").tolist():
        state = start.copy()
        state.update(name)
        found += state.digest()
    coins = np.frombuffer(bytes(found), "<u8").reshape(-1, 2)
    # Whole numbers up to 2^53 of 2^53: a float compared with a word would round it.
    stays = (coins[:, 0] >> np.uint64(11)) >= np.uint64(round(drop * 2**53))
    added = (coins[:, 1] >> np.uint64(11)) < np.uint64(round(dummies * 2**53))
    return np.where(common, stays, added)
