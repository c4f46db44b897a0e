"""AES-128 on blocks inside compiled loops, and products of binary polynomials: the tools of the fast engines.

A block is two uint64 words, little-endian as in memory. Round keys of one key are 22 words. On processors with
the AES and carry-less multiply instructions (FIPS 197 in hardware, running time independent of the data) the
loops use these; elsewhere, or with FEDMKT_PORTABLE=1, tables give the same bytes, some ten times slower and with
a running time that may depend on the data: another process on such a machine could learn from it.

AES is used with keys that are public or live for one run: as a hash with a fixed key (Guo, Katz, Wang, Yu 2020)
and to expand seeds in counter mode. Messages are sealed elsewhere (`seal`), by the `cryptography` package.
This module imports numba at once: import it only where an engine begins.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba.core import config as _numba_config
from numba.core import errors
from numba.extending import intrinsic
from numba.np import arrayobj
from numpy.typing import NDArray

from fedmkt import compiled

Words = NDArray[np.uint64]
_settings: Any = _numba_config
_types: Any = numba.types
_make_array: Any = arrayobj.make_array
KEY_WORDS = 22
"""Words of the eleven round keys of one key."""


def processor_has(*features: str) -> bool:
    """Tell whether compiled loops may use these instructions of the processor."""
    if os.environ.get("FEDMKT_PORTABLE") == "1" or _settings.DISABLE_JIT:
        return False
    if (
        _settings.CPU_NAME or _settings.CPU_FEATURES
    ):  # numba was told to build for another processor than this one
        told = str(_settings.CPU_FEATURES or "").split(",")
        return all(f"+{feature}" in told for feature in features)
    known = binding.get_host_cpu_features()
    return all(known.get(feature, False) for feature in features)


IN_HARDWARE = processor_has("aes", "pclmul", "sse2")
"""Whether the loops use the processor's own instructions."""

kernel: Callable[..., Any] = partial(compiled.kernel, keep=os.environ.get("FEDMKT_PORTABLE") != "1")
"""Compile a loop that uses this module: the code kept on disk is for the instructions of this processor."""


def _tables() -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """Compute the S-box of FIPS 197 and its products with the column (2, 1, 1, 3), as little-endian words."""
    box = np.zeros(256, dtype=np.uint8)
    p = q = 1
    for _ in range(255):
        p ^= (p << 1) & 0xFF ^ (0x1B if p & 0x80 else 0)
        q ^= q << 1
        q ^= q << 2
        q ^= q << 4
        q &= 0xFF
        q ^= 0x09 if q & 0x80 else 0
        turned = [q << i | q >> (8 - i) for i in range(5)]
        box[p] = (turned[0] ^ turned[1] ^ turned[2] ^ turned[3] ^ turned[4] ^ 0x63) & 0xFF
    box[0] = 0x63
    s = box.astype(np.uint32)
    double = (s << np.uint32(1)) ^ np.where(s & np.uint32(0x80), np.uint32(0x11B), np.uint32(0)).astype(
        np.uint32
    )
    mixed = double | s << np.uint32(8) | s << np.uint32(16) | (double ^ s) << np.uint32(24)
    return box, mixed


_BOX, _MIXED = _tables()


def round_keys(keys: NDArray[np.uint8]) -> Words:
    """Expand keys (k, 16) into their round keys (k, 22), FIPS 197 section 5.2."""
    if keys.ndim != 2 or keys.shape[1] != 16 or keys.dtype != np.uint8:
        raise ValueError("keys are (k, 16) bytes")
    out = np.empty((len(keys), 44, 4), dtype=np.uint8)
    out[:, :4] = keys.reshape(-1, 4, 4)
    constant = 1
    for i in range(4, 44):
        word = out[:, i - 1]
        if i % 4 == 0:
            word = _BOX[np.roll(word, -1, axis=1)]
            word[:, 0] ^= constant
            constant = (constant << 1) ^ (0x11B if constant & 0x80 else 0)
        out[:, i] = out[:, i - 4] ^ word
    return out.reshape(len(keys), 176).view("<u8").astype(np.uint64, copy=False)


_VECTOR = ir.VectorType(ir.IntType(64), 2)


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = _make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


def _external(builder: Any, name: str, kind: Any) -> Any:
    return builder.module.globals.get(name) or ir.Function(builder.module, kind, name)


