"""The prime-order group ristretto255: points and scalars of 32 bytes, one at a time or many at once.

Encodings, the one-way map and the check of encodings are RFC 9496; hashing to points and scalars is
`expand_message_xmd` with SHA-512 of RFC 9380, as RFC 9497 uses it. The arithmetic is libsodium's, whose
running time does not depend on the values. A scalar is little-endian and below `ORDER`.
"""

import contextlib
import ctypes
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from rbcl._sodium import lib_path

from fedmkt.crypto.prg import Random

POINT_BYTES = 32
SCALAR_BYTES = 32
UNIFORM_BYTES = 64
ORDER = 2**252 + 27742317777372353535851937790883648493
IDENTITY = bytes(POINT_BYTES)
GENERATOR = bytes.fromhex("e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76")

_HASH_BYTES = 64
_HASH_BLOCK_PAD = hashlib.sha512(bytes(128))
_ORDER_WORDS = [ORDER >> (64 * i) & (2**64 - 1) for i in range(4)]
_CHUNK = 1024
_THREADS = min(8, os.cpu_count() or 1)

_Call = Callable[..., int]


def _load(handle: ctypes.CDLL, name: str, arguments: int) -> _Call:
    function = handle[f"crypto_{name}"]
    function.argtypes = [ctypes.c_void_p] * arguments
    return function


# The long calls of lists let other threads run; for a short call, handing over costs more than the call.
_releasing, _holding = ctypes.CDLL(lib_path), ctypes.PyDLL(lib_path)
# rbcl writes libsodium to a temporary file at every start and leaves it there; once loaded it is not needed.
with contextlib.suppress(OSError):
    os.unlink(lib_path)

_multiply = _load(_releasing, "scalarmult_ristretto255", 3)
_multiply_generator = _load(_releasing, "scalarmult_ristretto255_base", 2)
_from_hash = _load(_releasing, "core_ristretto255_from_hash", 2)
_is_valid_point = _load(_holding, "core_ristretto255_is_valid_point", 1)
_add = _load(_holding, "core_ristretto255_add", 3)
_subtract = _load(_holding, "core_ristretto255_sub", 3)
_scalar_reduce = _load(_holding, "core_ristretto255_scalar_reduce", 2)
_scalar_invert = _load(_holding, "core_ristretto255_scalar_invert", 2)
_scalar_add = _load(_holding, "core_ristretto255_scalar_add", 3)
_scalar_subtract = _load(_holding, "core_ristretto255_scalar_sub", 3)
_scalar_multiply = _load(_holding, "core_ristretto255_scalar_mul", 3)


def is_valid(point: bytes) -> bool:
    """Tell whether the bytes are the one canonical encoding of an element, the identity included."""
    # libsodium 1.0.18 ignores the top bit, so that every point would have two encodings.
    return len(point) == POINT_BYTES and point[31] < 128 and _is_valid_point(bytes(point)) == 1


def decode(point: bytes) -> bytes:
    """Return a point received from outside; ValueError if invalid or the identity (RFC 9497 section 4.1)."""
    if not is_valid(point):
        raise ValueError("not a valid ristretto255 encoding")
    if point == IDENTITY:
        raise ValueError("the identity is not accepted as a point")
    return bytes(point)


def decode_scalar(scalar: bytes) -> bytes:
    """Return a scalar received from outside, zero included; ValueError unless reduced."""
    if len(scalar) != SCALAR_BYTES or int.from_bytes(scalar, "little") >= ORDER:
        raise ValueError("not a canonical scalar: 32 bytes, little-endian, below the group order")
    return bytes(scalar)


