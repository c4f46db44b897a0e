"""Why a hashed phone number is not private: every number of a block is hashed and compared, in seconds.

    python -m benchmarks.hashed_ids --numbers 100000000

A list of "anonymised" customers is invented: SHA-256 of 11-digit numbers, compared by 8 bytes (whole digests cost
the same). All numbers of the block are hashed once, on one core; each hash on the list that turns
up is read back. A salt that both sides know (a contract's digest, a campaign's name) changes nothing: whoever has
the salt searches with it. What does help is a key that the searcher lacks, as in the engines of the intersection.
Prints the rate, the time for one given hash and for the list, and both for all numbers of 11 digits that begin
with 1, as JSON.
"""

import argparse
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmkt.compiled import kernel
from fedmkt.crypto import sha256
from fedmkt.crypto.sha256 import _compress as compress

DIGITS = 11
FIRST = 13_800_000_000
WHOLE = 10_000_000_000
"""How many numbers of 11 digits begin with 1: the mobile numbers of a whole country and some more."""
_BATCH = 1 << 20
_FILTER_BITS = 27
_TOGETHER = 256


@dataclass(frozen=True)
class Search:
    """What a search cost on one core, in CPU seconds, and what it read back.

    rate : numbers searched per second; one_mean_s : until one given hash turns up, on average; whole_s : for WHOLE
    numbers; hashlib_rate : hashes per second of whoever hashed the list.
    """

    numbers: int
    listed: int
    found: int
    seconds: float
    rate: float
    one_mean_s: float
    whole_s: float
    hashlib_rate: float


@kernel
def copy_next(number: NDArray[np.uint8], following: NDArray[np.uint8], digits: int) -> None:
    """Write the digits of the number after `number`."""
    carry = np.uint8(1)
    for j in range(digits - 1, -1, -1):
        digit = number[j] + carry
        carry = np.uint8(digit == 58)
        following[j] = digit - carry * np.uint8(10)


@kernel
def search_block(
    blocks: NDArray[np.uint8], digits: int, count: int, start: NDArray[np.uint32], known: NDArray[np.uint8],
    hits: NDArray[np.int64], hashes: NDArray[np.uint64],
) -> int:  # fmt: skip
    """Hash `count` numbers from the one in the first block on; note those whose first bits are a listed hash's.

    blocks : (k, 64), padded blocks of SHA-256 that begin with the digits, all the same; left at the number after
    the last. Returns how many were noted in `hits` (which of the numbers) and `hashes` (their first 8 bytes).
    """
    state, found, noted = np.empty(8, dtype=np.uint32), np.empty(len(blocks), dtype=np.uint64), 0
    for begin in range(0, count, len(blocks)):
        # Loop after loop, so that no load waits for a store just made, nor a hash for the filter's memory.
        many = min(len(blocks), count - begin)
        for i in range(1, many):
            copy_next(blocks[i - 1], blocks[i], digits)
        for i in range(many):
            # The order of the words in the registers of the instructions: F E B A H G D C.
            state[0], state[1], state[2], state[3] = start[5], start[4], start[1], start[0]
            state[4], state[5], state[6], state[7] = start[7], start[6], start[3], start[2]
            compress(state, blocks[i], 0)
            found[i] = np.uint64(state[3]) << np.uint64(32) | np.uint64(state[2])
        for i in range(many):
            bits = found[i] >> np.uint64(64 - _FILTER_BITS)
            if known[bits >> np.uint64(3)] >> (bits & np.uint64(7)) & np.uint8(1):
                hits[noted] = begin + i
                hashes[noted] = found[i]
                noted += 1
        copy_next(blocks[many - 1], blocks[0], digits)
    return noted


def plain_hashes(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash numbers as somebody does who "anonymises" a list: hashlib, one by one; the first 8 bytes of each."""
    digests = b"".join(hashlib.sha256(str(n).encode()).digest()[:8] for n in numbers.tolist())
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def padded_block(text: bytes) -> NDArray[np.uint8]:
    """Pad a message of less than 56 bytes to one block of SHA-256."""
    padded = text + b"\x80" + bytes(55 - len(text)) + (8 * len(text)).to_bytes(8, "big")
    return np.frombuffer(padded, np.uint8).copy()


def search(listed: NDArray[np.uint64], first: int, numbers: int) -> tuple[NDArray[np.int64], float]:
    """Hash the numbers from `first` on; return those whose hash is listed, and the CPU seconds it took.

    listed : the first 8 bytes of each hash, read big-endian. One thread.
    """
    began = time.process_time()
    known = np.zeros(1 << _FILTER_BITS - 3, dtype=np.uint8)
    bits = listed >> np.uint64(64 - _FILTER_BITS)
    np.bitwise_or.at(known, bits >> np.uint64(3), (1 << (bits & np.uint64(7))).astype(np.uint8))
    wanted, found = np.sort(listed), []
    blocks = np.tile(padded_block(str(first).encode()), (_TOGETHER, 1))
    hits, hashes = np.empty(_BATCH, dtype=np.int64), np.empty(_BATCH, dtype=np.uint64)
    for start in range(first, first + numbers, _BATCH):
        count = min(_BATCH, first + numbers - start)
        noted = search_block(blocks, DIGITS, count, sha256.START, known, hits, hashes)
        place = np.minimum(np.searchsorted(wanted, hashes[:noted]), len(wanted) - 1)
        found.append(start + hits[:noted][wanted[place] == hashes[:noted]])
    return np.concatenate(found), time.process_time() - began


def measure(numbers: int, listed: int, seed: int) -> Search:
    """Invent a list, hash it, search the block and check that every number was read back."""
    rng = np.random.default_rng(seed)
    customers = np.unique(FIRST + rng.integers(0, numbers, listed))
    began = time.process_time()
    hashed = plain_hashes(customers)
    hashlib_rate = len(customers) / (time.process_time() - began)
    search(hashed, FIRST, 1000)  # compiles
    found, seconds = search(rng.permutation(hashed), FIRST, numbers)
    if not np.array_equal(found, customers):
        raise RuntimeError("the search did not read back exactly the list")
    rate = numbers / seconds
    return Search(
        numbers, len(customers), len(found), seconds, rate, seconds / 2, WHOLE / rate, hashlib_rate
    )  # fmt: skip


def main() -> None:
    """Read options, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--numbers", type=int, default=100_000_000, help="numbers in the block")
    parser.add_argument("--listed", type=int, default=1_000_000, help="hashed ids on the list")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="the JSON file of figures to add this to")
    options = parser.parse_args()
    if not sha256.IN_HARDWARE:
        raise SystemExit("this processor has no instructions for SHA-256: the search takes ten times as long")
    facts = asdict(measure(options.numbers, options.listed, options.seed))
    print(json.dumps(facts, indent=1))
    if options.out is not None:
        figures = json.loads(options.out.read_text()) if options.out.exists() else {}
        how = " ".join(__doc__.partition("100000000")[2].split())
        figures["hashed_ids"] = {"how": how, **facts}
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
