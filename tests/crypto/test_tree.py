"""The hash tree against the reference vectors, the recursive definitions of the RFC, and forged proofs."""

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmkt.crypto import tree

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "rfc6962_sha256.json").read_text())
LEAVES = [bytes.fromhex(leaf) for leaf in VECTORS["leaves"]]
MANY = [b"leaf %d" % i for i in range(40)]
HASHES = [tree.leaf_hash(leaf) for leaf in MANY]


def inclusion_proof(hashes: Sequence[bytes], index: int, size: int) -> list[bytes]:
    return grown(hashes).inclusion_proof(index, size)


def consistency_proof(hashes: Sequence[bytes], first: int, second: int) -> list[bytes]:
    return grown(hashes).consistency_proof(first, second)


def grown(hashes: Sequence[bytes]) -> tree.Tree:
    found = tree.Tree()
    for leaf in hashes:
        found.append_hash(leaf)
    return found


def split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def slow_root(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = split(len(leaves))
    return sha256(b"\x01" + slow_root(leaves[:k]) + slow_root(leaves[k:])).digest()


def slow_path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*slow_path(m, leaves[:k]), slow_root(leaves[k:])]
    return [*slow_path(m - k, leaves[k:]), slow_root(leaves[:k])]


def slow_subproof(m: int, leaves: Sequence[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF of section 2.1.2."""
    if m == len(leaves):
        return [] if whole else [slow_root(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*slow_subproof(m, leaves[:k], whole), slow_root(leaves[k:])]
    return [*slow_subproof(m - k, leaves[k:], False), slow_root(leaves[:k])]


ROOTS = [slow_root(MANY[:size]) for size in range(len(MANY) + 1)]


def flipped(node: bytes) -> bytes:
    return bytes([node[0] ^ 1]) + node[1:]


def altered(proof: list[bytes]) -> list[list[bytes]]:
    """Every proof one mistake away: a hash flipped, taken out or doubled, swapped or added."""
    out = [[*proof[:i], flipped(proof[i]), *proof[i + 1 :]] for i in range(len(proof))]
    out += [[*proof[:i], *proof[i + 1 :]] for i in range(len(proof))]
    out += [[*proof[:i], proof[i], *proof[i:]] for i in range(len(proof))]
    out += [[*proof[:i], proof[i + 1], proof[i], *proof[i + 2 :]] for i in range(len(proof) - 1)]
    return [*out, [*proof, HASHES[0]], [*proof, ROOTS[1]], [HASHES[1], *proof]]


def refused(check: Callable[[], None]) -> bool:
    try:
        check()
    except ValueError:
        return True
    return False


def test_reference_roots_are_reached_by_the_growing_tree() -> None:
    growing = tree.Tree()
    assert growing.root().hex() == VECTORS["empty_root"]
    for index, leaf in enumerate(LEAVES):
        assert growing.append(leaf) == index
        assert growing.root().hex() == VECTORS["roots"][index]
        assert growing.size == index + 1
        assert tree.root_of(LEAVES[: index + 1]) == growing.root()


def test_the_root_of_every_earlier_size_is_still_known() -> None:
    found = grown(HASHES)
    assert [found.root(size) for size in range(len(MANY) + 1)] == ROOTS
    for size in (-1, len(MANY) + 1):
        with pytest.raises(ValueError, match=f"no tree of {size}"):
            found.root(size)


def test_reference_inclusion_proofs_are_made_and_accepted() -> None:
    hashes = [tree.leaf_hash(leaf) for leaf in LEAVES]
    for vector in VECTORS["inclusion"]:
        index, size = vector["index"], vector["size"]
        proof = inclusion_proof(hashes, index, size)
        assert [node.hex() for node in proof] == vector["proof"]
        root = bytes.fromhex(VECTORS["roots"][size - 1])
        tree.verify_inclusion(hashes[index], index, size, proof, root)


def test_reference_consistency_proofs_are_made_and_accepted() -> None:
    hashes = [tree.leaf_hash(leaf) for leaf in LEAVES]
    for vector in VECTORS["consistency"]:
        first, second = vector["first"], vector["second"]
        proof = consistency_proof(hashes, first, second)
        assert [node.hex() for node in proof] == vector["proof"]
        roots = [bytes.fromhex(VECTORS["roots"][size - 1]) for size in (first, second)]
        tree.verify_consistency(first, second, roots[0], roots[1], proof)


def test_every_inclusion_proof_up_to_forty_leaves_is_that_of_the_rfc_and_verifies() -> None:
    for size in range(1, len(MANY) + 1):
        for index in range(size):
            proof = inclusion_proof(HASHES, index, size)
            assert proof == slow_path(index, MANY[:size])
            tree.verify_inclusion(HASHES[index], index, size, proof, ROOTS[size])


def test_every_consistency_proof_up_to_forty_leaves_is_that_of_the_rfc_and_verifies() -> None:
    for second in range(1, len(MANY) + 1):
        for first in range(1, second + 1):
            proof = consistency_proof(HASHES, first, second)
            assert proof == slow_subproof(first, MANY[:second], True)
            tree.verify_consistency(first, second, ROOTS[first], ROOTS[second], proof)


def test_an_inclusion_proof_with_one_mistake_is_refused() -> None:
    for size in range(1, len(MANY) + 1):
        for index in range(size):
            leaf, root = HASHES[index], ROOTS[size]
            proof = inclusion_proof(HASHES, index, size)
            for wrong in altered(proof):
                assert refused(lambda: tree.verify_inclusion(leaf, index, size, wrong, root))  # noqa: B023
            with pytest.raises(ValueError, match="does not lead to the root"):
                tree.verify_inclusion(flipped(leaf), index, size, proof, root)
            with pytest.raises(ValueError, match="does not lead to the root"):
                tree.verify_inclusion(leaf, index, size, proof, flipped(root))


def test_an_inclusion_proof_is_refused_for_every_other_index() -> None:
    for size in range(1, len(MANY) + 1):
        for index in range(size):
            proof = inclusion_proof(HASHES, index, size)
            for other in range(-1, size + 2):
                if other != index:
                    with pytest.raises(ValueError):
                        tree.verify_inclusion(HASHES[index], other, size, proof, ROOTS[size])


def test_an_inclusion_proof_is_refused_under_the_root_of_every_other_size() -> None:
    for size in range(1, len(MANY) + 1):
        for index in range(size):
            proof = inclusion_proof(HASHES, index, size)
            for other in range(1, len(MANY) + 1):
                if other != size:
                    with pytest.raises(ValueError):
                        tree.verify_inclusion(HASHES[index], index, other, proof, ROOTS[other])


def test_an_inner_node_does_not_pass_for_a_leaf() -> None:
    inner = tree.node_hash(HASHES[0], HASHES[1])
    proof = inclusion_proof(HASHES, 0, 8)[1:]
    tree.verify_inclusion(inner, 0, 4, proof, ROOTS[8])  # as hashes alone it fits ...
    assert tree.leaf_hash(HASHES[0] + HASHES[1]) != inner  # ... but no leaf hashes to it
    with pytest.raises(ValueError):
        tree.verify_inclusion(tree.leaf_hash(HASHES[0] + HASHES[1]), 0, 4, proof, ROOTS[8])


def test_a_consistency_proof_with_one_mistake_is_refused() -> None:
    for second in range(1, len(MANY) + 1):
        for first in range(1, second + 1):
            roots = ROOTS[first], ROOTS[second]
            proof = consistency_proof(HASHES, first, second)
            for wrong in altered(proof):
                assert refused(lambda: tree.verify_consistency(first, second, *roots, wrong))  # noqa: B023
            with pytest.raises(ValueError):
                tree.verify_consistency(first, second, flipped(roots[0]), roots[1], proof)
            with pytest.raises(ValueError):
                tree.verify_consistency(first, second, roots[0], flipped(roots[1]), proof)


def test_a_consistency_proof_is_refused_for_other_sizes_under_their_own_roots() -> None:
    for second in range(1, 24):
        for first in range(1, second + 1):
            proof = consistency_proof(HASHES, first, second)
            for other in range(1, 24):
                if other != second:
                    assert refused(
                        lambda: tree.verify_consistency(first, other, ROOTS[first], ROOTS[other], proof)  # noqa: B023
                    )
                if other != first:
                    assert refused(
                        lambda: tree.verify_consistency(other, second, ROOTS[other], ROOTS[second], proof)  # noqa: B023
                    )


def test_a_consistency_proof_that_stops_before_the_second_size_is_consumed_is_refused() -> None:
    # haskell hash-tree 0.1.1: a proof to size 6 was accepted as one to any size of the same shape so far.
    proof = consistency_proof(HASHES, 3, 6)
    with pytest.raises(ValueError, match="too short"):
        tree.verify_consistency(3, 12, ROOTS[3], ROOTS[6], proof)
    with pytest.raises(ValueError, match="too long"):
        tree.verify_consistency(3, 4, ROOTS[3], ROOTS[6], proof)


def test_sizes_are_bound_even_where_the_roots_are_not() -> None:
    for second in range(2, 33):
        for first in range(1, second):
            proof = consistency_proof(HASHES, first, second)
            for other in (2 * second, 4 * second, second << 20):
                with pytest.raises(ValueError):
                    tree.verify_consistency(first, other, ROOTS[first], ROOTS[second], proof)


def test_a_rewritten_history_has_no_consistency_proof() -> None:
    forged = [tree.leaf_hash(b"other"), *HASHES[1:]]
    for first in range(1, 20):
        proof = consistency_proof(forged, first, 20)
        with pytest.raises(ValueError):
            tree.verify_consistency(first, 20, ROOTS[first], tree.root_of_hashes(forged[:20]), proof)


def test_the_empty_tree_is_the_start_of_every_tree_and_has_one_root() -> None:
    assert consistency_proof(HASHES, 0, 5) == []
    tree.verify_consistency(0, 5, tree.EMPTY_ROOT, ROOTS[5], [])
    tree.verify_consistency(0, 0, tree.EMPTY_ROOT, tree.EMPTY_ROOT, [])
    with pytest.raises(ValueError, match="hash of nothing"):
        tree.verify_consistency(0, 5, ROOTS[1], ROOTS[5], [])
    with pytest.raises(ValueError, match="too long"):
        tree.verify_consistency(0, 5, tree.EMPTY_ROOT, ROOTS[5], [HASHES[0]])


def test_one_size_has_one_root() -> None:
    with pytest.raises(ValueError, match="two roots"):
        tree.verify_consistency(5, 5, ROOTS[5], ROOTS[6], [])
    with pytest.raises(ValueError, match="too long"):
        tree.verify_consistency(5, 5, ROOTS[5], ROOTS[5], [ROOTS[5]])


@pytest.mark.parametrize(("first", "second"), [(6, 5), (-1, 5), (5, 41), (0, 41)])
def test_proofs_beyond_the_tree_are_not_made(first: int, second: int) -> None:
    with pytest.raises(ValueError):
        consistency_proof(HASHES, first, second)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5), (0, 41)])
def test_leaves_beyond_the_tree_have_no_proof(index: int, size: int) -> None:
    with pytest.raises(ValueError):
        inclusion_proof(HASHES, index, size)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_hash_of_another_length_is_refused_wherever_it_stands(length: int) -> None:
    bad = bytes(length)
    with pytest.raises(ValueError, match="32 bytes"):
        tree.Tree().append_hash(bad)
    with pytest.raises(ValueError, match="32 bytes"):
        tree.verify_inclusion(bad, 0, 1, [], ROOTS[1])
    with pytest.raises(ValueError, match="32 bytes"):
        tree.verify_inclusion(HASHES[0], 0, 2, [bad], ROOTS[2])
    with pytest.raises(ValueError, match="32 bytes"):
        tree.verify_consistency(1, 2, ROOTS[1], ROOTS[2], [bad])
    with pytest.raises(ValueError, match="32 bytes"):
        tree.verify_consistency(2, 2, bad, bad, [])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=120))
def test_any_leaves_have_the_root_of_the_recursive_definition(leaves: list[bytes]) -> None:
    assert tree.root_of(leaves) == slow_root(leaves)
    assert tree.root_of_hashes(tree.leaf_hash(leaf) for leaf in leaves) == slow_root(leaves)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=8), min_size=1, max_size=150), st.data())
def test_any_proof_verifies_and_no_other_leaf_takes_its_place(
    leaves: list[bytes], data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, len(leaves)))
    index = data.draw(st.integers(0, size - 1))
    first = data.draw(st.integers(1, size))
    hashes = [tree.leaf_hash(leaf) for leaf in leaves]
    root = slow_root(leaves[:size])
    proof = inclusion_proof(hashes, index, size)
    tree.verify_inclusion(hashes[index], index, size, proof, root)
    with pytest.raises(ValueError):
        tree.verify_inclusion(tree.leaf_hash(leaves[index] + b"x"), index, size, proof, root)
    steps = consistency_proof(hashes, first, size)
    tree.verify_consistency(first, size, slow_root(leaves[:first]), root, steps)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.lists(st.one_of(st.sampled_from(HASHES + ROOTS), st.binary(min_size=32, max_size=32)), max_size=7),
)
def test_a_made_up_consistency_proof_passes_only_if_it_is_the_true_one(
    a: int, b: int, proof: list[bytes]
) -> None:
    first, second = min(a, b), max(a, b)
    if not refused(lambda: tree.verify_consistency(first, second, ROOTS[first], ROOTS[second], proof)):
        assert proof == consistency_proof(HASHES, first, second)
