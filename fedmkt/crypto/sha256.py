"""SHA-256 of many short messages with one common beginning, by the processor's own instructions.

FIPS 180-4; the order of words inside the two state registers is that of the instructions SHA256RNDS2,
SHA256MSG1 and SHA256MSG2 (Intel, Intel SHA Extensions, 2013). The running time depends on lengths only.
This module imports numba at once; where `IN_HARDWARE` is false its loop must not be called.
"""

import math
from itertools import count, islice
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic
from numba.np import arrayobj
from numpy.typing import NDArray

from fedmkt.crypto import aes

_types: Any = numba.types
_make_array: Any = arrayobj.make_array

IN_HARDWARE = aes.processor_has("sha", "ssse3", "sse4.1")
"""Whether the processor has the instructions and may use them."""


def _fractions(roots: int, power: int) -> list[int]:
    """Return the first 32 bits of the fractional parts of the square (2) or cube (3) roots of primes."""
    primes = islice((p for p in count(2) if all(p % d for d in range(2, math.isqrt(p) + 1))), roots)
    return [_root(p << (32 * power), power) & 0xFFFFFFFF for p in primes]


def _root(value: int, power: int) -> int:
    low, high = 0, 1 << (value.bit_length() // power + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**power <= value else (low, middle)
    return low


START = np.array(_fractions(8, 2), dtype=np.uint32)
"""The state before the first block, words A to H."""
_ROUNDS = _fractions(64, 3)
_VECTOR = ir.VectorType(ir.IntType(32), 4)


def _shuffled(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), 4), lanes))


@intrinsic
def _compress(typing: Any, state: Any, data: Any, at: Any) -> Any:
    """Mix the 64 bytes at data[at:] into the state, 8 words in the order F E B A H G D C."""
    signature = _types.void(state, data, _types.int64)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        def external(name: str, arguments: int) -> Any:
            kind = ir.FunctionType(_VECTOR, [_VECTOR] * arguments)
            return builder.module.globals.get(name) or ir.Function(builder.module, kind, name)

        def pointer(i: int, index: Any) -> Any:
            start = _make_array(signature.args[i])(context, builder, values[i]).data
            return builder.bitcast(builder.gep(start, [index]), _VECTOR.as_pointer())

        def number(i: int) -> Any:
            return ir.Constant(ir.IntType(32), i)

        rounds = external("llvm.x86.sha256rnds2", 3)
        first, second = external("llvm.x86.sha256msg1", 2), external("llvm.x86.sha256msg2", 2)
        swap = external("llvm.bswap.v4i32", 1)
        block, home = pointer(1, values[2]), pointer(0, ir.Constant(ir.IntType(64), 0))
        words = [
            builder.call(swap, [builder.load(builder.gep(block, [number(i)]), align=1)]) for i in range(4)
        ]
        before = [builder.load(builder.gep(home, [number(i)]), align=4) for i in range(2)]
        abef, cdgh = before
        for i in range(16):
            if i >= 4:
                sums = builder.add(
                    builder.call(first, [words[i - 4], words[i - 3]]),
                    _shuffled(builder, words[i - 2], words[i - 1], [1, 2, 3, 4]),
                )
                words.append(builder.call(second, [sums, words[i - 1]]))
            mixed = builder.add(words[i], ir.Constant(_VECTOR, _ROUNDS[4 * i : 4 * i + 4]))
            cdgh = builder.call(rounds, [cdgh, abef, mixed])
            abef = builder.call(rounds, [abef, cdgh, _shuffled(builder, mixed, mixed, [2, 3, 0, 0])])
        for i, (old, new) in enumerate(zip(before, (abef, cdgh), strict=True)):
            builder.store(builder.add(old, new), builder.gep(home, [number(i)]), align=4)
        return context.get_dummy_value()

    return signature, generate


_mix: Any = _compress


@aes.kernel
def _swapped(word: np.uint64) -> np.uint64:
    byte = np.uint64(0xFF)
    low = (word & byte) << np.uint64(24) | (word >> np.uint64(8) & byte) << np.uint64(16)
    return low | (word >> np.uint64(16) & byte) << np.uint64(8) | word >> np.uint64(24) & byte


@aes.kernel
def hash_all(
    prefix: NDArray[np.uint8],
    start: NDArray[np.uint32],
    data: NDArray[np.uint8],
    ends: NDArray[np.int64],
    out: NDArray[np.uint64],
) -> None:
    """Write the first 16 bytes of SHA-256(prefix || message i) to out[i] as two little-endian words.

    prefix : whole blocks of 64 bytes; start : START; message i is data[ends[i - 1] : ends[i]].
    """
    order = (5, 4, 1, 0, 7, 6, 3, 2)
    common = np.empty(8, dtype=np.uint32)
    for i in range(8):
        common[i] = start[order[i]]
    for at in range(0, len(prefix), 64):
        _mix(common, prefix, at)
    state = np.empty(8, dtype=np.uint32)
    tail = np.zeros(128, dtype=np.uint8)
    at = 0
    for i in range(len(ends)):
        begin, end = at, ends[i]
        for j in range(8):
            state[j] = common[j]
        while end - at >= 64:
            _mix(state, data, at)
            at += 64
        rest = end - at
        size = 64 if rest < 56 else 128
        for j in range(rest):
            tail[j] = data[at + j]
        tail[rest] = 0x80
        for j in range(rest + 1, size - 8):
            tail[j] = 0
        bits = 8 * np.uint64(len(prefix) + end - begin)
        for j in range(8):
            tail[size - 1 - j] = np.uint8(bits >> np.uint64(8 * j) & np.uint64(0xFF))
        for j in range(0, size, 64):
            _mix(state, tail, j)
        at = end
        a, b, c, d = np.uint64(state[3]), np.uint64(state[2]), np.uint64(state[7]), np.uint64(state[6])
        out[i, 0] = _swapped(a) | _swapped(b) << np.uint64(32)
        out[i, 1] = _swapped(c) | _swapped(d) << np.uint64(32)
