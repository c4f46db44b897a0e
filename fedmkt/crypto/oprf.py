"""Oblivious pseudorandom functions: the ciphersuite ristretto255-SHA512 of RFC 9497, all three modes.

Who learns what, of one evaluation:

| party    | has           | learns                                          |
|----------|---------------|-------------------------------------------------|
| receiver | inputs        | F(key, input) of its inputs, nothing of the key |
| sender   | key (info)    | how many inputs                                 |

Modes: `OPRF` as such; `VOPRF`: the sender also proves that it used the key of its public key; `POPRF`: that,
and both agree on a public `info`. Safe against a malicious receiver and, for VOPRF and POPRF, against a
sender that uses several keys; in mode OPRF a sender may use any key it likes. Each evaluation under one key
costs strength (RFC 9497 section 7.2.3: of 128 bits log2(Q) / 2 after Q of them), so a key lives for one run, or for a
set that is kept, and answers at most `MOST_EVALUATIONS`: 113 bits are left then.

The functions ending in `_all` and `evaluate_inputs` are mode OPRF over whole lists, for intersections.
Letters of section 2.2: the proof shows that D[i] = k C[i] for the k of B = k A.
"""

import hashlib
import hmac
from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from fedmkt.crypto import group
from fedmkt.crypto.prg import Random

OUTPUT_BYTES = 64
PROOF_BYTES = 64
SEED_BYTES = 32
MOST_EVALUATIONS = 2**30
"""How many points of others one key may answer in its life, in all runs together."""
MAX_LENGTH = 2**16 - 1
"""Longest input and longest `info`, in bytes, and most points under one proof."""


class Mode(IntEnum):
    """Which of the three protocols; each has its own keys and outputs."""

    OPRF = 0
    VOPRF = 1
    POPRF = 2


@dataclass(frozen=True)
class KeyPair:
    """A sender's key; `public` is what the proofs are checked against."""

    secret: bytes = field(repr=False)
    public: bytes


@dataclass(frozen=True)
class Blinded:
    """An input on its way out: `point` is sent, `scalar` stays to undo the blinding."""

    scalar: bytes = field(repr=False)
    point: bytes


@dataclass(frozen=True)
class Evaluated:
    """The sender's answer: a point per blinded point, and one proof for all of them."""

    points: tuple[bytes, ...]
    proof: bytes


def context(mode: Mode) -> bytes:
    """Return the string that separates this mode and suite from all others (RFC 9497 section 3.1)."""
    return b"OPRFV1-" + bytes([mode]) + b"-ristretto255-SHA512"


_GROUP_TAG = {mode: b"HashToGroup-" + context(mode) for mode in Mode}
_SCALAR_TAG = {mode: b"HashToScalar-" + context(mode) for mode in Mode}


def new_key(random: Random) -> bytes:
    """Make a key for one run: 32 bytes."""
    return group.random_scalar(random)


def key_pair(secret: bytes) -> KeyPair:
    """Join a secret key and its public key; ValueError unless it is a scalar other than zero."""
    return KeyPair(_checked_key(secret), group.multiply_generator(secret))


def derive_key_pair(seed: bytes, info: bytes, mode: Mode) -> KeyPair:
    """Derive a key from 32 secret bytes, for the purpose `info` (RFC 9497 section 3.2.1)."""
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes, got {len(seed)}")
    for counter in range(256):
        secret = group.hash_to_scalar(
            seed + _framed(info) + bytes([counter]), b"DeriveKeyPair" + context(mode)
        )
        if any(secret):
            return key_pair(secret)
    raise ValueError("no key can be derived from this seed")


def blind(value: bytes, random: Random, mode: Mode) -> Blinded:
    """Hide an input behind a fresh scalar; the same function for all modes."""
    point = _input_point(value, mode)
    scalar = group.random_scalar(random)
    return Blinded(scalar, group.multiply(scalar, point))


def evaluate(secret: bytes, value: bytes, mode: Mode) -> bytes:
    """Compute the function on the sender's own input, modes OPRF and VOPRF; 64 bytes."""
    _refuse_tagged(mode)
    return _output(value, group.multiply(_checked_key(secret), _input_point(value, mode)))


def evaluate_blinded(secret: bytes, point: bytes) -> bytes:
    """Answer a blinded point without a proof, mode OPRF."""
    return group.multiply(_checked_key(secret), group.decode(point))


def finalize(value: bytes, scalar: bytes, evaluated: bytes) -> bytes:
    """Undo the blinding and hash to the 64-byte output, mode OPRF."""
    return _output(value, _unblinded(scalar, evaluated))