@intrinsic
def _encrypt_in_hardware(
    typing: Any, source: Any, at: Any, target: Any, to: Any, keys: Any, key: Any, count: Any
) -> Any:
    if not isinstance(count, _types.IntegerLiteral):
        raise errors.RequireLiteralValue("count")
    blocks = count.literal_value
    index = _types.int64
    signature = _types.void(source, index, target, index, keys, index, count)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kinds = signature.args
        come, go, schedule = (
            _address(context, builder, kinds[i], values[i], values[i + 1]) for i in (0, 2, 4)
        )
        two = ir.FunctionType(_VECTOR, [_VECTOR, _VECTOR])
        middle = _external(builder, "llvm.x86.aesni.aesenc", two)
        last = _external(builder, "llvm.x86.aesni.aesenclast", two)

        def load(pointer: Any, i: int) -> Any:
            return builder.load(builder.gep(pointer, [ir.Constant(ir.IntType(32), i)]), align=8)

        rounds = [load(schedule, i) for i in range(11)]
        state = [builder.xor(load(come, i), rounds[0]) for i in range(blocks)]
        for i in range(1, 10):
            state = [builder.call(middle, [s, rounds[i]]) for s in state]
        state = [builder.call(last, [s, rounds[10]]) for s in state]
        for i, s in enumerate(state):
            builder.store(s, builder.gep(go, [ir.Constant(ir.IntType(32), i)]), align=8)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _multiply_in_hardware(typing: Any, a: Any, b: Any) -> Any:
    signature = _types.UniTuple(_types.uint64, 2)(_types.uint64, _types.uint64)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR, _VECTOR, ir.IntType(8)])
        multiply = _external(builder, "llvm.x86.pclmulqdq", kind)
        low, high = (ir.Constant(ir.IntType(32), i) for i in (0, 1))
        zero = ir.Constant(_VECTOR, [0, 0])
        x, y = (builder.insert_element(zero, value, low) for value in values)
        product = builder.call(multiply, [x, y, ir.Constant(ir.IntType(8), 0)])
        parts = [builder.extract_element(product, i) for i in (low, high)]
        return context.make_tuple(builder, signature.return_type, parts)

    return signature, generate


@kernel
def _encrypt_by_tables(
    source: Words, at: int, target: Words, to: int, keys: Words, key: int, count: int
) -> None:
    state = np.empty(4, dtype=np.uint32)
    mixed = np.empty(4, dtype=np.uint32)
    byte = np.uint32(0xFF)
    for block in range(count):
        for half in range(2):
            word = source[at + 2 * block + half] ^ keys[key + half]
            state[2 * half] = np.uint32(word & np.uint64(0xFFFFFFFF))
            state[2 * half + 1] = np.uint32(word >> np.uint64(32))
        for step in range(1, 11):
            for c in range(4):
                a, b = state[c] & byte, (state[(c + 1) % 4] >> np.uint32(8)) & byte
                d, e = (state[(c + 2) % 4] >> np.uint32(16)) & byte, state[(c + 3) % 4] >> np.uint32(24)
                if step < 10:
                    x, y, z = _MIXED[b], _MIXED[d], _MIXED[e]
                    mixed[c] = (
                        _MIXED[a]
                        ^ (x << np.uint32(8) | x >> np.uint32(24))
                        ^ (y << np.uint32(16) | y >> np.uint32(16))
                        ^ (z << np.uint32(24) | z >> np.uint32(8))
                    )
                else:
                    mixed[c] = (
                        np.uint32(_BOX[a])
                        | np.uint32(_BOX[b]) << np.uint32(8)
                        | np.uint32(_BOX[d]) << np.uint32(16)
                        | np.uint32(_BOX[e]) << np.uint32(24)
                    )
            for half in range(2):
                word = keys[key + 2 * step + half]
                state[2 * half] = mixed[2 * half] ^ np.uint32(word & np.uint64(0xFFFFFFFF))
                state[2 * half + 1] = mixed[2 * half + 1] ^ np.uint32(word >> np.uint64(32))
        for half in range(2):
            target[to + 2 * block + half] = np.uint64(state[2 * half + 1]) << np.uint64(32) | np.uint64(
                state[2 * half]
            )


@kernel
def _multiply_by_shifts(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    low, high = np.uint64(0), np.uint64(0)
    x, y = np.uint64(a), np.uint64(b)
    for i in range(64):
        take = np.uint64(0) - (y >> np.uint64(i) & np.uint64(1))
        low ^= x << np.uint64(i) & take
        if i:
            high ^= x >> np.uint64(64 - i) & take
    return low, high


encrypt: Any = _encrypt_in_hardware if IN_HARDWARE else _encrypt_by_tables
"""Call in a kernel: encrypt(source, at, target, to, keys, key, count) encrypts `count` blocks (a literal, 1 to 8).

From words source[at:] to target[to:] under the round keys at keys[key:]; the arrays are flat uint64 in C order,
source and target may be the same place. Eight blocks at once keep the instruction's pipeline full.
"""

multiply: Any = _multiply_in_hardware if IN_HARDWARE else _multiply_by_shifts
"""Call in a kernel: multiply(a, b) is the carry-less product of two words, as (low, high)."""


@kernel
def _encrypt_all(source: Words, target: Words, keys: Words) -> None:
    n = source.size // 2
    whole = n - n % 8
    for i in range(0, whole, 8):
        encrypt(source, 2 * i, target, 2 * i, keys, 0, 8)
    for i in range(whole, n):
        encrypt(source, 2 * i, target, 2 * i, keys, 0, 1)


def encrypt_all(blocks: Words, keys: Words) -> Words:
    """Encrypt each block of (n, 2) words under one key's round keys (22,); the same shape."""
    out = np.empty_like(blocks)
    _encrypt_all(
        np.ascontiguousarray(blocks).reshape(-1), out.reshape(-1), np.ascontiguousarray(keys).reshape(-1)
    )
    return out
