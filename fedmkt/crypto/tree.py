"""The hash tree of RFC 6962 section 2.1: a root over leaves, and proofs that it holds what it should.

SHA-256; leaves and nodes are hashed under different prefixes, so that neither passes for the other. An
inclusion proof shows that a leaf is at its place below a root; a consistency proof shows that a later root
only appended to an earlier one. `size` is always the number of leaves, `index` counts from 0.
"""

import hashlib
from collections.abc import Iterable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Hash the bytes of one leaf."""
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Join the hashes of two neighbouring subtrees."""
    return hashlib.sha256(b"\1" + left + right).digest()


class Tree:
    """A growing tree that remembers every full subtree, so that a root or a proof costs a hash per level.

    Level k holds the roots of its full subtrees of 2^k leaves, in their order: 64 bytes for each leaf in all.
    """

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels: list[bytearray] = [bytearray()]
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        """How many leaves were appended."""
        return len(self._levels[0]) // HASH_BYTES

    def append(self, leaf: bytes) -> int:
        """Append the bytes of a leaf and return its index."""
        return self.append_hash(leaf_hash(leaf))

    def append_hash(self, leaf: bytes) -> int:
        """Append a leaf of which only the hash is at hand and return its index."""
        index, node, level = self.size, _checked(leaf), 0
        self._levels[0] += node
        while index >> level & 1:
            node = node_hash(bytes(self._levels[level][-2 * HASH_BYTES : -HASH_BYTES]), node)
            level += 1
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += node
        return index

    def hashes(self, level: int, start: int, stop: int) -> bytes:
        """Return the roots of full subtrees of 2^level leaves, from number `start` to before `stop`, 32 bytes each."""
        nodes = self._levels[level] if level < len(self._levels) else b""
        if not 0 <= start <= stop <= len(nodes) // HASH_BYTES:
            raise ValueError(
                f"no full subtrees {start} to {stop} of 2^{level} leaves in a tree of {self.size}"
            )
        return bytes(nodes[start * HASH_BYTES : stop * HASH_BYTES])

    def root(self, size: int | None = None) -> bytes:
        """Return the root over the first `size` leaves, or over all so far; of no leaves, the hash of nothing."""
        stop = self.size if size is None else size
        if not 0 <= stop <= self.size:
            raise ValueError(f"no tree of {stop} out of {self.size} leaves")
        return self._root(0, stop) if stop else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Prove leaf `index` in the tree of the first `size` leaves; nearest neighbour first."""
        if not 0 <= index < size <= self.size:
            raise ValueError(f"no leaf {index} in a tree of {size} out of {self.size} leaves")
        proof: list[bytes] = []
        start, stop = 0, size
        while stop - start > 1:
            middle = start + _split(stop - start)
            if index < middle:
                proof.append(self._root(middle, stop))
                stop = middle
            else:
                proof.append(self._root(start, middle))
                start = middle
        return proof[::-1]

    def consistency_proof(self, first: int, second: int) -> list[bytes]:
        """Prove that the tree of the first `second` leaves starts with the tree of the first `first`."""
        if not 0 <= first <= second <= self.size:
            raise ValueError(f"no proof from size {first} to {second} out of {self.size} leaves")
        if first in (0, second):
            return []
        proof: list[bytes] = []
        start, stop = 0, second
        while stop != first:
            middle = start + _split(stop - start)
            if first <= middle:
                proof.append(self._root(middle, stop))
                stop = middle
            else:
                proof.append(self._root(start, middle))
                start = middle
        if start:
            # The verifier has the first root itself only when that root is a full subtree of the second tree.
            proof.append(self._root(start, stop))
        return proof[::-1]

    def _root(self, start: int, stop: int) -> bytes:
        """Return the root over some leaves that begin where the RFC parts a tree: at a multiple of a full subtree."""
        count = stop - start
        if count & (count - 1) == 0:
            level = count.bit_length() - 1
            at = (start >> level) * HASH_BYTES
            return bytes(self._levels[level][at : at + HASH_BYTES])
        middle = start + _split(count)
        return node_hash(self._root(start, middle), self._root(middle, stop))


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Return the root over the bytes of these leaves."""
    return Tree(leaves).root()


def root_of_hashes(hashes: Iterable[bytes]) -> bytes:
    """Return the root over leaves given by their hashes."""
    tree = Tree()
    for leaf in hashes:
        tree.append_hash(leaf)
    return tree.root()


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raise ValueError unless the leaf with this hash is number `index` of the `size` leaves below `root`."""
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    node, place, last = _checked(leaf), index, size - 1
    for sibling in proof:
        if last == 0:
            raise ValueError("the inclusion proof is too long")
        if place & 1 or place == last:
            node = node_hash(_checked(sibling), node)
            place, last = _climbed(place, last)
        else:
            node = node_hash(node, _checked(sibling))
        place, last = place >> 1, last >> 1
    if last != 0:
        raise ValueError("the inclusion proof is too short")
    if node != _checked(root):
        raise ValueError(f"the inclusion proof of leaf {index} does not lead to the root")


def verify_consistency(
    first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> None:
    """Raise ValueError unless the tree of size `second` only appends to the tree of size `first`.

    Everything starts with the empty tree: then the proof is empty and only `first_root` is checked.
    """
    if not 0 <= first <= second:
        raise ValueError(f"a tree of {second} leaves does not continue one of {first}")
    first_root, second_root = _checked(first_root), _checked(second_root)
    if first in (0, second):
        if first == 0 and first_root != EMPTY_ROOT:
            raise ValueError("the root of no leaves is the hash of nothing")
        if first == second and first_root != second_root:
            raise ValueError("two roots for one size")
        if proof:
            raise ValueError("the consistency proof is too long")
        return
    path = [_checked(node) for node in proof]
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    if not path:
        raise ValueError("the consistency proof is too short")
    place, last = first - 1, second - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    _verify_path(path, place, last, first_root, second_root)


def _verify_path(path: list[bytes], place: int, last: int, first_root: bytes, second_root: bytes) -> None:
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ValueError("the consistency proof is too long")
        if place & 1 or place == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            place, last = _climbed(place, last)
        else:
            new = node_hash(new, sibling)
        place, last = place >> 1, last >> 1
    if last != 0:
        raise ValueError("the consistency proof is too short")
    if old != first_root:
        raise ValueError("the consistency proof does not lead to the first root")
    if new != second_root:
        raise ValueError("the consistency proof does not lead to the second root")


def _climbed(place: int, last: int) -> tuple[int, int]:
    """Skip the levels at which the right edge of the tree has no sibling."""
    while place and not place & 1:
        place, last = place >> 1, last >> 1
    return place, last


def _split(size: int) -> int:
    """Return the largest power of two below `size`, where RFC 6962 parts a tree."""
    return 1 << ((size - 1).bit_length() - 1)


def _checked(node: bytes) -> bytes:
    if len(node) != HASH_BYTES:
        raise ValueError(f"a hash has {HASH_BYTES} bytes, got {len(node)}")
    return node