def evaluate_with_proof(keys: KeyPair, points: Sequence[bytes], random: Random) -> Evaluated:
    """Answer blinded points and prove that one key was used for all, mode VOPRF."""
    evaluated = [evaluate_blinded(keys.secret, point) for point in points]
    proof = prove(keys.secret, group.GENERATOR, keys.public, points, evaluated, random, Mode.VOPRF)
    return Evaluated(tuple(evaluated), proof)


def finalize_verified(
    values: Sequence[bytes], blinded: Sequence[Blinded], answer: Evaluated, public: bytes
) -> list[bytes]:
    """Check the proof against the sender's public key, then undo the blinding, mode VOPRF."""
    _same_length(values, blinded)
    points = [one.point for one in blinded]
    verify(group.GENERATOR, group.decode(public), points, answer.points, answer.proof, Mode.VOPRF)
    return [
        finalize(value, one.scalar, point)
        for value, one, point in zip(values, blinded, answer.points, strict=True)
    ]


def tweaked_key(public: bytes, info: bytes) -> bytes:
    """Return the public key that belongs to `info`, mode POPRF; ValueError if it is the identity."""
    return group.decode(group.add(group.multiply_generator(_info_scalar(info)), group.decode(public)))


def evaluate_tagged(secret: bytes, value: bytes, info: bytes) -> bytes:
    """Compute the function on the sender's own input under `info`, mode POPRF; 64 bytes."""
    inverse = group.invert(_tweaked_secret(secret, info))
    return _output(value, group.multiply(inverse, _input_point(value, Mode.POPRF)), _framed(info))


def evaluate_tagged_with_proof(
    secret: bytes, points: Sequence[bytes], info: bytes, random: Random
) -> Evaluated:
    """Answer blinded points under `info` with a proof, mode POPRF."""
    tweaked = _tweaked_secret(secret, info)
    inverse = group.invert(tweaked)
    evaluated = [group.multiply(inverse, group.decode(point)) for point in points]
    public = group.multiply_generator(tweaked)
    # C and D change places: the answers times the tweaked key are the blinded points.
    proof = prove(tweaked, group.GENERATOR, public, evaluated, points, random, Mode.POPRF)
    return Evaluated(tuple(evaluated), proof)


def finalize_tagged(
    values: Sequence[bytes], blinded: Sequence[Blinded], answer: Evaluated, info: bytes, public: bytes
) -> list[bytes]:
    """Check the proof against the sender's public key and `info`, then undo the blinding, mode POPRF."""
    _same_length(values, blinded)
    points = [one.point for one in blinded]
    tweaked = tweaked_key(public, info)
    verify(group.GENERATOR, tweaked, answer.points, points, answer.proof, Mode.POPRF)
    return [
        _output(value, _unblinded(one.scalar, point), _framed(info))
        for value, one, point in zip(values, blinded, answer.points, strict=True)
    ]


def prove(
    k: bytes, A: bytes, B: bytes, C: Sequence[bytes], D: Sequence[bytes], random: Random, mode: Mode
) -> bytes:
    """Prove that D[i] = k C[i] for all i and B = k A without showing k; 64 bytes (section 2.2.1)."""
    M = _combination(_weights(B, C, D, mode), C)
    Z = group.multiply(k, M)
    r = group.random_scalar(random)
    c = _challenge(B, M, Z, group.multiply(r, A), group.multiply(r, M), mode)
    return c + group.subtract_scalars(r, group.multiply_scalars(c, k))


def verify(A: bytes, B: bytes, C: Sequence[bytes], D: Sequence[bytes], proof: bytes, mode: Mode) -> None:
    """Raise ValueError unless `proof` shows D[i] = k C[i] for all i and B = k A (section 2.2.2)."""
    if len(proof) != PROOF_BYTES:
        raise ValueError(f"a proof has {PROOF_BYTES} bytes, got {len(proof)}")
    c, s = group.decode_scalar(proof[:32]), group.decode_scalar(proof[32:])
    C, D = [group.decode(point) for point in C], [group.decode(point) for point in D]
    weights = _weights(B, C, D, mode)
    M, Z = _combination(weights, C), _combination(weights, D)
    t2 = group.add(group.multiply(s, A), group.multiply(c, B))
    t3 = group.add(group.multiply(s, M), group.multiply(c, Z))
    if not hmac.compare_digest(_challenge(B, M, Z, t2, t3, mode), c):
        raise ValueError("the proof does not show that one key was used")


def blind_all(inputs: Sequence[bytes], random: Random) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Blind a list in mode OPRF with one request for random bytes: scalars (n, 32) and points (n, 32)."""
    _check_lengths(inputs)
    scalars = group.random_scalars(random, len(inputs))
    return scalars, group.multiply_each(scalars, group.hash_all(inputs, _GROUP_TAG[Mode.OPRF]))


def evaluate_all(key: bytes, points: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Answer a list of blinded points in mode OPRF; (n, 32).

    ValueError names the first index with an invalid encoding or the identity, or says that the key is bad.
    """
    return group.multiply_all(_checked_key(key), points)