def expand_message(message: bytes, dst: bytes, length: int) -> bytes:
    """Expand into `length` uniform bytes, separated by `dst` (expand_message_xmd, RFC 9380 section 5.3.1)."""
    if len(dst) > 255:
        dst = hashlib.sha512(b"H2C-OVERSIZE-DST-" + dst).digest()
    blocks = -(-length // _HASH_BYTES)
    if not dst or not 0 < length < 2**16 or blocks > 255:
        raise ValueError(f"cannot expand to {length} bytes under a tag of {len(dst)} bytes")
    dst = dst + bytes([len(dst)])
    first = _HASH_BLOCK_PAD.copy()
    first.update(message + length.to_bytes(2, "big") + b"\0" + dst)
    seed = first.digest()
    block = hashlib.sha512(seed + b"\1" + dst).digest()
    out = [block]
    for i in range(2, blocks + 1):
        mixed = bytes(a ^ b for a, b in zip(seed, block, strict=True))
        block = hashlib.sha512(mixed + bytes([i]) + dst).digest()
        out.append(block)
    return b"".join(out)[:length]


def from_uniform(uniform: bytes) -> bytes:
    """Map 64 uniform bytes to a point (RFC 9496 section 4.3.4)."""
    if len(uniform) != UNIFORM_BYTES:
        raise ValueError(f"the one-way map takes {UNIFORM_BYTES} bytes, got {len(uniform)}")
    out = ctypes.create_string_buffer(POINT_BYTES)
    _from_hash(out, uniform)
    return out.raw


def hash_to_group(message: bytes, dst: bytes) -> bytes:
    """Hash to a point whose logarithm nobody knows."""
    return from_uniform(expand_message(message, dst, UNIFORM_BYTES))


def hash_to_scalar(message: bytes, dst: bytes) -> bytes:
    """Hash to a scalar, uniform up to 2^-260."""
    return reduce(expand_message(message, dst, UNIFORM_BYTES))


def reduce(uniform: bytes) -> bytes:
    """Reduce 64 bytes, little-endian, modulo the group order."""
    if len(uniform) != UNIFORM_BYTES:
        raise ValueError(f"a scalar is reduced from {UNIFORM_BYTES} bytes, got {len(uniform)}")
    out = ctypes.create_string_buffer(SCALAR_BYTES)
    _scalar_reduce(out, uniform)
    return out.raw


def random_scalar(random: Random) -> bytes:
    """Draw a scalar other than zero from one request of 64 bytes."""
    scalar = reduce(random(UNIFORM_BYTES))
    if not any(scalar):
        raise ValueError("the random source returned a multiple of the group order")
    return scalar


def multiply(scalar: bytes, point: bytes) -> bytes:
    """Return scalar * point; the identity is allowed on both sides of the equation."""
    out = ctypes.create_string_buffer(POINT_BYTES)
    # libsodium answers -1 both for an invalid point and for the identity as result; `out` stays zero then.
    if _multiply(out, decode_scalar(scalar), _bounded(point)) != 0 and not is_valid(point):
        raise ValueError("not a valid ristretto255 encoding")
    return out.raw


def multiply_generator(scalar: bytes) -> bytes:
    """Return scalar * generator."""
    out = ctypes.create_string_buffer(POINT_BYTES)
    _multiply_generator(out, decode_scalar(scalar))
    return out.raw


def add(left: bytes, right: bytes) -> bytes:
    """Return left + right."""
    return _combined(_add, left, right)


def subtract(left: bytes, right: bytes) -> bytes:
    """Return left - right."""
    return _combined(_subtract, left, right)


def invert(scalar: bytes) -> bytes:
    """Return 1 / scalar; ValueError for zero."""
    out = ctypes.create_string_buffer(SCALAR_BYTES)
    if _scalar_invert(out, decode_scalar(scalar)) != 0:
        raise ValueError("zero has no inverse")
    return out.raw


def add_scalars(left: bytes, right: bytes) -> bytes:
    """Return left + right modulo the group order."""
    return _combined_scalars(_scalar_add, left, right)


def subtract_scalars(left: bytes, right: bytes) -> bytes:
    """Return left - right modulo the group order."""
    return _combined_scalars(_scalar_subtract, left, right)


def multiply_scalars(left: bytes, right: bytes) -> bytes:
    """Return left * right modulo the group order."""
    return _combined_scalars(_scalar_multiply, left, right)


def random_scalars(random: Random, count: int) -> NDArray[np.uint8]:
    """Draw `count` scalars other than zero from one request; (count, 32)."""
    uniform = np.frombuffer(random(UNIFORM_BYTES * count), dtype=np.uint8)
    if uniform.size != UNIFORM_BYTES * count:
        raise ValueError(f"the random source returned {uniform.size} bytes, not {UNIFORM_BYTES * count}")
    out = np.empty((count, SCALAR_BYTES), dtype=np.uint8)
    source, target = uniform.ctypes.data, out.ctypes.data
    for i in range(count):
        _scalar_reduce(target + 32 * i, source + 64 * i)
    if not out.any(axis=1).all():
        raise ValueError("the random source returned a multiple of the group order")
    return out


def hash_all(messages: Sequence[bytes], dst: bytes) -> NDArray[np.uint8]:
    """Do `hash_to_group` for many messages; (n, 32)."""
    out = np.empty((len(messages), POINT_BYTES), dtype=np.uint8)
    target = out.ctypes.data

    def work(start: int, stop: int) -> int:
        for i in range(start, stop):
            _from_hash(target + 32 * i, expand_message(messages[i], dst, UNIFORM_BYTES))
        return stop

    _in_chunks(len(messages), work)
    return out


def multiply_all(scalar: bytes, points: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return scalar * point for many points; (n, 32).

    ValueError if the scalar is zero, or names the first index whose point is invalid or the identity.
    """
    key = np.frombuffer(decode_scalar(scalar), dtype=np.uint8)
    if not key.any():
        raise ValueError("the scalar is zero")
    return _products(key, 0, _rows(points, "points"))


def multiply_each(scalars: NDArray[np.uint8], points: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return scalars[i] * points[i]; (n, 32).

    ValueError names the first index whose scalar is zero or not reduced, or whose point is invalid or the
    identity.
    """
    scalars, points = _scalar_rows(scalars), _rows(points, "points")
    if len(scalars) != len(points):
        raise ValueError(f"{len(scalars)} scalars for {len(points)} points")
    return _products(scalars, SCALAR_BYTES, points)


def invert_all(scalars: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return 1 / scalar for many scalars with one inversion in all (Montgomery's trick); (n, 32).

    ValueError names the first index whose scalar is zero or not reduced.
    """
    scalars = _scalar_rows(scalars)
    out = np.empty_like(scalars)
    n = len(scalars)
    if not n:
        return out
    source, target = scalars.ctypes.data, out.ctypes.data
    out[0] = scalars[0]
    for i in range(1, n):
        _scalar_multiply(target + 32 * i, target + 32 * (i - 1), source + 32 * i)
    running = ctypes.create_string_buffer(invert(out[n - 1].tobytes()), SCALAR_BYTES)
    for i in range(n - 1, 0, -1):
        _scalar_multiply(target + 32 * i, target + 32 * (i - 1), running)
        _scalar_multiply(running, running, source + 32 * i)
    out[0] = np.frombuffer(running.raw, dtype=np.uint8)
    return out


def _bounded(point: bytes) -> bytes:
    """Check of an encoding what libsodium does not: its length and its top bit."""
    if len(point) != POINT_BYTES or point[31] >= 128:
        raise ValueError("not a valid ristretto255 encoding")
    return bytes(point)


def _combined(operation: _Call, left: bytes, right: bytes) -> bytes:
    out = ctypes.create_string_buffer(POINT_BYTES)
    if operation(out, _bounded(left), _bounded(right)) != 0:
        raise ValueError("not a valid ristretto255 encoding")
    return out.raw


def _combined_scalars(operation: _Call, left: bytes, right: bytes) -> bytes:
    out = ctypes.create_string_buffer(SCALAR_BYTES)
    operation(out, decode_scalar(left), decode_scalar(right))
    return out.raw


def _rows(array: NDArray[np.uint8], what: str) -> NDArray[np.uint8]:
    if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != 32:
        raise ValueError(f"{what} are (n, 32) uint8, got {array.shape} {array.dtype}")
    return np.ascontiguousarray(array)


def _scalar_rows(scalars: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scalars = _rows(scalars, "scalars")
    words = scalars.view("<u8")
    above = np.ones(len(words), dtype=bool)
    for column, limit in enumerate(_ORDER_WORDS):
        above = (words[:, column] > limit) | ((words[:, column] == limit) & above)
    bad = np.flatnonzero(above | ~words.any(axis=1))
    if bad.size:
        raise ValueError(f"scalar {bad[0]} is zero or not below the group order")
    return scalars


def _products(scalars: NDArray[np.uint8], step: int, points: NDArray[np.uint8]) -> NDArray[np.uint8]:
    out = np.empty_like(points)
    key, source, target = scalars.ctypes.data, points.ctypes.data, out.ctypes.data

    def work(start: int, stop: int) -> int:
        for i in range(start, stop):
            # The order is prime and no scalar is zero: the result is the identity only if the point is.
            if _multiply(target + 32 * i, key + step * i, source + 32 * i) != 0:
                return i
        return stop

    high = np.flatnonzero(points[:, 31] >= 128)  # see is_valid
    bad = _in_chunks(int(high[0]) if high.size else len(points), work)
    if bad is None and high.size:
        bad = int(high[0])
    if bad is not None:
        raise ValueError(f"point {bad} is not a valid ristretto255 encoding, or is the identity")
    return out


def _in_chunks(count: int, work: Callable[[int, int], int]) -> int | None:
    """Run `work(start, stop)` over all of range(count); return the first index at which one gave up."""
    ranges = [(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    if len(ranges) <= 1 or _THREADS == 1:
        reached = [work(start, stop) for start, stop in ranges]
    else:
        with ThreadPoolExecutor(_THREADS) as pool:
            reached = list(pool.map(lambda span: work(*span), ranges))
    return next((i for i, (_, stop) in zip(reached, ranges, strict=True) if i != stop), None)
