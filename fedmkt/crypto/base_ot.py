"""Base oblivious transfers over ristretto255: pairs of keys, of which the chooser gets the one it chose.

The sender of the transfers ends with two random keys for each index, the chooser with the one of its secret
bit; the sender does not learn the bit, the chooser not the other key. OT extension and VOLE start from these.

Chou and Orlandi, The Simplest Protocol for Oblivious Transfer, Latincrypt 2015 (eprint 2015/267), figure 1,
with its letters: the sender offers S = yB, the chooser answers R = xB + cS, the keys are hashes of yR = xS
and y(R - S). Hashed with them are session, index, S and R, so that a point which is sent twice, or in another
session, gives unrelated keys.

Safe against semi-honest parties if computational Diffie-Hellman is hard, in the random oracle model; the
chooser's bit is hidden without any assumption. The protocol is not UC-secure as its paper claimed: a simulator
cannot extract the bits of a chooser that asks the oracle late (Byali, Patra, Ravi, Sarkar, eprint 2017/1165),
and messages may be altered into related ones of another session (Hauck, Loss, eprint 2017/1011). Neither is
needed here: both parties are semi-honest, messages are sealed between the two, the session is in the hash, and
the keys do nothing but seed generators in that session. Points from outside are checked all the same.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from fedmkt.crypto import group
from fedmkt.crypto.prg import Random

Bytes = NDArray[np.uint8]

KEY_BYTES = 16


def offer(random: Random) -> tuple[bytes, bytes]:
    """Begin as sender: return the secret scalar and the point to send, 32 bytes each."""
    secret = group.random_scalar(random)
    return secret, group.multiply_generator(secret)


def choose(bits: Bytes, point: bytes, random: Random, session: bytes) -> tuple[Bytes, Bytes]:
    """Answer a sender's point for secret `bits` (k,); return the points to send (k, 32) and the keys (k, 16).

    ValueError if the point is invalid or the identity.
    """
    if bits.ndim != 1 or bits.dtype != np.uint8 or bits.max(initial=0) > 1:
        raise ValueError("choices are (k,) uint8, 0 or 1")
    offered = np.frombuffer(group.decode(point), dtype=np.uint8)
    scalars = group.random_scalars(random, len(bits))
    points = np.empty((len(bits), group.POINT_BYTES), dtype=np.uint8)
    # The identity is 32 zero bytes: every index does the same work, whatever its bit.
    addends = offered * bits[:, None]
    for i in range(len(bits)):
        fresh = group.multiply_generator(scalars[i].tobytes())
        points[i] = np.frombuffer(group.add(fresh, addends[i].tobytes()), dtype=np.uint8)
    shared = group.multiply_each(scalars, np.broadcast_to(offered, points.shape))
    return points, _keys(session, point, points, shared)


def derive(secret: bytes, point: bytes, points: Bytes, session: bytes) -> tuple[Bytes, Bytes]:
    """Finish as sender: return the keys of bit 0 and of bit 1 for the chooser's points (k, 32); each (k, 16).

    ValueError names the first point that is invalid or the identity.
    """
    shared = group.multiply_all(secret, points)
    square = group.multiply(secret, point)
    others = np.empty_like(shared)
    for i in range(len(shared)):
        others[i] = np.frombuffer(group.subtract(shared[i].tobytes(), square), dtype=np.uint8)
    return _keys(session, point, points, shared), _keys(session, point, points, others)


def _keys(session: bytes, point: bytes, points: Bytes, shared: Bytes) -> Bytes:
    prefix = hashlib.sha256(b"fedmkt base ot v1\n" + len(session).to_bytes(4, "big") + session + point)
    out = np.empty((len(points), KEY_BYTES), dtype=np.uint8)
    for i in range(len(points)):
        state = prefix.copy()
        state.update(i.to_bytes(4, "big") + points[i].tobytes() + shared[i].tobytes())
        out[i] = np.frombuffer(state.digest()[:KEY_BYTES], dtype=np.uint8)
    return out