def finalize_all(
    inputs: Sequence[bytes], scalars: NDArray[np.uint8], evaluated: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Undo the blinding of a list and hash to the outputs of mode OPRF; (n, 64).

    ValueError names the first index whose answer is invalid or the identity, or whose scalar is bad.
    """
    _check_lengths(inputs)
    _same_length(inputs, evaluated)
    return _outputs(inputs, group.multiply_each(group.invert_all(scalars), evaluated))


def evaluate_inputs(key: bytes, inputs: Sequence[bytes]) -> NDArray[np.uint8]:
    """Compute the function of mode OPRF on the sender's own list; (n, 64), as `finalize_all` gives it."""
    _check_lengths(inputs)
    points = group.hash_all(inputs, _GROUP_TAG[Mode.OPRF])
    return _outputs(inputs, group.multiply_all(_checked_key(key), points))


def _framed(data: bytes) -> bytes:
    if len(data) > MAX_LENGTH:
        raise ValueError(f"at most {MAX_LENGTH} bytes, got {len(data)}")
    return len(data).to_bytes(2, "big") + data


def _checked_key(secret: bytes) -> bytes:
    if not any(group.decode_scalar(secret)):
        raise ValueError("the key is zero")
    return secret


def _refuse_tagged(mode: Mode) -> None:
    if mode == Mode.POPRF:
        raise ValueError("mode POPRF needs info: use evaluate_tagged")


def _same_length(left: Sized, right: Sized) -> None:
    if len(left) != len(right):
        raise ValueError(f"{len(left)} inputs but {len(right)} points")


def _check_lengths(inputs: Sequence[bytes]) -> None:
    for i, value in enumerate(inputs):
        if len(value) > MAX_LENGTH:
            raise ValueError(f"input {i} has {len(value)} bytes, at most {MAX_LENGTH} are possible")


def _input_point(value: bytes, mode: Mode) -> bytes:
    _framed(value)
    return group.decode(group.hash_to_group(value, _GROUP_TAG[mode]))


def _unblinded(scalar: bytes, evaluated: bytes) -> bytes:
    return group.multiply(group.invert(scalar), group.decode(evaluated))


def _output(value: bytes, point: bytes, framed_info: bytes = b"") -> bytes:
    return hashlib.sha512(_framed(value) + framed_info + _framed(point) + b"Finalize").digest()


def _outputs(inputs: Sequence[bytes], points: NDArray[np.uint8]) -> NDArray[np.uint8]:
    out = np.empty((len(inputs), OUTPUT_BYTES), dtype=np.uint8)
    source, target = points.reshape(-1).data, out.reshape(-1).data
    for i, value in enumerate(inputs):
        tail = b"\0\x20" + source[32 * i : 32 * i + 32] + b"Finalize"
        target[64 * i : 64 * i + 64] = hashlib.sha512(len(value).to_bytes(2, "big") + value + tail).digest()
    return out


def _info_scalar(info: bytes) -> bytes:
    return group.hash_to_scalar(b"Info" + _framed(info), _SCALAR_TAG[Mode.POPRF])


def _tweaked_secret(secret: bytes, info: bytes) -> bytes:
    tweaked = group.add_scalars(_checked_key(secret), _info_scalar(info))
    if not any(tweaked):
        raise ValueError("this info undoes the key")
    return tweaked


def _weights(B: bytes, C: Sequence[bytes], D: Sequence[bytes], mode: Mode) -> list[bytes]:
    """One random-looking scalar per pair, fixed by all of them, so that one equation stands for all."""
    if len(C) != len(D) or not 0 < len(C) <= MAX_LENGTH:
        raise ValueError(f"a proof joins 1 to {MAX_LENGTH} pairs, got {len(C)} and {len(D)} points")
    seed = hashlib.sha512(_framed(B) + _framed(b"Seed-" + context(mode))).digest()
    return [
        group.hash_to_scalar(
            _framed(seed) + i.to_bytes(2, "big") + _framed(Ci) + _framed(Di) + b"Composite", _SCALAR_TAG[mode]
        )
        for i, (Ci, Di) in enumerate(zip(C, D, strict=True))
    ]


def _combination(weights: Sequence[bytes], points: Sequence[bytes]) -> bytes:
    total = group.IDENTITY
    for weight, point in zip(weights, points, strict=True):
        total = group.add(group.multiply(weight, point), total)
    return total


def _challenge(B: bytes, M: bytes, Z: bytes, t2: bytes, t3: bytes, mode: Mode) -> bytes:
    transcript = b"".join(_framed(point) for point in (B, M, Z, t2, t3))
    return group.hash_to_scalar(transcript + b"Challenge", _SCALAR_TAG[mode])
